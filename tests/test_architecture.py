"""The structure of the package: districts that import downwards only, without circles, and a public surface."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlx_qwen3_tts
from tests.support.process import ROOT

PACKAGE = Path(mlx_qwen3_tts.__file__).parent
# From the top down: a district (a folder, or a file at the top level) imports from those below it only.
DISTRICTS = [
    "__main__", "cli", "evaluation", "server", "longform", "training", "conversion", "tts", "generation", "hub",
    "demo", "checkpoint", "codec", "models", "voice_design", "capabilities", "request", "result", "voice_library",
    "voice", "option", "audio", "text", "config", "mlx_thread", "device", "files", "released", "program", "suggest",
    "errors",
]  # fmt: skip


def modules() -> dict[str, ast.Module]:
    """The package's modules by name, without the package's own."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__":
            found[name] = ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(name: str) -> Iterator[tuple[ast.ImportFrom, str]]:
    """The statements anywhere in a module that import from the package, and the modules that they name."""
    is_package = (PACKAGE / Path(*name.split("."))).is_dir()
    here = name.split(".") if is_package else name.split(".")[:-1]
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) - node.level + 1], *(node.module or "").split(".")]
            base = [part for part in base if part]
            for alias in node.names:
                module = ".".join([*base, alias.name])
                yield node, module if module in MODULES else ".".join(base)


def district(module: str) -> str:
    return module.split(".")[0]


def test_every_module_belongs_to_a_district():
    assert {district(name) for name in MODULES} == set(DISTRICTS)


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_downwards(name):
    for _, target in imports(name):
        if target and district(target) != district(name):
            assert DISTRICTS.index(district(name)) < DISTRICTS.index(district(target)), f"{name} imports {target}"


def test_no_circle_between_files():
    targets = {name: {target for _, target in imports(name) if target and target != name} for name in MODULES}
    while targets:
        leaves = [name for name, below in targets.items() if not below & targets.keys()]
        assert leaves, f"circles among {sorted(targets)}"
        for name in leaves:
            del targets[name]


def test_no_import_is_hidden():
    """In a function or behind a condition.

    The entry point must listen to Ctrl-C before the others are loaded, and the server needs the packages of an extra.
    """
    for name, tree in MODULES.items():
        hidden = [node for node, _ in imports(name) if node not in tree.body]
        assert not hidden or name in ("__main__", "cli.serve"), f"{name}, line {hidden[0].lineno}"


def test_a_folder_is_described_by_its_init():
    for folder in PACKAGE.iterdir():
        if (folder / "__init__.py").exists() and folder.name != "cli":
            tree = ast.parse((folder / "__init__.py").read_text())
            assert ast.get_docstring(tree), folder
            names = (ast.ImportFrom, ast.Assign) if folder.name == "longform" else ()  # longform has a public surface
            assert all(isinstance(node, names) for node in tree.body[1:]), f"{folder.name}/__init__.py has code"


def test_public_names_are_those_of_the_stub():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    declared = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            declared |= {alias.name: node.module for alias in node.names}
    assert sorted(declared) == mlx_qwen3_tts.__all__
    for name, module in declared.items():
        home = importlib.import_module(f"mlx_qwen3_tts.{module}")
        assert getattr(mlx_qwen3_tts, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="nonsense"):
        mlx_qwen3_tts.nonsense  # noqa: B018


def test_a_command_imports_its_own_district_alone():
    """`say` is heard sooner without the modules of books, training, conversion and the server."""
    code = (
        "import sys; from mlx_qwen3_tts import cli; cli.import_commands(cli.asked_commands(['say', 'Hello']));"
        "print(*sorted({name.split('.')[1] for name in sys.modules if name.startswith('mlx_qwen3_tts.')}))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    loaded = set(out.split())
    assert {"cli", "generation", "models", "audio"} <= loaded
    assert not {"longform", "training", "evaluation", "server"} & loaded

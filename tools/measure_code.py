"""Measure the package's structure, density and prose, to judge changes of its structure.

    python tools/measure_code.py [PACKAGE]

Prints one line for each figure. PACKAGE: a directory of Python files (default: mlx_qwen3_tts).
"""

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from pathlib import Path
from statistics import median

Graph = dict[str, set[str]]


def module_name(path: Path, package: Path) -> str:
    """Return the dotted name of a file below the package, "" for the package's own."""
    parts = list(path.relative_to(package).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def import_graph(trees: dict[Path, ast.Module], package: Path) -> Graph:
    """Return the files that each file imports from, anywhere in it."""
    names = {module_name(path, package): path for path in trees}
    graph: Graph = {name: set() for name in names}
    for name, path in names.items():
        here = [part for part in name.split(".") if part]
        if path.name != "__init__.py":
            here = here[:-1]
        for node in ast.walk(trees[path]):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = here[: len(here) - node.level + 1] + [part for part in (node.module or "").split(".") if part]
            for alias in node.names:
                target = ".".join([*base, alias.name])
                if target not in names:
                    target = ".".join(base)
                if target in names and target not in ("", name):
                    graph[name].add(target)
    return graph


def layers_and_circles(graph: Graph) -> tuple[int, int]:
    """Return the number of import layers, and of files that are part of an import cycle."""
    left = {name: set(targets) for name, targets in graph.items()}
    layers = 0
    while left:
        leaves = [name for name, targets in left.items() if not targets & left.keys()]
        if not leaves:
            return layers, len(left)
        for name in leaves:
            del left[name]
        layers += 1
    return layers, 0


def district_circles(graph: Graph) -> int:
    """Return the number of folders and top-level files that import each other."""
    districts: Graph = defaultdict(set)
    for name, targets in graph.items():
        districts[name.split(".")[0]] |= {target.split(".")[0] for target in targets} - {name.split(".")[0]}
    return layers_and_circles(districts)[1]


def private_uses(tree: ast.Module) -> int:
    """Count uses of another object's private attributes."""
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = node.value
            count += not (isinstance(owner, ast.Name) and owner.id in ("self", "cls"))
    return count


def prose(text: str, tree: ast.Module) -> str:
    """Return the docstrings and comments of a file."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    parts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    parts += [token.string for token in tokens if token.type == tokenize.COMMENT]
    return " ".join(parts)


def is_parallel(node: ast.AST) -> bool:
    """Return whether a statement assigns several values to several names at once."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def code_lines(text: str) -> int:
    """Count the lines that are neither empty nor a comment."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


def measure(package: Path) -> dict[str, str]:
    """Return the figures of a package, by name."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    graph = import_graph(trees, package)
    layers, circles = layers_and_circles(graph)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    longest_function = max(lengths, key=lengths.__getitem__)
    lines = {path: text.count("\n") for path, text in texts.items()}
    longest_file = max(lines, key=lines.__getitem__)
    words = re.findall(r"[a-z']+", " ".join(prose(texts[path], trees[path]) for path in texts).lower())
    thousand_words = len(words) / 1000
    thousand_lines = sum(map(code_lines, texts.values())) / 1000
    parallel = sum(map(is_parallel, nodes))
    conditional = sum(isinstance(node, ast.IfExp) for node in nodes)
    return {
        "files": str(len(texts)),
        "lines": str(sum(lines.values())),
        "layers of imports": str(layers),
        "files in circles": str(circles),
        "districts in circles": str(district_circles(graph)),
        "private uses across objects": str(sum(map(private_uses, trees.values()))),
        "median lines of a file": f"{median(lines.values()):.0f}",
        "longest file": f"{lines[longest_file]} ({longest_file.relative_to(package)})",
        "longest function": f"{lengths[longest_function]} ({longest_function.name})",
        "functions over 50 lines": str(sum(length > 50 for length in lengths.values())),
        "'where' per 1,000 words": f"{words.count('where') / thousand_words:.1f}",
        "'if' per 1,000 words": f"{words.count('if') / thousand_words:.1f}",
        "parallel assignments per 1,000 lines": f"{parallel / thousand_lines:.1f}",
        "conditional expressions per 1,000 lines": f"{conditional / thousand_lines:.1f}",
    }


if __name__ == "__main__":
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "mlx_qwen3_tts"
    for figure, value in measure(root).items():
        sys.stdout.write(f"{figure:42} {value}\n")

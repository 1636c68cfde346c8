"""What a release rests on: one place of the version, a changelog, a citation, and a workflow that checks all of it."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import absolute_links
import pytest

import mlx_qwen3_tts

ROOT = Path(__file__).parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
VERSION = re.compile(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?")


def test_the_version_has_one_place(run_cli):
    assert VERSION.fullmatch(mlx_qwen3_tts.__version__)
    assert not re.search(r"^version\s*=", PYPROJECT, re.MULTILINE)
    assert not re.search(r"^version:", CITATION, re.MULTILINE)
    code, out, _ = run_cli("--version")
    assert (code, out) == (0, f"mlx-qwen3-tts {mlx_qwen3_tts.__version__}\n")


def test_the_build_finds_the_version():
    """hatchling reads it from the file that pyproject.toml names, by a pattern."""
    (path,) = re.findall(r'^\[tool\.hatch\.version\]\npath = "(.*?)"', PYPROJECT, re.MULTILINE)
    (version,) = re.findall(r'^__version__ = "(.*)"$', (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    assert version == mlx_qwen3_tts.__version__


def test_the_changelog_has_this_version():
    """The first section is either what is not released yet, or this version."""
    sections = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    heading = rf"\[(Unreleased|{re.escape(mlx_qwen3_tts.__version__)})\]( - \d{{4}}-\d\d-\d\d)?"
    assert re.fullmatch(heading, sections[0])
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_links_lead_to_the_repository_from_elsewhere():
    text = "[a](docs/a.md), [b\nc](b.md#part), [d](#part), [e](https://e.org/f.md), x[0](y z)"
    expected = "[a](U/docs/a.md), [b\nc](U/b.md#part), [d](#part), [e](https://e.org/f.md), x[0](y z)"
    assert absolute_links.absolute_links(text, "U/") == expected


def test_the_workflow_builds_with_these_links(tmp_path):
    """Its step runs as it is; every link of README.md then leads to a file, and pyproject.toml names the repository."""
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    step = re.search(r"- name: Links .*?\n +run: \|\n(.*?)\n      - ", workflow, re.DOTALL)[1]
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    places = {"GITHUB_SERVER_URL": "https://host", "GITHUB_REPOSITORY": "owner/name", "GITHUB_REF_NAME": "v1.0.0"}
    subprocess.run(["bash", "-euc", textwrap.dedent(step)], check=True, cwd=tmp_path, env=os.environ | places)
    links = re.findall(r"\]\((?!#)(.*?)\)", (tmp_path / "README.md").read_text(encoding="utf-8"))
    files = [link.removeprefix("https://host/owner/name/blob/v1.0.0/") for link in links if "//host/" in link]
    assert len(files) > 10
    assert all((ROOT / file.partition("#")[0]).exists() for file in files)
    assert all("://" in link for link in links)
    project = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.urls]\nSource = "https://host/owner/name"\n' in project


@pytest.mark.parametrize("name", ["ci", "release"])
def test_actions_are_named_by_major_version(name):
    workflow = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)", workflow)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action)

"""What a release rests on: one place of the version, a changelog, a citation, and a workflow that checks all of it."""

import re
from pathlib import Path

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


@pytest.mark.parametrize("name", ["ci", "release"])
def test_actions_are_named_by_major_version(name):
    workflow = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)", workflow)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action)

"""The command `convert` end to end, the model card, and the upload, with a fake client of the hub."""

import subprocess
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalTokenNotFoundError

from mlx_qwen3_tts import ConversionError
from mlx_qwen3_tts.checkpoint.weights import read_headers
from mlx_qwen3_tts.conversion import publish
from mlx_qwen3_tts.conversion.calibrate import mean_squares
from mlx_qwen3_tts.conversion.convert import Conversion, PartSummary, convert
from mlx_qwen3_tts.conversion.recipes import RECIPES
from tests.support import checkpoints
from tests.support.process import spawn


@pytest.fixture
def source(tmp_path):
    return checkpoints.write_wide(tmp_path / "source", dtype="bfloat16")


class Hub:
    """The methods of HfApi that an upload uses."""

    calls: list = []
    signed_in, full = True, False

    def whoami(self):
        if not Hub.signed_in:
            raise LocalTokenNotFoundError("no token")

    def create_repo(self, repo, **options):
        Hub.calls.append(("create", repo, options))
        return f"https://huggingface.co/{repo}"

    def upload_folder(self, folder_path, repo_id, **options):
        if Hub.full:
            raise OSError("connection lost")
        Hub.calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "calls", [])
    return Hub


@pytest.mark.slow
def test_upload(source, tmp_path, hub, run_cli):
    code, out, err = run_cli(
        "convert", "--model", source, "--recipe", "8bit", "--out", tmp_path / "out", "--upload-repo", "me/tts-8bit"
    )
    assert code == 0, err
    assert out == ""
    assert err.splitlines()[-1] == "https://huggingface.co/me/tts-8bit: uploaded"
    create, upload = hub.calls
    assert create == ("create", "me/tts-8bit", {"repo_type": "model", "exist_ok": True})
    assert upload[1] == "me/tts-8bit"
    assert {"README.md", "config.json", "model.safetensors", "speech_tokenizer"} <= set(upload[2])
    card = (tmp_path / "out" / "README.md").read_text()
    assert str(source) not in card, "a local path is private"
    assert "base_model" not in card
    code, _, err = run_cli("convert", "--model", source, "--bits", 4, "--out", tmp_path / "out", "--force")
    assert code == 0, err  # the card counts as part of a checkpoint


def test_card(source, tmp_path, capfd):
    done = convert(source, tmp_path / "out", recipe="mixed-4", scales="plain")
    assert capfd.readouterr() == ("", "")
    card = publish.card(done, "Qwen/Qwen3-TTS-12Hz-1.7B-Base", "me/base-mixed-4")
    front, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert {"license: apache-2.0", "base_model: Qwen/Qwen3-TTS-12Hz-1.7B-Base", "library_name: mlx"} <= set(
        front.splitlines()
    )
    headers, _ = read_headers(source / "speech_tokenizer")
    size = sum(tensor.nbytes for header in headers.values() for tensor in header.values())
    assert done.parts[-1] == ("speech tokenizer", "float32", size, size, None)
    for part in done.parts:
        assert f"| {part.name} | {part.stored} |" in text
    for words in ("mixed-4", RECIPES["mixed-4"].description, "--model me/base-mixed-4", "Apache-2.0", "GB before"):
        assert words in text
    assert huggingface_hub.ModelCard(card).data.base_model == "Qwen/Qwen3-TTS-12Hz-1.7B-Base"


def test_sizes_on_the_card(tmp_path):
    parts = [PartSummary("talker head", "bfloat16", 3_500_000, 1_250_000, None)]
    card = publish.card(Conversion(tmp_path, None, 2_500_000_000, 1_250_000_000, parts), "model", "me/tts")
    assert "Recipe: none, the weights are not quantized. Size: 2.50 GB before, 1.25 GB after." in card
    assert "| talker head | bfloat16 | 3.5 MB | 1.2 MB |" in card


def test_failed_upload(source, tmp_path, hub, monkeypatch, run_cli):
    """An invalid name or a missing login is an error before the conversion. A failed upload keeps the result."""
    out = ("--scales", "plain", "--out", tmp_path / "out")
    argv = ("convert", "--model", source, "--bits", 4, *out, "--upload-repo")
    for repo in ("no-owner", "a/b/c", "../x"):
        code, _, err = run_cli(*argv, repo)
        assert code == 1
        assert "not a hub id" in err
    monkeypatch.setattr(hub, "signed_in", False)
    code, _, err = run_cli(*argv, "me/tts")
    assert code == 1
    assert "hf auth login" in err
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(hub, "signed_in", True)
    monkeypatch.setattr(hub, "full", True)
    code, _, err = run_cli(*argv, "me/tts")
    assert code == 1
    assert "was not uploaded (connection lost)" in err.splitlines()[-1]
    assert (tmp_path / "out" / "model.safetensors").exists()
    with pytest.raises(ConversionError, match="not a hub id"):
        publish.check_repo("x")


def test_command_line(source, tmp_path, run_cli):
    """The report goes to standard error; the list of recipes is a result and goes to standard output."""
    code, out, err = run_cli("convert", "--model", source, "--bits", 4, "--out", tmp_path / "out")
    assert (code, out) == (0, "")
    assert "%|" not in err, "progress bars are only for terminals"
    lines = err.splitlines()
    assert any(line.startswith("talker MLP") and "4 bits, groups of 64, squared error -" in line for line in lines)
    assert any(line.startswith("codec embeddings") and line.endswith("bfloat16") for line in lines)
    assert " MB -> " in lines[-1]
    code, out, err = run_cli("convert", "--recipe", "list")
    assert (code, err) == (0, "")
    assert all(f"{recipe.name}: {recipe.description}" in out for recipe in RECIPES.values())
    for argv, message in (
        (("--bits", 4, "--out", tmp_path / "x"), "--model"),
        (("--model", source, "--out", tmp_path / "x"), "--recipe list"),
        (("--model", source, "--bits", 4, "--out", tmp_path / "x", "--voice", "ada"), "--calibrate"),
        (("--model", source, "--bits", 4, "--out", tmp_path / "out"), "--force"),
        (("--model", "demo-random", "--bits", 4, "--out", tmp_path / "x"), "do not divide the width"),
    ):
        code, _, err = run_cli("convert", *argv)
        assert code == 1, err
        assert message in err.splitlines()[-1]
        assert not (tmp_path / "x").exists()


def test_calibrated(source, tmp_path, run_cli, monkeypatch):
    monkeypatch.setattr("mlx_qwen3_tts.cli.convert.mean_squares", partial(mean_squares, max_frames=3))  # not 250
    (tmp_path / "texts").write_text("hello\n")
    argv = (
        "--model",
        source,
        "--bits",
        4,
        "--out",
        tmp_path / "out",
        "--calibrate",
        tmp_path / "texts",
        "--voice",
        "ben",
    )
    code, _, err = run_cli("convert", *argv)
    assert code == 0, err
    assert '"calibrated": true' in (tmp_path / "out" / "config.json").read_text()


def test_convert_py(source, tmp_path):
    """convert.py at the root is the same command."""
    root = Path(__file__).parents[1]
    command = [spawn()[0], "convert.py", "--model", source, "--dtype", "float32", "--out", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "config.json").exists()

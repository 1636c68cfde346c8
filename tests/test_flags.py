"""The command line translates library arguments in error messages to flags."""

import pickle

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from mlx_qwen3_tts import ConversionError, PlaybackError, RequestError
from mlx_qwen3_tts.cli.flags import error_message
from tests.support import sounds

# Command lines whose errors the library raises, and the end of what is printed.
REFUSED = [
    ("say Hello --seed -1", "--seed must be a whole number from 0 to 9223372036854775807, not -1"),
    (
        "say Hello --temperature 0",
        "--temperature must be a number from 0.001 to 1000, not 0.0; for the most likely code every time, switch "
        "sampling off",
    ),
    ("say Hello --top-k -1", "--top-k must be a whole number from 0 to 2147483647, not -1 (0: no limit)"),
    ("say Hello --greedy --temperature 2", "--greedy and --temperature exclude each other; leave one out"),
    ("say Hello --greedy --subtalker-top-k 0", "--greedy and --subtalker-top-k exclude each other; leave one out"),
    ("say Hello --greedy --do-sample", "--greedy and --do-sample exclude each other; leave one out"),
    ("say Hello --no-do-sample --temperature 2", "--temperature has no effect with --no-do-sample; leave one out"),
    (
        "say Hello --no-stop-runaway --max-silence 5",
        "--max-silence has no effect with --no-stop-runaway; leave one out",
    ),
    (
        "say Hello --max-frames 3 --frames-per-token 2",
        "--frames-per-token has no effect if --max-frames is given; leave one out",
    ),
    (
        "say Hello --model demo --revision main",
        "demo is not a model of the hub and has no revisions; leave --revision out",
    ),
    (
        "say Hello --model demo --instruct slowly",
        "the 0.6B CustomVoice model takes no --instruct; use Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice",
    ),
    ("say Hello --voice FOREIGN", "foreign.safetensors is not a voice file; make one with `mlx-qwen3-tts clone`"),
    ("convert --model demo --out new --bits 7", "--bits is 7; choose from 2, 3, 4, 5, 6, 8"),
    ("convert --model demo --out new --bits 4 --group-size 7", "--group-size is 7; choose from 32, 64, 128"),
    (
        "convert --model demo --out new --bits 4 --group-size 128",
        "groups of 128 do not divide the width 64 of talker.code_predictor.lm_head.14; choose another --group-size",
    ),
    (
        "convert --model demo --out new --dtype float32 --group-size 32",
        "--group-size has no effect without --bits or --recipe; leave it out",
    ),
    (
        "convert --model demo --out new --dtype float32 --scales plain",
        "--scales has no effect without --recipe or --bits; leave it out",
    ),
    (
        "convert --model demo --out new --bits 4 --scales plain --calibrate TEXTS",
        "calibration requires --recipe or --bits, and --scales search",
    ),
    (
        "convert --model demo --out new --recipe 4bit --bits 4",
        "--recipe and --bits exclude each other; leave one out",
    ),
    ("convert --model demo --out new --bits 4 --shard-size 1e-12", "--shard-size is 0 bytes; it must be above 0"),
    ("convert --model demo --out there --bits 4", "there exists; pass --force to replace the checkpoint there"),
    ("convert --model demo --out new --bits 4 --revision 1", "has no revisions; leave --revision out"),
    ("clone CLIP --text hello -o v.safetensors --ref-tail -1", "--ref-tail must be from 0 to 120 seconds, not -1.0"),
    (
        "clone CLIP -o v.safetensors --ref-tail 0.5",
        "--ref-tail has no effect without a transcript: give the text, or leave it out",
    ),
    (
        "clone CLIP -o v.safetensors --max-ref-seconds 0",
        "--max-ref-seconds must be a number of seconds above 0, not 0.0",
    ),
    ("clone CLIP -o v.safetensors --max-ref-seconds 0.5", "cut it, or raise --max-ref-seconds"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Make a working directory with a clip, a text, a directory, and a safetensors file that is not a voice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "texts.txt").write_text("hello\n")
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "foreign.safetensors")
    soundfile.write(tmp_path / "clip.wav", *sounds.SOUNDS["speech"])


@pytest.mark.parametrize("line, message", REFUSED, ids=[line for line, _ in REFUSED])
def test_errors_name_flags(run_cli, place, line, message):
    for name, path in {"CLIP": "clip.wav", "TEXTS": "texts.txt", "FOREIGN": "foreign.safetensors"}.items():
        line = line.replace(name, path)
    code, out, err = run_cli(*line.split())
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith(message)


@pytest.mark.parametrize(
    "option, rule",
    [
        ("--seed abc", "--seed: the value must be a whole number from 0 to 9223372036854775807, not 'abc'"),
        ("--temperature hot", "--temperature: the value must be a number from 0.001 to 1000, not 'hot'"),
        (
            "--chunk-frames 0",
            "--chunk-frames: the value must be a whole number above 0, or a sequence of them, not '0'",
        ),
        ("--chunk-frames a,b", "a whole number above 0, or a sequence of them, not 'a,b'"),
        ("--chunk-frames 1,,2", "a whole number above 0, or a sequence of them, not '1,,2'"),
    ],
)
def test_values_that_cannot_be_parsed(run_cli, option, rule):
    """The error is the rule of the option, not the name of a Python function."""
    code, out, err = run_cli("say", "Hello", *option.split())
    assert (code, out) == (2, "")
    assert rule in err.splitlines()[-1]


@pytest.mark.parametrize(
    "message, arguments, expected",
    [
        ("pass force=True", ["force"], "pass --force"),
        ("with do_sample=False; leave one out", ["do_sample"], "with --no-do-sample; leave one out"),
        ("requires scales='search'", ["scales"], "requires --scales search"),
        ("bits is 'bits'", ["bits"], "--bits is 'bits'"),
        ("my/bits, bits.txt and two-bits need bits", ["bits"], "my/bits, bits.txt and two-bits need --bits"),
        ("a few bits", [], "a few bits"),
    ],
)
def test_only_named_arguments_become_flags(message, arguments, expected):
    assert error_message(ConversionError(message, *arguments)) == expected


def test_errors_of_other_processes_keep_their_arguments():
    error = pickle.loads(pickle.dumps(RequestError("tail is -1", "tail")))
    assert (str(error), error.arguments) == ("tail is -1", ("tail",))


def test_playback_has_an_alternative():
    assert error_message(PlaybackError("no sound")) == "no sound; -o FILE writes a file instead"

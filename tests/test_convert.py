"""Conversion: bit-equal without quantization, equal to mx.quantize with it, and complete or absent."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors import safe_open

from mlx_qwen3_tts import CheckpointError, ConversionError, Qwen3TTS
from mlx_qwen3_tts.capabilities import requests_for
from mlx_qwen3_tts.checkpoint.load import load_directory, read_config
from mlx_qwen3_tts.checkpoint.quantization import Affine
from mlx_qwen3_tts.checkpoint.shards import ShardWriter, Tensor, split
from mlx_qwen3_tts.checkpoint.weights import load_weights, read_headers
from mlx_qwen3_tts.conversion import convert as conversion
from mlx_qwen3_tts.conversion.affine import plain, search
from mlx_qwen3_tts.conversion.calibrate import collect, mean_squares, observe
from mlx_qwen3_tts.conversion.convert import convert
from mlx_qwen3_tts.conversion.recipes import RECIPES, part_of
from mlx_qwen3_tts.conversion.target import is_checkpoint_file
from mlx_qwen3_tts.generation.engine import Engine
from mlx_qwen3_tts.generation.scoring import score
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
from mlx_qwen3_tts.models.network import Network
from tests.support import checkpoints, sounds
from tests.support.engine import on_mlx_thread
from tests.support.process import heed_interrupts, spawn

KINDS = ("custom_voice", "voice_design", "base")
SCALES_SLACK = 1e-5  # between two ways to sum squares in float32


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """A bfloat16 checkpoint of each kind, as released; tests do not change them."""
    root = tmp_path_factory.mktemp("sources")
    return {kind: checkpoints.write_wide(root / kind, kind, "bfloat16") for kind in KINDS}


def parameters(directory: Path, dtype: str | None = "bfloat16") -> dict[str, mx.array]:
    """Return all parameters of a checkpoint by path. dtype: None keeps the types."""
    loaded = load_directory(directory, dtype, fused=False)
    result = {f"network.{n}": p for n, p in tree_flatten(loaded.network.parameters())}
    result |= {f"codec.{n}": p for n, p in tree_flatten(loaded.codec.network.parameters())}
    MLX_THREAD.run(mx.eval, result)  # no other thread can evaluate arrays loaded there
    return result


def assert_equal(found: dict[str, mx.array], expected: dict[str, mx.array]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert mx.array_equal(found[name], value).item(), name


def speech(tts: Qwen3TTS, **options) -> np.ndarray:
    return tts.synthesize("Hello world", seed=3, max_frames=4, **options).codes


def requests(tts: Qwen3TTS) -> list[dict]:
    """Return requests for a model of each kind: a clone with and without text, a preset or a described voice."""
    if tts.model_type == "base":
        return [{"voice": tts.clone_voice(sounds.SOUNDS["short"], text)} for text in (None, "hello this voice")]
    return [{"instruct": "A calm voice."}] if tts.model_type == "voice_design" else [{"voice": "chuan"}]


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_bit_equal(sources, tmp_path, kind):
    """A second conversion, from MLX's layout, is bit-equal as well."""
    done = convert(sources[kind], tmp_path / "out", dtype="bfloat16")
    assert_equal(parameters(tmp_path / "out"), parameters(sources[kind]))
    again = convert(tmp_path / "out", tmp_path / "again", dtype="bfloat16")
    assert_equal(parameters(tmp_path / "again"), parameters(sources[kind]))
    assert done.before == done.after == again.after
    for file in ("model.safetensors", "speech_tokenizer/model.safetensors"):
        with safe_open(tmp_path / "out" / file, framework="numpy") as opened:
            assert opened.metadata() == {"format": "mlx"}
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    tts, source = (Qwen3TTS.from_pretrained(path) for path in (tmp_path / "out", sources[kind]))
    for ours, theirs in zip(requests(tts), requests(source), strict=True):
        np.testing.assert_array_equal(speech(tts, **ours), speech(source, **theirs))


def test_a_source_may_have_any_name(tmp_path):
    source = checkpoints.write_wide(tmp_path / "speech_tokenizer")
    convert(source, tmp_path / "model", dtype="bfloat16")
    assert_equal(parameters(tmp_path / "model"), parameters(source))


def test_types_are_cast(sources, tmp_path):
    """bfloat16 survives a round trip through float32; the speech tokenizer keeps its own type."""
    source = sources["custom_voice"]
    convert(source, tmp_path / "wide", dtype="float32")
    assert_equal(parameters(tmp_path / "wide", "float32"), parameters(source, "float32"))
    types = {kind for tensors in read_headers(tmp_path / "wide")[0].values() for _, kind in tensors.values()}
    assert types == {"F32"}
    convert(tmp_path / "wide", tmp_path / "back", dtype="bfloat16")
    assert_equal(parameters(tmp_path / "back"), parameters(source))
    convert(source, tmp_path / "half", dtype="float16")
    assert_equal(parameters(tmp_path / "half", "float16"), parameters(source, "float16"))
    headers, layout = read_headers(tmp_path / "half" / "speech_tokenizer")
    assert layout == "mlx"
    assert {kind for tensors in headers.values() for _, kind in tensors.values()} == {"F32"}


def test_files_of_the_directory(sources, tmp_path):
    """The target has all files of the source, loads without further arguments, and has the usual permissions."""
    source = sources["base"]
    convert(source, tmp_path / "out", recipe="8bit")
    names = {str(path.relative_to(source)) for path in source.rglob("*")}
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")} == names
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    added = {"quantization", "mlx_qwen3_tts"}
    assert {k: v for k, v in config.items() if k not in added} == json.loads((source / "config.json").read_text())
    assert config["quantization"] == {"bits": 8, "group_size": 64, "mode": "affine"}
    assert config["mlx_qwen3_tts"]["format"] == 1
    assert config["mlx_qwen3_tts"]["recipe"] == "8bit"


def linear_layers(source: Path) -> dict[str, mx.array]:
    """Return the weights by path, in the source's type."""
    network = Network(read_config(source))
    load_weights(network, source)
    return {p: m.weight for p, m in network.named_modules() if isinstance(m, nn.Linear | nn.Embedding)}


@pytest.mark.parametrize("scales", ["plain", "search"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_quantized_parameters(sources, tmp_path, recipe, scales):
    """Every layer of every recipe equals the result of mx.quantize (plain), or of `search`, which is never worse."""
    source = sources["custom_voice"]
    done = convert(source, tmp_path / "out", recipe=recipe, scales=scales)
    found, expected, weights = parameters(tmp_path / "out"), parameters(source), linear_layers(source)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    errors = {}
    for path, weight in weights.items():
        affine = RECIPES[recipe].parts.get(part_of(path))
        if affine is None:
            continue
        assert {**affine._asdict()} == {k: config.get(path, config)[k] for k in ("bits", "group_size")}
        if scales == "search":
            made, error, usual = search(weight, affine)
            assert error <= usual * (1 + SCALES_SLACK)
            errors.setdefault(part_of(path), []).append((error, usual))
        else:
            made = plain(weight, affine)
        expected |= {f"network.{path}.{name}": part for name, part in made._asdict().items()}
    assert_equal(found, expected)
    quantized = {path for path in weights if f"network.{path}.scales" in found}
    assert {part_of(path) for path in weights if path not in quantized} == {"codec embeddings"}
    assert all((part.gain is not None and part.gain < 1) == (scales == "search") for part in done.parts
               if "bits" in part.stored)  # fmt: skip
    for part in done.parts:
        if part.name in errors:
            error, usual = np.sum(errors[part.name], axis=0)
            assert part.gain == pytest.approx(error / usual)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.safetensors"))
    assert done.after < on_disk < done.after + 100_000  # the headers
    assert done.after < done.before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"recipe": "mixed-4"}, {"bits": 3, "group_size": 32}])
def test_every_mode_speaks(sources, tmp_path, kind, options):
    """Preset, described and cloned voices work, and fused and plain layers give the same codes."""
    convert(sources[kind], tmp_path / "out", scales="plain", **options)
    tts = Qwen3TTS.from_pretrained(tmp_path / "out")
    single = Qwen3TTS("single", Engine.load(tmp_path / "out", None, fused=False))
    assert "qkv_proj" in tts.talker.model.layers[0]
    for request in requests(tts):
        codes = speech(tts, **request)
        assert codes.shape == (4, 4)
        np.testing.assert_array_equal(codes, speech(single, **request))


def test_the_summary_of_a_part():
    """Types are in order, so that a report repeats; the gain is that of all tensors, and there is none without one."""
    totals = conversion.PartTotals(stored=set("dbace"), before=4, after=2)
    assert totals.summary("x") == ("x", "a, b, c, d, e", 4, 2, None)
    assert conversion.PartTotals(error=3.0, plain_error=4.0).summary("x").gain == 0.75


def test_shards(sources, tmp_path):
    source = sources["base"]
    convert(source, tmp_path / "whole", recipe="mixed-4", scales="plain")
    convert(source, tmp_path / "shards", recipe="mixed-4", scales="plain", shard_size=150_000)
    for place in ("", "speech_tokenizer"):
        shards = sorted((tmp_path / "shards" / place).glob("*.safetensors"))
        assert len(shards) > 2
        assert [path.name for path in shards] == [
            f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))
        ]
        index = json.loads((tmp_path / "shards" / place / "model.safetensors.index.json").read_text())
        found = {}
        for path in shards:
            tensors = mx.load(str(path))
            assert sum(t.nbytes for t in tensors.values()) <= 150_000 or len(tensors) == 1
            found |= dict.fromkeys(tensors, path.name)
        assert index["weight_map"] == found
        assert index["metadata"]["total_size"] == sum(
            tensor.nbytes for path in shards for tensor in mx.load(str(path)).values()
        )
    assert_equal(parameters(tmp_path / "shards"), parameters(tmp_path / "whole"))


def test_a_shard_may_be_full():
    """Of at most `limit` bytes; a larger tensor has one of its own."""
    tensors = {name: Tensor((size,), "F16") for name, size in (("a", 3), ("b", 2), ("c", 1), ("d", 9), ("e", 5))}
    assert [list(shard) for shard in split(tensors, 10)] == [["a", "b"], ["c"], ["d"], ["e"]]


def test_shards_can_be_converted(sources, tmp_path):
    convert(sources["base"], tmp_path / "shards", dtype="bfloat16", shard_size=150_000)
    convert(tmp_path / "shards", tmp_path / "joined", dtype="bfloat16")
    assert_equal(parameters(tmp_path / "joined"), parameters(sources["base"]))


def test_files_are_valid_safetensors(tmp_path):
    """Files are aligned, complete and readable by safetensors; a missing or mis-shaped tensor is an error."""
    tensors = {"a": Tensor((3,), "BF16"), "b": Tensor((2, 5), "F32"), "c": Tensor((1,), "U32"), "d": Tensor((), "F16")}
    arrays = {name: (mx.arange(int(np.prod(t.shape))) + 1).reshape(t.shape) for name, t in tensors.items()}
    types = {"a": mx.bfloat16, "b": mx.float32, "c": mx.uint32, "d": mx.float16}
    arrays = {name: array.astype(types[name]) for name, array in arrays.items()}
    arrays["b"] = mx.contiguous(arrays["b"].T).T  # not row-contiguous
    with ShardWriter(tmp_path, tensors, 10**9) as writer:
        for name in ("d", "b", "a", "c"):
            writer.write(name, arrays[name])
    found = mx.load(str(tmp_path / "model.safetensors"))
    for name, array in arrays.items():
        assert mx.array_equal(found[name], array).item(), name
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:  # which checks the header as well
        np.testing.assert_array_equal(file.get_tensor("b"), np.array(arrays["b"]))
    header = json.loads((tmp_path / "model.safetensors").read_bytes()[8:].split(b"}}")[0] + b"}}")
    starts = {name: entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}
    assert all(start % types[name].size == 0 for name, start in starts.items())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="3 tensors were not written"), ShardWriter(tmp_path, tensors, 10**9) as writer:
        writer.write("a", arrays["a"])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="its header declares"), ShardWriter(tmp_path, tensors, 10**9) as writer:
        writer.write("a", arrays["b"])


def test_calibration(sources, tmp_path):
    """With known inputs of each layer, the weighted error is smaller."""
    source = sources["base"]
    voice = requests(Qwen3TTS.from_pretrained(source))[0]["voice"]
    importance = mean_squares(source, ["Hello world", "this is a voice"], voice, max_frames=3)
    weights = linear_layers(source)
    linear = {path for path in weights if "embedding" not in path}
    assert importance.keys() == linear
    assert all(value.shape == (weights[path].shape[1],) and (value > 0).all() for path, value in importance.items())
    convert(source, tmp_path / "out", bits=4, importance=lambda _: importance)
    found = parameters(tmp_path / "out")
    name = "talker.model.layers.0.mlp.down_proj"
    expected = search(weights[name], Affine(4), importance[name])[0]
    assert mx.array_equal(found[f"network.{name}.weight"], expected.weight).item()
    assert not mx.array_equal(expected.weight, search(weights[name], Affine(4))[0].weight).item()


def test_observed_inputs_are_the_layers_inputs(sources):
    """Checked on a layer whose input is known: the text projection reads the text's embeddings."""
    source = sources["custom_voice"]
    tts = Qwen3TTS.from_pretrained(source)
    text = "hello world"
    importance = mean_squares(source, [text], "ada", max_frames=1)["talker.text_projection.linear_fc1"]
    seen = []
    embed = type(tts.talker).embed_text

    def record(self, ids):
        seen.extend(np.array(ids).flatten().tolist())
        return embed(self, ids)

    request = requests_for(tts.config, [text], "ada", None, 1)[0]
    codes = tts.synthesize(text, voice="ada", seed=0, max_frames=1).codes
    try:
        type(tts.talker).embed_text = record
        score(tts.engine, request, codes)
    finally:
        type(tts.talker).embed_text = embed
    rows = on_mlx_thread(tts, lambda: np.array(tts.talker.model.text_embedding(mx.array(seen))))
    np.testing.assert_allclose(np.array(importance), np.square(rows).mean(0), rtol=1e-5)


def test_statistics_of_inputs():
    """The mean is over all rows of all calls; of a layer that was never called it is 0."""
    layer = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    observed = observe(layer)
    for rows in ([[[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]], [[[0.0, 0.0, 4.0]]]):
        layer.layers[0](mx.array(rows))
    squares = collect(observed)
    np.testing.assert_allclose(squares["layers.0"], [10 / 3, 8 / 3, 26 / 3], rtol=1e-6)
    assert squares["layers.1"].tolist() == [0, 0]


# Conversions that must be refused before anything is written.


def refused(source, out, message, **options) -> None:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(ConversionError, match=message):
        convert(source, out, **options)
    assert sorted(out.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"recipe": "5bits"},
            r"'5bits': did you mean .bit\? Choose from bfloat16, 8bit, 6bit, mixed-4, 4bit",
        ),
        ({"bits": 7}, "bits is 7; choose from 2, 3, 4, 5, 6, 8"),
        ({"bits": 0}, "bits is 0;"),
        ({"bits": True}, "bits is True;"),
        ({"bits": 4, "group_size": 48}, "group_size is 48; choose from 32, 64, 128"),
        ({"recipe": "4bit", "group_size": 16}, "group_size is 16;"),
        ({"bits": 4, "group_size": 128}, r"groups of 128 do not divide the width 64 of talker\."),
        ({"recipe": "mixed-4", "group_size": 128}, r"groups of 128 do not divide"),
        ({"recipe": "4bit", "bits": 4}, "exclude each other"),
        ({"group_size": 64}, "group_size has no effect"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"bits": 4, "scales": "best"}, "unknown scales 'best'"),
        ({"dtype": "bfloat16", "scales": "plain"}, "scales has no effect"),
        ({"dtype": "float32", "shard_size": 0}, "shard_size is 0"),
        ({"dtype": "float32", "importance": dict}, "calibration"),
        ({"bits": 4, "scales": "plain", "importance": dict}, "calibration"),
    ],
)
def test_invalid_options(sources, tmp_path, options, message):
    refused(sources["custom_voice"], tmp_path / "out", message, **options)


def test_quantized_source(sources, tmp_path):
    convert(sources["custom_voice"], tmp_path / "small", bits=4, scales="plain")
    for options in ({"bits": 8}, {"dtype": "bfloat16"}):
        refused(tmp_path / "small", tmp_path / "out", "already quantized", **options)
    path = tmp_path / "small" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "quantization"}))
    refused(tmp_path / "small", tmp_path / "out", r"already quantized \(talker.*scales\)", bits=8)


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_a_source_that_says_it_is_quantized(tmp_path, key):
    source = checkpoints.write_wide(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {key: {"bits": 4, "group_size": 64}}))
    refused(source, tmp_path / "out", "is already quantized; convert the unquantized checkpoint", dtype="bfloat16")


def test_a_source_without_a_tensor(tmp_path):
    source = checkpoints.write_wide(tmp_path / "source")
    tensors = mx.load(str(source / "model.safetensors"))
    del tensors["talker.codec_head.weight"]
    mx.eval(tensors)
    mx.save_safetensors(str(source / "model.safetensors"), tensors, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"the tensor talker\.codec_head\.weight is missing"):
        convert(source, tmp_path / "out", bits=4)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_non_finite_values(tmp_path):
    name = "talker.model.layers.1.mlp.up_proj.weight"
    for number, options in (
        (1e6, {"dtype": "float16"}),
        (np.nan, {"bits": 4}),
        (np.inf, {"bits": 4, "scales": "plain"}),
    ):
        source = checkpoints.write_wide(tmp_path / f"{number}", dtype="bfloat16")
        tensors = mx.load(str(source / "model.safetensors"))
        tensors[name][3, 5] = number
        mx.eval(tensors)
        mx.save_safetensors(str(source / "model.safetensors"), tensors, {"format": "pt"})
        refused(source, tmp_path / "out", f"{name} has values", **options)


def test_damaged_source(sources, tmp_path):
    source = checkpoints.write_wide(tmp_path / "source")
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        convert(source, tmp_path / "out", bits=4)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_existing_target(sources, tmp_path):
    source, out = sources["custom_voice"], tmp_path / "out"
    convert(source, out, dtype="bfloat16")
    before = parameters(out)
    refused(source, out, "exists; pass force=True to replace", bits=4)
    refused(source, out, "group_size is 5;", bits=4, group_size=5, force=True)
    assert_equal(parameters(out), before)
    convert(source, out, bits=4, scales="plain", force=True)
    assert "network.talker.codec_head.scales" in parameters(out)
    (out / "notes.txt").write_text("mine")
    refused(source, out, r"notes\.txt in it is not part", dtype="bfloat16", force=True)
    (tmp_path / "file").write_text("mine")
    refused(source, tmp_path / "file", "is not a directory and is not replaced", dtype="bfloat16", force=True)
    os.mkfifo(tmp_path / "pipe")  # as /dev/null is neither a file nor a directory
    with pytest.raises(ConversionError, match="is empty"):  # not the current directory
        convert(source, "", dtype="bfloat16", force=True)
    refused(source, tmp_path / "pipe", "is not a directory and is not replaced", dtype="bfloat16", force=True)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "home" / "work").mkdir(parents=True)
    (tmp_path / "home" / "work" / "model.safetensors").write_text("mine")
    refused(source, tmp_path / "home", r"work/model\.safetensors in it is not part", dtype="bfloat16", force=True)
    refused(source, tmp_path / "no" / "out", "not a writable directory", dtype="bfloat16")
    (tmp_path / "link").symlink_to(out)
    (out / "notes.txt").unlink()
    convert(source, tmp_path / "link", dtype="bfloat16", force=True)
    assert (tmp_path / "link").is_symlink()
    assert_equal(parameters(out), before)


def test_what_may_be_replaced():
    """The names of a checkpoint's own files; `force` refuses a directory that has any other."""
    own = [
        "config.json", "README.md", "merges.txt", "speech_tokenizer/config.json", "model.safetensors",
        "model-00001-of-00002.safetensors", "model.safetensors.index.json", "speech_tokenizer/model.safetensors",
    ]  # fmt: skip
    others = [
        "notes.txt", "model.bin", "model", "other.safetensors", "speech_tokenizer/notes.txt",
        "speech_tokenizer/other.safetensors", "inner/model.safetensors", "speech_tokenizer/inner/model.safetensors",
    ]  # fmt: skip
    assert [name for name in own + others if is_checkpoint_file(name)] == own


def test_source_is_target(tmp_path, monkeypatch):
    source = checkpoints.write_wide(tmp_path / "source")
    (tmp_path / "link").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    for out in (source, tmp_path / "link", Path("source"), Path("link/../source"), Path("source/")):
        with pytest.raises(ConversionError, match="is the source itself"):
            convert(source, out, bits=4, force=True)
    with pytest.raises(ConversionError, match="is the source itself"):
        convert("link", "source", bits=4, force=True)
    for source_name, out in (("source", "source/speech_tokenizer"), ("source", "source/in")):
        with pytest.raises(ConversionError, match="inside each other"):
            convert(source_name, out, dtype="bfloat16", force=True)
    assert len(speech(Qwen3TTS.from_pretrained(source))) == 4


def test_full_disk(sources, tmp_path, monkeypatch):
    """The disk is full from the start, or during the conversion; an existing checkpoint is unchanged."""
    source, out = sources["custom_voice"], tmp_path / "out"
    convert(source, out, dtype="bfloat16")
    before = parameters(out)
    write, count = ShardWriter.write, []

    def full(self, name, array):
        count.append(name)
        if len(count) > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, name, array)

    for target in (tmp_path / "new", out):
        count.clear()
        with monkeypatch.context() as patch:
            patch.setattr(ShardWriter, "write", full)
            refused(
                source, target, "No space left on device; nothing is left behind", bits=4, scales="plain", force=True
            )
    assert_equal(parameters(out), before)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        refused(source, tmp_path / "new", "0.0 GB free", bits=4)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits")
def test_real_failing_write(sources, tmp_path):
    """The conversion runs in a process that may not write files above 200 kB."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = spawn(
        "convert", "--model", sources["custom_voice"], "--bits", 8, "--scales", "plain", "--out", tmp_path / "out"
    )
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 1
    assert "nothing is left behind" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_interruption(sources, tmp_path, monkeypatch):
    source, out = sources["custom_voice"], tmp_path / "out"
    convert(source, out, dtype="bfloat16")
    before = parameters(out)

    def interrupt(*args):
        raise KeyboardInterrupt

    for owner, name in (
        (conversion, "write_config"), (conversion, "copy_files"), (conversion.TensorConverter, "convert"),
    ):  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, interrupt)
            convert(source, out, bits=4, scales="plain", force=True)
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    rename, count = Path.rename, []

    def interrupted_rename(self, target):  # the second one, after the old checkpoint has been moved aside
        count.append(target)
        if len(count) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", interrupted_rename)
        convert(source, out, bits=4, scales="plain", force=True)
    assert len(count) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_equal(parameters(out), before)


def test_killed(sources, tmp_path):
    """SIGKILL during the conversion leaves nothing that loads."""
    code = (
        "import sys, time; import mlx_qwen3_tts.conversion.convert as c\n"
        "from mlx_qwen3_tts.checkpoint.shards import ShardWriter as W\n"
        "write, n = W.write, []\n"
        "def slow(self, name, array):\n"
        "    write(self, name, array); n.append(name)\n"
        "    if len(n) == 60: print('now', flush=True); time.sleep(60)\n"
        "W.write = slow; c.convert(sys.argv[1], sys.argv[2], bits=8, scales='plain')"
    )
    command = [sys.executable, "-c", code, sources["custom_voice"], tmp_path / "out"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    left = list(tmp_path.iterdir())
    assert [path.name.split(".")[1] for path in left] == ["out"]
    assert left[0].name.startswith(".")
    with pytest.raises(CheckpointError):
        Qwen3TTS.from_pretrained(left[0])
    convert(sources["custom_voice"], tmp_path / "out", bits=8, scales="plain")  # the leftovers do not disturb it


def test_ctrl_c(sources, tmp_path):
    """After a real interrupt the exit code is 130, and nothing is left."""
    code = (
        "import sys, time; import mlx_qwen3_tts.conversion.convert as c; from mlx_qwen3_tts.cli import main\n"
        "def slow(*args): print('now', flush=True); time.sleep(3)\n"
        "c.TensorConverter.convert = slow; sys.exit(main(sys.argv[1:]))"
    )
    argv = ["convert", "--model", sources["custom_voice"], "--bits", "8", "--out", tmp_path / "out"]
    command = [sys.executable, "-c", code, *argv]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    assert child.wait(timeout=30) == 130
    assert time.monotonic() - started < 10
    assert list(tmp_path.iterdir()) == []


CHILD = """
import resource, sys
from pathlib import Path
import mlx_qwen3_tts.conversion.convert as c

def peak():  # Linux hands the parent's ru_maxrss on to a child
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

before = peak()
c.convert(sys.argv[1], sys.argv[2], scales="plain", bits=4)
print(peak() - before)
"""


def test_memory_is_limited_to_a_few_tensors(tmp_path):
    """The checkpoint has 158 MB, its largest tensor has 12 MB, and the weights are zeros in a sparse file."""
    source = checkpoints.write_wide(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    config["talker_config"] |= {"hidden_size": 1024, "intermediate_size": 6144, "num_hidden_layers": 4}
    (source / "config.json").write_text(json.dumps(config))
    network = Network(read_config(source))
    shapes = {name: Tensor(tuple(p.shape), "BF16") for name, p in tree_flatten(network.parameters())}
    size = sum(tensor.nbytes for tensor in shapes.values())
    assert size > 150e6
    (source / "model.safetensors").unlink()
    with pytest.raises(KeyboardInterrupt), ShardWriter(source, shapes, 10**12):
        raise KeyboardInterrupt  # leaves a file with only a header
    os.truncate(source / "model.safetensors", (source / "model.safetensors").stat().st_size + size)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, source, tmp_path / "out"], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 100e6, done.stdout

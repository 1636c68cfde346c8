"""Quantized checkpoints: files from mlx-audio, layers with separate settings, and invalid entries."""

import json
import zlib
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_qwen3_tts import CheckpointError, Qwen3TTS
from mlx_qwen3_tts.checkpoint.load import load_directory, read_config
from mlx_qwen3_tts.checkpoint.weights import load_weights
from mlx_qwen3_tts.generation.engine import Engine
from mlx_qwen3_tts.models.fused import FusedLayer
from mlx_qwen3_tts.models.network import Network
from tests.support import checkpoints, sounds
from tests.support.engine import on_mlx_thread

COMMITTED = Path(__file__).with_name("golden")  # even if GOLDEN selects fresh data of the official package
MLX_AUDIO = json.loads((COMMITTED / "mlx-audio.json").read_text())
AFFINE = {"group_size": 64, "bits": 4, "mode": "affine"}


@pytest.fixture
def source(tmp_path):
    return checkpoints.write_wide(tmp_path / "source", dtype="bfloat16")


def codes(tts: Qwen3TTS, **options) -> np.ndarray:
    return tts.synthesize("Hello world", seed=3, max_frames=5, **options).codes


def write_quantized(source, quantization: dict, names=None) -> None:
    """Quantize a checkpoint in place with MLX's own functions. names: `quantization` of config.json, if it differs."""
    network = Network(read_config(source))
    load_weights(network, source)

    def settings(path: str, module: nn.Module):
        found = quantization.get(path, {k: quantization[k] for k in AFFINE})
        return found if isinstance(module, nn.Linear) else False

    nn.quantize(network, class_predicate=settings)
    mx.save_safetensors(str(source / "model.safetensors"), dict(tree_flatten(network.parameters())), {"format": "mlx"})
    edit(source, quantization=quantization if names is None else names)


def edit(directory, **changes) -> None:
    path = directory / "config.json"
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


def quantize_linear_layers(network: nn.Module) -> None:
    """Quantize by mx.quantize, and compute in float32 from the bfloat16 scales."""
    nn.quantize(network, 64, 4, class_predicate=lambda _, module: isinstance(module, nn.Linear))
    network.set_dtype(mx.float32)


def test_mlx_audio_4_bit(source):
    """A file from mlx-audio's converter gives the same codes as the same weights under mx.quantize."""
    expected = Qwen3TTS.from_pretrained(source, dtype="bfloat16")
    on_mlx_thread(expected, quantize_linear_layers, expected.network)
    unquantized = codes(Qwen3TTS.from_pretrained(source))
    (source / "model.safetensors").write_bytes((COMMITTED / "mlx-audio-4bit.safetensors").read_bytes())
    (source / "config.json").write_text(json.dumps(MLX_AUDIO["config"]))
    tts = Qwen3TTS.from_pretrained(source)
    assert isinstance(tts.talker.codec_head, nn.QuantizedLinear)
    assert isinstance(tts.talker.model.text_embedding, nn.Embedding)
    np.testing.assert_array_equal(codes(tts), codes(expected))
    assert (codes(tts) != unquantized).any()
    edit(source, quantization=None)  # `quantization_config` alone means the same
    np.testing.assert_array_equal(codes(Qwen3TTS.from_pretrained(source)), codes(expected))


def test_mlx_audio_unquantized(tmp_path):
    """A Base model with the names, types and layouts of mlx-audio's converter gives the same codes."""
    source = checkpoints.write_wide(tmp_path / "source", "base", "bfloat16")
    expected = Qwen3TTS.from_pretrained(source)
    parts = dict(expected.network.named_modules())
    tensors = mx.load(str(source / "model.safetensors"))
    for name, tensor in tensors.items():
        if isinstance(parts.get(name.removesuffix(".weight")), nn.Conv1d) and name.endswith(".weight"):
            tensors[name] = mx.contiguous(tensor.moveaxis(1, 2))
    found = {
        name: [list(tensor.shape), str(tensor.dtype), zlib.crc32(memoryview(tensor.view(mx.uint8)))]
        for name, tensor in tensors.items()
    }
    assert found == MLX_AUDIO["base"]
    (source / "model.safetensors").unlink()
    mx.save_safetensors(str(source / "model.safetensors"), tensors, {"format": "mlx"})
    names = dict.fromkeys(tensors, "model.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert {path.name for path in source.iterdir()} == set(MLX_AUDIO["files"])
    assert {path.name for path in (source / "speech_tokenizer").iterdir()} == set(MLX_AUDIO["speech_tokenizer"])
    again = Qwen3TTS.from_pretrained(source)
    for text in (None, "hello this voice"):
        voices = [tts.clone_voice(sounds.SOUNDS["short"], text) for tts in (expected, again)]
        np.testing.assert_array_equal(voices[0].speaker_embedding, voices[1].speaker_embedding)
        np.testing.assert_array_equal(codes(expected, voice=voices[0]), codes(again, voice=voices[1]))


LAYER = "talker.model.layers.1."


def test_layers_with_their_own_settings(source):
    """Projections with different bits or group sizes are not fused."""
    eight, small = AFFINE | {"bits": 8}, AFFINE | {"group_size": 32}
    others = {f"{LAYER}self_attn.q_proj": eight, f"{LAYER}mlp.up_proj": False, f"{LAYER}self_attn.o_proj": small}
    write_quantized(source, AFFINE | others)
    tts = Qwen3TTS.from_pretrained(source)
    first, second = tts.talker.model.layers
    assert "qkv_proj" in first
    assert "gate_up_proj" in first
    assert (second.self_attn.q_proj.bits, second.self_attn.k_proj.bits, second.self_attn.o_proj.group_size) == (
        8,
        4,
        32,
    )
    assert isinstance(second.mlp.up_proj, nn.Linear)
    assert isinstance(second.mlp.gate_proj, nn.QuantizedLinear)
    found = codes(tts)
    network = load_directory(source, None, fused=False).network
    values = {
        f"{path}.weight": mx.dequantize(part.weight, part.scales, part.biases, part.group_size, part.bits)
        for path, part in network.named_modules()
        if isinstance(part, nn.QuantizedLinear)
    }
    kept = {name: value for name, value in tree_flatten(network.parameters()) if f".{name.rsplit('.')[-1]}" not in
            (".scales", ".biases")}  # fmt: skip
    mx.save_safetensors(str(source / "plain.safetensors"), kept | values, {"format": "mlx"})
    (source / "plain.safetensors").rename(source / "model.safetensors")
    edit(source, quantization=None)
    np.testing.assert_array_equal(found, codes(Qwen3TTS.from_pretrained(source)))


@pytest.mark.parametrize("name", ["self_attn.k_proj", "mlp.up_proj"])
@pytest.mark.parametrize("setting", [{"bits": 8}, {"group_size": 32}])
def test_one_other_setting_keeps_a_layer_from_being_fused(source, name, setting):
    write_quantized(source, AFFINE | {f"{LAYER}{name}": AFFINE | setting})
    first, second = Qwen3TTS.from_pretrained(source).talker.model.layers
    assert (isinstance(first, FusedLayer), isinstance(second, FusedLayer)) == (True, False)


@pytest.mark.parametrize("mode, bits, group_size", [("mxfp4", 4, 32), ("nvfp4", 4, 16), ("mxfp8", 8, 32)])
def test_other_modes_of_mlx(source, mode, bits, group_size):
    """Their scales are bytes, and there are no biases. Fused or not, the codes are the same."""
    unquantized = codes(Qwen3TTS.from_pretrained(source))
    write_quantized(source, {"group_size": group_size, "bits": bits, "mode": mode})
    tts = Qwen3TTS.from_pretrained(source)
    assert tts.talker.model.layers[0].qkv_proj.mode == mode
    found = codes(tts)
    assert (found != unquantized).any()
    plain = Qwen3TTS("plain", Engine.load(source, None, fused=False))
    assert "q_proj" in plain.talker.model.layers[0].self_attn
    np.testing.assert_array_equal(found, codes(plain))


@pytest.mark.parametrize(
    "entry, message",
    [
        ("4bit", "not in MLX's format"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, "not in MLX's format"),
        ({}, r"quantization\.bits is 'None'"),
        ({"bits": 4}, r"quantization\.group_size is 'None'"),
        ({"bits": 4.0, "group_size": 32}, r"quantization\.bits is '4.0'"),
        (AFFINE | {"bits": 7}, "bits is '7'; affine has 2, 3, 4, 5, 6, 8"),
        (AFFINE | {"bits": True}, "bits is 'True'"),
        (AFFINE | {"group_size": 48}, "group_size is '48'; affine has 32, 64, 128"),
        (AFFINE | {"group_size": [64]}, "group_size"),
        (AFFINE | {"mode": "gguf"}, "mode is 'gguf'; MLX has affine"),
        (AFFINE | {"mode": ["affine"]}, "mode"),
        (AFFINE | {"talker.codec_head": 4}, r"talker\.codec_head is '4'"),
        (AFFINE | {"talker.codec_head": {"bits": 4}}, r"talker\.codec_head\.group_size"),
        (AFFINE | {"talker.codec_head": False}, r"unknown tensor talker\.codec_head\.biases"),
        (AFFINE | {"talker.codec_head": AFFINE | {"bits": 8}}, r"talker\.codec_head\.weight has shape"),
        (
            AFFINE | {"talker.codec_head": AFFINE | {"group_size": 128}},
            r"128 do not divide the width 64 of talker\.codec_h",
        ),
        (AFFINE | {"talker.model.codec_embedding": AFFINE}, r"codec_embedding\.biases is missing"),
    ],
)
def test_invalid_entries(source, entry, message):
    write_quantized(source, AFFINE, entry)
    with pytest.raises(CheckpointError, match=message):
        Qwen3TTS.from_pretrained(source)


def test_files_that_do_not_match_the_entry(source):
    write_quantized(source, AFFINE)
    path = source / "model.safetensors"
    tensors = mx.load(str(path))
    mx.eval(tensors)
    name = "talker.codec_head"
    for change, message in [
        ({f"{name}.weight": tensors[f"{name}.weight"].view(mx.float32)}, r"weight is of type F32; it must be U32"),
        ({f"{name}.scales": tensors[f"{name}.scales"].view(mx.uint16)}, r"scales is of type U16; it must be F32"),
        ({f"{name}.biases": None}, r"codec_head\.biases is missing"),
        ({f"{name}.scales": None}, r"unknown tensor talker\.codec_head\.biases"),
    ]:
        changed = {key: value for key, value in (tensors | change).items() if value is not None}
        mx.save_safetensors(str(path), changed, {"format": "mlx"})
        with pytest.raises(CheckpointError, match=message):
            Qwen3TTS.from_pretrained(source)
    edit(source, quantization=None)
    with pytest.raises(CheckpointError, match=r"unknown tensor talker.*\.biases"):
        Qwen3TTS.from_pretrained(source)


def test_dtype_leaves_integers_alone(source):
    write_quantized(source, AFFINE)
    for dtype in ("float32", "bfloat16", "float16"):
        tts = Qwen3TTS.from_pretrained(source, dtype=dtype)
        head = tts.talker.codec_head
        assert (head.weight.dtype, head.scales.dtype) == (mx.uint32, getattr(mx, dtype))
        assert tts.talker.dtype == getattr(mx, dtype)
        assert tts.talker.embed_frames(mx.zeros((1, 2, 4), mx.int32)).dtype == getattr(mx, dtype)


@pytest.mark.parametrize("number", [2, 10**6])
def test_newer_format_is_refused(source, number):
    edit(source, mlx_qwen3_tts={"format": number})
    with pytest.raises(
        CheckpointError, match=rf"newer version .*format {number}; this one reads up to 1.*pip install -U"
    ):
        Qwen3TTS.from_pretrained(source)


@pytest.mark.parametrize("metadata", [{}, {"format": "1"}, {"format": 0}, {"format": True}, [1], "1", 1.5])
def test_invalid_format(source, metadata):
    edit(source, mlx_qwen3_tts=metadata)
    with pytest.raises(CheckpointError, match=r"mlx_qwen3_tts\.format"):
        Qwen3TTS.from_pretrained(source)


def test_format_1_loads(source):
    edit(source, mlx_qwen3_tts={"format": 1, "anything": "else"})
    assert len(codes(Qwen3TTS.from_pretrained(source))) == 5

"""Adapters and trained checkpoints: merged as mlx-lm does, spoken by both paths alike, strict about damage."""

import json
import os
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mlx_qwen3_tts import CheckpointError, Qwen3TTS, RequestError, Sampling, VoiceClonePrompt
from mlx_qwen3_tts.checkpoint.adapter import read_adapter
from mlx_qwen3_tts.checkpoint.load import load_directory, read_config
from mlx_qwen3_tts.checkpoint.weights import load_weights, read_headers, sanitize, stored
from mlx_qwen3_tts.config.model import ModelConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.conversion.calibrate import mean_squares
from mlx_qwen3_tts.conversion.convert import convert
from mlx_qwen3_tts.errors import TrainingError
from mlx_qwen3_tts.evaluation.evaluate import evaluate
from mlx_qwen3_tts.mlx_thread import MLX_THREAD
from mlx_qwen3_tts.models.network import Network
from mlx_qwen3_tts.training.export import speaker_ids, write_adapter, write_checkpoint
from tests.support import checkpoints, released

RANK = 4
SCALE = 2.0
GREEDY = Sampling(do_sample=False, subtalker_dosample=False)
LAYERS = (
    "talker.model.layers.0.self_attn.q_proj", "talker.model.layers.1.mlp.down_proj",
    "talker.code_predictor.model.layers.0.self_attn.o_proj", "talker.text_projection.linear_fc1",
)  # fmt: skip
FORMATS = [("affine", 4, 64), ("affine", 8, 32), ("mxfp4", 4, 32)]


def voice_of(hidden: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=hidden).astype(np.float32)


def write(path: Path, base: Path, names=("anna",), zero: bool = False, paths=LAYERS) -> Path:
    """Write an adapter for a Base checkpoint with random matrices. zero: lora_b is 0, as before training."""
    config = read_config(base)
    layers = dict(Network(config).named_modules())
    rng = np.random.default_rng(1)
    weights = {}
    for name in paths:
        rows, columns = layers[name].weight.shape
        weights[f"{name}.lora_a"] = mx.array(rng.normal(size=(columns, RANK)) / columns**0.5, mx.float32)
        weights[f"{name}.lora_b"] = mx.array(rng.normal(size=(RANK, rows)) * (0 if zero else 0.1), mx.float32)
    voices = {name: voice_of(config.talker_config.hidden_size, seed) for seed, name in enumerate(names)}
    parameters = {"rank": RANK, "scale": SCALE, "dropout": 0.0, "keys": list(paths)}
    MLX_THREAD.run(write_adapter, path, weights, parameters, voices, str(base), config)
    return path


@pytest.fixture(scope="module", params=checkpoints.SHAPES)
def base(request, tmp_path_factory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("base") / request.param, request.param, "base")


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A quantizable Base checkpoint in bfloat16."""
    return checkpoints.write_wide(tmp_path_factory.mktemp("wide") / "base", "base", "bfloat16")


@pytest.fixture
def damaged(wide, tmp_path) -> Path:
    """An adapter of `wide` that only this test uses and may damage."""
    return write(tmp_path / "adapter", wide)


def codes(tts: Qwen3TTS, voice=None) -> np.ndarray:
    return tts.synthesize("Hello world", voice=voice, seed=1, sampling=GREEDY, max_frames=4).codes


def quantize(source: Path, target: Path, mode: str, bits: int, group_size: int, kind=nn.Linear) -> Path:
    """Write a copy of a checkpoint whose layers of a kind are quantized by MLX."""
    shutil.copytree(source, target)
    network = Network(read_config(source))
    load_weights(network, source)
    del network["speaker_encoder"]
    nn.quantize(network, group_size, bits, mode=mode, class_predicate=lambda _, module: isinstance(module, kind))
    weights = dict(tree_flatten(network.parameters()))
    whole = Network(read_config(source))
    load_weights(whole, source)
    weights |= {name: value for name, value in tree_flatten(whole.parameters()) if name.startswith("speaker_encoder")}
    mx.save_safetensors(str(target / "model.safetensors"), weights, {"format": "mlx"})
    data = json.loads((target / "config.json").read_text())
    data["quantization"] = {"group_size": group_size, "bits": bits, "mode": mode}
    (target / "config.json").write_text(json.dumps(data))
    return target


def fuse(layer: nn.Module, a: mx.array, b: mx.array) -> nn.Module:
    """Return a layer with the change added, by the steps of LoRALinear.fuse of mlx-lm 0.32."""
    weight = layer.weight
    is_quantized = isinstance(layer, nn.QuantizedLinear)
    if is_quantized:
        weight = mx.dequantize(
            weight, layer.scales, layer.get("biases"), group_size=layer.group_size, bits=layer.bits, mode=layer.mode
        )
    fused = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    fused.weight = weight + ((SCALE * b.T) @ a.T).astype(weight.dtype)
    if is_quantized:
        fused = nn.QuantizedLinear.from_linear(fused, layer.group_size, layer.bits, mode=layer.mode)
    return fused


def weights_of(layer: nn.Module) -> np.ndarray:
    weight = layer.weight
    if isinstance(layer, nn.QuantizedLinear):
        weight = mx.dequantize(
            weight, layer.scales, layer.get("biases"), group_size=layer.group_size, bits=layer.bits, mode=layer.mode
        )
    return np.array(weight.astype(mx.float32))


def compare(directory: Path, adapter: Path, dtype: str, check) -> None:
    """Call check(ours, mlx-lm's, before) with the weights of each adapted layer, float32 [out, in]."""
    before = load_directory(directory, dtype, fused=False).network
    after = load_directory(directory, dtype, fused=False, adapter=adapter).network
    matrices = read_adapter(adapter).layers

    def compare_all() -> None:
        old, new = dict(before.named_modules()), dict(after.named_modules())
        for path, module in new.items():
            if path in matrices:
                fused = fuse(old[path], *(mx.array(part) for part in matrices[path]))
                assert type(module) is type(old[path])
                check(weights_of(module), weights_of(fused), weights_of(old[path]))
            elif isinstance(module, nn.Linear | nn.QuantizedLinear):
                np.testing.assert_array_equal(weights_of(module), weights_of(old[path]))

    MLX_THREAD.run(compare_all)


def test_float32_equals_mlx_lm(base, tmp_path):
    def check(ours, theirs, before):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # another order of factors
        assert np.abs(ours - before).max() > 0.05

    compare(base, write(tmp_path / "adapter", base), "float32", check)


def test_bfloat16_equals_mlx_lm(wide, tmp_path):
    """mlx-lm rounds the change and then the sum, we only the sum."""

    def check(ours, theirs, before):
        step = 2.0**-7 * np.maximum(np.abs(ours), np.abs(theirs - before))
        assert (np.abs(ours - theirs) <= step).all()
        assert (ours == theirs).mean() > 0.7

    compare(wide, write(tmp_path / "adapter", wide), "bfloat16", check)


@pytest.mark.parametrize(("mode", "bits", "group_size"), FORMATS)
def test_quantized_equals_mlx_lm(wide, tmp_path, mode, bits, group_size):
    def check(ours, theirs, before):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=np.abs(theirs).max() / 2 ** (bits - 2))
        assert np.isclose(ours, theirs, rtol=0, atol=1e-5).mean() > 0.99  # the others lie between two steps

    directory = quantize(wide, tmp_path / "quantized", mode, bits, group_size)
    compare(directory, write(tmp_path / "adapter", wide), "float32", check)


def test_speech_equals_the_cloned_voice(base, tmp_path):
    """Before training an adapter speaks as the Base model does in the voice; in any case of the name."""
    adapter = write(tmp_path / "adapter", base, ["Anna", "ben"], zero=True)
    source = Qwen3TTS.from_pretrained(base)
    tts = Qwen3TTS.from_pretrained(base, adapter=adapter)
    assert (tts.model_type, tts.speakers, tts.default_speaker) == ("custom_voice", ["anna", "ben"], "anna")
    for seed, name in enumerate(["ANNA", "Ben"]):
        clone = VoiceClonePrompt(speaker_embedding=voice_of(32, seed))
        np.testing.assert_array_equal(codes(tts, name), codes(source, clone))
    with pytest.raises(RequestError, match="a CustomVoice model cannot clone"):
        tts.clone_voice((np.zeros(24000, np.float32), 24000))


def test_quantized_codec_embedding_keeps_the_voice(wide, tmp_path):
    directory = quantize(wide, tmp_path / "quantized", "affine", 4, 64, nn.Embedding)
    adapter = write(tmp_path / "adapter", wide, zero=True)
    clone = VoiceClonePrompt(speaker_embedding=voice_of(64))
    ours = Qwen3TTS.from_pretrained(directory, adapter=adapter)
    np.testing.assert_array_equal(codes(ours), codes(Qwen3TTS.from_pretrained(directory), clone))


def test_trained_adapter_changes_speech(base, tmp_path):
    tts, untrained = (
        Qwen3TTS.from_pretrained(base, adapter=write(tmp_path / str(zero), base, zero=zero)) for zero in (False, True)
    )
    assert (codes(tts) != codes(untrained)).any()


def test_checkpoint_speaks_as_the_network(base, tmp_path):
    """Full training: the network with new rows in the official layout. The network itself stays as it is."""
    loaded = load_directory(base, fused=False)
    voices = {"Anna": voice_of(32)}
    before = dict(tree_flatten(loaded.network.parameters()))
    out = tmp_path / "out"
    for _ in range(2):  # the second replaces the first
        MLX_THREAD.run(write_checkpoint, out, base, loaded.network, loaded.config, voices)
    after = dict(tree_flatten(loaded.network.parameters()))
    assert MLX_THREAD.run(lambda: all(mx.array_equal(after[name], value).item() for name, value in before.items()))
    tts = Qwen3TTS.from_pretrained(out)
    clone = VoiceClonePrompt(speaker_embedding=voices["Anna"])
    np.testing.assert_array_equal(codes(tts, "anna"), codes(Qwen3TTS.from_pretrained(base), clone))
    data = json.loads((out / "config.json").read_text())
    first = data["talker_config"]["vocab_size"] - 1024 + 952
    assert data["talker_config"]["spk_id"] == {"anna": first}
    assert data["talker_config"]["spk_is_dialect"] == {"anna": False}
    assert data["tts_model_type"] == "custom_voice"
    with safe_open(out / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert not [name for name in file.keys() if name.startswith("speaker_encoder")]
    codec = "speech_tokenizer/model.safetensors"
    assert (out / codec).read_bytes() == (base / codec).read_bytes()


def test_checkpoint_keeps_types_and_takes_adapters(wide, tmp_path):
    adapter = write(tmp_path / "adapter", wide)
    loaded = load_directory(wide, "bfloat16", fused=False, adapter=adapter)
    MLX_THREAD.run(write_checkpoint, tmp_path / "out", wide, loaded.network, loaded.config, {})
    headers, layout = read_headers(tmp_path / "out")
    assert layout == "pt"
    assert {tensor.kind for header in headers.values() for tensor in header.values()} == {"BF16"}
    ours = Qwen3TTS.from_pretrained(tmp_path / "out", "bfloat16")
    np.testing.assert_array_equal(codes(ours), codes(Qwen3TTS.from_pretrained(wide, "bfloat16", adapter=adapter)))


def test_released_id():
    """The first speaker of a released model has the id of the official script."""
    config = from_dict(ModelConfig, released.config("0.6B-Base"), "config.json")
    assert speaker_ids(["Anna", "Ben"], config) == {"anna": 3000, "ben": 3001}


def test_stored_is_the_inverse_of_sanitize(base):
    loaded = load_directory(base, fused=False)

    def check(module: nn.Module) -> None:
        expected = dict(tree_flatten(module.parameters()))
        found = sanitize(stored(module), module, "pt")
        assert found.keys() == expected.keys()
        assert all(mx.array_equal(found[name], value).item() for name, value in expected.items())

    MLX_THREAD.run(check, loaded.network)
    MLX_THREAD.run(check, loaded.codec.network)


@pytest.mark.parametrize("recipe", [None, "mixed-4"])
def test_convert_with_adapter(wide, tmp_path, recipe, run_cli):
    adapter = write(tmp_path / "adapter", wide)
    out = tmp_path / "out"
    arguments = ["--recipe", recipe, "--scales", "plain"] if recipe else []
    code, _, err = run_cli("convert", "--model", wide, "--adapter", adapter, "--out", out, *arguments)
    assert code == 0, err
    tts = Qwen3TTS.from_pretrained(out, "bfloat16")
    assert (tts.model_type, tts.speakers) == ("custom_voice", ["anna"])
    assert "speaker_encoder_config" not in json.loads((out / "config.json").read_text())
    if recipe is None:
        np.testing.assert_array_equal(codes(tts), codes(Qwen3TTS.from_pretrained(wide, "bfloat16", adapter=adapter)))
    else:
        assert isinstance(load_directory(out, fused=False).network.talker.codec_head, nn.QuantizedLinear)
        assert len(codes(tts)) == 4


def test_convert_casts_once(wide, tmp_path):
    """A float32 copy holds the float32 sum, not one that was rounded to bfloat16."""
    adapter = write(tmp_path / "adapter", wide)
    convert(wide, tmp_path / "out", dtype="float32", adapter=adapter)
    ours = load_directory(tmp_path / "out", "float32", fused=False).network
    theirs = load_directory(wide, "float32", fused=False, adapter=adapter).network

    def check() -> None:
        expected = dict(tree_flatten(theirs.parameters()))
        for name, value in tree_flatten(ours.parameters()):
            assert mx.array_equal(value, expected[name]).item(), name

    MLX_THREAD.run(check)


def test_calibration_with_adapter(wide, tmp_path):
    """The inputs are those of the adapted model, which are those of the converted one."""
    adapter = write(tmp_path / "adapter", wide)
    convert(wide, tmp_path / "out", dtype="float32", adapter=adapter)
    found = mean_squares(wide, ["Hello"], "anna", max_frames=2, adapter=adapter)
    expected = mean_squares(tmp_path / "out", ["Hello"], "anna", max_frames=2)
    assert found.keys() == expected.keys()
    for path, squares in found.items():
        assert mx.array_equal(squares, expected[path]).item(), path
    with pytest.raises(RequestError, match="cloned voices only"):
        mean_squares(wide, ["Hello"], "anna", max_frames=2)


def test_evaluate_with_adapter(wide, tmp_path):
    """Of a Base model both sides are adapted; a converted model has the adapter already."""
    adapter = write(tmp_path / "adapter", wide)
    convert(wide, tmp_path / "out", adapter=adapter)
    for model in (wide, tmp_path / "out"):
        found = evaluate(model, wide, ["Hello"], max_frames=3, dtype="bfloat16", adapter=adapter)
        assert found.agreement == [1.0] * 4
    with pytest.raises(RequestError, match="adapter has no effect, because neither model is a Base model"):
        evaluate(tmp_path / "out", tmp_path / "out", ["Hello"], max_frames=3, adapter=adapter)


def test_say_with_adapter(wide, tmp_path, run_cli):
    """Without --model the one that was trained is taken."""
    adapter = write(tmp_path / "adapter", wide)
    say = ("say", "Hello", "--adapter", adapter, "--voice", "Anna", "--max-frames", 2, "-o", tmp_path / "x.wav")
    code, _, err = run_cli(*say)
    assert code == 0, err
    assert f"model: {wide} (the one that the adapter was made with" in err
    code, _, err = run_cli(*say, "--model", tmp_path)
    assert (code, err.count("\n")) == (1, 1)
    code, _, err = run_cli(*say[:4], "--ref-audio", "x.wav")
    assert code == 1
    assert "--adapter has voices of its own" in err


def test_voices_of_an_adapter(wide, tmp_path, run_cli):
    """Its speakers, and the languages of its model if that is at hand."""
    directory = shutil.copytree(wide, tmp_path / "base")
    adapter = write(tmp_path / "adapter", directory, ("anna", "ben"))
    code, out, err = run_cli("voices", "--adapter", adapter)
    assert code == 0, err
    assert out.splitlines()[:3] == ["voice     anna (default)", "voice     ben", "language  auto"]
    assert "language  english" in out
    code, _, err = run_cli("say", "Hello", "--adapter", adapter, "--max-frames", 2, "-o", tmp_path / "x.wav")
    assert (code, f"voice: anna (the default; `mlx-qwen3-tts voices --adapter {adapter}` lists" in err) == (0, True)
    code, _, err = run_cli("voices", "--adapter", adapter, "--model", "demo-random")
    assert (code, "belongs to the Base model that it was trained on" in err) == (1, True)
    shutil.rmtree(directory)
    code, out, err = run_cli("voices", "--adapter", adapter)
    assert (code, out.splitlines(), err.count("\n")) == (0, ["voice     anna", "voice     ben"], 1)
    code, _, err = run_cli("voices", "--adapter", tmp_path)
    assert (code, "is not an adapter of this package" in err) == (1, True)
    code, _, err = run_cli("voices", "--remove", "me", "--adapter", adapter)
    assert (code, "leave --model, --revision and --adapter out" in err) == (1, True)


def edit_json(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_tensors(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


SETTINGS, MATRICES, VOICES = "adapter_config.json", "adapters.safetensors", "speakers.safetensors"
A = f"{LAYERS[0]}.lora_a"
DAMAGES = {
    "rank": (SETTINGS, lambda d: d["lora_parameters"].update(rank=3), r"for the rank 3 they must be \[in, 3\]"),
    "scale": (SETTINGS, lambda d: d["lora_parameters"].update(scale="x"), "scale is 'x'; it must be a finite number"),
    "keys": (SETTINGS, lambda d: d["lora_parameters"].update(keys=3), "keys is '3'; it must be a list of paths"),
    "fewer keys": (SETTINGS, lambda d: d["lora_parameters"]["keys"].pop(0), "lora_a is not in adapter_config.json"),
    "kind": (SETTINGS, lambda d: d.update(fine_tune_type="dora"), "'dora'; this port implements only 'lora'"),
    "mlx-lm's": (SETTINGS, lambda d: d.pop("mlx_qwen3_tts"), "mlx_qwen3_tts is missing"),
    "newer": (SETTINGS, lambda d: d["mlx_qwen3_tts"].update(format=2), "format 2, and this version .* upgrade"),
    "nobody": (SETTINGS, lambda d: d["mlx_qwen3_tts"].update(speakers={}), "speakers is empty"),
    "code": (SETTINGS, lambda d: d["mlx_qwen3_tts"].update(speakers={"anna": 3}), "the id 3, which is not free"),
    "control": (SETTINGS, lambda d: d["mlx_qwen3_tts"].update(speakers={"anna": 165}), "id 165, which is not free"),
    "outside": (SETTINGS, lambda d: d["mlx_qwen3_tts"].update(speakers={"anna": 3000}), "id 3000, which is not free"),
    "width": (SETTINGS, lambda d: d["mlx_qwen3_tts"].update(hidden_size=32), r"anna has shape \[64\]; it must be \[32"),
    "missing": (MATRICES, lambda t: t.pop(A), r"lora_a is missing \(1 in all\)"),
    "extra": (MATRICES, lambda t: t.update(x=t[A]), "x is not in adapter_config.json"),
    "type": (MATRICES, lambda t: t.update({A: t[A].astype(np.float16)}), "type F16; it must be F32"),
    "shape": (MATRICES, lambda t: t.update({A: t[A][:-1]}), r"lora_a has shape \[63, 4\]; it must be \[64, 4\]"),
    "NaN": (MATRICES, lambda t: t.update({A: t[A] * np.float32(np.nan)}), "lora_a is not finite"),
    "voice": (VOICES, lambda t: t.update(ben=t.pop("anna")), "the tensor anna is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged(wide, damaged, damage):
    file, change, message = DAMAGES[damage]
    (edit_json if file == SETTINGS else edit_tensors)(damaged / file, change)
    with pytest.raises(CheckpointError, match=message) as error:
        Qwen3TTS.from_pretrained(wide, adapter=damaged)
    assert len(str(error.value).splitlines()) == 1


def test_two_speakers_with_one_id(wide, tmp_path):
    adapter = write(tmp_path / "adapter", wide, ["anna", "ben"])
    edit_json(adapter / SETTINGS, lambda d: d["mlx_qwen3_tts"]["speakers"].update(anna=1016, ben=1016))
    with pytest.raises(CheckpointError, match="the speaker ben has the id 1016, which is not free"):
        Qwen3TTS.from_pretrained(wide, adapter=adapter)


@pytest.mark.parametrize("name", [SETTINGS, MATRICES, VOICES])
def test_missing_or_cut_files(wide, damaged, name):
    data = (damaged / name).read_bytes()
    (damaged / name).write_bytes(data[:-3])
    with pytest.raises(CheckpointError, match=name):
        Qwen3TTS.from_pretrained(wide, adapter=damaged)
    (damaged / name).unlink()
    with pytest.raises(CheckpointError, match=f"is not an adapter of this package: {name} is missing"):
        Qwen3TTS.from_pretrained(wide, adapter=damaged)


def test_other_models(wide, damaged, base, tmp_path):
    """Of another width, of another depth, not a Base model, not a path."""
    with pytest.raises(CheckpointError, match="was trained on a model of width 64"):
        Qwen3TTS.from_pretrained(base, adapter=damaged)
    deep = "talker.model.layers.9.self_attn.q_proj"
    edit_json(damaged / SETTINGS, lambda d: d["lora_parameters"]["keys"].append(deep))
    edit_tensors(damaged / MATRICES, lambda t: t.update({f"{deep}.lora_{x}": t[f"{LAYERS[0]}.lora_{x}"] for x in "ab"}))
    with pytest.raises(CheckpointError, match=f"no linear layer {deep}; it was trained on"):
        Qwen3TTS.from_pretrained(wide, adapter=damaged)
    custom = checkpoints.write_wide(tmp_path / "custom")
    with pytest.raises(CheckpointError, match=r"the Base model that it was trained on .*, not to a CustomVoice model"):
        Qwen3TTS.from_pretrained(custom, adapter=damaged)
    with pytest.raises(RequestError, match="adapter must be a directory, not 3"):
        Qwen3TTS.from_pretrained(wide, adapter=3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Anna", "anna"], "two speakers are called 'anna', apart from capitals"),
        ([""], "'' cannot be a speaker's name"),
        (["a/b"], "cannot be a speaker's name"),
        (["a.safetensors"], "cannot be a speaker's name"),
        (["a\nb"], "cannot be a speaker's name"),
        ([f"voice {i}" for i in range(99)], "there are 99 speakers, and this model has room for 72"),
    ],
)
def test_names_of_speakers(wide, tmp_path, names, message):
    with pytest.raises(TrainingError, match=message):
        write(tmp_path / "adapter", wide, names)
    assert not list(tmp_path.iterdir())


def test_writing_loses_nothing(wide, damaged, tmp_path, monkeypatch):
    """Other files stay, and so does the former adapter if the disk is full."""
    before = (damaged / MATRICES).read_bytes()

    def full(file):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(TrainingError, match=r"cannot write .*: No space left on device; nothing is left behind"):
            write(damaged, wide, zero=True)
    assert (damaged / MATRICES).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    (damaged / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"is not replaced, because notes\.txt in it"):
        write(damaged, wide)
    loaded = load_directory(wide, fused=False)
    with pytest.raises(TrainingError, match="is the model that was trained: name another"):
        MLX_THREAD.run(write_checkpoint, wide, wide, loaded.network, loaded.config, {})
    quantized = quantize(wide, tmp_path / "quantized", "affine", 4, 64)
    loaded = load_directory(quantized, fused=False)
    with pytest.raises(TrainingError, match="needs all weights of the unquantized model"):
        MLX_THREAD.run(write_checkpoint, tmp_path / "out", quantized, loaded.network, loaded.config, {})

"""Loading: strict, lazy, single files and shards, PyTorch and MLX layouts; damage is named."""

import json

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import checkpoints
from mlx_qwen3_tts import CheckpointError, DownloadError, Qwen3TTS
from mlx_qwen3_tts.codec.quantizer import MIN_CLUSTER_USAGE
from mlx_qwen3_tts.load import resolve


def rewrite(path, change, metadata=None) -> None:
    """Change the tensors of a safetensors file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"} if metadata is None else metadata)


def test_shards_equal_a_single_file(checkpoint):
    whole = Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", seed=1, max_frames=3)
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, checkpoint / shard, {"format": "pt"})
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    path.unlink()
    again = Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", seed=1, max_frames=3)
    np.testing.assert_array_equal(whole.audio, again.audio)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.safetensors is missing"):
        Qwen3TTS.from_pretrained(checkpoint)


@pytest.mark.parametrize("names", [["x"], {"a": "../../etc/passwd"}, {"a": 1}, None])
def test_index_that_is_none(checkpoint, names):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match="weight_map"):
        Qwen3TTS.from_pretrained(checkpoint)


def test_layout_is_what_the_metadata_says(checkpoint):
    """A file in MLX's layout gives the same model; the shapes of square kernels could not tell."""
    expected = Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", seed=1, max_frames=2)
    path = checkpoint / "speech_tokenizer" / "model.safetensors"

    def to_mlx(tensors):
        for name, tensor in tensors.items():
            transposed = ".block.1.conv." in name if name.startswith("decoder.decoder") else ".0.conv." in name
            if tensor.ndim == 3:
                order = (1, 2, 0) if transposed and name.startswith(("decoder.decoder.", "decoder.up")) else (0, 2, 1)
                order = (0, 2, 1) if name == "decoder.decoder.0.conv.weight" else order
                tensors[name] = np.ascontiguousarray(tensor.transpose(order))

    rewrite(path, to_mlx, {"format": "mlx"})
    again = Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", seed=1, max_frames=2)
    np.testing.assert_array_equal(expected.audio, again.audio)
    rewrite(path, lambda tensors: None, {"format": "tf"})
    with pytest.raises(CheckpointError, match="format 'tf'"):
        Qwen3TTS.from_pretrained(checkpoint)


def test_codebooks_are_clamped(checkpoint):
    tensors = load_file(checkpoint / "speech_tokenizer" / "model.safetensors")
    prefix = "decoder.quantizer.rvq_rest.vq.layers.3._codebook"
    usage = tensors[f"{prefix}.cluster_usage"]
    assert (usage == 0).any(), "some codes must meet the clamp"
    expected = tensors[f"{prefix}.embedding_sum"] / np.maximum(usage, MIN_CLUSTER_USAGE)[:, None]
    codec = Qwen3TTS.from_pretrained(checkpoint).codec
    np.testing.assert_allclose(
        np.array(codec.decoder.quantizer.rvq_rest.vq.layers[3].codebook.weight), expected, rtol=1e-6
    )


def test_dtypes(checkpoint):
    for dtype, expected in ((None, mx.float32), ("bfloat16", mx.bfloat16), ("float16", mx.float16)):
        tts = Qwen3TTS.from_pretrained(checkpoint, dtype=dtype)
        assert tts.talker.codec_head.weight.dtype == expected
        assert tts.codec.decoder.decoder[0].conv.weight.dtype == mx.float32
        assert tts.synthesize("Hello", seed=1, max_frames=2).audio.dtype == np.float32
    with pytest.raises(CheckpointError, match="int8"):
        Qwen3TTS.from_pretrained(checkpoint, dtype="int8")


def test_attribute_paths_are_keys(checkpoint):
    tts = Qwen3TTS.from_pretrained(checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    np.testing.assert_array_equal(
        np.array(tts.network.talker.code_predictor.lm_head[3].weight), tensors["talker.code_predictor.lm_head.3.weight"]
    )


NAME = "talker.model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop(NAME), f"{NAME} is missing"),
        (lambda t: t.update({NAME: t[NAME][:-1]}), f"{NAME} has shape"),
        (lambda t: t.update({NAME: np.ascontiguousarray(t[NAME].T)}), f"{NAME} has shape"),
        (lambda t: t.update({"talker.lora.weight": t[NAME]}), "unknown tensor talker.lora.weight"),
    ],
)
def test_tensors_that_do_not_fit(checkpoint, change, message):
    rewrite(checkpoint / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        Qwen3TTS.from_pretrained(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "speech_tokenizer/model.safetensors"])
@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_files(checkpoint, name, keep):
    path = checkpoint / name
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match="is damaged"):
        Qwen3TTS.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "speech_tokenizer/config.json", "speech_tokenizer/model.safetensors"],
)
def test_missing_files(checkpoint, name):
    (checkpoint / name).unlink()
    with pytest.raises(CheckpointError) as error:
        Qwen3TTS.from_pretrained(checkpoint)
    assert str(checkpoint / name) in str(error.value)


@pytest.mark.parametrize("content", ["", "[1]", '{"a":', "[" * 100_000, "\x00"])
def test_config_that_is_no_json_object(checkpoint, content):
    (checkpoint / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Qwen3TTS.from_pretrained(checkpoint)


def test_talker_and_codec_must_belong_together(checkpoint, tmp_path):
    other = tmp_path / "other"
    model, codec = checkpoints.configs("projected")
    for part in (codec["decoder_config"], codec["encoder_config"]):
        part["codebook_size"] = 128
    checkpoints.demo.write_checkpoint(other, model, codec, 1)
    with pytest.raises(CheckpointError, match="belong together"):
        Qwen3TTS.from_pretrained(other)


def test_generation_config_is_optional(checkpoint):
    (checkpoint / "generation_config.json").unlink()
    assert Qwen3TTS.from_pretrained(checkpoint).generation_config.max_new_tokens == 2048


def test_encoders_wait_for_their_first_use(checkpoint, monkeypatch):
    """Loading reads the decoder and leaves the encoder's tensors on disk."""
    evaluated = []
    evaluate = mx.eval
    monkeypatch.setattr(
        mx, "eval", lambda *trees: (evaluated.extend(v for _, v in tree_flatten(trees)), evaluate(*trees))
    )
    codec = Qwen3TTS.from_pretrained(checkpoint).codec
    read = {id(array) for array in evaluated}
    assert all(id(array) in read for _, array in tree_flatten(codec.decoder.parameters()))
    assert not any(id(array) in read for _, array in tree_flatten(codec.encoder.parameters()))


@pytest.mark.parametrize(
    "model, message",
    [
        ("no/such/dir", "no directory"),
        ("./nothing", "no directory"),
        ("justaname", "no directory"),
        ("a b/c", "no dir"),
    ],
)
def test_paths_that_are_none(model, message):
    with pytest.raises(CheckpointError, match=message):
        Qwen3TTS.from_pretrained(model)


def test_a_file_is_no_directory(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(CheckpointError, match="is a file"):
        Qwen3TTS.from_pretrained(path)


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match="--model demo"):
        Qwen3TTS.from_pretrained("Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice")


def test_hub_cache_serves_offline(checkpoint, monkeypatch, tmp_path):
    """A model that was fetched once loads without a network, and only the files that are needed were asked for."""
    asked = {}

    def snapshot_download(hub_id, **options):
        asked.update(options, hub_id=hub_id)
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with resolve("owner/name") as directory:
        assert directory == checkpoint
    assert asked["hub_id"] == "owner/name"
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any(pattern in ("*", "*.py", "*.bin") for pattern in asked["allow_patterns"])


def test_released_layout(checkpoint):
    """What demo.py writes is what the hub has: the same files, tensors in PyTorch's layout."""
    found = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert found == {
        "config.json", "generation_config.json", "model.safetensors", "vocab.json", "merges.txt",
        "tokenizer_config.json", "speech_tokenizer/config.json", "speech_tokenizer/model.safetensors",
        "speech_tokenizer/preprocessor_config.json",
    }  # fmt: skip
    with safe_open(checkpoint / "speech_tokenizer" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_slice("decoder.pre_conv.conv.weight").get_shape() == [48, 32, 3]


def test_demo_is_under_10_mb():
    with resolve("demo") as directory:
        assert sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) < 10e6
    assert not directory.exists()

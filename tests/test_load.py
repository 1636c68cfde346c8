"""Loading: strict, lazy, single files and shards, PyTorch and MLX layouts; errors name the damage."""

import json
import os
import subprocess
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mlx_qwen3_tts import CheckpointError, DownloadError, GenerationError, Qwen3TTS, RequestError, Sampling
from mlx_qwen3_tts.checkpoint.load import load_directory, read_config
from mlx_qwen3_tts.codec.quantizer import MIN_CLUSTER_USAGE
from mlx_qwen3_tts.hub import resolve
from mlx_qwen3_tts.mlx_thread import MLX_THREAD, Worker
from tests.support import checkpoints
from tests.support.process import spawn


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
    codec = checkpoint / "speech_tokenizer"
    tensors = load_file(codec / "model.safetensors")
    shards = {"model-1.safetensors": sorted(tensors)[::2], "model-2.safetensors": sorted(tensors)[1::2]}
    for shard, part in shards.items():  # a codebook's sums and counts lie in different files
        save_file({name: tensors[name] for name in part}, codec / shard, {"format": "pt"})
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (codec / "model.safetensors.index.json").write_text(json.dumps(index))
    (codec / "model.safetensors").unlink()
    again = Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", seed=1, max_frames=3)
    np.testing.assert_array_equal(whole.audio, again.audio)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"00002-of-00002\.safetensors is missing"):
        Qwen3TTS.from_pretrained(checkpoint)


@pytest.mark.parametrize("names", [["x"], {"a": "../../etc/passwd"}, {"a": 1}, None])
def test_invalid_index(checkpoint, names):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match="weight_map"):
        Qwen3TTS.from_pretrained(checkpoint)


def test_layout_is_what_the_metadata_says(checkpoint):
    """A file in MLX's layout gives the same model; the shapes of square kernels could not show the layout."""
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
        np.array(codec.network.decoder.quantizer.rvq_rest.vq.layers[3].codebook.weight), expected, rtol=1e-6
    )


def test_dtypes(checkpoint):
    for dtype, expected in ((None, mx.float32), ("bfloat16", mx.bfloat16), ("float16", mx.float16)):
        tts = Qwen3TTS.from_pretrained(checkpoint, dtype=dtype)
        assert tts.talker.codec_head.weight.dtype == expected
        assert tts.codec.network.decoder.decoder[0].taps[0].dtype == mx.float32
        assert tts.synthesize("Hello", seed=1, max_frames=2).audio.dtype == np.float32
    for dtype in ("int8", ["float32"], mx.float32):
        with pytest.raises(RequestError, match="unknown dtype"):
            Qwen3TTS.from_pretrained(checkpoint, dtype=dtype)


@pytest.mark.parametrize("version", [True, 0, -1, "1", 1.0])
def test_invalid_formats(checkpoint, version):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mlx_qwen3_tts": {"format": version}}))
    with pytest.raises(CheckpointError, match=r"invalid mlx_qwen3_tts\.format .*: expected a whole number from 1"):
        read_config(checkpoint)


def test_types_on_a_gpu(checkpoint):
    """There the model has the files' own type; the codec is float32 everywhere, whatever its files have."""
    for path in (checkpoint / "model.safetensors", checkpoint / "speech_tokenizer" / "model.safetensors"):
        tensors = mx.load(str(path))
        tensors = {name: tensor.astype(mx.bfloat16) for name, tensor in tensors.items()}
        mx.eval(tensors)
        mx.save_safetensors(str(path), tensors, {"format": "pt"})
    for device, expected in ((mx.gpu, mx.bfloat16), (mx.cpu, mx.float32)):
        worker = Worker(mx.Device(mx.cpu))
        worker.device = mx.Device(device)  # what it says, not where it computes
        worker.run = MLX_THREAD.run
        loaded = load_directory(checkpoint, worker=worker)
        assert loaded.network.talker.codec_head.weight.dtype == expected
        assert {p.dtype for _, p in tree_flatten(loaded.codec.network.parameters())} == {mx.float32}


@pytest.mark.parametrize("model", [None, 5, b"demo"])
def test_invalid_model_arguments(model):
    with pytest.raises(RequestError, match="must be a directory"):
        Qwen3TTS.from_pretrained(model)


def test_the_demo_is_not_a_directory(tmp_path, monkeypatch):
    """A directory of that name in the working directory is ignored."""
    (tmp_path / "demo-random").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Qwen3TTS.from_pretrained("demo-random").name == "demo-random"


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
        (lambda t: t.update({NAME: t[NAME][0]}), f"{NAME} has shape"),
        (lambda t: t.update({NAME: t[NAME].astype(np.float64)}), f"{NAME} is of type F64"),
        (lambda t: t.update({NAME: t[NAME].astype(np.int64)}), f"{NAME} is of type I64"),
        (lambda t: t.update({"talker.lora.weight": t[NAME]}), "unknown tensor talker.lora.weight"),
    ],
)
def test_tensors_that_do_not_fit(checkpoint, change, message):
    rewrite(checkpoint / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        Qwen3TTS.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        "decoder.pre_conv.conv.weight", "decoder.upsample.0.0.conv.weight", "decoder.decoder.0.conv.weight",
        "decoder.quantizer.rvq_rest.vq.layers.3._codebook.cluster_usage", "encoder.downsample.conv.weight",
        "encoder.quantizer.semantic_residual_vector_quantizer.layers.0.codebook.embed_sum",
    ],
)  # fmt: skip
def test_codec_tensors_that_do_not_fit(checkpoint, name):
    """The error uses the name in the file, also if loading transforms the tensor."""
    path = checkpoint / "speech_tokenizer" / "model.safetensors"
    rewrite(path, lambda t: t.update({name: np.ascontiguousarray(t[name][:-1])}))
    with pytest.raises(CheckpointError, match=f"{name} has shape"):
        Qwen3TTS.from_pretrained(checkpoint)
    rewrite(path, lambda t: t.pop(name))
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        Qwen3TTS.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    "file, name",
    [
        ("model", NAME), ("model", "talker.code_predictor.lm_head.3.weight"),
        ("model", "talker.code_predictor.model.layers.1.mlp.up_proj.weight"),
        ("speech_tokenizer/model", "decoder.pre_conv.conv.weight"),
    ],
)  # fmt: skip
def test_invalid_numbers(checkpoint, file, name):
    """They are refused even if they affect no later frame, as in a head or in the codec."""
    rewrite(checkpoint / f"{file}.safetensors", lambda t: t[name].fill(np.nan))
    with pytest.raises(GenerationError, match="not finite"):
        Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", max_frames=3)


def test_generation_config_is_read(checkpoint):
    """Its values are the defaults of a request, and its limit is one more than the number of frames."""
    path = checkpoint / "generation_config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"max_new_tokens": 5, "top_k": 1, "subtalker_top_k": 1, "eos_token_id": 3}))
    result = Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", seed=1)
    assert len(result.codes) == 4
    greedy = Sampling(do_sample=False, subtalker_dosample=False)
    expected = Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", sampling=greedy)
    np.testing.assert_array_equal(result.codes, expected.codes)
    path.write_text(json.dumps(data | {"do_sample": False}))
    with pytest.raises(RequestError, match="this checkpoint's default"):
        Qwen3TTS.from_pretrained(checkpoint).synthesize("Hello", sampling=Sampling(top_k=3))
    path.write_text(json.dumps(data | {"top_k": None}))  # as transformers writes what is not set
    Qwen3TTS.from_pretrained(checkpoint)
    for bad in ({"top_p": 2.0}, {"max_new_tokens": 1}, {"top_k": "many"}):
        path.write_text(json.dumps(data | bad))
        with pytest.raises(CheckpointError, match=r"generation_config\.json"):
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
def test_config_is_not_a_json_object(checkpoint, content):
    (checkpoint / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Qwen3TTS.from_pretrained(checkpoint)


def test_talker_and_codec_must_belong_together(checkpoint, tmp_path):
    other = tmp_path / "other"
    model, codec = checkpoints.configs("projected")
    for part in (codec["decoder_config"], codec["encoder_config"]):
        part["codebook_size"] = 128
    checkpoints.write_checkpoint(other, model, codec, 1)
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
    assert all(id(array) in read for _, array in tree_flatten(codec.network.decoder.parameters()))
    assert not any(id(array) in read for _, array in tree_flatten(codec.network.encoder.parameters()))


@pytest.mark.parametrize(
    "model, message",
    [
        ("no/such/dir", "neither a directory nor a hub id"),
        ("./nothing", "neither a directory nor a hub id"),
        ("justaname", "neither a directory nor a hub id"),
        ("a b/c", "neither a directory nor a hub id"),
    ],
)
def test_invalid_paths(model, message):
    with pytest.raises(CheckpointError, match=message):
        Qwen3TTS.from_pretrained(model)


def test_a_file_is_not_a_directory(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(CheckpointError, match="is a file"):
        Qwen3TTS.from_pretrained(path)


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match="or 'demo'"):
        Qwen3TTS.from_pretrained("Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice")


@pytest.fixture
def hub(checkpoint):
    """A local hub with one model, owner/name, and additional files that are not needed."""
    for extra in ("README.md", "pickle.bin", "onnx/model.safetensors", "speech_tokenizer/code.py"):
        (checkpoint / extra).parent.mkdir(exist_ok=True)
        (checkpoint / extra).write_text("not needed")
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path))
            path = self.path.partition("?")[0]
            if path == "/api/models/owner/name/revision/nope":
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound")
                self.end_headers()
                return
            if path.startswith("/api/models/owner/name"):
                names = [str(p.relative_to(checkpoint)) for p in checkpoint.rglob("*") if p.is_file()]
                files = [{"rfilename": name} for name in names]
                body = json.dumps({"id": "owner/name", "sha": "0" * 40, "siblings": files}).encode()
                if "/tree/" in path:
                    body = json.dumps([{"type": "file", "path": n, "size": 1, "oid": "0" * 40} for n in names]).encode()
            elif path.startswith("/owner/name/resolve/"):
                body = (checkpoint / path.split("/", 5)[5]).read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{zlib.crc32(body):040x}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, asked
    server.shutdown()


@pytest.mark.slow
def test_hub(hub, tmp_path):
    """A model's required files are downloaded once; then it speaks without a network."""
    server, asked = hub
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "cache"), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_ETAG_TIMEOUT": "2", "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip

    def say(model: str, *options) -> subprocess.CompletedProcess:
        command = spawn("say", "Hello", "--model", model, *options, "--max-frames", 2, "-o", tmp_path / "a.wav")
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    first = say("owner/name")
    assert first.returncode == 0, first.stderr
    assert "%" not in first.stderr, "no bar if standard error is not a terminal"
    fetched = {path.split("/", 5)[5] for command, path in asked if "/resolve/" in path}
    assert {"config.json", "model.safetensors", "speech_tokenizer/model.safetensors"} <= fetched
    assert not {name for name in fetched if name.endswith((".md", ".bin", ".py")) or name.startswith("onnx")}
    assert ("GET", "/api/models/owner/name/revision/main") in asked
    assert say("owner/name", "--revision", "v1").returncode == 0
    assert ("GET", "/api/models/owner/name/revision/v1") in asked
    nope = say("owner/name", "--revision", "nope")
    assert nope.returncode == 1
    assert "owner/name has no revision 'nope'" in nope.stderr.splitlines()[-1]
    other = say("owner/other")
    assert other.returncode == 1
    assert "or 'demo'" in other.stderr.splitlines()[-1]
    server.shutdown()
    server.server_close()
    (tmp_path / "a.wav").unlink()
    offline = say("owner/name")
    assert offline.returncode == 0, offline.stderr
    assert (tmp_path / "a.wav").exists()
    unknown = say("owner/third")
    assert unknown.returncode == 1
    assert "cannot be reached" in unknown.stderr.splitlines()[-1]
    assert "Traceback" not in unknown.stderr + other.stderr


@pytest.mark.parametrize(
    ("model", "guess"),
    [("Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoic", "did you mean Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice?"),
     ("Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", None), ("owner/Qwen3-TTS-12Hz-0.6B-CustomVoice", None)],
)  # fmt: skip
def test_a_misspelled_model_without_a_network(monkeypatch, model, guess):
    """The nearest released one is named, unless the model is another owner's."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_, **__):
        raise LocalEntryNotFoundError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(DownloadError, match="the hub cannot be reached") as caught:
        Qwen3TTS.from_pretrained(model)
    assert ("did you mean" in str(caught.value)) == (guess is not None)
    assert (guess or "") in str(caught.value)


@pytest.mark.parametrize("revision", ["main", "", " ", 5])
def test_a_revision_requires_a_hub_model(checkpoint, revision):
    for model in ("demo", checkpoint):
        with pytest.raises(RequestError, match="leave revision out"):
            Qwen3TTS.from_pretrained(model, revision=revision)
    if revision != "main":
        with pytest.raises(RequestError, match="revision must be"):
            Qwen3TTS.from_pretrained("owner/name", revision=revision)


def test_released_layout(checkpoint):
    """random_checkpoint.py writes the same files as the hub has, with tensors in PyTorch's layout."""
    found = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert found == {
        "config.json", "generation_config.json", "model.safetensors", "vocab.json", "merges.txt",
        "tokenizer_config.json", "speech_tokenizer/config.json", "speech_tokenizer/model.safetensors",
        "speech_tokenizer/preprocessor_config.json",
    }  # fmt: skip
    with safe_open(checkpoint / "speech_tokenizer" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_slice("decoder.pre_conv.conv.weight").get_shape() == [48, 32, 3]


def test_random_miniature_is_under_10_mb():
    with resolve("demo-random") as directory:
        assert sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) < 10e6
    assert not directory.exists()

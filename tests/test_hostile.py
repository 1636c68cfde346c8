"""Untrusted files: any content gives one of our errors or a working model, quickly and in little memory.

FUZZ=5000 tries 5,000 new cases of each kind. The default is a few fixed cases.
"""

import io
import json
import os
import re
import resource
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings, strategies as st
from safetensors.numpy import save

from mlx_qwen3_tts import AudioError, CheckpointError, Qwen3TTS, Qwen3TTSError, VoiceClonePrompt, VoiceError
from mlx_qwen3_tts.audio.read import check_clip_file, read_audio, resample
from mlx_qwen3_tts.voice import VOICE_FORMAT, VOICE_VERSION, check_clip, checksum
from tests.support import checkpoints, hostile

CASES = int(os.environ.get("FUZZ", "0"))
MAX_SECONDS = 1.0  # CPU time of one case
MAX_BYTES = 256 * 2**20
short = settings(
    max_examples=CASES or 15,
    deadline=None,
    derandomize=not CASES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
tried: dict[str, list[int]] = {}  # cases, and those that ended in an error


def most_memory() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def hostile_case(kind: str, *errors: type[Qwen3TTSError]):
    """Run one case: it may raise only these errors, in one line, and must be quick and need little memory."""
    counts, began, held = tried.setdefault(kind, [0, 0]), time.process_time(), most_memory()
    counts[0] += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            yield
    except errors as error:
        counts[1] += 1
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 1000
    assert time.process_time() - began < MAX_SECONDS
    assert most_memory() - held < MAX_BYTES


@pytest.fixture(scope="module", autouse=True)
def figures():
    """Print the numbers of cases for RELIABILITY.md; pytest -s shows them."""
    yield
    print()
    for kind, (cases, refused) in sorted(tried.items()):
        print(f"fuzz {kind}: {cases} cases, {refused} refused")
    print(f"fuzz: {sum(cases for cases, _ in tried.values())} cases in all")


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return checkpoints.write(tmp_path_factory.mktemp("hostile") / "c", "projected", "base")


@contextmanager
def replaced(path: Path, data: bytes):
    """Replace the content of a file inside the block."""
    kept = path.read_bytes() if path.exists() else None
    path.write_bytes(data)
    try:
        yield
    finally:
        path.unlink() if kept is None else path.write_bytes(kept)


def load(directory: Path) -> None:
    """Load a checkpoint, and synthesize with it if it loads."""
    tts = Qwen3TTS.from_pretrained(directory)
    voice = VoiceClonePrompt(np.zeros(tts.config.talker_config.hidden_size, np.float32))
    tts.synthesize("Hello", voice=voice, seed=1, max_frames=1)


JSON_FILES = [
    "config.json", "generation_config.json", "tokenizer_config.json", "vocab.json", "speech_tokenizer/config.json"
]  # fmt: skip


@pytest.mark.parametrize("name", JSON_FILES)
def test_json(directory, name):
    @short
    @given(hostile.json_files((directory / name).read_bytes()))
    @example(b"")
    @example(b"\xef\xbb\xbf{}")
    @example(b'{"a":' * 100_000)
    @example(b"1" * 100_000)
    def run(data):
        with replaced(directory / name, data), hostile_case(name, Qwen3TTSError):
            load(directory)

    run()


HUGE = 2**24
SIZES = [
    ("config.json", "talker_config", {"num_attention_heads": HUGE, "num_key_value_heads": HUGE, "head_dim": 256}),
    ("config.json", "speaker_encoder_config", {
        "enc_res2net_scale": 2**22, "enc_channels": [32, *[2**22] * 3, 3 * 2**22]
    }),
    ("config.json", "speaker_encoder_config", {
        "enc_channels": [32, *[8] * 5000, 40000], "enc_kernel_sizes": [3] * 5002, "enc_dilations": [1] * 5002
    }),
    ("speech_tokenizer/config.json", "decoder_config", {"sliding_window": HUGE}),
    ("speech_tokenizer/config.json", "encoder_config", {"compress": 1000}),
    ("speech_tokenizer/config.json", "encoder_config", {"upsampling_ratios": [8, 6, 5, 4, *[1] * 60]}),
    ("speech_tokenizer/config.json", "encoder_config", {"num_filters": HUGE}),
]  # fmt: skip


@pytest.mark.parametrize("name, part, values", SIZES)
def test_sizes_that_multiply(directory, name, part, values):
    """Values that are valid one by one, but too large together, or that leave a width of 0."""
    config = json.loads((directory / name).read_bytes())
    data = json.dumps(config | {part: config[part] | values}).encode()
    with replaced(directory / name, data), hostile_case(name, CheckpointError), pytest.raises(CheckpointError):
        load(directory)


def test_non_unicode_tokens(directory):
    vocab = json.loads((directory / "vocab.json").read_bytes()) | {"\ud800": 300}
    with (
        replaced(directory / "vocab.json", json.dumps(vocab).encode()),
        pytest.raises(CheckpointError, match="Unicode"),
    ):
        load(directory)


@pytest.mark.parametrize("name", [*JSON_FILES, "merges.txt"])
def test_checkpoint_files_that_are_not_regular(directory, tmp_path, name):
    """A pipe would block, and a device or a file of gigabytes would fill the memory."""
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "long", "wb") as file:
        file.truncate(2**40)
    path = directory / name
    kept = path.rename(tmp_path / "kept")
    try:
        for target in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, tmp_path / "long"):
            path.symlink_to(target)
            with hostile_case(name, CheckpointError), pytest.raises(CheckpointError):
                load(directory)
            path.unlink()
    finally:
        kept.rename(path)


def test_a_shard_that_is_a_pipe(directory):
    weights = directory / "model.safetensors"
    hidden, pipe = weights.rename(directory / "hidden"), directory / "model-1.safetensors"
    os.mkfifo(pipe)
    try:
        with (
            replaced(directory / "model.safetensors.index.json", b'{"weight_map": {"a": "model-1.safetensors"}}'),
            pytest.raises(CheckpointError, match="not a regular file"),
        ):
            load(directory)
    finally:
        pipe.unlink()
        hidden.rename(weights)


def test_merges(directory):
    @short
    @given(hostile.damaged((directory / "merges.txt").read_bytes()))
    @example("Ġ h\n".encode() * 100_000)
    @example(b"\xff")
    @example(b"a  b")
    @example(b"h e\r\n")
    def run(data):
        with replaced(directory / "merges.txt", data), hostile_case("merges.txt", CheckpointError):
            load(directory)

    run()


@pytest.mark.parametrize("name", ["model.safetensors", "speech_tokenizer/model.safetensors"])
def test_weights(directory, name):
    @short
    @given(hostile.safetensors_files((directory / name).read_bytes()))
    def run(data):
        with replaced(directory / name, data), hostile_case(name, Qwen3TTSError):
            load(directory)

    run()


def test_index_of_shards(directory):
    """An index may name only files next to it."""
    weights = directory / "model.safetensors"
    hidden = weights.rename(directory / "hidden")
    index = b'{"metadata": {"total_size": 5}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'

    @short
    @given(hostile.json_files(index))
    @example(b'{"weight_map": {"a": "..", "b": "."}}')
    @example(b'{"weight_map": {"a": "\\u0000"}}')
    @example(b'{"weight_map": {"a": "/dev/zero"}}')
    def run(data):
        path = directory / "model.safetensors.index.json"
        with replaced(path, data), hostile_case(path.name, CheckpointError), pytest.raises(CheckpointError) as raised:
            load(directory)
        assert not re.search(r"passwd|/dev/", str(raised.value).split(" is ")[0])

    try:
        run()
    finally:
        hidden.rename(weights)


VOICE = {"speaker_embedding": np.zeros(32, np.float32), "ref_codes": np.zeros((3, 16), np.int32)}
ABOUT = {"format": VOICE_FORMAT, "version": str(VOICE_VERSION), "ref_text": "hello", "provenance": '{"model": "x"}'}


def use_voice(path: Path, data: bytes, tts: Qwen3TTS) -> None:
    with replaced(path, data), hostile_case("voice files", Qwen3TTSError):
        voice = VoiceClonePrompt.load(path)
        tts.synthesize("Hello", voice=voice, seed=1, max_frames=1)


@pytest.fixture(scope="module")
def base(directory) -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(directory)


def test_damaged_voice_files(tmp_path, base):
    @short
    @given(hostile.safetensors_files(save(VOICE, ABOUT | {"sha256": checksum(VOICE, ABOUT)})))
    def run(data):
        use_voice(tmp_path / "voice.safetensors", data, base)

    run()


def test_forged_voice_files(tmp_path, base):
    """With a correct checksum: any tensors and any metadata."""
    dtypes = st.sampled_from([np.float32, np.int32, np.float64, np.int64, np.uint8, np.bool_, np.float16])
    shapes = st.lists(st.integers(0, 40), max_size=4) | st.sampled_from([[32], [3, 16], [0, 16], [3, 15], [3000, 16]])
    numbers = st.sampled_from([0, 1, -1, 5, 2**31 - 1, 1e30, np.nan, np.inf])
    tensor = st.tuples(shapes, dtypes, numbers)
    names = st.sampled_from(["speaker_embedding", "ref_codes", "../x", ""])
    words = st.dictionaries(st.sampled_from(["version", "ref_text", "provenance"]), hostile.TEXTS, max_size=2)

    @short
    @given(st.dictionaries(names, tensor, max_size=3), words)
    @example({}, {"provenance": "[" * 100_000})
    @example({"ref_codes": ([300_000, 16], np.int32, 0)}, {})
    def run(changes, about):
        tensors = dict(VOICE)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tensors |= {name: np.full(shape, number).astype(kind) for name, (shape, kind, number) in changes.items()}
        about = {key: value.encode("utf-8", "replace").decode() for key, value in (ABOUT | about).items()}
        data = save(tensors, about | {"sha256": checksum(tensors, about)})
        use_voice(tmp_path / "voice.safetensors", data, base)

    run()


def sound(container: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    wave = np.sin(np.arange(8000) / 20).astype(np.float32)
    soundfile.write(buffer, np.stack([wave, -wave], 1), 16000, format=container, subtype=subtype)
    return buffer.getvalue()


SOUNDS = {
    "wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"),
    "mp3": ("MP3", "MPEG_LAYER_III"), "aiff": ("AIFF", "PCM_16"), "au": ("AU", "PCM_16"),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUNDS)
def test_audio_files(tmp_path, name):
    path = tmp_path / f"clip.{name}"

    @short
    @given(hostile.damaged(sound(*SOUNDS[name])))
    def run(data):
        path.write_bytes(data)
        with hostile_case("audio files", AudioError):
            check_clip_file(path, 120)
            audio, rate = read_audio(path, 120)
            check_clip(audio, rate, "hello")
            assert np.isfinite(resample(audio, rate, 24000)).all()

    run()


def test_headers_that_claim_hours(tmp_path):
    """A FLAC file of a few bytes that claims the greatest allowed length and eight channels."""
    data = bytearray(sound("FLAC", "PCM_16"))
    rate, channels, bits, samples = 655350, 8, 24, 119 * 655350
    packed = (rate << 44) | ((channels - 1) << 41) | ((bits - 1) << 36) | samples
    data[18:26] = packed.to_bytes(8, "big")
    path = tmp_path / "long.flac"
    path.write_bytes(data)
    with hostile_case("audio files", AudioError):
        read_audio(path, 120)


def test_voices_and_clips_that_are_not_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/null", "/dev/zero", "a\0b"):
        with pytest.raises(VoiceError):
            VoiceClonePrompt.load(path)
        with pytest.raises(AudioError):
            read_audio(path, 120)

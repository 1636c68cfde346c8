"""Check a checkpoint: are its weights the right ones, and does it speak?

    directory ─ load, strictly ─ values ─ fingerprints ─ speech in each mode ─ GPU and CPU ─► Check, Check, ...

Each check passes, fails, or is skipped and says why. The first two show whether the files are whole, the fingerprints
whether this package computes the released model's numbers, the next ones whether it speaks as it should, and the last
ones whether this machine's GPU computes what its CPU does.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..audio.read import Audio
from ..checkpoint.weights import read_header, weight_files
from ..errors import AudioError, Qwen3TTSError, RequestError
from ..result import AudioChunk, SynthesisTiming
from ..tts import Qwen3TTS
from .compare_devices import compare_devices, tf32_is_on
from .fingerprints import KNOWN, Fingerprints, fingerprints
from .machine import describe
from .samples import buzz

TEXT = "Hello, this is a test of the voice. It ends here."
SEED = 7
# The largest difference of samples between a stream and the whole.
STREAM_FLOAT32 = 1e-4  # sums in another order
STREAM_TF32 = 1e-2  # chunks of another size may use other kernels, of which some round factors to 10 bits
FINGERPRINT_TOLERANCE = 1e-4  # means are known to six digits: another order of summing moves the last two
MIN_LOUDNESS = 1e-3  # root mean square of speech
DEVICES = "GPU and CPU"

Clip = tuple[Audio, str | None]  # a reference clip and its transcript


class Check(NamedTuple):
    """One line of the table."""

    name: str
    outcome: str  # "pass", "fail" or "skip"
    detail: str


def verify(
    directory: Path,
    dtype: str | None = None,
    clip: Clip | None = None,
    max_frames: int | None = None,
    known: dict[tuple[str, str], Fingerprints] = KNOWN,
) -> Iterator[Check]:
    """Check a checkpoint directory, one thing after the other. If it cannot be loaded, that is the only check.

    dtype: as in from_pretrained, except for the fingerprints, which are of float32.
    clip: a reference clip and its transcript, for Base models; None takes a synthetic sound.
    max_frames: of each generation; if it is given, whether the speech ends by itself is not checked.
    known: fingerprints by model type and size.
    Raises RequestError for a clip if the model cannot clone, AudioError for one that cannot be used. An invalid dtype
    or max_frames fails the check that meets it.
    """
    try:
        tts = Qwen3TTS.from_pretrained(directory, dtype)
    except Qwen3TTSError as error:
        yield Check("tensors", "fail", str(error))
        return
    try:
        if clip is not None and tts.model_type != "base":
            raise RequestError(f"a reference clip is for Base models; this one is of type {tts.model_type}")
        yield count_tensors(directory)
        yield check_values(tts)
        yield check_fingerprints(directory, tts, known)
        yield from check_speech(tts, clip, max_frames)
        device = tts.engine.worker.device
        own_dtype = str(tts.talker.dtype).removeprefix("mlx.core.")
        needed = float32_bytes(tts)
    finally:
        tts.unload()
    yield from check_devices(directory, device, own_dtype, needed)


def headers(directory: Path) -> dict[str, str]:
    """Return the type of every tensor of a checkpoint, by name."""
    files = [*weight_files(directory), *weight_files(directory / "speech_tokenizer")]
    return {f"{path.parent.name}/{name}": kind for path in files for name, (_, kind) in read_header(path)[0].items()}


def count_tensors(directory: Path) -> Check:
    """Return how many tensors there are. Loading is strict, so their names, shapes and types are right."""
    kinds = headers(directory)
    types = ", ".join(sorted(set(kinds.values())))
    return Check("tensors", "pass", f"{len(kinds)} of the right names and shapes ({types})")


def parameters_of(tts: Qwen3TTS) -> dict[str, mx.array]:
    """Return all parameters of a model, by name."""
    parameters: dict[str, mx.array] = {}
    tree_flatten(tts.network.parameters(), destination=parameters)
    tree_flatten(tts.codec.network.parameters(), destination=parameters, prefix=".speech_tokenizer")
    return parameters


def check_values(tts: Qwen3TTS) -> Check:
    """Check that no weight is NaN or infinite."""
    parameters = parameters_of(tts)
    for name, value in parameters.items():
        if not tts.engine.worker.run(is_finite, value):
            return Check("values", "fail", f"{name} has values that are not finite: download the file again")
    return Check("values", "pass", f"finite, in all {len(parameters)} parameters")


def is_finite(value: mx.array) -> bool:
    """Return whether all values of an array are finite."""
    return not mx.issubdtype(value.dtype, mx.floating) or bool(mx.all(mx.isfinite(value)).item())


def check_fingerprints(directory: Path, tts: Qwen3TTS, known: dict[tuple[str, str], Fingerprints]) -> Check:
    """Check that the weights give the numbers that are known of them."""
    name = "fingerprints"
    wanted = known.get((tts.config.tts_model_type, tts.config.tts_model_size))
    if wanted is None:
        return Check(name, "skip", "none are known of a model of this type and size")
    if any(key.endswith(".scales") for key in headers(directory)):
        return Check(name, "skip", "the known numbers are those of weights that are not quantized")
    if tts.config.talker_config.text_vocab_size != wanted.vocabulary:
        return Check(name, "skip", "the known numbers are those of another vocabulary: this is not a released model")
    found = fingerprints(directory, tts.config, wanted)
    for field, value in vars(wanted).items():
        if field != "vocabulary" and not is_close(getattr(found, field), value):
            detail = f"{field} is {getattr(found, field)}, not {value}: these are not the released weights"
            return Check(name, "fail", detail)
    return Check(name, "pass", ", ".join(field for field, value in vars(wanted).items() if value))


def is_close(found: Sequence, wanted: Sequence) -> bool:
    """Return whether two lists of numbers, or of pairs of numbers, agree."""
    if len(found) != len(wanted):
        return False
    numbers = np.array(found, np.float64)
    return np.allclose(numbers, np.array(wanted, np.float64), rtol=0, atol=FINGERPRINT_TOLERANCE)


def modes(tts: Qwen3TTS, clip: Clip | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each way to speak that the model has: its name, and options of `synthesize`.

    The option "clip" stands for the voice that is cloned from it.
    """
    if tts.model_type == "custom_voice":
        yield "preset voice", {}
        yield "preset voice, interleaved", {"non_streaming_mode": False}
        if tts.config.tts_model_size != "0b6":
            yield "preset voice, instructed", {"instruct": "Speak calmly."}
    elif tts.model_type == "voice_design":
        yield "described voice", {"instruct": "A calm, deep male voice."}
    else:
        audio, text = clip or (buzz(), "hello there, this is the sound of a voice")
        yield "cloned timbre", {"clip": (audio, None)}
        if text is not None:
            yield "cloned in context", {"clip": (audio, text)}


def check_speech(tts: Qwen3TTS, clip: Clip | None, max_frames: int | None) -> Iterator[Check]:
    """Generate a short speech in each mode. Check that it sounds and ends, and that a stream equals it; time it."""
    with suppress(Qwen3TTSError):  # the modes report what is wrong
        tts.warm_up()  # so that the speed does not include the compilation of kernels
    timings: list[SynthesisTiming] = []
    for mode, options in modes(tts, clip):
        options |= {"seed": SEED, "max_frames": max_frames}
        try:
            if "clip" in options:
                options["voice"] = tts.clone_voice(*options.pop("clip"))
            result = tts.synthesize(TEXT, **options)
            chunks = list(tts.stream(TEXT, **options))
        except AudioError:  # the clip cannot be used
            raise
        except Qwen3TTSError as error:
            yield Check(mode, "fail", str(error))
            continue
        loudness = root_mean_square(result.audio)
        sounds = bool(np.isfinite(result.audio).all()) and loudness > MIN_LOUDNESS
        yield outcome(f"{mode}: sounds", sounds, f"{len(result.codes)} frames, {20 * np.log10(loudness + 1e-9):.0f} dB")
        if max_frames is None:
            yield outcome(f"{mode}: ends", result.finish_reason == "stop", f"finish_reason {result.finish_reason}")
        else:
            yield Check(f"{mode}: ends", "skip", "not checked with max_frames")
        equal, detail = difference(result.codes, result.audio, chunks, stream_bar(tts.engine.worker.device))
        yield outcome(f"{mode}: streamed", equal, detail)
        timings.append(chunks[-1].timing)
    if timings:
        yield speed(timings)


def root_mean_square(samples: np.ndarray) -> float:
    """Return the root mean square of samples, 0 if there are none."""
    if not len(samples):
        return 0.0
    return float(np.sqrt(np.mean(np.square(samples))))


def speed(timings: Sequence[SynthesisTiming]) -> Check:
    """Return how fast streams were. It always passes."""
    audio_seconds = max(1e-9, sum(timing.audio_seconds for timing in timings))
    factor = sum(timing.total for timing in timings) / audio_seconds
    first = 1000 * min(timing.first_audio for timing in timings)
    return Check("speed", "pass", f"real-time factor {factor:.2f}, first audio after {first:.0f} ms, on this machine")


def float32_bytes(tts: Qwen3TTS) -> int:
    """Return the memory that a model's weights take as float32; packed weights of quantized layers stay packed."""
    return sum(value.size * 4 for value in parameters_of(tts).values())


def check_devices(directory: Path, device: mx.Device, own_dtype: str, needed: int) -> Iterator[Check]:
    """Compare the GPU with the CPU, stage by stage, in float32 and in the type that the model computes in.

    device: of the model. needed: bytes of a float32 copy of the model.
    """
    if device.type == mx.cpu:
        reason = "the model runs on the CPU" if mx.is_available(mx.gpu) else "there is no GPU"
        yield Check(DEVICES, "skip", f"{reason}: nothing to compare")
        return
    memory = describe(device).memory
    if needed > memory / 2:
        detail = f"float32 takes {needed / 1e9:.1f} GB, over half of the {memory / 1e9:.1f} GB of memory"
        yield Check(DEVICES, "skip", detail)
        return
    tf32 = "on" if tf32_is_on() else "off"
    dtypes = list(dict.fromkeys(("float32", own_dtype)))
    try:
        for found in compare_devices(directory, mx.Device(mx.cpu), device, dtypes):
            types = f"{found.dtype} against float32, TF32 {tf32}"
            detail = f"relative error {found.relative:.1e}, bar {found.bar:g} ({types})"
            yield outcome(f"{DEVICES}: {found.stage}", found.passed, detail)
    except Qwen3TTSError as error:
        yield Check(DEVICES, "fail", str(error))


def stream_bar(device: mx.Device) -> float:
    """Return how far the samples of a stream may be from those of the whole."""
    if device.type == mx.gpu and tf32_is_on():
        return STREAM_TF32
    return STREAM_FLOAT32


def difference(
    codes: np.ndarray, audio: np.ndarray, chunks: Sequence[AudioChunk], bar: float = STREAM_FLOAT32
) -> tuple[bool, str]:
    """Return whether chunks add up to the whole, and how far they are from it."""
    streamed = np.concatenate([chunk.codes for chunk in chunks])
    if streamed.shape != codes.shape or (streamed != codes).any():
        return False, "the codes differ from those generated at once"
    samples = np.concatenate([chunk.audio for chunk in chunks])
    distance = float(np.abs(samples - audio).max(initial=0))
    return distance <= bar, f"the codes are equal, the samples differ by at most {distance:.1e}"


def outcome(name: str, passed: bool, detail: str) -> Check:
    """Return a check that passed or failed."""
    if passed:
        return Check(name, "pass", detail)
    return Check(name, "fail", detail)

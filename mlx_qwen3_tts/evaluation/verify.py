"""Checks a checkpoint: are these the weights that they should be, and do they speak?

    directory ─ load, strictly ─ values ─ fingerprints ─ speech in each mode ─► Check, Check, ...

Each check passes, fails, or is skipped and says why. The first two tell whether the files are whole, the fingerprints
whether the numbers are the released ones as this port computes with them, the rest whether it speaks as it should.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..audio.read import Audio
from ..checkpoint.weights import load_weights, read_header, weight_files
from ..errors import AudioError, Qwen3TTSError, RequestError
from ..models.cache import KVCache
from ..models.network import Network
from ..models.qwen3 import Transformer
from ..tts import Qwen3TTS
from ..turn import TURN

TEXT = "Hello, this is a test of the voice. It ends here."
SEED = 7
CHUNKED = 1e-4  # samples of a stream may lie so far from those of the whole: chunks are summed in another order
CLOSE = 1e-4  # of means that are known to six digits: another order of summing moves the last two
SILENT = 1e-3  # a root mean square below which there is no speech


class Check(NamedTuple):
    """One line of the table."""

    name: str
    outcome: str  # "pass", "fail" or "skip"
    detail: str


@dataclass(frozen=True)
class Fingerprints:
    """What known weights give, in float32; what is empty is not known.

    Text ids go through text embedding, text projection, the layers with causal attention, the last norm and codec_head.
    The code predictor then starts from the last hidden state and the last of the codes.
    """

    vocabulary: int = 151936  # text_vocab_size of the models that have them
    pad: tuple[float, ...] = ()  # how the embedding of tts_pad, projected, begins
    ids: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()  # the likeliest after each id
    layers: tuple[tuple[int, float], ...] = ()  # the mean of the residual stream after these layers of the talker
    residual_codes: tuple[int, ...] = ()  # the likeliest of each of the 15 heads, all at the second position
    predictor_layers: tuple[tuple[int, float], ...] = ()


# By tts_model_type and tts_model_size. Source: the released weights in float32, as tests/reference_validation.rs and
# docs/VALIDATION.md of qwen3-tts-rs assert; `pad` from blog/cross-model-voice-analysis.md of gabriele-mastrapasqua's
# qwen3-tts.
KNOWN = {
    ("base", "0b6"): Fingerprints(
        pad=(0.004777, -0.003806, -0.001696),
        ids=(9707, 11, 419, 374, 264),
        codes=(1501, 1231, 1732, 1353, 963),
        layers=((0, -0.001917), (7, -0.017344), (14, -0.032283), (21, -0.027164), (27, -0.006411)),
        residual_codes=(281, 1899, 1174, 221, 1049, 280, 1863, 1317, 82, 604, 1300, 1030, 342, 165, 1750),
        predictor_layers=((0, 0.045735), (4, 0.051924)),
    ),
    ("custom_voice", "0b6"): Fingerprints(pad=(0.004978, -0.003639, -0.002433)),
}


def verify(
    directory: Path,
    dtype: str | None = None,
    clip: tuple[Audio, str | None] | None = None,
    max_frames: int | None = None,
    known: dict[tuple[str, str], Fingerprints] = KNOWN,
) -> Iterator[Check]:
    """Check a checkpoint directory, one thing after the other; where it cannot be loaded, there is nothing more.

    dtype: as in from_pretrained, for all but the fingerprints, which are of float32.
    clip: a reference clip and its transcript, for Base models; None takes a synthetic sound.
    max_frames: of each generation; whether the speech ends by itself is not looked at then.
    known: fingerprints by model type and size.
    Raises RequestError for a clip where the model cannot clone, AudioError for one that cannot be used; a dtype or
    max_frames that is none fails the check that meets it.
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
    finally:
        tts.unload()


def headers(directory: Path) -> dict[str, str]:
    """Name and type of every tensor of a checkpoint."""
    files = [*weight_files(directory), *weight_files(directory / "speech_tokenizer")]
    return {f"{path.parent.name}/{name}": kind for path in files for name, (_, kind) in read_header(path)[0].items()}


def count_tensors(directory: Path) -> Check:
    """Names, shapes and types of all tensors have passed, as loading is strict: say how many they are."""
    kinds = headers(directory)
    return Check(
        "tensors", "pass", f"{len(kinds)} of the right names and shapes ({', '.join(sorted(set(kinds.values())))})"
    )


def check_values(tts: Qwen3TTS) -> Check:
    """No weight is NaN or infinite."""
    parameters = [*tree_flatten(tts.network.parameters()), *tree_flatten(tts.codec.parameters())]
    for name, value in parameters:
        with TURN:
            finite = not mx.issubdtype(value.dtype, mx.floating) or mx.all(mx.isfinite(value)).item()
        if not finite:
            return Check("values", "fail", f"{name} holds numbers that are not finite: fetch the file again")
    return Check("values", "pass", f"finite, in all {len(parameters)} parameters")


def check_fingerprints(directory: Path, tts: Qwen3TTS, known: dict[tuple[str, str], Fingerprints]) -> Check:
    """The weights give the numbers that are known of them."""
    name = "fingerprints"
    wanted = known.get((tts.config.tts_model_type, tts.config.tts_model_size))
    if wanted is None:
        return Check(name, "skip", "none are known of a model of this type and size")
    if any(key.endswith(".scales") for key in headers(directory)):
        return Check(name, "skip", "quantized weights give other numbers than those known")
    if tts.config.talker_config.text_vocab_size != wanted.vocabulary:
        return Check(name, "skip", "those known are of another vocabulary: this is no released model")
    found = fingerprints(directory, tts, wanted)
    for field, value in vars(wanted).items():
        if field == "vocabulary":
            continue
        got = getattr(found, field)
        if len(got) != len(value) or not np.allclose(
            np.array(got, np.float64), np.array(value, np.float64), rtol=0, atol=CLOSE
        ):
            return Check(name, "fail", f"{field} is {got}, known is {value}: these are not the released weights")
    return Check(name, "pass", ", ".join(field for field, value in vars(wanted).items() if value))


def fingerprints(directory: Path, tts: Qwen3TTS, like: Fingerprints) -> Fingerprints:
    """Those of a checkpoint, for the ids and of the layers of `like`; the weights are read anew, as float32.

    On the CPU: matrix products of some GPUs round float32 to fewer bits.
    """
    with TURN, mx.stream(mx.cpu):
        network = Network(tts.config)
        load_weights(network, directory, mx.float32)
        talker = network.talker
        pad = talker.embed_text([tts.config.tts_pad_token_id])[0, 0, : len(like.pad)].tolist()
        if not like.ids:
            return Fingerprints(like.vocabulary, tuple(pad))
        x, layers = through(talker.model, talker.embed_text(list(like.ids)), like.layers)
        hidden = talker.model.norm(x)
        codes = mx.argmax(talker.codec_head(hidden)[0], axis=-1).tolist()
        predictor = talker.code_predictor
        x = mx.concatenate([hidden[:, -1:], talker.embed_codec([codes[-1] % talker.config.vocab_size])], axis=1)
        if "small_to_mtp_projection" in predictor:
            x = predictor.small_to_mtp_projection(x)
        x, predictor_layers = through(predictor.model, x, like.predictor_layers)
        last = predictor.model.norm(x)[0, -1]
        residual = [mx.argmax(head(last)).item() for head in predictor.lm_head]
        return Fingerprints(
            like.vocabulary, tuple(pad), like.ids, tuple(codes), layers, tuple(residual), predictor_layers
        )


def through(
    model: Transformer, x: mx.array, wanted: tuple[tuple[int, float], ...]
) -> tuple[mx.array, tuple[tuple[int, float], ...]]:
    """Run x [1, time, hidden] through a model's layers; also its mean after those that are wanted."""
    means, rotation, rows = [], model.rotation(0, x.shape[1]), x[0]
    for i, layer in enumerate(model.layers):
        rows = layer(rows, KVCache(), rotation)
        if i in dict(wanted):
            means.append((i, mx.mean(rows).item()))
    return rows[None], tuple(means)


def modes(tts: Qwen3TTS, clip: tuple[Audio, str | None] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each way to speak that the model has, as options of `synthesize`, with a clip to clone in place of its voice."""
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


def buzz() -> tuple[np.ndarray, int]:
    """Three seconds of a sound like a voice: 120 Hz and its overtones, in syllables."""
    time = np.arange(3 * 24000) / 24000
    tone = sum(np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 20))
    return (0.1 * tone * (0.6 - 0.4 * np.cos(2 * np.pi * 4 * time))).astype(np.float32), 24000


def check_speech(tts: Qwen3TTS, clip: tuple[Audio, str | None] | None, max_frames: int | None) -> Iterator[Check]:
    """A short generation in each mode: it sounds, it ends, a stream equals it; and how fast that was."""
    speeds = []
    for mode, options in modes(tts, clip):
        options |= {"seed": SEED, "max_frames": max_frames}
        try:
            if "clip" in options:
                options["voice"] = tts.clone_voice(*options.pop("clip"))
            result = tts.synthesize(TEXT, **options)
            chunks = list(tts.stream(TEXT, **options))
        except AudioError:  # it is the clip that cannot be used
            raise
        except Qwen3TTSError as error:
            yield Check(mode, "fail", str(error))
            continue
        loudness = float(np.sqrt(np.mean(np.square(result.audio)))) if len(result.audio) else 0.0
        sounds = np.isfinite(result.audio).all() and loudness > SILENT
        yield outcome(f"{mode}: sounds", sounds, f"{len(result.codes)} frames, {20 * np.log10(loudness + 1e-9):.0f} dB")
        if max_frames is None:
            yield outcome(f"{mode}: ends", result.finish_reason == "stop", f"finish_reason {result.finish_reason}")
        else:
            yield Check(f"{mode}: ends", "skip", "not looked at within --max-frames")
        equal, detail = difference(result.codes, result.audio, chunks)
        yield outcome(f"{mode}: streamed", equal, detail)
        speeds.append(chunks[-1].timing)
    if speeds:
        factor = sum(t.total for t in speeds) / max(1e-9, sum(t.audio_seconds for t in speeds))
        first = 1000 * min(t.first_audio for t in speeds)
        yield Check(
            "speed", "pass", f"real-time factor {factor:.2f}, first audio after {first:.0f} ms, on this machine"
        )


def difference(codes: np.ndarray, audio: np.ndarray, chunks: list[Any]) -> tuple[bool, str]:
    """Whether chunks add up to the whole, and how far they are from it."""
    streamed = np.concatenate([chunk.codes for chunk in chunks])
    if streamed.shape != codes.shape or (streamed != codes).any():
        return False, "other codes than at once"
    apart = float(np.abs(np.concatenate([chunk.audio for chunk in chunks]) - audio).max(initial=0))
    return apart <= CHUNKED, f"the same codes as at once, samples within {apart:.1e}"


def outcome(name: str, passed: bool, detail: str) -> Check:
    """A check that passed or failed."""
    return Check(name, "pass" if passed else "fail", detail)

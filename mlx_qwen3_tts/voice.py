"""A cloned voice: what a reference clip becomes, and the small file that keeps it.

    clip ─ mel ─ speaker encoder ─ speaker embedding [hidden] ─┐
         └ codec encoder ─ reference codes [frames, 16] ───────┼─ VoiceClonePrompt ─ me.safetensors
    transcript ─ reference text ───────────────────────────────┘

Without a transcript there are no codes: the embedding alone carries the voice (the official x_vector_only_mode).
Source: VoiceClonePromptItem and Qwen3TTSModel.create_voice_clone_prompt.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import VoiceError
from .files import write_whole
from .text.unicode import is_unicode

FORMAT = "mlx_qwen3_tts.voice"
VERSION = 1  # of the file format; a newer one is refused
MAX_SECONDS = 120.0  # of a clip, unless more is asked for
MAX_FILE = 64 * 2**20  # bytes; a voice of two minutes takes some 100 kB


@dataclass(frozen=True, eq=False)
class VoiceClonePrompt:
    """A voice to pass as `voice` to a Base model of the width it was made with.

    Raises VoiceError for arrays of another shape or type, numbers that are not finite, codes without text or text
    without codes.
    """

    speaker_embedding: np.ndarray  # float32 [hidden]
    ref_codes: np.ndarray | None = None  # int32 [frames, 16]; None: the embedding alone
    ref_text: str | None = None  # what the clip says; None: the embedding alone
    provenance: dict[str, str] = field(default_factory=dict)  # model, clip, seconds, ... as clone_voice knew them
    warnings: tuple[str, ...] = ()  # what clone_voice found odd about the clip; not kept in the file

    def __post_init__(self) -> None:
        embedding, codes, text = self.speaker_embedding, self.ref_codes, self.ref_text
        if not _is_array(embedding, "f", 1) or not np.isfinite(embedding).all():
            raise VoiceError("speaker_embedding must be finite floats of shape [hidden]")
        if codes is not None and not _is_array(codes, "iu", 2):
            raise VoiceError("ref_codes must be integers of shape [frames, 16]")
        if (codes is None) != (text is None):
            raise VoiceError("ref_codes and ref_text go together: give both, or neither")
        if text is not None and not (isinstance(text, str) and is_unicode(text)):
            raise VoiceError("ref_text must be what the clip says, as Unicode text")

    def save(self, path: str | os.PathLike) -> None:
        """Write the voice to a safetensors file. Raises VoiceError."""
        tensors = {"speaker_embedding": np.ascontiguousarray(self.speaker_embedding, np.float32)}
        if self.ref_codes is not None:
            tensors["ref_codes"] = np.ascontiguousarray(self.ref_codes, np.int32)
        about = {"format": FORMAT, "version": str(VERSION), "provenance": json.dumps(self.provenance)}
        if self.ref_text is not None:
            about["ref_text"] = self.ref_text
        about["sha256"] = _digest(tensors, about)
        try:
            write_whole(Path(path), save(tensors, about))
        except (OSError, ValueError) as error:
            raise VoiceError(f"cannot write the voice {path}: {getattr(error, 'strerror', None) or error}") from None

    @classmethod
    def load(cls, path: str | os.PathLike) -> "VoiceClonePrompt":
        """Read a voice; nothing in the file is executed.

        Raises VoiceError for a file that is absent, damaged, edited, of a newer version, or no voice at all.
        """
        path = Path(os.path.expanduser(path))
        try:
            if path.is_dir():
                raise VoiceError(f"{path} is a directory, not a voice file")
            if path.exists() and not path.is_file():  # a pipe would be waited for, and /dev/zero has no end
                raise VoiceError(f"{path} is no file that a voice could be in")
            if path.stat().st_size > MAX_FILE:
                raise VoiceError(f"{path} is too large for a voice file")
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise VoiceError(f"{path} does not exist") from None
        except (OSError, SafetensorError, TypeError, ValueError, KeyError) as error:
            raise VoiceError(f"{path} is damaged or no voice file ({' '.join(str(error).split())[:100]})") from None
        _check_file(path, tensors, about)
        provenance = _provenance(path, about)
        try:
            return cls(tensors["speaker_embedding"], tensors.get("ref_codes"), about.get("ref_text"), provenance)
        except VoiceError:
            raise VoiceError(f"{path} does not hold what a voice file must; make the voice again") from None


def _is_array(value: object, kinds: str, ndim: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.ndim == ndim


def _digest(tensors: dict[str, np.ndarray], about: dict[str, str]) -> str:
    """A checksum over all that a file says."""
    digest = hashlib.sha256(json.dumps({k: v for k, v in about.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _provenance(path: Path, about: dict[str, str]) -> dict[str, str]:
    try:
        provenance = json.loads(about.get("provenance", ""))
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict) or not all(isinstance(value, str) for value in provenance.values()):
        raise VoiceError(f"{path} does not hold what a voice file must; make the voice again")
    return provenance


def _check_file(path: Path, tensors: dict[str, np.ndarray], about: dict[str, str]) -> None:
    if about.get("format") != FORMAT:
        raise VoiceError(f"{path} is no voice file; make one with `mlx-qwen3-tts clone`")
    if about.get("version") != str(VERSION):
        raise VoiceError(
            f"{path} has version {about.get('version')} of the voice format, this package reads {VERSION}: update it"
        )
    if about.get("sha256") != _digest(tensors, about):
        raise VoiceError(f"{path} was changed or damaged since it was made; make the voice again")
    embedding, codes = tensors.get("speaker_embedding"), tensors.get("ref_codes")
    names = {"speaker_embedding"} | ({"ref_codes"} if codes is not None else set())
    whole = (
        set(tensors) == names
        and embedding is not None and embedding.dtype == np.float32
        and (codes is None or codes.dtype == np.int32)
    )  # fmt: skip
    if not whole:
        raise VoiceError(f"{path} does not hold what a voice file must; make the voice again")


def check_clip(audio: np.ndarray, rate: int, text: str | None) -> tuple[str, ...]:
    """What may spoil a voice cloned from `audio` [samples] at `rate`, in words; empty where nothing looks odd."""
    seconds, peak = len(audio) / rate, float(np.abs(audio).max())
    found = []
    if seconds < 1:
        found.append(f"the clip is {seconds:.2f} s long; 3 to 15 s of speech carry a voice better")
    if seconds > 30:
        found.append(f"the clip is {seconds:.0f} s long; beyond some 15 s it slows every request and adds little")
    if peak < 1e-3:
        found.append("the clip is silent or nearly so")
    if np.mean(np.abs(audio) >= 0.999 * max(peak, 1)) > 1e-3:
        found.append("the clip is clipped: many samples are at full scale")
    if text is not None:
        speed = len("".join(text.split())) / seconds
        if speed > 35:
            found.append(f"the transcript is too long for the clip ({speed:.0f} characters a second)")
        if speed < 1 and seconds > 2:
            found.append(f"the transcript is too short for the clip ({speed:.1f} characters a second)")
    return tuple(found)

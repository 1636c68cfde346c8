"""Cloned voices: what a reference clip becomes, and the file that holds it.

    clip ─ mel ─ speaker encoder ─ speaker embedding [hidden] ─┐
         └ codec encoder ─ reference codes [frames, 16] ───────┼─ VoiceClonePrompt ─ me.safetensors
    transcript ─ reference text ───────────────────────────────┘

Without a transcript there are no codes, and the embedding alone carries the voice (the official x_vector_only_mode).
Source: VoiceClonePromptItem and Qwen3TTSModel.create_voice_clone_prompt.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .errors import VoiceError
from .files import write_file
from .text.unicode import is_unicode

VOICE_FORMAT = "mlx_qwen3_tts.voice"
VOICE_VERSION = 1  # the version of the file format; a newer one is refused
MAX_SECONDS = 120.0  # default limit of a clip
MAX_FILE_SIZE = 64 * 2**20  # bytes; a voice of two minutes takes some 100 kB


@dataclass(frozen=True, eq=False)
class VoiceClonePrompt:
    """A cloned voice, to pass as `voice` to a Base model of the width that it was made with.

    Raises VoiceError for arrays of a wrong shape or type, values that are not finite, codes without text, and text
    without codes.
    """

    speaker_embedding: np.ndarray  # float32 [hidden]
    ref_codes: np.ndarray | None = None  # int32 [frames, 16]; None if only the embedding is used
    ref_text: str | None = None  # the transcript of the clip; None if only the embedding is used
    provenance: dict[str, str] = field(default_factory=dict)  # model, clip, seconds, ... from clone_voice
    warnings: tuple[str, ...] = ()  # about the clip, from clone_voice; not saved

    def __post_init__(self) -> None:
        embedding = self.speaker_embedding
        if not _is_array(embedding, "f", 1) or not np.isfinite(embedding).all():
            raise VoiceError("speaker_embedding must be finite floats of shape [hidden]")
        if self.ref_codes is not None and not _is_array(self.ref_codes, "iu", 2):
            raise VoiceError("ref_codes must be integers of shape [frames, 16]")
        if (self.ref_codes is None) != (self.ref_text is None):
            raise VoiceError("ref_codes and ref_text go together: give both, or neither")
        if self.ref_text is not None and not (isinstance(self.ref_text, str) and is_unicode(self.ref_text)):
            raise VoiceError("ref_text must be the transcript of the clip, a string of valid Unicode")

    def save(self, path: str | os.PathLike, replace: bool = True) -> None:
        """Write the voice to a safetensors file. Raises VoiceError.

        replace: False raises VoiceError if there is a file of that name already.
        """
        tensors = {"speaker_embedding": np.ascontiguousarray(self.speaker_embedding, np.float32)}
        if self.ref_codes is not None:
            tensors["ref_codes"] = np.ascontiguousarray(self.ref_codes, np.int32)
        metadata = {
            "format": VOICE_FORMAT,
            "version": str(VOICE_VERSION),
            "provenance": json.dumps(self.provenance),
        }
        if self.ref_text is not None:
            metadata["ref_text"] = self.ref_text
        metadata["sha256"] = checksum(tensors, metadata)
        try:
            write_file(Path(path), save(tensors, metadata), replace)
        except FileExistsError:
            raise VoiceError(f"there is a voice {path} already; replace=True replaces it", "replace") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VoiceError(f"cannot write the voice {path}: {reason}") from None

    @classmethod
    def load(cls, path: str | os.PathLike) -> "VoiceClonePrompt":
        """Read a voice from a file, which executes nothing.

        Raises VoiceError for a file that is missing, damaged, edited, of a newer version, or not a voice.
        """
        path = Path(os.path.expanduser(path))
        tensors, metadata = _read_file(path)
        _check_file(path, tensors, metadata)
        provenance = _read_provenance(path, metadata)
        try:
            return cls(tensors["speaker_embedding"], tensors.get("ref_codes"), metadata.get("ref_text"), provenance)
        except VoiceError:
            raise _invalid_content(path) from None


def _is_array(value: object, kinds: str, ndim: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in kinds and value.ndim == ndim


def checksum(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """Return the SHA-256 of everything in a voice file, as its metadata holds it."""
    signed = {key: value for key, value in metadata.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(signed, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()


def _read_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file. Raises VoiceError."""
    try:
        if path.is_dir():
            raise VoiceError(f"{path} is a directory, not a voice file")
        if path.exists() and not path.is_file():  # a pipe would block, and /dev/zero has no end
            raise VoiceError(f"{path} is not a regular file")
        if path.stat().st_size > MAX_FILE_SIZE:
            raise VoiceError(f"{path} is too large for a voice file")
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except FileNotFoundError:
        raise VoiceError(f"{path} does not exist") from None
    except (OSError, SafetensorError, TypeError, ValueError, KeyError) as error:
        raise VoiceError(f"{path} is damaged or not a voice file ({' '.join(str(error).split())[:100]})") from None


def _invalid_content(path: Path) -> VoiceError:
    return VoiceError(f"{path} does not hold the content of a voice file; clone the voice again")


def _check_file(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Raise VoiceError for a safetensors file that is not a valid voice file."""
    if metadata.get("format") != VOICE_FORMAT:
        raise VoiceError(f"{path} is not a voice file; make one with clone_voice", "clone_voice")
    version = metadata.get("version")
    if version != str(VOICE_VERSION):
        raise VoiceError(
            f"{path} has version {version} of the voice format, this package reads {VOICE_VERSION}: update it"
        )
    if metadata.get("sha256") != checksum(tensors, metadata):
        raise VoiceError(f"{path} was changed or damaged after it was made; clone the voice again")
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    embedding_only = {"speaker_embedding": np.dtype(np.float32)}
    if dtypes not in (embedding_only, embedding_only | {"ref_codes": np.dtype(np.int32)}):
        raise _invalid_content(path)


def _read_provenance(path: Path, metadata: dict[str, str]) -> dict[str, str]:
    try:
        provenance: Any = json.loads(metadata.get("provenance", ""))
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict) or not all(isinstance(value, str) for value in provenance.values()):
        raise _invalid_content(path)
    return provenance


def check_clip(audio: np.ndarray, rate: int, text: str | None) -> tuple[str, ...]:
    """Return warnings about a clip [samples] that may spoil the voice cloned from it. text: its transcript."""
    seconds = len(audio) / rate
    peak = float(np.abs(audio).max())
    warnings = []
    if seconds < 1:
        warnings.append(f"the clip is {seconds:.2f} s long; 3 to 15 s of speech give a better voice")
    if seconds > 30:
        warnings.append(f"the clip is {seconds:.0f} s long; beyond some 15 s it slows every request and adds little")
    if peak < 1e-3:
        warnings.append("the clip is silent or nearly so")
    if np.mean(np.abs(audio) >= 0.999 * max(peak, 1)) > 1e-3:
        warnings.append("the clip is clipped: many samples are at full scale")
    if text is not None:
        speed = len("".join(text.split())) / seconds
        if speed > 35:
            warnings.append(f"the transcript is too long for the clip ({speed:.0f} characters per second)")
        if speed < 1 and seconds > 2:
            warnings.append(f"the transcript is too short for the clip ({speed:.1f} characters per second)")
    return tuple(warnings)

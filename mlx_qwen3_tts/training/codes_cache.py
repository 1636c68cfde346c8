"""The codes of clips, made once.

    bytes of an audio file ─┐
                            ├─ SHA-256 ─ .codes/KEY.safetensors ─ codes [frames, 16]
    the codec's fingerprint ┘            else codec.encode, and the file is written

Each file is complete or absent, so that an interrupted run goes on where it ended. A clip that has changed, and another
codec, have another key.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mlx.utils import tree_flatten
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..codec.codec import Codec
from ..errors import TrainingError
from ..files import write_file

FOLDER = ".codes"
READ_BLOCK = 2**20  # bytes


def cache_beside(source: Path) -> Path:
    """Return where the codes of a source are kept: .codes in the folder, or in the folder of the file."""
    source = source.expanduser()
    return (source if source.is_dir() else source.parent) / FOLDER


class CodesCache:
    """Encodes clips, and keeps their codes in a folder."""

    def __init__(self, folder: Path | None, codec: Codec, fingerprint: str) -> None:
        """folder: None keeps nothing. fingerprint: of the codec; see codec_fingerprint."""
        self.folder = folder
        self.codec = codec
        self.fingerprint = fingerprint

    def encode(self, audio: Path, samples: np.ndarray) -> np.ndarray:
        """Return the codes of a file, int32 [frames, 16]. samples: what it holds, float32 at the codec's rate.

        Raises TrainingError if the codes cannot be written, OSError if the file cannot be read.
        """
        if self.folder is None:
            return self.codec.encode(samples, self.codec.sample_rate)
        path = self.folder / f"{self._key(audio)}.safetensors"
        codes = _read(path)
        if codes is None or not self._is_valid(codes, len(samples)):
            codes = self.codec.encode(samples, self.codec.sample_rate)
            _write(path, codes)
        return codes

    def _is_valid(self, codes: np.ndarray, length: int) -> bool:
        """Return whether codes from a file can be those of a clip of `length` samples."""
        config = self.codec.config
        frames = -(-length // config.encode_downsample_rate)
        if codes.dtype != np.int32 or codes.shape != (frames, self.codec.num_quantizers):
            return False
        return bool(0 <= codes.min() <= codes.max() < config.decoder_config.codebook_size)

    def _key(self, audio: Path) -> str:
        digest = hashlib.sha256(self.fingerprint.encode())
        with audio.open("rb") as file:
            while block := file.read(READ_BLOCK):
                digest.update(block)
        return digest.hexdigest()[:40]


def codec_fingerprint(codec: Codec) -> str:
    """Return a hash of a codec's configuration and of its encoder's first and last convolution. On the MLX thread.

    All weights would take a second to read, and these differ whenever the encoder was trained again.
    """
    digest = hashlib.sha256(json.dumps(asdict(codec.config), sort_keys=True).encode())
    encoder = codec.network.encoder
    for layer in (encoder.encoder.layers[0], encoder.downsample):
        for name, weight in dict(tree_flatten(layer.parameters())).items():
            digest.update(f"{name} {weight.shape}".encode())
            digest.update(np.array(weight).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> np.ndarray | None:
    """Return the codes of a file; None if it is missing or damaged."""
    try:
        return load_file(path)["codes"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _write(path: Path, codes: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, save({"codes": np.ascontiguousarray(codes)}))
    except OSError as error:
        raise TrainingError(
            f"cannot write the codes to {path.parent} ({error.strerror}): free some space, or choose another folder "
            "with cache",
            "cache",
        ) from None

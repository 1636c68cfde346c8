"""What shapes a model's sound, as short strings: its weights and settings, and a voice.

weights ─ sums of their bits along rows and columns, on the model's device ─┐
config.json ────────────────────────────────────────────────────────────────┴─ SHA-256

The fingerprint is of the weights as they are loaded, so that a conversion, another type, an adapter or another revision
of a hub model is another model, and a copy in another folder is the same.
"""

import hashlib
import json
from dataclasses import asdict

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..capabilities import default_speaker, speaker_name
from ..tts import Qwen3TTS
from ..voice import VoiceClonePrompt

BITS = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}  # unsigned integers by their size in bytes


def model_fingerprint(tts: Qwen3TTS) -> str:
    """Return what is equal for models that speak alike: 32 hexadecimal digits. It reads all weights once."""
    digest = hashlib.sha256(json.dumps(asdict(tts.config), sort_keys=True).encode())
    for network in (tts.network, tts.codec.network):
        for name, sums in tts.engine.worker.run(_sums, network):
            digest.update(name.encode())
            digest.update(sums)
    return digest.hexdigest()[:32]


def _sums(network: nn.Module) -> list[tuple[str, bytes]]:
    """Return name, shape and type of each weight, and the sums of its bits. On the MLX thread."""
    found = []
    for name, weight in sorted(dict(tree_flatten(network.parameters())).items()):
        bits = mx.flatten(weight).view(BITS[weight.dtype.size])
        columns = max([1, *weight.shape[-1:]])  # a scalar has no axis
        rows = bits.reshape(-1, columns)
        sums = [np.array(mx.sum(rows, axis=axis)).tobytes() for axis in (0, 1)]
        found.append((f"{name} {weight.shape} {weight.dtype}", b"".join(sums)))
    mx.clear_cache()
    return found


def voice_fingerprint(tts: Qwen3TTS, voice: str | VoiceClonePrompt | None) -> str:
    """Return what is equal for voices that sound alike: a preset voice's name, or the SHA-256 of a cloned voice."""
    if voice is None:
        return default_speaker(tts.config) or ""
    if isinstance(voice, str):
        return speaker_name(voice, tts.config)
    digest = hashlib.sha256(np.ascontiguousarray(voice.speaker_embedding, np.float32).tobytes())
    if voice.ref_codes is not None:
        digest.update(np.ascontiguousarray(voice.ref_codes, np.int32).tobytes())
        digest.update((voice.ref_text or "").encode())
    return digest.hexdigest()

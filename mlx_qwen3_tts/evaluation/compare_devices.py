"""Compare two devices on one checkpoint, stage by stage: the same inputs, and the distance of the outputs.

    ids ─ prompt ─ talker: the prompt, then a step ─ code predictor: a frame        codes ─ codec decoder
    a synthetic clip ─ codec encoder                its mel spectrogram ─ speaker encoder

Each stage starts from the first device's output of the stage before it, so that an error shows in its own stage. The
codes are fixed, not sampled: a choice between two nearly equal logits would change everything after it.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from ..audio.mel import mel_spectrogram
from ..checkpoint.load import load_directory
from ..generation.engine import Engine
from ..generation.prompt import Prompt, embed
from ..mlx_thread import Worker
from ..models.cache import KVCache
from ..models.talker import Talker
from .samples import buzz, sample_request

FRAMES = 3  # number of frames that the codec decodes: a chunk of two, and one of one that continues it
CLIP_SAMPLES = 24000

# Bars: the L2 norm of the difference divided by the L2 norm of the first device's output.
FLOAT32 = 1e-3  # sums in another order, through all layers
TF32 = 2e-2  # matrix products with a 10-bit mantissa: some 1e-3 each, through all layers
HALF = 1e-1  # bfloat16 or float16 against float32, through all layers; measured on the CPU: 2e-2 and 3e-3 at 28 layers

Outputs = dict[str, np.ndarray]  # the outputs of each stage, by its name


class Difference(NamedTuple):
    """The distance of two devices in one stage."""

    stage: str
    dtype: str  # the second device's; the first one computes in float32
    relative: float
    bar: float

    @property
    def passed(self) -> bool:
        """True if the distance is within the bar; false if an output is not finite."""
        return self.relative <= self.bar


def compare_devices(
    directory: Path, first: mx.Device, second: mx.Device, dtypes: Sequence[str] = ("float32",)
) -> Iterator[Difference]:
    """Yield the difference of each stage, for each of `dtypes` on the second device against float32 on the first.

    The codec is always float32 and compared in that pass only.
    One model is in memory at a time. Raises CheckpointError, and GenerationError for a damaged codec.
    """
    reference = run_stages(load(directory, first, "float32"))
    for dtype in dtypes:
        outputs = run_stages(load(directory, second, dtype), reference)
        for difference in differences(reference, outputs, dtype, bar_for(dtype, second)):
            if dtype == "float32" or not difference.stage.startswith("codec"):
                yield difference


def load(directory: Path, device: mx.Device, dtype: str) -> Engine:
    """Load a checkpoint for a device."""
    worker = Worker(device)
    worker.run(mx.clear_cache)  # frees the memory of the model before this one
    return Engine(load_directory(directory, dtype, worker=worker), worker)


def tf32_is_on() -> bool:
    """Return MLX's setting MLX_ENABLE_TF32, which is 1 by default.

    If it is on, GPUs that support TF32 (M5, NVIDIA) round the factors of float32 matrix products to 10 bits.
    """
    return os.environ.get("MLX_ENABLE_TF32", "1") != "0"


def bar_for(dtype: str, device: mx.Device) -> float:
    """Return how far a device that computes in `dtype` may be from float32 on the CPU."""
    if dtype != "float32":
        return HALF
    if device.type == mx.gpu and tf32_is_on():
        return TF32
    return FLOAT32


def differences(reference: Outputs, outputs: Outputs, dtype: str, bar: float) -> Iterator[Difference]:
    """Yield the difference of each stage of two runs."""
    for stage, expected in reference.items():
        norm = max(float(np.linalg.norm(expected)), np.finfo(np.float32).tiny)
        distance = float(np.linalg.norm(outputs[stage] - expected))
        yield Difference(stage, dtype, distance / norm, bar)


def run_stages(engine: Engine, reference: Outputs | None = None) -> Outputs:
    """Run every stage of a checkpoint on fixed inputs; return the outputs, float32.

    reference: outputs of another device that the stages start from; None starts from those of this run.
    """
    outputs: Outputs = {}
    inputs = outputs if reference is None else reference
    run = engine.worker.run
    prompt = engine.prompts.build(sample_request(engine.config))
    codes = fixed_codes(engine)
    outputs["prompt"] = run(embed_prompt, engine.talker, prompt)
    outputs |= run(run_talker, engine, inputs["prompt"], codes[0])
    outputs["code predictor"] = run(predict_frame, engine.talker, inputs["talker hidden state"], codes[0])
    outputs["codec decoder"] = run(decode_chunks, engine, codes)
    samples = buzz()[0][:CLIP_SAMPLES]
    outputs["codec encoder"] = run(encode_clip, engine, samples)
    speaker_config = engine.config.speaker_encoder_config
    if "speaker_encoder" in engine.network and speaker_config is not None:
        mel = mel_spectrogram(samples, speaker_config.mel_dim)
        outputs["speaker encoder"] = run(engine.embed_speaker, mel)
    return outputs


def fixed_codes(engine: Engine) -> np.ndarray:
    """Return codes that both the talker and the codec know, int32 [FRAMES, 16]."""
    config = engine.config.talker_config
    size = min(config.num_codes, config.code_predictor_config.vocab_size)
    return np.random.RandomState(0).randint(0, size, (FRAMES, config.num_code_groups)).astype(np.int32)


def embed_prompt(talker: Talker, prompt: Prompt) -> np.ndarray:
    """Return the embeddings of a prompt [1, positions, hidden]."""
    return _to_numpy(embed(talker, prompt, 0, len(prompt)))


def run_talker(engine: Engine, embeddings: np.ndarray, frame: np.ndarray) -> Outputs:
    """Run the talker over the embeddings of a prompt [1, positions, hidden], then one step of the frame loop."""
    talker = engine.talker
    caches = [KVCache() for _ in talker.model.layers]
    hidden, logits = talker(mx.array(embeddings).astype(talker.dtype), caches)
    outputs = {"talker hidden state": _to_numpy(hidden), "talker logits": _to_numpy(logits)}
    pad = engine.config.tts_pad_token_id
    frame_embedding = talker.embed_frames(mx.array(frame)[None])
    text = engine.functions.embed_text([pad], pad)
    for cache in caches:
        cache.reserve(1)
    buffers = [cache.buffer for cache in caches]
    _, logits, _ = engine.functions.step(frame_embedding, text, buffers, np.array([embeddings.shape[1]]))
    outputs["talker step"] = _to_numpy(logits)
    return outputs


def predict_frame(talker: Talker, hidden: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return the logits of codebooks 1..15 of a given frame, [15, codes], in the steps of the frame loop."""
    rows: list[mx.array] = []

    def choose(g: int, logits: mx.array) -> mx.array:
        rows.append(logits)
        return mx.array(frame[g + 1 : g + 2])

    code0 = talker.model.codec_embedding(mx.array(frame[:1]))
    talker.code_predictor(mx.array(hidden).astype(talker.dtype), code0, choose)
    return _to_numpy(mx.concatenate(rows))


def decode_chunks(engine: Engine, codes: np.ndarray) -> np.ndarray:
    """Decode codes [FRAMES, 16] as a stream does: all frames but one, then the last from the decoder's state."""
    first, state = engine.codec.decode_next(codes[:-1])
    second, _ = engine.codec.decode_next(codes[-1:], state)
    return np.concatenate([first, second])


def encode_clip(engine: Engine, samples: np.ndarray) -> np.ndarray:
    """Return what the encoder quantizes, [1, frames, hidden]. The codes themselves would flip at ties."""
    encoder = engine.codec.network.encoder
    features, _ = encoder.features(mx.array(samples)[None])
    return _to_numpy(encoder.downsample(encoder.encoder_transformer(features))[0])


def _to_numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))

"""Access to parts of a model's engine on the MLX thread."""

import mlx.core as mx
import numpy as np

from mlx_qwen3_tts import Qwen3TTS, Sampling
from mlx_qwen3_tts.generation.batch import Batch, Outcome, Row
from mlx_qwen3_tts.generation.engine import finish
from mlx_qwen3_tts.generation.frames import FrameFunctions
from mlx_qwen3_tts.generation.prompt import embed
from mlx_qwen3_tts.models.cache import KVCache
from mlx_qwen3_tts.request import Request

HAS_GPU = mx.metal.is_available() or mx.cuda.is_available()


def on_mlx_thread(tts: Qwen3TTS, function, *args):
    """Run `function` on the MLX thread, which owns the model's arrays, and return its result."""
    return tts.engine.worker.run(function, *args)


def embeddings_of(tts: Qwen3TTS, prompt) -> np.ndarray:
    """Return a prompt's embeddings [positions, hidden]."""
    return on_mlx_thread(tts, lambda: np.array(embed(tts.talker, prompt, 0, len(prompt)).astype(mx.float32))[0])


def text_at(tts: Qwen3TTS, prompt) -> np.ndarray:
    """Return the text embedding that is fed to the next frame [1, hidden]."""
    return on_mlx_thread(tts, lambda: np.array(tts.talker.embed_text(mx.array(prompt.feed.take())).astype(mx.float32)))


class Frames:
    """Generates the frames of one request. Use it on the MLX thread."""

    def __init__(self, tts: Qwen3TTS, text: str, limit: int) -> None:
        engine = tts.engine
        prompt = engine.prompts.build(Request(text))
        self._batch = Batch(engine.functions, engine.config)
        self._row = Row(prompt.feed, Sampling().resolve(tts.generation_config), limit, len(prompt))
        self._batch.join(self._row, finish(engine.prefill(prompt, seed=1)))

    def next(self) -> Outcome:
        """Generate the next frame."""
        return self._batch.finish(self._batch.begin([self._row]))[0]


class SlowStep:
    """Makes a talker's step take a few tenths of a second on the device by sorting three million numbers."""

    def __init__(self, functions: FrameFunctions) -> None:
        self.step = functions.step
        self.numbers = mx.random.uniform(shape=(3_000_000,), key=mx.random.key(0))
        mx.eval(self.numbers)

    def __call__(self, *args, **kwargs):
        hidden, logits, buffers = self.step(*args, **kwargs)
        nothing = 0 * mx.sort(self.numbers)[0]
        return hidden + nothing, logits + nothing, buffers


def forced_logits(tts, prompt, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return teacher-forced logits [frames + 1, vocab] and [frames, 15, codes] for the frames [frames, 16]."""
    return on_mlx_thread(tts, force, tts.talker, prompt, codes)


def force(talker, prompt, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    caches = [KVCache() for _ in talker.model.layers]
    hidden, logits = talker(embed(talker, prompt, 0, len(prompt)), caches)
    rows, residual_rows = [logits[0]], []
    for row in mx.array(codes):
        steps = []

        def choose(g, logits, row=row, steps=steps):
            steps.append(logits[0])
            return row[g + 1 : g + 2]

        code0 = talker.model.codec_embedding(row[:1])
        residual, total = talker.code_predictor(hidden, code0, choose)
        assert (mx.concatenate(residual) == row[1:]).all()
        assert mx.allclose(total, talker.embed_frames(row[None]), rtol=0, atol=1e-5)
        text = talker.embed_text(mx.array(prompt.feed.take()))
        hidden, logits = talker((total + text)[:, None], caches)
        rows.append(logits[0])
        residual_rows.append(mx.stack(steps))
        mx.eval(rows, residual_rows)
    return np.array(mx.stack(rows)), np.array(mx.stack(residual_rows))

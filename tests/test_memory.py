"""Memory stays close to what is needed, also under the rules of Metal's allocator, which the CPU does not have.

MLX caches freed buffers. On Metal the cache may grow to nearly all of the memory, and a cached buffer serves a request
for `size` bytes only if it has less than twice that and less than two pages more (mlx/backend/common/buffer_cache.h).
On the CPU few buffers are cached, so that nothing can pile up. These tests therefore drive a model of Metal's allocator
with the package's real allocations and clears.
"""

import gc
import weakref
from collections import defaultdict

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlx_qwen3_tts import GenerationError, Qwen3TTS
from mlx_qwen3_tts.codec import layers
from mlx_qwen3_tts.codec.codec import CodecNetwork
from mlx_qwen3_tts.codec.decoder import CodecDecoder
from mlx_qwen3_tts.config.codec import CodecConfig
from mlx_qwen3_tts.config.schema import from_dict
from mlx_qwen3_tts.generation import state
from mlx_qwen3_tts.models.talker import NO_CODE
from tests.support import checkpoints
from tests.support.engine import on_mlx_thread

PAGE = 16384  # bytes, of Apple Silicon
FULL_SIZE = 28 * 2 * 8 * 128 * 2  # bytes of all keys and values of a position in the 0.6B and 1.7B models, bfloat16
LAYERS = 2  # of the miniature; each one stands for 14
SLACK = 2000  # bytes: constants of a new trace, and the samples of a chunk that an error's traceback references
MB = 10**6


@pytest.fixture(scope="module")
def tts(tmp_path_factory) -> Qwen3TTS:
    return Qwen3TTS.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("memory") / "c", "projected"))


class MetalAllocator:
    """What MLX's allocator holds on Metal, in bytes."""

    def __init__(self) -> None:
        self.in_use = 0
        self.free: list[int] = []
        self.peak = 0

    @property
    def footprint(self) -> int:
        return self.in_use + sum(self.free)

    def allocate(self, size: int) -> int:
        """Return the size of the buffer that serves a request."""
        size = -(-size // PAGE) * PAGE
        fitting = [kept for kept in self.free if size <= kept < min(2 * size, size + 2 * PAGE)]
        if fitting:
            size = min(fitting)
            self.free.remove(size)
        self.in_use += size
        self.peak = max(self.peak, self.footprint)
        return size

    def release(self, size: int) -> None:
        self.in_use -= size
        self.free.append(size)


class WatchedBuffers:
    """Drives a MetalAllocator with the real buffers of prompts and batches, scaled to the size of a released model."""

    def __init__(self, monkeypatch, clears: bool = True) -> None:
        """clears: False ignores calls of mx.clear_cache."""
        self.allocator = MetalAllocator()
        self.positions = 0  # the largest capacity
        self._replaced: list[int] = []  # sizes of buffers that are freed when their replacements are evaluated
        evaluate, clear_cache = mx.eval, mx.clear_cache
        with_capacity, make_state = state.with_capacity, state.DecodeState.__init__

        def eval_(*arrays) -> None:
            evaluate(*arrays)
            self._release_replaced()

        def clear() -> None:
            clear_cache()
            self._release_replaced()
            if clears:
                self.allocator.free.clear()

        def grown(buffer: mx.array, capacity: int) -> mx.array:
            self._replaced.append(self._sizes_of[buffer.shape[3]].pop())
            self._allocate(capacity)
            return with_capacity(buffer, capacity)

        def made(decode_state, *args, **arrays) -> None:
            """Take the buffers over from the caches of the prompt, and free what they have become at the end."""
            make_state(decode_state, *args, **arrays)
            for buffer in decode_state.buffers:
                self._allocate(buffer.shape[3])
            weakref.finalize(decode_state, self._free_all)

        self._sizes_of: dict[int, list[int]] = defaultdict(list)  # sizes of the buffers in use, by their capacity
        monkeypatch.setattr(mx, "eval", eval_)
        monkeypatch.setattr(mx, "clear_cache", clear)
        monkeypatch.setattr(state, "with_capacity", grown)
        monkeypatch.setattr(state.DecodeState, "__init__", made)

    def _allocate(self, capacity: int) -> None:
        self.positions = max(self.positions, capacity)
        self._sizes_of[capacity].append(self.allocator.allocate(capacity * FULL_SIZE // LAYERS))

    def _release_replaced(self) -> None:
        while self._replaced:
            self.allocator.release(self._replaced.pop())

    def _free_all(self) -> None:
        for sizes in self._sizes_of.values():
            while sizes:
                self.allocator.release(sizes.pop())


def without_computing(tts: Qwen3TTS, monkeypatch) -> None:
    """Generate frames of zeros: the loop and its caches are real, the arithmetic is skipped."""
    codes = mx.zeros((1, 16), mx.int32)
    mx.eval(codes)
    silence = np.zeros(tts.codec.samples_per_frame, np.float32)

    def frame(hidden, logits, seen, keys, may_end, options):
        return codes, hidden, seen, keys

    def step(embedding, text, buffers, positions):
        return embedding, embedding, buffers

    def decode(codes, state=None):
        return lambda: np.tile(silence, len(codes)), state

    monkeypatch.setattr(tts.engine.functions, "frame", frame)
    monkeypatch.setattr(tts.engine.functions, "step", step)
    monkeypatch.setattr(tts.codec, "decode_async", decode)


def speak(tts: Qwen3TTS, frames: int) -> None:
    assert len(tts.synthesize("Hello", seed=1, max_frames=frames, stop_runaway=False).codes) == frames
    on_mlx_thread(tts, lambda: None)  # waits until the request is cleaned up


@pytest.mark.parametrize("frames", [250, 1000, 2000, 4000])
def test_freed_keys_and_values_do_not_pile_up(tts, monkeypatch, frames):
    """The footprint is that of the buffers in use, plus one layer's old buffer while they grow."""
    without_computing(tts, monkeypatch)
    watched = WatchedBuffers(monkeypatch)
    allocator = watched.allocator
    speak(tts, frames)
    in_use = watched.positions * FULL_SIZE
    print(f"{frames} frames: {in_use / MB:.0f} MB in use, {allocator.peak / MB:.0f} MB at most")
    assert frames < watched.positions < 2.1 * max(frames, 256)
    assert allocator.peak <= in_use * (1 + 0.5 / LAYERS) + PAGE
    assert allocator.footprint == 0
    peak = allocator.peak
    for _ in range(2):
        speak(tts, frames)
    assert allocator.peak == peak


def test_buffers_pile_up_if_nothing_is_cleared(tts, monkeypatch):
    """The allocator model shows the difference: growth in steps of 256 took five times as much."""
    without_computing(tts, monkeypatch)
    monkeypatch.setattr("mlx_qwen3_tts.generation.state.capacity_for", lambda positions: -(-positions // 256) * 256)
    watched = WatchedBuffers(monkeypatch, clears=False)
    speak(tts, 2000)
    in_use = watched.positions * FULL_SIZE
    print(f"2000 frames: {in_use / MB:.0f} MB in use, {watched.allocator.peak / MB:.0f} MB at most")
    assert watched.allocator.peak > 4 * in_use


def finish(tts: Qwen3TTS) -> None:
    tts.synthesize("Hello", seed=1, max_frames=5)


def close(tts: Qwen3TTS) -> None:
    stream = tts.stream("Hello", seed=1)
    next(stream)
    next(stream)
    stream.close()


def drop(tts: Qwen3TTS) -> None:
    stream = tts.stream("Hello", seed=1)
    next(stream)
    del stream
    gc.collect()


def fail(tts: Qwen3TTS) -> Exception:
    """Fail in the third frame, and keep the error."""
    frame, calls = tts.engine.functions.frame, []

    def failing(*args):
        calls.append(args[0].shape)
        codes, *rest = frame(*args)
        return mx.full(codes.shape, NO_CODE) if len(calls) == 3 else codes, *rest

    tts.engine.functions.frame = failing
    try:
        with pytest.raises(GenerationError) as raised:
            list(tts.stream("Hello", seed=1))
    finally:
        del tts.engine.functions.frame
    return raised.value


def fail_in_the_text(tts: Qwen3TTS) -> Exception:
    def pieces():
        yield "Hello world "
        raise OSError("the line is dead")

    with pytest.raises(OSError) as raised:
        list(tts.stream(pieces(), seed=1))
    return raised.value


@pytest.mark.parametrize("request_", [finish, close, drop, fail, fail_in_the_text])
def test_nothing_is_left_of_a_request(tts, monkeypatch, request_):
    """However it ends, its memory is freed, also while its error is kept, and MLX caches none of it."""
    finish(tts)  # compiles
    on_mlx_thread(tts, mx.clear_cache)
    before = mx.get_active_memory()
    watched = WatchedBuffers(monkeypatch)
    error = request_(tts)
    on_mlx_thread(tts, lambda: None)  # waits until the request is cleaned up
    assert watched.allocator.peak > 0
    assert watched.allocator.footprint == 0, error
    assert mx.get_cache_memory() == 0
    assert mx.get_active_memory() < before + SLACK


def test_closing_waits_for_a_running_step(tts, spy):
    """The step was queued ahead; on a GPU its memory would otherwise be freed only after the request has ended."""
    calls = spy(mx, "synchronize")
    spy(mx, "clear_cache", calls)
    close(tts)
    on_mlx_thread(tts, lambda: None)
    names = [name for name, _ in calls]
    assert "clear_cache" in names[names.index("synchronize") :]


def test_nothing_is_kept_after_loading(tts):
    other = Qwen3TTS.from_pretrained(tts.name)
    assert mx.get_cache_memory() == 0, other


def random_decoder(gpu: bool, monkeypatch) -> CodecDecoder:
    """A narrow decoder of the released rates, with the layers of either device."""
    if gpu:
        monkeypatch.setattr(layers.CausalConv1d, "fused", lambda layer: layer)
    codec = checkpoints.configs("equal")[1]
    codec["decoder_config"] |= {"decoder_dim": 64}
    decoder = CodecNetwork(from_dict(CodecConfig, codec, "config.json")).decoder
    decoder.update(tree_map(lambda old: mx.random.uniform(-0.1, 0.1, old.shape), decoder.parameters()))
    decoder.fuse()
    mx.eval(decoder.parameters())
    return decoder


@pytest.mark.parametrize("gpu, frames", [(False, 1), (False, 4), (False, 8), (True, 4)])
def test_a_codec_state_holds_what_it_needs(monkeypatch, gpu, frames):
    """It holds no view of a chunk's last inputs, which would keep all intermediate results of the chunk."""
    decoder = random_decoder(gpu, monkeypatch)
    decode = mx.compile(lambda codes, state: decoder(codes, state))
    state = None
    before = mx.get_active_memory()
    for _ in range(2):
        wave, state = decode(mx.zeros((1, frames, 16), mx.int32), state)
        mx.eval(wave, state)
        del wave
    arrays = [array for _, array in tree_flatten(state) if isinstance(array, mx.array)]
    needed = sum(array.nbytes for array in arrays)
    held = mx.get_active_memory() - before
    print(f"chunks of {frames}: {needed} bytes needed, {held} held")
    assert held <= needed + PAGE * len(arrays), "mx.contiguous itself may keep up to that much"

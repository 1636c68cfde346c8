"""A request becomes chunks of audio: frames are collected, decoded, and given out as they are made.

    prompt ─ prefill ─ frames, a few at a time ─ codec ─ guard against runaways ─► AudioChunk, AudioChunk, ...

The only way to speech: what is not streamed is these chunks, put together.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..codec.layers import State
from ..result import AudioChunk
from ..text.feed import TextIds
from ..turn import TURN
from ..voice import VoiceClonePrompt
from .frames import Ahead, generate_frames, prefill
from .prompt import Prompt, Request
from .runaway import Guard, frame_budget
from .sampling import Sampling
from .timer import Clock

if TYPE_CHECKING:
    from ..tts import Qwen3TTS


class Begun(NamedTuple):
    """A request whose prompt has been run."""

    text: TextIds
    limit: int  # frames
    frames: Ahead
    state: State  # of the codec's decoder


def stream_chunks(
    tts: "Qwen3TTS",
    request: Request,
    start: Prompt | None,
    sampling: Sampling,
    seed: int,
    chunk_frames: Sequence[int],
    clock: Clock,
) -> Iterator[AudioChunk]:
    """Yield the chunks of a request that `prompt.check` has passed.

    start: its prompt, None where its text is still being written. sampling: without None. chunk_frames: see
    Qwen3TTS.stream. clock: has counted the prompt. Raises GenerationError and what the text's source raises, after the
    audio so far.
    """
    clock.resume()
    text, limit, frames, state = _begin(tts, request, start, sampling, seed, clock)
    clock.lap("prefill")
    guard = Guard() if request.stop_runaway else None
    made, given, reason = 0, 0, None
    sizes = chain(chunk_frames, repeat(chunk_frames[-1]))
    while not reason:
        waited = text.waited
        with TURN:
            codes, reason, error = _next_codes(frames, next(sizes), text, tts.codec.num_quantizers)
            over = [text.over_before(made + i) for i in range(len(codes))]
            room = count_in_budget(request, text, made, over)
            codes, reason = codes[:room], "length" if room < len(codes) else reason
            wait_for_audio, state = tts.codec.queue_next(codes, state)
            if made and not reason and text.ready:
                frames.look()  # decoded while the next frame is made; but the first chunk must be out at once
            clock.skip(text.waited - waited)
            clock.lap("generation")
            audio = wait_for_audio()
        clock.lap("decode")
        made += len(codes)
        reason = "length" if made == limit else reason
        if guard:
            codes, audio, reason = guard.admit(codes, audio, over, reason)
        given += len(codes)
        if len(codes) or (reason and reason != "error"):
            yield AudioChunk(
                audio=audio,
                codes=codes,
                sample_rate=tts.sample_rate,
                seed=seed,
                is_final=bool(reason) and reason != "error",
                finish_reason=None if reason == "error" else reason,
                text_ran_dry=not (reason or text.ready),
                timing=clock.timing(given, given * tts.codec.samples_per_frame / tts.sample_rate),
            )
        if reason == "error":
            raise error
        clock.resume()


def _begin(
    tts: "Qwen3TTS", request: Request, start: Prompt | None, sampling: Sampling, seed: int, clock: Clock
) -> Begun:
    """Run the prompt, and for in-context cloning the reference's codes: the speech continues the reference's audio."""
    with TURN:
        start = start or tts._prompts.build(request)
        clock.skip(start.text.waited)
        limit = _frame_limit(tts, request, start)
        after = prefill(tts.talker, start, tts._prefixes)
        frames = Ahead(generate_frames(tts.talker, tts._functions, sampling, start, after, seed, limit))
        reference = request.voice.ref_codes if isinstance(request.voice, VoiceClonePrompt) else None
        state = tts.codec.prime(reference) if reference is not None else None
        return Begun(start.text, limit, frames, state)


def _next_codes(
    frames: Iterator[np.ndarray], size: int, text: TextIds, num_quantizers: int
) -> tuple[np.ndarray, str | None, Exception | None]:
    """The next `size` frames [frames, 16], fewer where the text must be waited for: what is there is not held back.

    Returns also why the speech has ended, if so: "stop", or "error" and an error (of the text's source, say): the
    audio before it is still given out.
    """
    codes, reason, error = [], None, None
    while len(codes) < size and (text.ready or not codes) and not reason:
        try:
            frame = next(frames, None)
        except Exception as raised:  # noqa: BLE001  (the caller raises it again, after the audio so far)
            reason, error = "error", raised
        else:
            reason = "stop" if frame is None else None
            codes += [frame] if frame is not None else []
    return np.array(codes, np.int32).reshape(-1, num_quantizers), reason, error


def _frame_limit(tts: "Qwen3TTS", request: Request, start: Prompt) -> int:
    """The most frames that a request may take, whatever its text."""
    # The official max_new_tokens counts one more: its last code is never completed to a frame.
    limit = int(request.max_frames or tts.generation_config.max_new_tokens - 1)
    return min(limit, tts.config.talker_config.max_position_embeddings - start.embeddings.shape[1])


def count_in_budget(request: Request, text: TextIds, made: int, over: list[bool]) -> int:
    """How many of the frames after the first `made` the text's budget has room for.

    over: for each whether all of the text was there before it; until then its length, and so the budget, are not known.
    """
    if request.max_frames is not None or not request.stop_runaway:
        return len(over)
    budget = frame_budget(text.length, request.frames_per_token)
    return sum(made + i < budget or not late for i, late in enumerate(over))

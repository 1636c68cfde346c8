"""Two texts in an asyncio program: each chunk is awaited in a thread, so that the event loop stays free.

usage: python examples/asyncio_stream.py [MODEL]
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from mlx_qwen3_tts import AudioChunk, Qwen3TTS


async def speak(tts: Qwen3TTS, text: str, seed: int) -> AsyncIterator[AudioChunk]:
    """Yield the chunks of a text; the requests that are under way share one batch."""
    stream = tts.stream(text, seed=seed)
    chunk = None
    while chunk is None or not chunk.is_final:
        step = asyncio.ensure_future(asyncio.to_thread(next, stream, None))
        try:
            chunk = await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])  # a thread cannot be cancelled
            stream.close()
            raise
        yield chunk


async def collect(tts: Qwen3TTS, name: str, text: str, seed: int) -> None:
    async for chunk in speak(tts, text, seed):
        print(f"{name}: {chunk.timing.audio_seconds:.2f} s", "complete" if chunk.is_final else "")


async def main() -> None:
    tts = await asyncio.to_thread(Qwen3TTS.from_pretrained, *(sys.argv[1:] or ["demo"]))
    await asyncio.gather(collect(tts, "A", "It is twenty past seven.", 1), collect(tts, "B", "It is ten past nine.", 2))


if __name__ == "__main__":
    asyncio.run(main())

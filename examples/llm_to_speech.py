"""A local language model speaks as it thinks: its text is spoken while it is still being written.

usage: python examples/llm_to_speech.py "a question" [LANGUAGE_MODEL] [SPEECH_MODEL]

Needs mlx-lm (pip install mlx-lm). Without a speech model the built-in demo speaks, which knows only times and numbers.
"""

import sys
from collections.abc import Iterator

from mlx_qwen3_tts import CHUNK_FRAMES, Player, Qwen3TTS, open_device


def think(question: str, name: str) -> Iterator[str]:
    """What the language model answers, piece by piece."""
    from mlx_lm import load, stream_generate

    model, tokenizer = load(name)
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    for part in stream_generate(model, tokenizer, prompt, max_tokens=400):
        print(part.text, end="", flush=True)
        yield part.text


question, *names = sys.argv[1:]
tts = Qwen3TTS.from_pretrained(names[1] if len(names) > 1 else "demo")
player = Player(tts.sample_rate, open_device(), [0.08 * frames for frames in CHUNK_FRAMES])
work = 0.0
try:
    for chunk in tts.stream(think(question, names[0] if names else "mlx-community/Qwen3-0.6B-4bit")):
        player.write(chunk.audio, chunk.timing.total - work, pause=chunk.text_ran_dry)
        work = chunk.timing.total
    player.drain()
except KeyboardInterrupt:
    player.abort()

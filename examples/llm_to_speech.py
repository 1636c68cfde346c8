"""A local language model speaks as it thinks: its text is spoken while it is still being written.

usage: python examples/llm_to_speech.py "a question" [LANGUAGE_MODEL] [SPEECH_MODEL]

Needs mlx-lm (pip install mlx-lm). Without a speech model the built-in miniature speaks, which babbles.
"""

import sys
from collections.abc import Iterator

from mlx_qwen3_tts import PlaybackError, Qwen3TTS
from mlx_qwen3_tts.audio import AudioWriter
from mlx_qwen3_tts.model import CHUNK_FRAMES
from mlx_qwen3_tts.player import Player, open_device


def think(question: str, name: str) -> Iterator[str]:
    """What the language model answers, piece by piece."""
    from mlx_lm import load, stream_generate

    model, tokenizer = load(name)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
    for part in stream_generate(model, tokenizer, prompt, max_tokens=400):
        print(part.text, end="", flush=True)
        yield part.text


question, *names = sys.argv[1:]
tts = Qwen3TTS.from_pretrained(names[1] if len(names) > 1 else "demo")
try:
    out = Player(tts.sample_rate, open_device(), [0.08 * frames for frames in CHUNK_FRAMES])
    finish = out.drain
except PlaybackError:  # no loudspeaker here
    out = AudioWriter("answer.wav", tts.sample_rate)
    finish = out.close
for chunk in tts.stream(think(question, names[0] if names else "mlx-community/Qwen3-0.6B-4bit"), max_frames=1500):
    out.write(chunk.audio)
finish()

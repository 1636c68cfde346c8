"""Speak several texts side by side, each with its own voice and seed, and write each as soon as it is complete.

usage: python examples/batch.py [MODEL]
"""

import sys

import numpy as np

from mlx_qwen3_tts import Qwen3TTS, Request, SynthesisResult

tts = Qwen3TTS.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice")
texts = ["It is three o'clock.", "One two three.", "Four five six seven.", "It is half past nine."]
requests = [
    Request(text, voice=tts.speakers[i % len(tts.speakers)], language="english", seed=i) for i, text in enumerate(texts)
]

# All at once: results in order, each the one that the request has alone.
results = tts.synthesize_batch(requests)
print([f"{result.timing.audio_seconds:.2f} s" for result in results])

# As the audio is generated: (index, chunk) of whichever request has one.
chunks = {i: [] for i in range(len(requests))}
for index, chunk in tts.stream_batch(requests, batch_size=4):
    chunks[index].append(chunk)
    if chunk.is_final:
        result = SynthesisResult.from_chunks(chunks[index])
        result.save(f"batch-{index}.wav")
        print(f"batch-{index}.wav: {texts[index]}")
        assert np.array_equal(result.codes, results[index].codes)

"""Quantize a checkpoint and see what it costs.

usage: python examples/convert_and_compare.py MODEL OUT [RECIPE]

MODEL: a hub id or a directory, CustomVoice or VoiceDesign; OUT: a directory to write. See `mlx-qwen3-tts convert
--recipe list`. MODEL may be `demo`, the built-in miniature that knows times and numbers.
"""

import sys

from mlx_qwen3_tts import Qwen3TTS, convert, evaluate

model, out, *recipe = sys.argv[1:]
done = convert(model, out, recipe=recipe[0] if recipe else "mixed-4", progress=True)
for part in done.parts:
    print(f"{part.name:<25} {part.before / 1e6:8.1f} MB -> {part.after / 1e6:8.1f} MB   {part.stored}")

found = evaluate(out, model, ["This is a sentence that both of them say."], max_frames=50)
for codebook, (agreement, kl) in enumerate(zip(found.agreement, found.kl, strict=True)):
    print(f"codebook {codebook:2}: {agreement:.0%} of the likeliest codes agree, KL {kl:.4f} nats")
print(f"{done.before / 1e9:.2f} GB -> {done.after / 1e9:.2f} GB; {found.mel_distance:.2f} dB apart")

tts = Qwen3TTS.from_pretrained(out)  # it loads as any other
print(f"{tts.model_type}, {len(tts.speakers)} preset voices")

"""Clone a voice from a clip and speak with it.

usage: python examples/clone_voice.py CLIP "what the clip says" "what to say" [MODEL]

MODEL: a Base checkpoint; without one the built-in miniature, which babbles.
"""

import sys

from mlx_qwen3_tts import Qwen3TTS, VoiceClonePrompt

clip, transcript, text, *model = sys.argv[1:]
tts = Qwen3TTS.from_pretrained(model[0] if model else "demo-base")

tts.clone_voice(clip, transcript).save("voice.safetensors")  # once; the file is all that is needed from here on
voice = VoiceClonePrompt.load("voice.safetensors")

result = tts.synthesize(text, voice=voice, seed=1, max_frames=100)
result.save("cloned.wav")
print(f"cloned.wav: {result.timing.audio_seconds:.1f} s in the voice of {clip}")

#!/bin/sh
# An environment of its own with the official package, for comparison. usage: setup.sh DIRECTORY
# About 2 GB; PYTHON names the interpreter. torch is pinned to a release that the official code was run with here.
set -eu
directory=$1
${PYTHON:-python3} -m venv "$directory"
install() { "$directory/bin/python" -m pip --disable-pip-version-check install --quiet "$@"; }
# torch before the rest, so that nothing asks for another. On Linux, PIP_EXTRA_INDEX_URL may name an index of CPU builds.
install "torch==${TORCH_VERSION:-2.13.0}"
install "transformers==4.57.3" accelerate librosa soundfile einops onnxruntime sox safetensors
install --no-deps "qwen-tts==0.1.1"
# The package imports torchaudio for its other codec (25 Hz), which is not used here: empty modules stand in for it.
packages=$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
if [ ! -d "$packages/torchaudio" ]; then
  mkdir -p "$packages/torchaudio/compliance"
  printf '__version__ = "0"\n' > "$packages/torchaudio/__init__.py"
  : > "$packages/torchaudio/compliance/__init__.py"
  : > "$packages/torchaudio/compliance/kaldi.py"
fi
"$directory/bin/python" -c 'import qwen_tts' 2> /dev/null

"""Make golden data with mlx-audio's own converter: checkpoints as the mlx-community repositories hold them.

usage: PYTHONPATH=. python tests/reference/golden_mlx_audio.py tests/golden

Needs mlx-audio 0.6.2 and this package's own dependencies, in an environment of its own. Writes
    mlx-audio-4bit.safetensors   the weights that `--quantize --q-bits 4` makes of a CustomVoice miniature
    mlx-audio.json               its config.json; and of an unquantized Base one every tensor's shape, type and CRC
"""

import json
import shutil
import sys
import tempfile
import zlib
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
from mlx_audio.convert import convert

from tests.support import checkpoints

mx.set_default_device(mx.cpu)


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        checkpoints.write_wide(work / "custom", "custom_voice", "bfloat16")
        checkpoints.write_wide(work / "base", "base", "bfloat16")
        convert(str(work / "custom"), str(work / "quantized"), quantize=True, q_bits=4, model_domain="tts")
        convert(str(work / "base"), str(work / "plain"), model_domain="tts")
        shutil.copyfile(work / "quantized" / "model.safetensors", out / "mlx-audio-4bit.safetensors")
        tensors = mx.load(str(work / "plain" / "model.safetensors"))
        about = {
            "mlx-audio": version("mlx-audio"),
            "config": json.loads((work / "quantized" / "config.json").read_text()),
            "base": {
                name: [tensor.shape, str(tensor.dtype), zlib.crc32(memoryview(mx.contiguous(tensor).view(mx.uint8)))]
                for name, tensor in sorted(tensors.items())
            },
            "speech_tokenizer": sorted(path.name for path in (work / "plain" / "speech_tokenizer").iterdir()),
            "files": sorted(path.name for path in (work / "plain").iterdir()),
        }
    (out / "mlx-audio.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

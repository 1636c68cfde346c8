"""Compare with mlx-audio: the same random checkpoint, prompt and number of frames, in alternating runs (A B A B).

    python3 -m venv peer && peer/bin/pip install mlx-audio 'mlx[cpu]'
    python -m benchmarks.compare --peer peer/bin/python --size tiny

Each run uses a new process. A time per frame is the difference between a long and a short run in the same process, so
that loading, the prompt and the first frame's compilation cancel out. Only public methods of both packages are called.
While the peer's generation is timed, its codec returns silence; the codec is timed separately.
"""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).parents[1]
SIZES = ("tiny", "0.6B", "1.7B")
CHUNK = 4  # frames that the codec decodes at a time
TEXT, VOICE = "Hello world", "ada"


def write_checkpoint(directory: Path, size: str, dtype: str) -> None:
    """Write random weights: the released depths, with the widths of the miniature or of a released model.

    The codec has the released size, except for `tiny`, and is float32. The text vocabulary is small, because no frame
    reads all of it.
    """
    import mlx.core as mx

    from mlx_qwen3_tts.demo.random_checkpoint import CODEC, MODEL, write_checkpoint
    from tests.support import released

    model, codec = copy.deepcopy(MODEL), copy.deepcopy(CODEC)
    talker = model["talker_config"]
    predictor = talker["code_predictor_config"]
    if size == "tiny":
        talker |= {"num_hidden_layers": 28}
        predictor |= {"num_hidden_layers": 5, "layer_types": ["full_attention"] * 5, "hidden_size": 64}
    else:
        model, codec = released.config(f"{size}-CustomVoice"), copy.deepcopy(released.CODEC)
        model["talker_config"] |= {"text_vocab_size": 512, "spk_id": {VOICE: 3000}, "spk_is_dialect": {VOICE: False}}
    write_checkpoint(directory, model, codec, seed=1)
    path = directory / "model.safetensors"
    tensors = mx.load(str(path))
    tensors["talker.codec_head.weight"][model["talker_config"]["codec_eos_token_id"]] = 0  # it never ends
    tensors = {name: value.astype(getattr(mx, dtype)) for name, value in tensors.items()}
    mx.eval(tensors)  # before its source is overwritten
    mx.save_safetensors(str(path), tensors, {"format": "pt"})


def milliseconds(run, frames: int) -> float:  # noqa: ANN001
    """Return the milliseconds per frame of `run(frames)`, without the start-up cost of a run."""
    short = max(CHUNK, frames // 5 // CHUNK * CHUNK)
    run(short)
    began = time.perf_counter()
    run(short)
    middle = time.perf_counter()
    run(frames)
    return 1000 * ((time.perf_counter() - middle) - (middle - began)) / (frames - short)


def ours(checkpoint: str, frames: int, part: str) -> float:
    from mlx_qwen3_tts import Qwen3TTS

    tts = Qwen3TTS.from_pretrained(checkpoint)
    if part == "frames":
        leave_out_the_codec(tts)
        return milliseconds(
            lambda n: tts.synthesize(TEXT, VOICE, "english", seed=1, max_frames=n, stop_runaway=False), frames
        )
    if part.startswith("batch"):
        from mlx_qwen3_tts import Request

        leave_out_the_codec(tts)
        rows = int(part.removeprefix("batch-"))

        def generate(count: int) -> None:
            requests = [
                Request(TEXT, VOICE, "english", seed=i, max_frames=count, stop_runaway=False) for i in range(rows)
            ]
            results = tts.synthesize_batch(requests, batch_size=rows)
            assert [len(result.codes) for result in results] == [count] * rows

        return milliseconds(generate, frames)
    codes = random_codes(frames)

    def decode(count: int) -> None:
        state = None
        for start in range(0, count, CHUNK):
            _, state = tts.codec.decode_next(codes[start : start + CHUNK], state)

    return milliseconds(decode, frames)


def leave_out_the_codec(tts) -> None:  # noqa: ANN001
    """Make a model "decode" to silence immediately."""
    samples = tts.codec.samples_per_frame
    tts.codec.decode_async = lambda codes, _state=None: (lambda: np.zeros(samples * len(codes), np.float32), None)


def peer(checkpoint: str, frames: int, part: str) -> float:
    import mlx.core as mx
    from mlx_audio.tts.utils import load

    model = load(Path(checkpoint))
    if part != "codec":
        tokenizer = type(model.speech_tokenizer)
        tokenizer.decode = lambda _self, codes: (mx.zeros((1, 1920 * codes.shape[1])), mx.array([1920]))

        def generate_batch(count: int) -> None:
            rows = int(part.removeprefix("batch-"))
            results = model.batch_generate(
                [TEXT] * rows, [VOICE] * rows, lang_code="english", max_tokens=count, verbose=False
            )
            assert [result.token_count for result in results] == [count] * rows

        if part.startswith("batch"):
            type(model)._decode_generated_codes = lambda _self, codes: mx.zeros(1920 * len(codes))  # noqa: SLF001
            return milliseconds(generate_batch, frames)

        def generate(count: int) -> None:
            results = model.generate_custom_voice(TEXT, VOICE, "english", max_tokens=count, verbose=False)
            assert [result.token_count for result in results] == [count]

        return milliseconds(generate, frames)
    codes, decoder = random_codes(frames), model.speech_tokenizer.decoder

    def decode(count: int) -> None:
        decoder.reset_streaming_state()
        for start in range(0, count, CHUNK):
            mx.eval(decoder.streaming_step(mx.array(codes[start : start + CHUNK].T[None])))

    return milliseconds(decode, frames)


def random_codes(frames: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (frames, 16)).astype(np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--peer", help="Python of an environment with mlx-audio")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--codec-frames", type=int, default=24)
    parser.add_argument("--batch", type=int, nargs="+", default=[], metavar="N", help="compare batches of N requests")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--worker", nargs=4, metavar=("SIDE", "CHECKPOINT", "FRAMES", "PART"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        side, checkpoint, frames, part = args.worker
        print(json.dumps({"ours": ours, "peer": peer}[side](checkpoint, int(frames), part)))
        return
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = str(Path(directory) / "c")
        write_checkpoint(Path(checkpoint), args.size, args.dtype)
        parts = [("frames", args.frames)]
        if args.batch:
            parts = [(f"batch-{rows}", args.frames) for rows in args.batch]
        elif args.size != "tiny":  # the peer's codec has only released sizes
            parts.append(("codec", args.codec_frames))
        for part, frames in parts:
            times = {"ours": [], "peer": []}
            for _ in range(args.rounds):
                for side, python in (("ours", sys.executable), ("peer", args.peer)):
                    command = [python, "-m", "benchmarks.compare", "--worker", side, checkpoint, str(frames), part]
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
                    times[side].append(json.loads(done.stdout.splitlines()[-1]))
            row = {side: round(median(values), 2) for side, values in times.items()}
            ratio = round(row["ours"] / row["peer"], 3)
            what = {"size": args.size, "dtype": args.dtype, "part": part}
            print(json.dumps(what | {"ms_per_frame": times, **row, "ratio": ratio}))


if __name__ == "__main__":
    main()

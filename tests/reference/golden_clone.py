"""Golden data of cloning from the official package. Runs in the reference environment, after golden.py.

usage: golden_clone.py CHECKPOINTS OUT SEED [--audio DIRECTORY] [--full-size]

CHECKPOINTS holds <shape>-base directories. Writes OUT/<shape>-clone.safetensors. --audio: recordings to use as well.
--full-size: instead, the speaker encoder and the codec of <width>-full-size at the released sizes, on one clip.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from qwen_tts.core.models.modeling_qwen3_tts import mel_spectrogram
from safetensors.numpy import save_file

from tests.reference.golden import CHINESE, FRAMES, MIXED, SAMPLE_STRIDE, TEXT, load, margins, run
from tests.support import sounds

REF_TEXT = "hello this voice"
LONG_TEXT = "Hello world, this is a voice that speaks of the world, and of 1,234 other things."
CASES = [
    dict(name="embedding", text=TEXT, language="English", non_streaming_mode=True),
    dict(name="embedding-interleaved", text=MIXED, language="Auto", non_streaming_mode=False),
    dict(name="icl-short", text=CHINESE, language="Chinese", ref_text=REF_TEXT, non_streaming_mode=True),
    dict(name="icl-long", text=LONG_TEXT, language="Auto", ref_text=REF_TEXT, non_streaming_mode=True),
    dict(name="icl-short-interleaved", text="a", language="English", ref_text="hello", non_streaming_mode=False),
    dict(name="icl-long-interleaved", text=LONG_TEXT, language="Auto", ref_text=MIXED, non_streaming_mode=False),
]
MEL_STRIDE = 5


def clips(model, recordings: dict, out: dict[str, np.ndarray]) -> None:
    """Mel spectrogram, speaker embedding and codes of each sound."""
    tokenizer = model.model.speech_tokenizer
    for name, (wave, rate) in {**sounds.SOUNDS, **recordings}.items():
        item = model.create_voice_clone_prompt(ref_audio=(wave, rate), ref_text="x")[0]
        wave = tokenizer._normalize_audio_inputs([wave], sr=rate)[0]
        mel = mel_spectrogram(
            torch.tensor(wave)[None], n_fft=1024, num_mels=128, sampling_rate=24000, hop_size=256, win_size=1024,
            fmin=0, fmax=12000,
        )  # fmt: skip
        out[f"clip-{name}.mel"] = mel[0].T.numpy()[::MEL_STRIDE]
        out[f"clip-{name}.embedding"] = item.ref_spk_embedding.numpy()
        out[f"clip-{name}.codes"] = item.ref_code.numpy().astype(np.int16)


def encode(model, wave: np.ndarray) -> np.ndarray:
    return model.model.speech_tokenizer.encode(wave, sr=24000).audio_codes[0].numpy().astype(np.int16)


def codec(model, out: dict[str, np.ndarray]) -> None:
    speech = sounds.speech(2.0)
    for length in sounds.LENGTHS:
        out[f"length-{length}.codes"] = encode(model, speech[5000 : 5000 + length])
    out["frames-500.codes"] = encode(model, sounds.long(40))
    out["minute.codes"] = encode(model, sounds.long(60))
    codes = encode(model, speech)
    with torch.no_grad():
        wave = model.model.speech_tokenizer.model.decoder(torch.tensor(codes.astype(np.int64)).T[None])[0, 0].numpy()
    out["round-trip.codes"], out["round-trip.wave"] = codes, np.ascontiguousarray(wave[::SAMPLE_STRIDE])


def cases(model, out: dict[str, np.ndarray]) -> None:
    wave, rate = sounds.SOUNDS["speech"]
    eos = model.model.config.talker_config.codec_eos_token_id
    for case in CASES:
        text = case.get("ref_text")
        item = model.create_voice_clone_prompt(ref_audio=(wave, rate), ref_text=text, x_vector_only_mode=text is None)[
            0
        ]
        call = {key: value for key, value in case.items() if key != "ref_text"} | {"voice_clone_prompt": [item]}
        codes, recorder = run(model, call, FRAMES)
        frames = 0 if item.ref_code is None else len(item.ref_code)
        name, codes = case["name"], codes[frames:]
        out[f"{name}.codes"], out[f"{name}.margins"] = codes, margins(recorder, codes, eos)
        out[f"{name}.embeddings"] = recorder.prompt["inputs_embeds"][0].numpy()
        out[f"{name}.trailing"] = recorder.prompt["trailing_text_hidden"][0].numpy()
        print(f"  {name}: {frames} + {len(codes)} frames", file=sys.stderr)


def cut(model, out: dict[str, np.ndarray]) -> None:
    """The official waveform of a cloned request: reference and speech decoded together, then cut in proportion."""
    case = next(case for case in CASES if case["name"] == "icl-long")
    item = model.create_voice_clone_prompt(ref_audio=sounds.SOUNDS["speech"], ref_text=case["ref_text"])[0]
    call = {key: value for key, value in case.items() if key not in ("ref_text", "name")}
    options = dict(do_sample=False, subtalker_dosample=False, max_new_tokens=FRAMES + 1)
    (audio,), _ = model.generate_voice_clone(**call, voice_clone_prompt=[item], **options)
    out["cut.length"], out["cut.wave"] = np.array([len(audio)], np.int32), np.ascontiguousarray(audio[::SAMPLE_STRIDE])


def full_size(checkpoints: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    wave = sounds.speech(3.0)
    for width in (1024, 2048):
        model = load(checkpoints / f"{width}-full-size")
        began = time.perf_counter()
        item = model.create_voice_clone_prompt(ref_audio=(wave, 24000), ref_text="x")[0]
        print(f"  {width}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
        arrays = {"embedding": item.ref_spk_embedding.numpy(), "codes": item.ref_code.numpy().astype(np.int16)}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # the codes are a transpose
        save_file(arrays, out / f"{width}-full-size.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--full-size", action="store_true")
    args = parser.parse_args()
    if args.full_size:
        full_size(args.checkpoints, args.out)
        return
    paths = sorted(args.audio.glob("*.wav")) if args.audio else []
    recordings = {path.stem: soundfile.read(path, dtype="float32") for path in paths}
    for shape in ("equal", "projected"):
        out: dict[str, np.ndarray] = {}
        model = load(args.checkpoints / f"{shape}-base")
        clips(model, recordings if shape == "equal" else {}, out)
        codec(model, out)
        cases(model, out)
        cut(model, out)
        asked = {"seed": args.seed, "cases": CASES, "sample_stride": SAMPLE_STRIDE, "mel_stride": MEL_STRIDE}
        arrays = {name: np.ascontiguousarray(array) for name, array in out.items()}
        save_file(arrays, args.out / f"{shape}-clone.safetensors", {"asked": json.dumps(asked)})


if __name__ == "__main__":
    main()

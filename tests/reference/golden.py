"""Golden data from the official package. Runs in the reference environment, not in the project's.

usage: golden.py CHECKPOINTS OUT SEED [--all]

CHECKPOINTS holds <shape>-<model_type> directories (see tests/checkpoints.py). Writes OUT/<shape>.safetensors with what
the official code computed and, as JSON in its metadata, what was asked. Without --all only every STRIDE-th frame's
logits are kept, so that the file can be committed.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from qwen_tts import Qwen3TTSModel
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers.generation import GenerationMixin

FRAMES = 42  # greedy frames of each case
FORCED_FRAMES = 120
STRIDE = 10
SAMPLE_STRIDE = 97  # of long waveforms every 97th sample is kept

TEXT = "Hello world, this is a voice."
CHINESE = "你好，世界。"
MIXED = "\n 今天 it's 25°C — naïve café 🙂👍🏽 №5, 1,234.50 e\u0301\u00e9 ｱﾎﾞ  x "
DESIGN = "A calm, deep voice; 慢一点."
CUSTOM = [
    dict(name="english", text=TEXT, speaker="ada", language="English"),
    dict(name="english-interleaved", text=TEXT, speaker="ada", language="English", non_streaming_mode=False),
    dict(name="auto", text=TEXT, speaker="Ben", language="Auto"),
    dict(name="chinese", text=CHINESE, speaker="ben", language="Chinese"),
    dict(name="dialect-chinese", text=CHINESE, speaker="Chuan", language="Chinese"),
    dict(name="dialect-auto", text=CHINESE, speaker="chuan", language="auto", non_streaming_mode=False),
    dict(name="dialect-english", text=TEXT, speaker="chuan", language="english"),
    dict(name="instruct", text=TEXT, speaker="ada", language="english", instruct="Slowly, with a smile."),
    dict(name="instruct-interleaved", text=MIXED, speaker="ben", language="Auto", instruct=DESIGN,
         non_streaming_mode=False),
    dict(name="mixed", text=MIXED, speaker="ada", language="auto"),
    dict(name="one-token", text="a", speaker="ada", language="english", non_streaming_mode=False),
]  # fmt: skip
DESIGNED = [
    dict(name="design", text=TEXT, language="English", instruct=DESIGN),
    dict(name="design-interleaved", text=CHINESE, language="auto", instruct=DESIGN, non_streaming_mode=False),
    dict(name="design-empty", text=MIXED, language="Chinese", instruct=""),
]
SETTINGS = [
    dict(repetition_penalty=1.05, temperature=0.9, top_k=50, top_p=1.0),
    dict(repetition_penalty=1.3, temperature=0.4, top_k=0, top_p=0.8),
    dict(repetition_penalty=1.0, temperature=1.0, top_k=5, top_p=0.5),
    dict(repetition_penalty=0.8, temperature=1.7, top_k=5000, top_p=0.95),
    dict(repetition_penalty=2.0, temperature=1.0, top_k=1, top_p=1.0),
    dict(repetition_penalty=1.5, temperature=4.0, top_k=0, top_p=1.0),  # flat: negative logits show, too
]


def load(directory: Path) -> Qwen3TTSModel:
    """The official model, after checking that the checkpoint has its tensors and no others."""
    model = Qwen3TTSModel.from_pretrained(str(directory), dtype=torch.float32, attn_implementation="eager")
    for module, path in (
        (model.model, directory),
        (model.model.speech_tokenizer.model, directory / "speech_tokenizer"),
    ):
        with safe_open(path / "model.safetensors", framework="numpy") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
        assert found == wanted, sorted(set(found.items()) ^ set(wanted.items()))
    model.model.eval()
    model.model.speech_tokenizer.model.eval()
    return model


class Recorder:
    """What passes through the official model during one call of its generate(): of each step, all rows."""

    def __init__(self, model: Qwen3TTSModel) -> None:
        talker = model.model.talker
        self.prompt, self.positions, self.talker, self.predictor, self.processors = None, [], [], [], []
        self.hooks = [
            talker.codec_head.register_forward_hook(lambda m, i, out: self.talker.append(out[:, -1].clone())),
            talker.model.register_forward_pre_hook(
                lambda m, a, kw: self.positions.append(kw["position_ids"].clone()), with_kwargs=True
            ),
        ]
        for head in talker.code_predictor.lm_head:
            self.hooks.append(head.register_forward_hook(lambda m, i, out: self.predictor.append(out[:, -1].clone())))
        self.talker_module, self.generate = talker, talker.generate
        self.get_processors = GenerationMixin._get_logits_processor

    def __enter__(self) -> "Recorder":
        def generate(**kwargs):
            self.prompt = kwargs
            return self.generate(**kwargs)

        def get_processors(module, *args, **kwargs):
            processors = self.get_processors(module, *args, **kwargs)
            self.processors.append((module is self.talker_module, processors))
            return processors

        self.talker_module.generate = generate
        GenerationMixin._get_logits_processor = get_processors
        return self

    def __exit__(self, *error) -> None:
        del self.talker_module.generate
        GenerationMixin._get_logits_processor = self.get_processors
        for hook in self.hooks:
            hook.remove()

    def talker_logits(self, row: int = 0) -> torch.Tensor:
        """Logits of codebook 0 [steps, vocab]."""
        return torch.stack(self.talker)[:, row]

    def predictor_logits(self, row: int = 0) -> torch.Tensor:
        """Logits of the other codebooks [frames, 15, vocab]."""
        heads = len(self.talker_module.code_predictor.lm_head)
        logits = torch.stack(self.predictor)[:, row]
        return logits.reshape(-1, heads, logits.shape[-1])


def run(model: Qwen3TTSModel, case: dict, frames: int, **options) -> tuple[np.ndarray, Recorder]:
    """The codes of one request as the official package computes them, greedy unless `options` say otherwise."""
    codes, recorder = run_rows(model, {key: value for key, value in case.items() if key != "name"}, frames, **options)
    return codes[0], recorder


def run_rows(model: Qwen3TTSModel, call: dict, frames: int, **options) -> tuple[list[np.ndarray], Recorder]:
    """The codes of each row of one official call, whose arguments may be lists; greedy as in `run`."""
    call = call | dict(do_sample=False, subtalker_dosample=False, max_new_tokens=frames + 1) | options
    decoded = []
    tokenizer = model.model.speech_tokenizer
    original, tokenizer.decode = tokenizer.decode, lambda items: (decoded.extend(items), ([], 24000))[1]
    method = {
        "custom_voice": model.generate_custom_voice,
        "voice_design": model.generate_voice_design,
        "base": model.generate_voice_clone,
    }[model.model.tts_model_type]
    try:
        with Recorder(model) as recorder:
            method(**call)
    finally:
        tokenizer.decode = original
    return [item["audio_codes"].numpy().astype(np.int32) for item in decoded], recorder


def margins(recorder: Recorder, codes: np.ndarray, eos: int, penalty: float = 1.05, row: int = 0) -> np.ndarray:
    """How far ahead the likeliest code was at each greedy choice [frames, 16], over the largest logit.

    If that is within rounding, another order of sums may choose the other code, and everything after it differs.
    """
    result = np.zeros(codes.shape)
    talker = recorder.talker_logits(row)
    residual = recorder.predictor_logits(row)
    for frame, chosen in enumerate(codes):
        logits = talker[frame].clone()
        seen = torch.tensor(np.unique(codes[:frame, 0]), dtype=torch.long)
        logits[seen] = torch.where(logits[seen] < 0, logits[seen] * penalty, logits[seen] / penalty)
        logits[256:] = -torch.inf
        if frame < 2:
            logits[eos] = -torch.inf
        for g, scores in enumerate([logits, *residual[frame]]):
            best, second = scores.topk(2).values
            result[frame, g] = (best - second) / scores[scores.isfinite()].abs().max()
            assert chosen[g] == scores.argmax() or result[frame, g] == 0
    return result.astype(np.float32)


def text_ids(model: Qwen3TTSModel, case: dict) -> np.ndarray:
    return model._tokenize_texts([model._build_assistant_text(case["text"])])[0].numpy().astype(np.int32)[0]


def prompts(model: Qwen3TTSModel, cases: list[dict], out: dict[str, np.ndarray]) -> None:
    for case in cases:
        codes, recorder = run(model, case, FRAMES)
        name = case["name"]
        out[f"{name}.ids"] = text_ids(model, case)
        out[f"{name}.embeddings"] = recorder.prompt["inputs_embeds"][0].numpy()
        out[f"{name}.trailing"] = recorder.prompt["trailing_text_hidden"][0].numpy()
        out[f"{name}.pad"] = recorder.prompt["tts_pad_embed"][0].numpy()
        out[f"{name}.positions"] = torch.cat([p[:, 0] for p in recorder.positions], dim=1).numpy().astype(np.int32)
        eos = model.model.config.talker_config.codec_eos_token_id
        out[f"{name}.codes"], out[f"{name}.margins"] = codes, margins(recorder, codes, eos)
        print(f"  {name}: {len(codes)} frames, {len(np.unique(codes[:, 0]))} different first codes", file=sys.stderr)


CLAMPED = 0.01  # of all samples; the worst of 160 random checkpoints had 0.0007
UNREACHABLE = 10**6  # as the id of the end: the speech goes on


def forced(model: Qwen3TTSModel, case: dict, everything: bool, out: dict[str, np.ndarray]) -> None:
    """Logits of a sampled run, to be compared with ours on the same codes."""
    torch.manual_seed(0)
    config = model.model.config.talker_config
    original, config.codec_eos_token_id = config.codec_eos_token_id, UNREACHABLE
    options = dict(do_sample=True, subtalker_dosample=True, top_k=50, top_p=1.0, temperature=1.0)
    codes, recorder = run(model, case, FORCED_FRAMES, **options)
    config.codec_eos_token_id = original
    assert len(codes) == FORCED_FRAMES
    frames = np.arange(0, FORCED_FRAMES, 1 if everything else STRIDE)
    out["forced.codes"], out["forced.frames"] = codes, frames.astype(np.int32)
    out["forced.talker"] = recorder.talker_logits().numpy()[frames]
    out["forced.predictor"] = recorder.predictor_logits().numpy()[frames]


def stops(model: Qwen3TTSModel, case: dict, first: np.ndarray, out: dict[str, np.ndarray]) -> None:
    """The same weights with an ordinary code as the one that ends the speech: met late, met early, met at frame 0."""
    config = model.model.config.talker_config
    original = config.codec_eos_token_id
    new = [i for i in range(3, len(first)) if first[i, 0] not in first[:i, 0]]
    for name, index in (("late", new[len(new) // 2]), ("early", new[0]), ("at-once", 0)):
        config.codec_eos_token_id = int(first[index, 0])
        codes, recorder = run(model, case, FRAMES)
        out[f"stop-{name}.codes"], out[f"stop-{name}.eos"] = codes, np.array([config.codec_eos_token_id], np.int32)
        out[f"stop-{name}.margins"] = margins(recorder, codes, config.codec_eos_token_id)
        print(f"  stop {name}: {len(codes)} frames", file=sys.stderr)
    config.codec_eos_token_id = original


def distributions(model: Qwen3TTSModel, case: dict, logits: np.ndarray, out: dict[str, np.ndarray]) -> None:
    """The official logits processors applied to recorded logits after given histories of codebook 0."""
    rng = np.random.default_rng(0)
    histories = [np.array([], np.int64)] + [rng.integers(0, 256, n) for n in (1, 7, 60)]
    out["distribution.logits"] = logits[: len(histories)]
    seen = np.zeros((len(histories), logits.shape[-1]), bool)
    for row, history in zip(seen, histories, strict=True):
        row[history] = True
    out["distribution.seen"] = seen
    out["distribution.frames"] = np.array([len(history) for history in histories], np.int32)
    for i, setting in enumerate(SETTINGS):
        predictor = {f"subtalker_{k}": v for k, v in setting.items() if k != "repetition_penalty"}
        _, recorder = run(model, case, 1, do_sample=True, subtalker_dosample=True, **setting, **predictor)
        (talker_processors,) = [p for is_talker, p in recorder.processors if is_talker]
        subtalker_processors = [p for is_talker, p in recorder.processors if not is_talker][0]
        rows, others = [], []
        for row, history in zip(out["distribution.logits"], histories, strict=True):
            ids, scores = torch.tensor(history)[None], torch.tensor(row)[None]
            rows.append(talker_processors(ids, scores.clone())[0].softmax(-1).numpy())
            others.append(subtalker_processors(ids, scores[:, :256].clone())[0].softmax(-1).numpy())
        out[f"distribution.{i}.talker"], out[f"distribution.{i}.subtalker"] = np.stack(rows), np.stack(others)


def codec(model: Qwen3TTSModel, out: dict[str, np.ndarray]) -> None:
    """Plain forward passes of the decoder: one call over all frames."""
    decoder = model.model.speech_tokenizer.model.decoder
    rng = np.random.default_rng(0)
    codes = {frames: rng.integers(0, 256, (1, frames, 16)) for frames in (1, 2, 71, 72, 73, 74, 200)}
    zeros = rng.integers(0, 256, (2, 9, 16))
    zeros[0], zeros[1, ::2], zeros[1, :, ::3] = 0, 0, 0
    samples = []
    for name, batch in [*codes.items(), ("zeros", zeros)]:
        with torch.no_grad():
            wave = decoder(torch.tensor(batch).transpose(1, 2))[:, 0].numpy()
        out[f"codec-{name}.codes"] = batch.astype(np.int32)
        out[f"codec-{name}.wave"] = np.ascontiguousarray(wave if wave.size < 8000 else wave[:, ::SAMPLE_STRIDE])
        samples.append(wave.reshape(-1))
    # A seed in ten meets the clamp in a sample or a few, which are compared like all others.
    assert np.mean(np.abs(np.concatenate(samples)) == 1) < CLAMPED, "waves clamped at length would hide differences"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("seed", type=int, help="seed of the checkpoints; stored with the data")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for shape in ("equal", "projected"):
        out: dict[str, np.ndarray] = {}
        model = load(args.checkpoints / f"{shape}-custom_voice")
        prompts(model, CUSTOM, out)
        stops(model, CUSTOM[0], out["english.codes"], out)
        forced(model, CUSTOM[1], args.all, out)
        if shape == "equal":
            distributions(model, CUSTOM[0], out["forced.talker"], out)
        codec(model, out)
        prompts(load(args.checkpoints / f"{shape}-voice_design"), DESIGNED, out)
        asked = {
            "seed": args.seed,
            "custom_voice": CUSTOM,
            "voice_design": DESIGNED,
            "settings": SETTINGS,
            "sample_stride": SAMPLE_STRIDE,
        }
        arrays = {name: np.ascontiguousarray(array) for name, array in out.items()}
        save_file(arrays, args.out / f"{shape}.safetensors", {"asked": json.dumps(asked)})


if __name__ == "__main__":
    main()

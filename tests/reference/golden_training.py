"""Golden data of training: losses and gradients of the official modules. Runs in the reference environment.

usage: golden_training.py CHECKPOINTS OUT SEED

CHECKPOINTS holds <shape>-base directories. Writes OUT/<shape>-training.safetensors.

    official generate_voice_clone ─ arguments ─ official generate, up to the talker ─ prompts, left-padded
                                       frames: 16 embeddings and the text of the step ─┴─ talker ─ logits, hidden states

    position   ... | last of the prompt | frame 0 | ... | frame N-1
    labels           frame 0              frame 1         the end

The modules, the prompts and the padding are official; the alignment is that of the official generation, and is written
out here, because the official fine-tuning has another one: labels that are shifted twice, and a hidden state for the
code predictor that has already seen the frame.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from qwen_tts import Qwen3TTSModel
from qwen_tts.inference.qwen3_tts_model import VoiceClonePromptItem
from safetensors.numpy import save_file

from tests.reference.golden import CHINESE, MIXED, TEXT, load
from tests.support.sketch import sketch

PREDICTOR_WEIGHT = 0.3
ROWS = [  # in the interleaved layout one text is longer than its speech
    dict(text=TEXT, language="English", frames=17),
    dict(text=CHINESE, language="Chinese", frames=41),
    dict(text=MIXED, language="Auto", frames=5),
    dict(text="a", language="English", frames=1),
]
LAYOUTS = [dict(name="whole", non_streaming_mode=True), dict(name="interleaved", non_streaming_mode=False)]


class Prompts(NamedTuple):
    """What the official `generate` passes to the talker, with its gradient."""

    embeddings: torch.Tensor  # [rows, positions, hidden], padded on the left
    mask: torch.Tensor  # [rows, positions]
    text: torch.Tensor  # [rows, steps, hidden]: added to the embeddings of the frames
    pad: torch.Tensor  # [1, 1, hidden]: added after the end of `text`


class Reached(Exception):
    """Raised in place of an official function that should not run."""

    def __init__(self, arguments: dict) -> None:
        super().__init__()
        self.arguments = arguments


def arguments_of(module: torch.nn.Module, name: str, function, *args, **kwargs) -> dict:
    """The keyword arguments with which `function` first calls a method of `module`."""

    def reached(**arguments):
        raise Reached(arguments)

    setattr(module, name, reached)
    try:
        function(*args, **kwargs)
    except Reached as caught:
        return caught.arguments
    finally:
        delattr(module, name)
    raise AssertionError(f"{name} was not called")


def prompts(model: Qwen3TTSModel, voices: np.ndarray, layout: bool) -> Prompts:
    """The official prompts of all rows. voices: the speaker embeddings [rows, hidden]."""
    items = [VoiceClonePromptItem(None, torch.tensor(voice), True, False) for voice in voices]
    request = arguments_of(
        model.model, "generate", model.generate_voice_clone,
        text=[row["text"] for row in ROWS], language=[row["language"] for row in ROWS],
        voice_clone_prompt=items, non_streaming_mode=layout,
    )  # fmt: skip
    generate = type(model.model).generate.__wrapped__  # without no_grad
    made = arguments_of(model.model.talker, "generate", generate, model.model, **request)
    return Prompts(made["inputs_embeds"], made["attention_mask"], made["trailing_text_hidden"], made["tts_pad_embed"])


def frame_embeddings(talker: torch.nn.Module, prompt: Prompts, row: int, codes: torch.Tensor) -> torch.Tensor:
    """What the official generation feeds for each frame [frames, hidden]. codes: int [frames, 16]."""
    tables = [talker.get_input_embeddings(), *talker.code_predictor.get_input_embeddings()]
    total = torch.stack([table(codes[:, g]) for g, table in enumerate(tables)], dim=1).sum(1)
    text = [prompt.text[row, step] if step < prompt.text.shape[1] else prompt.pad[0, 0] for step in range(len(codes))]
    return total + torch.stack(text)


def losses(model: Qwen3TTSModel, prompt: Prompts, codes: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean cross-entropies of talker and code predictor over all predictions of the rows."""
    talker = model.model.talker
    rows = []
    for i, row in enumerate(codes):
        start = prompt.embeddings[i][prompt.mask[i] == 1]
        rows.append(torch.cat([start, frame_embeddings(talker, prompt, i, row)]))
    length = max(map(len, rows))
    x = torch.stack([F.pad(row, (0, 0, length - len(row), 0)) for row in rows])
    mask = torch.stack([(torch.arange(length) >= length - len(row)).long() for row in rows])
    out = talker(inputs_embeds=x, attention_mask=mask, use_cache=False, output_hidden_states=True)
    hidden = out.hidden_states[0][-1]  # after the final norm

    end = torch.tensor([model.model.config.talker_config.codec_eos_token_id])
    first = []
    residual = []
    for i, row in enumerate(codes):
        before = length - len(row) - 1  # the last position of the prompt, which predicts frame 0
        first.append(F.cross_entropy(out.logits[i, before:], torch.cat([row[:, 0], end]), reduction="none"))
        # The official loss of this call has shifted labels; only its logits are used.
        logits, _ = talker.forward_sub_talker_finetune(row, hidden[i, before:-1])
        residual.append(F.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten(), reduction="none"))
    return torch.cat(first).mean(), torch.cat(residual).mean()


def record(model: Qwen3TTSModel, layout: dict, out: dict[str, np.ndarray]) -> None:
    """The losses and the gradients of all tensors of the talker, in one layout of the text."""
    name = layout["name"]
    codes = [torch.tensor(out[f"{i}.codes"].astype(np.int64)) for i in range(len(ROWS))]
    prompt = prompts(model, out["voices"], layout["non_streaming_mode"])
    model.model.zero_grad()
    talker, predictor = losses(model, prompt, codes)
    (talker + PREDICTOR_WEIGHT * predictor).backward()
    out[f"{name}.losses"] = np.array([talker.item(), predictor.item()], np.float32)
    for key, parameter in model.model.talker.named_parameters():
        tensor = f"talker.{key}"
        out[f"{name}.{tensor}"] = sketch(tensor, parameter.grad.numpy())
    print(f"  {name}: losses {talker.item():.4f} and {predictor.item():.4f}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("seed", type=int)
    args = parser.parse_args()
    for shape in ("equal", "projected"):
        began = time.process_time()
        model = load(args.checkpoints / f"{shape}-base")
        random = np.random.RandomState(args.seed % 2**32)
        width = model.model.config.talker_config.hidden_size
        out = {"voices": random.standard_normal((len(ROWS), width)).astype(np.float32)}
        for i, row in enumerate(ROWS):
            out[f"{i}.codes"] = random.randint(0, 256, (row["frames"], 16)).astype(np.int16)
        for layout in LAYOUTS:
            record(model, layout, out)
        asked = {"seed": args.seed, "rows": ROWS, "layouts": LAYOUTS}
        arrays = {name: np.ascontiguousarray(array) for name, array in out.items()}
        save_file(arrays, args.out / f"{shape}-training.safetensors", {"asked": json.dumps(asked)})
        print(f"  {shape}: {time.process_time() - began:.1f} s of CPU", file=sys.stderr)


if __name__ == "__main__":
    main()

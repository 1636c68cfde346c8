"""An interrupted run as a directory: what it was, and the arrays that it goes on from.

weights, optimizer ─► state.safetensors ─┐
step, best loss, identity ─► state.json ─┴─ the same run goes on to the bit; another one is refused
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from ..checkpoint.weights import read_tensors
from ..errors import TrainingError
from ..files import atomic_path
from .loss import TrainingSequence

FORMAT = 2
ARRAYS = "state.safetensors"
FACTS = "state.json"


def run_identity(
    options: Mapping[str, object], sequences: Sequence[TrainingSequence], processes: int, description: str
) -> dict[str, object]:
    """Return what must be equal for a run to go on to the bit, as JSON holds it."""
    digest = hashlib.sha256()
    for one in sequences:
        for array in (one.text, one.codes, one.voice):
            digest.update(np.ascontiguousarray(array).tobytes())
    return {
        **options,
        "data": digest.hexdigest()[:16],
        "processes": processes,
        "model and adapters": description,
    }


def write_run(path: Path, state: dict[str, Any], facts: Mapping[str, object]) -> None:
    """Write a run, all of it or nothing. On the MLX thread. Raises OSError, and RuntimeError of MLX.

    state: a tree of arrays. facts: what JSON can hold.
    """
    arrays: dict[str, mx.array] = {}
    tree_flatten(state, destination=arrays)
    with atomic_path(path) as directory:
        directory.mkdir(exist_ok=True)
        mx.save_safetensors(str(directory / ARRAYS), arrays)
        (directory / FACTS).write_text(json.dumps({"format": FORMAT, **facts}))


def read_facts(path: Path, identity: Mapping[str, object]) -> dict[str, Any]:
    """Return the facts of a run. Raises TrainingError if there is none, or if it is another one."""
    try:
        facts = json.loads((path / FACTS).read_text())
    except FileNotFoundError:
        raise TrainingError(f"cannot resume: there is no interrupted run in {path}") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot resume from {path}: {error}") from None
    if facts.get("format") != FORMAT:
        raise TrainingError(f"cannot resume from {path}: another version of this package has written it")
    run = facts.get("run", {})
    other = next((name for name, value in identity.items() if run.get(name) != value), None)
    if other is not None:
        found = json.dumps(run.get(other))
        wanted = json.dumps(identity[other])
        raise TrainingError(f"cannot resume from {path}: its {other} is not that of this run ({found}, not {wanted})")
    return facts


def read_state(path: Path) -> dict[str, Any]:
    """Return the tree of arrays of a run. On the MLX thread. Raises TrainingError."""
    try:
        return tree_unflatten(list(read_tensors(path / ARRAYS).items()))
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(f"cannot resume from {path}: {error}") from None

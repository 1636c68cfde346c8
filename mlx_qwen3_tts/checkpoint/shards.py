"""Safetensors files that are written one tensor at a time.

    names, shapes, types ─ split into shards ─ headers ─ write(name, array), in any order ─ index

safetensors' `save_file` and mx.save_safetensors need all tensors of a file in memory. A header depends on shapes and
types only, so here it is written first, and each tensor goes to its place when it is ready.
Format: https://huggingface.co/docs/safetensors (8 bytes of header length, a JSON header, the tensors' bytes).
"""

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import mlx.core as mx
import numpy as np

TYPES = {"F32": mx.float32, "U32": mx.uint32, "BF16": mx.bfloat16, "F16": mx.float16}


class Tensor(NamedTuple):
    """A tensor as a header declares it."""

    shape: tuple[int, ...]
    kind: str  # its type: a key of TYPES, or another one of a file that cannot be loaded

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * TYPES[self.kind].size


class _ShardFile:
    """One safetensors file: its header is written at once, its tensors one by one."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], layout: str) -> None:
        # Wide types first, as safetensors orders them, so that every tensor is aligned.
        names = sorted(tensors, key=lambda name: (-TYPES[tensors[name].kind].size, name))
        header: dict[str, object] = {"__metadata__": {"format": layout}}
        self._offsets: dict[str, int] = {}
        end = 0
        for name in names:
            tensor = tensors[name]
            self._offsets[name] = end
            end += tensor.nbytes
            header[name] = {"dtype": tensor.kind, "shape": tensor.shape, "data_offsets": [self._offsets[name], end]}
        data = json.dumps(header, separators=(",", ":")).encode()
        data += b" " * (-len(data) % 8)
        self._start = 8 + len(data)
        self.file: BinaryIO = path.open("xb")
        self.file.write(len(data).to_bytes(8, "little") + data)

    def write(self, name: str, array: mx.array) -> None:
        """Write the bytes of one tensor."""
        self.file.seek(self._start + self._offsets[name])
        self.file.write(np.asarray(array.reshape(-1).view(mx.uint8)).data)  # no copy


class ShardWriter:
    """Writes `tensors` to a directory: to model.safetensors, or to shards and an index if that would be too large.

    Use it as a context manager. Every tensor must be written once inside it.
    """

    def __init__(self, directory: Path, tensors: Mapping[str, Tensor], limit: int, layout: str = "mlx") -> None:
        """limit: bytes of tensors per shard; a larger tensor gets a shard of its own.

        layout: of convolutions, "pt" or "mlx".
        """
        self._directory = directory
        self._tensors = tensors
        self._layout = layout
        shards = split(tensors, limit)
        self._shards = dict(zip(file_names(len(shards)), shards, strict=True))
        self._file_of = {tensor: name for name, shard in self._shards.items() for tensor in shard}
        self._files: dict[str, _ShardFile] = {}
        self._missing = set(tensors)

    def __enter__(self) -> "ShardWriter":
        for name, shard in self._shards.items():
            self._files[name] = _ShardFile(self._directory / name, shard, self._layout)
        return self

    def write(self, name: str, array: mx.array) -> None:
        """Write one tensor, bit for bit. Raises OSError, and ValueError for another shape or type than declared."""
        expected = self._tensors[name]
        if (tuple(array.shape), array.dtype) != (expected.shape, TYPES[expected.kind]):
            raise ValueError(f"{name} is {list(array.shape)} of {array.dtype}, but its header declares {expected}")
        self._missing.remove(name)
        self._files[self._file_of[name]].write(name, array)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for shard in self._files.values():
                shard.file.close()

    def _finish(self) -> None:
        if self._missing:
            raise ValueError(f"{len(self._missing)} tensors were not written, among them {min(self._missing)}")
        if len(self._files) > 1:
            total = sum(tensor.nbytes for tensor in self._tensors.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(self._file_of.items()))}
            (self._directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        for shard in self._files.values():  # a full disk may not show before
            shard.file.flush()
            os.fsync(shard.file.fileno())


def file_names(count: int) -> list[str]:
    """Return the names of `count` shards, as the hub has them."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def split(tensors: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """Split the tensors, in their order, into shards of at most `limit` bytes each."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards

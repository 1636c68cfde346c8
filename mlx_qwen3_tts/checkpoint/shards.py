"""Safetensors files that are written one tensor at a time.

    names, shapes, types ─ split into shards ─ headers ─ write(name, array), in any order ─ index

The library's own `save_file` wants all tensors of a file in memory, and so does mx.save_safetensors. A file's header
follows from shapes and types alone, so here it is written first, and each tensor goes to its place when it is ready.
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

TYPES = {"F32": mx.float32, "U32": mx.uint32, "BF16": mx.bfloat16, "F16": mx.float16}


class Tensor(NamedTuple):
    """What a header says of a tensor."""

    shape: tuple[int, ...]
    kind: str  # a key of TYPES

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * TYPES[self.kind].size


class _File:
    """One safetensors file: its header is written at once, its tensors when they come."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], layout: str) -> None:
        # Wide types first, as the library orders them: every tensor is aligned.
        names = sorted(tensors, key=lambda name: (-TYPES[tensors[name].kind].size, name))
        header: dict[str, object] = {"__metadata__": {"format": layout}}
        self.places, end = {}, 0
        for name in names:
            shape, kind = tensors[name]
            self.places[name] = end
            end += tensors[name].nbytes
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [self.places[name], end]}
        data = json.dumps(header, separators=(",", ":")).encode()
        data += b" " * (-len(data) % 8)
        self.file: BinaryIO = path.open("xb")
        self.start = 8 + len(data)
        self.file.write(len(data).to_bytes(8, "little") + data)

    def write(self, name: str, array: mx.array) -> None:
        self.file.seek(self.start + self.places[name])
        self.file.write(memoryview(array.reshape(-1).view(mx.uint8)))


class ShardWriter:
    """Writes `tensors` to a directory as model.safetensors, or as shards with an index where that would be too large.

    Use it as a context manager; every tensor must be written once before it is left.
    """

    def __init__(self, directory: Path, tensors: Mapping[str, Tensor], limit: int, layout: str = "mlx") -> None:
        """limit: bytes of tensors in a shard, unless a single one is larger. layout: of convolutions ("pt", "mlx")."""
        self._directory, self._tensors, self._layout = directory, tensors, layout
        shards = split(tensors, limit)
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        names = names if len(shards) > 1 else ["model.safetensors"]
        self._home = {tensor: file for file, shard in zip(names, shards, strict=True) for tensor in shard}
        self._files: dict[str, _File] = {}
        self._shards = dict(zip(names, shards, strict=True))
        self._left = set(tensors)

    def __enter__(self) -> "ShardWriter":
        self._files = {name: _File(self._directory / name, shard, self._layout) for name, shard in self._shards.items()}
        return self

    def write(self, name: str, array: mx.array) -> None:
        """Write one tensor, bit for bit. Raises OSError."""
        found, expected = (tuple(array.shape), array.dtype), self._tensors[name]
        if found != (expected.shape, TYPES[expected.kind]):
            raise ValueError(f"{name} is {found}, its header says {expected}")
        self._left.remove(name)
        self._files[self._home[name]].write(name, array)

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
        if self._left:
            raise ValueError(f"{len(self._left)} tensors were not written, {min(self._left)} among them")
        if len(self._files) > 1:
            total = sum(tensor.nbytes for tensor in self._tensors.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(self._home.items()))}
            (self._directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
        for shard in self._files.values():  # a full disk may tell only now
            shard.file.flush()
            os.fsync(shard.file.fileno())


def split(tensors: Mapping[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    """The tensors in their order, cut into shards of at most `limit` bytes each."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards

"""JSON objects to dataclasses: every value checked, every error naming its key.

    file ─ read_json ─ from_dict(dataclass) ─ its __post_init__, with require

`IMPLEMENTED`, a class attribute, names keys that may have one value only: the one that the port implements.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import CheckpointError

Config = TypeVar("Config")

# No size or id of a model comes near these; a file that claims more is damaged, and must not be built.
LARGEST, MOST_LAYERS = 2**24, 256
COUNTS = ("num_hidden_layers", "num_code_groups", "num_quantizers", "enc_res2net_scale")  # of modules to build
LONGEST_FILE = 64 * 2**20  # bytes of JSON or of merges; the released vocabulary takes 3 million


def _check(value: Any, kind: Any, where: str) -> Any:
    """Return `value` as `kind` (an annotation of this file), or raise a CheckpointError that names `where`."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is UnionType:
        options = [option for option in args if option is not type(None)]
        if len(options) < len(args) and (value is None or len(options) == 1):
            return None if value is None else _check(value, options[0], where)
        for option in options:
            if isinstance(value, option):
                return value
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): _check(item, args[1], f"{where}.{key}") for key, item in value.items()}
    elif origin is tuple and isinstance(value, list) and 0 < len(value) <= MOST_LAYERS:
        return tuple(_check(item, args[0], f"{where}[{i}]") for i, item in enumerate(value))
    elif hasattr(kind, "__dataclass_fields__") and isinstance(value, Mapping):
        return from_dict(kind, value, where)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30:
        return float(value)
    elif kind is int and isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST:
        return value
    elif kind is type(None) and value is None:
        return None
    elif isinstance(kind, type) and kind in (str, bool) and isinstance(value, kind):
        return value
    name = getattr(kind, "__name__", str(kind)) if origin is None else str(kind)
    raise CheckpointError(f"{where} is {str(value)[:60]!r}, which is not a valid {name}")


def from_dict(cls: type[Config], data: Mapping[str, Any], where: str) -> Config:
    """Build the dataclass `cls` from a parsed JSON object.

    Raises CheckpointError for a missing field, a wrong type, or a value outside `cls.IMPLEMENTED`.
    """
    for key, implemented in getattr(cls, "IMPLEMENTED", {}).items():
        if key not in data:
            raise CheckpointError(f"{where}.{key} is missing: this is no complete Qwen3-TTS configuration")
        if data[key] != implemented:
            raise CheckpointError(f"{where}.{key} is {data[key]!r}; this port implements {implemented!r} only")
    kinds = get_type_hints(cls)
    values = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name in data:
            values[field.name] = _check(data[field.name], kinds[field.name], f"{where}.{field.name}")
        elif field.default is MISSING:
            raise CheckpointError(f"{where}.{field.name} is missing: this is no complete Qwen3-TTS configuration")
    return cls(**values)


def read_text(path: Path) -> str:
    """Read a small text file of a checkpoint; raises CheckpointError when it is absent, too large or not UTF-8."""
    try:
        size = path.stat().st_size
        require_file(path)
        require(size <= LONGEST_FILE, f"{path} is {size / 1e6:.0f} MB long: no file of its name is")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: is this a Qwen3-TTS checkpoint directory?") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def require_file(path: Path) -> None:
    """Raise CheckpointError for a pipe, which would be waited for, a device, which may have no end, or a directory."""
    require(path.is_file() or not path.exists(), f"{path} is no file: fetch the checkpoint again")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from `path`; raises CheckpointError when it is absent or not one."""
    text = read_text(path)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return data


def require(condition: bool, message: str) -> None:
    """Raise CheckpointError with `message` unless `condition` holds."""
    if not condition:
        raise CheckpointError(message)


def require_positive(config: Any, where: str) -> None:
    """Sizes of zero would build a model without the part; none of these numbers may be zero."""
    for field in fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        id_like = field.name.endswith(("_id", "_ids"))
        for number in numbers:
            if isinstance(number, int | float) and not isinstance(number, bool) and not id_like and number <= 0:
                raise CheckpointError(f"{where}.{field.name} is {number}; it must be positive")
            if field.name in COUNTS and number > MOST_LAYERS:
                raise CheckpointError(f"{where}.{field.name} is {number}; at most {MOST_LAYERS} are possible")


def check_attention(config: Any, where: str) -> None:
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    require(heads % kv_heads == 0, f"{where}.num_key_value_heads is {kv_heads}, which does not divide {heads} heads")
    require(heads * config.head_dim <= LARGEST, f"{where}: {heads} heads of {config.head_dim} are wider than possible")
    require(
        config.head_dim % 2 == 0,
        f"{where}.head_dim is {config.head_dim}; rotary embedding needs an even number",
    )

"""JSON objects to dataclasses: every value is checked, and every error names its key.

    file ─ read_json ─ from_dict(dataclass) ─ convert_value for each field ─ the dataclass's __post_init__, with require

The class attribute `IMPLEMENTED` lists the keys of which this port implements a single value.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

from ..errors import CheckpointError

# No size or id of a model comes near these limits; a file that claims more is damaged, and must not be built.
MAX_INTEGER = 2**24
MAX_FLOAT = 1e30
MAX_MODULES = 256
MAX_FILE_SIZE = 64 * 2**20  # bytes of a JSON or text file; the released vocabulary takes 3 million
# The fields that say how many modules to build.
COUNTS = ("num_hidden_layers", "num_code_groups", "num_quantizers", "enc_res2net_scale")


class Dataclass(Protocol):
    """Any instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


class AttentionConfig(Protocol):
    """The fields that every transformer's configuration has."""

    @property
    def num_attention_heads(self) -> int: ...
    @property
    def num_key_value_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...


Config = TypeVar("Config", bound=Dataclass)


def quoted(value: object) -> str:
    """Return a value from a file in quotes, shortened for an error message."""
    return repr(str(value)[:60])


def _invalid(value: object, expected: str, key: str) -> CheckpointError:
    return CheckpointError(f"{key} is {quoted(value)}; it must be {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _to_int(value: Any, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_INTEGER:
        raise _invalid(value, f"a whole number from 0 to {MAX_INTEGER}", key)
    return value


def _to_float(value: Any, key: str) -> float:
    if not _is_number(value) or not abs(value) < MAX_FLOAT:  # NaN is not below it
        raise _invalid(value, "a finite number", key)
    return float(value)


def _to_bool(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise _invalid(value, "true or false", key)
    return value


def _to_str(value: Any, key: str) -> str:
    if not isinstance(value, str):
        raise _invalid(value, "a string", key)
    return value


def _to_dict(value: Any, kind: Any, key: str) -> dict[str, Any]:
    item_kind = get_args(kind)[1]
    if not isinstance(value, Mapping):
        raise _invalid(value, "an object", key)
    return {str(name): convert_value(item, item_kind, f"{key}.{name}") for name, item in value.items()}


def _to_tuple(value: Any, kind: Any, key: str) -> tuple[Any, ...]:
    item_kind = get_args(kind)[0]
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MODULES:
        raise _invalid(value, f"a list of 1 to {MAX_MODULES} values", key)
    return tuple(convert_value(item, item_kind, f"{key}[{i}]") for i, item in enumerate(value))


def _to_union(value: Any, kind: Any, key: str) -> Any:
    """Convert a value of `X | None`, or check one of a union of classes."""
    options = get_args(kind)
    if value is None and type(None) in options:
        return None
    classes = [option for option in options if option is not type(None)]
    if len(classes) == 1:
        return convert_value(value, classes[0], key)
    if not isinstance(value, tuple(classes)):
        raise _invalid(value, " or ".join(option.__name__ for option in classes), key)
    return value


SCALARS: dict[Any, Callable[[Any, str], Any]] = {int: _to_int, float: _to_float, bool: _to_bool, str: _to_str}
COLLECTIONS: dict[Any, Callable[[Any, Any, str], Any]] = {dict: _to_dict, tuple: _to_tuple, UnionType: _to_union}


def convert_value(value: Any, kind: Any, key: str) -> Any:
    """Return a JSON value as `kind`, the type annotation of a field. Raises CheckpointError naming `key`."""
    if kind is Any:
        return value
    if kind in SCALARS:
        return SCALARS[kind](value, key)
    origin = get_origin(kind)
    if origin in COLLECTIONS:
        return COLLECTIONS[origin](value, kind, key)
    if not isinstance(value, Mapping):
        raise _invalid(value, "an object", key)
    return from_dict(kind, value, key)


def from_dict(cls: type[Config], data: Mapping[str, Any], key: str) -> Config:
    """Build the dataclass `cls` from a parsed JSON object. key: the object's name in error messages.

    Raises CheckpointError for a missing field, a wrong type, or a value outside `cls.IMPLEMENTED`.
    """
    for name, implemented in getattr(cls, "IMPLEMENTED", {}).items():
        if name not in data:
            raise _missing(f"{key}.{name}")
        if data[name] != implemented:
            raise CheckpointError(f"{key}.{name} is {data[name]!r}; this port implements only {implemented!r}")
    kinds = get_type_hints(cls)
    values = {}
    for field in fields(cls):
        if field.name in data:
            values[field.name] = convert_value(data[field.name], kinds[field.name], f"{key}.{field.name}")
        elif field.default is MISSING:
            raise _missing(f"{key}.{field.name}")
    return cls(**values)


def _missing(key: str) -> CheckpointError:
    return CheckpointError(f"{key} is missing: this is not a complete Qwen3-TTS configuration")


def read_text(path: Path) -> str:
    """Read a small text file of a checkpoint. Raises CheckpointError if it is missing, too large or not UTF-8."""
    try:
        size = path.stat().st_size
        require_file(path)
        require(size <= MAX_FILE_SIZE, f"{path} is {size / 1e6:.0f} MB long, too long for a file of this name")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: is this a Qwen3-TTS checkpoint directory?") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def require_file(path: Path) -> None:
    """Raise CheckpointError for a directory, a pipe, which would block, and a device, which may be endless."""
    require(path.is_file() or not path.exists(), f"{path} is not a regular file: download the checkpoint again")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises CheckpointError if the file is missing or holds anything else."""
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


def require_positive(config: Dataclass, key: str) -> None:
    """Raise CheckpointError for a size of 0, which would drop a part of the model, and for too many modules."""
    for field in fields(config):
        value = getattr(config, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        is_id = field.name.endswith(("_id", "_ids"))
        for number in numbers:
            if _is_number(number) and not is_id and number <= 0:
                raise CheckpointError(f"{key}.{field.name} is {number}; it must be positive")
            if field.name in COUNTS and number > MAX_MODULES:
                raise CheckpointError(f"{key}.{field.name} is {number}; the limit is {MAX_MODULES}")


def check_attention(config: AttentionConfig, key: str) -> None:
    """Raise CheckpointError for attention heads that do not fit together."""
    heads = config.num_attention_heads
    kv_heads = config.num_key_value_heads
    head_dim = config.head_dim
    require(heads % kv_heads == 0, f"{key}.num_key_value_heads is {kv_heads}; it must divide the {heads} heads")
    require(heads * head_dim <= MAX_INTEGER, f"{key}: {heads} heads of size {head_dim} exceed {MAX_INTEGER}")
    require(head_dim % 2 == 0, f"{key}.head_dim is {head_dim}; rotary embedding needs an even number")

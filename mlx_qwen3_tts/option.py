"""How an option is declared: once, as a field of a dataclass, with its rule and its help text.

field ─┬─ check_options: are the values valid?
       ├─ arguments_of: a method that takes the fields as arguments
       └─ cli/options.py: a flag for each field
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import wraps
from numbers import Integral, Real
from typing import Any, Concatenate, ParamSpec, TypeVar

from .errors import RequestError
from .text.unicode import check_text

Check = Callable[[str, Any], None]  # given the option's name and a value; raises RequestError

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")


@dataclass(frozen=True)
class Option:
    """The rule and the description of one option; a dataclass field has it in its metadata."""

    description: str
    check: Check
    parse: Callable[[str], Any] | None = None  # a value written as text; None if a text cannot express it
    is_switch: bool = False  # True or False
    metavar: str | None = None  # how the command line writes the value; None takes the option's name


def string(description: str) -> Any:
    """Return the dataclass field of an optional string."""
    return field(default=None, metadata={"option": Option(description, check_string, str)})


def whole_number(description: str, minimum: int, maximum: int, note: str = "", default: int | None = None) -> Any:
    """Return the field of an integer, optional if `default` is None; `note` follows its rule in an error."""

    def check(name: str, value: Any) -> None:
        if not is_number(value, Integral) or not minimum <= value <= maximum:
            raise invalid(name, f"a whole number from {minimum} to {maximum}", value, note)

    return field(default=default, metadata={"option": Option(description, check, int, metavar="N")})


def number(
    description: str, minimum: float, maximum: float, note: str = "", above: bool = False, default: float | None = None
) -> Any:
    """Return the field of a number; `above` excludes the minimum; `note`, `default`: as above."""

    def check(name: str, value: Any) -> None:
        in_range = is_number(value) and (minimum < value if above else minimum <= value) and value <= maximum
        if not in_range:
            rule = f"above {minimum:g} and at most {maximum:g}" if above else f"from {minimum:g} to {maximum:g}"
            raise invalid(name, f"a number {rule}", value, note)

    return field(default=default, metadata={"option": Option(description, check, float, metavar="N")})


def switch(description: str, default: bool | None = None) -> Any:
    """Return the field of an option that is True or False."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise invalid(name, "True or False", value)

    return field(default=default, metadata={"option": Option(description, check, is_switch=True)})


def check_string(name: str, value: Any) -> None:
    """Raise RequestError for a value that is not a string of Unicode text."""
    if not isinstance(value, str):
        raise invalid(name, "a string", value)
    check_text(name, value, name)


def is_number(value: object, kind: type = Real) -> bool:
    """Return whether a value is a number of that kind; True and False are not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def invalid(name: str, rule: str, value: object, note: str = "") -> RequestError:
    """Return the error for a value that breaks the rule of the argument `name`; `note` is added to it."""
    shown = repr(value)
    if len(shown) > 80:
        shown = f"{shown[:77]}..."
    return RequestError(f"{name} must be {rule}, not {shown}{note}", name)


def options_of(kind: type) -> Iterator[tuple[str, Option]]:
    """Yield the name and the option of each field of a dataclass that has one."""
    for entry in fields(kind):
        if "option" in entry.metadata:
            yield entry.name, entry.metadata["option"]


def check_options(kind: type, values: Mapping[str, Any]) -> None:
    """Raise RequestError for a value that its option in the dataclass `kind` does not allow."""
    defaults = {entry.name: entry.default for entry in fields(kind)}
    for name, entry in options_of(kind):
        if values[name] is not None or defaults[name] is not None:
            entry.check(name, values[name])


def arguments_of(kind: Callable[P, T]) -> Callable[[Callable[[S, T], R]], Callable[Concatenate[S, P], R]]:
    """Decorate a method that takes one `kind`: it takes the arguments of `kind` instead."""

    def decorate(method: Callable[[S, T], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(method)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return method(self, kind(*args, **kwargs))

        own = inspect.signature(method)
        names = list(own.parameters.values())[:1] + list(inspect.signature(kind).parameters.values())
        call.__signature__ = own.replace(parameters=names)  # type: ignore[attr-defined]
        return call

    return decorate

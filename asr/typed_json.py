"""JSON values as the types that dataclasses declare."""

from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from asr.errors import ConfigError
from asr.wording import nearest


def from_json(kind: Any, value: Any, where: str) -> Any:
    """Return a JSON value as a type: dataclasses from objects, tuples from lists.

    Keys that are missing keep their defaults. `where` names the value in errors. Raises ConfigError that names an
    unknown key, or a value of another type.

    >>> from_json(tuple[float, ...], [1, 2.5], "speeds")
    (1.0, 2.5)
    """
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        if unknown := sorted(set(value) - set(hints)):
            raise ConfigError(
                f"{where} has the unknown key {unknown[0]!r}{nearest(unknown[0], hints)}; known are {', '.join(hints)}"
            )
        return kind(**{name: from_json(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    if origin is tuple and isinstance(value, list):
        expected = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(expected) == len(value):
            return tuple(from_json(part, item, where) for part, item in zip(expected, value, strict=True))
    if origin is Literal and value in parts:
        return value
    types = parts if origin is UnionType else (kind,)
    if type(value) in types:  # not isinstance: true is no number
        return value
    if float in types and type(value) is int:
        return float(value)
    raise ConfigError(f"{where} is {value!r}; expected {_described(kind)}")


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if is_dataclass(kind):
        return "keys and values"
    return str(kind) if get_origin(kind) else kind.__name__

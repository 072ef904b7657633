"""Plain JSON values to frozen dataclasses and back, by the types that the dataclasses declare.

For records of many small parts, where a reader written field by field would repeat every declaration.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def finite(value: Any) -> Any:
    """The value with lists for tuples, and None for NaN and infinity, for strict JSON has neither.

    >>> finite({"a": (1.0, float("nan"))})
    {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def built(kind: Any, plain: Any) -> Any:
    """A value of the declared type: dataclasses, tuples, mappings, unions with None, and what JSON has itself.

    None for a ``float`` is NaN, for that is how ``finite`` writes it.

    Raises:
        TypeError, ValueError: a field that is missing or unknown, or a value of another type.

    >>> built(tuple[float, ...], [1.0, None])
    (1.0, nan)
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass(kind, plain)
    if origin in (Union, types.UnionType):
        declared = next(each for each in inner if each is not type(None))
        return None if plain is None else built(declared, plain)
    if origin is tuple:
        _check(plain, list, kind)
        if inner[-1] is Ellipsis:
            return tuple(built(inner[0], item) for item in plain)
        return tuple(built(each, item) for each, item in zip(inner, plain, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        _check(plain, Mapping, kind)
        return {key: built(inner[1], item) for key, item in plain.items()}
    if kind is float:
        if plain is None:
            return math.nan
        _check(plain, (int, float), kind)
        return plain
    _check(plain, kind, kind)
    return plain


def _dataclass(kind: Any, plain: Any) -> Any:
    _check(plain, Mapping, kind)
    declared, needed = _hints(kind), {field.name for field in fields(kind) if _needed(field)}
    for word, names in (("misses", needed - set(plain)), ("has the unknown field", set(plain) - set(declared))):
        if names:
            raise ValueError(f"{kind.__name__} {word} {', '.join(f'`{name}`' for name in sorted(names))}")
    return kind(**{name: built(declared[name], item) for name, item in plain.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    known = get_type_hints(kind)
    return {field.name: known[field.name] for field in fields(kind)}


def _needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _check(plain: Any, wanted: Any, kind: Any) -> None:
    if not isinstance(plain, wanted) or (isinstance(plain, bool) and kind is not bool):
        raise TypeError(f"{plain!r:.60} is no {kind if get_origin(kind) else kind.__name__}")

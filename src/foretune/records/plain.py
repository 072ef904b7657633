"""Plain JSON values to frozen dataclasses and back, by the types that the dataclasses declare.

For records of many small parts, where a reader written field by field would repeat every declaration.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from typing import Any, Union, cast, get_args, get_origin, get_type_hints


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

    None for a ``float`` is NaN, for that is how ``finite`` writes it. What is declared ``Any`` is taken as it is.

    Raises:
        TypeError, ValueError: a field that is missing or unknown, or a value of another type.

    >>> built(tuple[float, ...], [1.0, None])
    (1.0, nan)
    """
    return _reader(kind)(plain)


Reader = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> Reader:
    """How a type is read, found out once: a store holds a million points."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return _as_it_is
    if is_dataclass(kind):
        return partial(_dataclass, kind)
    if origin in (Union, types.UnionType):
        read = _reader(next(each for each in inner if each is not type(None)))
        return lambda plain: None if plain is None else read(plain)
    if origin is tuple:
        return _tuple_reader(kind, inner)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping_reader(kind, _reader(inner[1]))
    if kind is float:
        return _float
    return lambda plain: plain if type(plain) is kind else _checked(kind, kind, plain)


def _tuple_reader(kind: Any, inner: tuple[Any, ...]) -> Reader:
    if inner[-1] is Ellipsis:
        read = _reader(inner[0])
        return lambda plain: tuple(map(read, _checked(list, kind, plain)))
    each = [_reader(one) for one in inner]
    return lambda plain: tuple(read(item) for read, item in zip(each, _checked(list, kind, plain), strict=True))


def _mapping_reader(kind: Any, read: Reader) -> Reader:
    return lambda plain: {key: read(item) for key, item in _checked(Mapping, kind, plain).items()}


def _dataclass(kind: Any, plain: Any) -> Any:
    readers, needed = _fields(kind)
    given = plain.keys() if type(plain) is dict else _checked(Mapping, kind, plain).keys()
    if given != readers.keys():
        for word, names in (("misses", needed - given), ("has the unknown field", given - readers.keys())):
            if names:
                raise ValueError(f"{kind.__name__} {word} {', '.join(f'`{name}`' for name in sorted(names))}")
    return kind(**{name: readers[name](item) for name, item in plain.items()})


@cache
def _fields(kind: Any) -> tuple[dict[str, Reader], frozenset[str]]:
    """A reader for every field, and the fields without a default."""
    known = get_type_hints(kind)
    needed = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
    return {field.name: _reader(known[field.name]) for field in fields(kind)}, frozenset(needed)


def _as_it_is(plain: Any) -> Any:
    return plain


def _float(plain: Any) -> float:
    if type(plain) is float:
        return plain
    return math.nan if plain is None else cast("float", _checked((int, float), float, plain))


def _checked(wanted: Any, kind: Any, plain: Any) -> Any:
    if not isinstance(plain, wanted) or (isinstance(plain, bool) and kind is not bool):
        raise TypeError(f"{plain!r:.60} is no {kind if get_origin(kind) else kind.__name__}")
    return plain

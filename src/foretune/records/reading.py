"""What a user wrote as YAML or JSON, as frozen dataclasses: an error names the field, the value and the nearest field.

YAML and Pydantic are loaded where they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from foretune.errors import ForetuneError, UsageError
from foretune.registry import did_you_mean

T = TypeVar("T")


def read_text(path: Path, what: str) -> str:
    """The text of a user's file, which holds a ``what``.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"The {what} `{path}` cannot be read: {reason}. Give a YAML file.") from error


def parse(text: str, where: str) -> dict[str, Any]:
    """The mapping that YAML text holds.

    Raises:
        UsageError: no YAML, or no mapping.
    """
    import yaml

    try:
        plain = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
        found = "a list" if isinstance(plain, list) else "nothing" if plain is None else type(plain).__name__
        raise UsageError(f"{where} must hold `name: value` lines (tasks, methods, ...), but holds {found}.")
    return plain


def require_known(plain: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Raise ``UsageError`` for a field that ``known`` does not have."""
    for key in plain:
        if key not in known:
            raise UsageError(f"`{key}` is not a field of {what}.{did_you_mean(key, known)} Known: {', '.join(known)}.")


def typed(kind: type[T], plain: Mapping[str, Any], what: str) -> T:
    """``plain`` as a frozen dataclass, its types checked.

    Raises:
        UsageError: a field that is missing or of another type. ForetuneError: what the class itself refuses.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(dict(plain))
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ForetuneError):
            raise cause from error
        where = ".".join(str(place) for place in first["loc"] if place != "str")
        if first["type"] == "missing":
            raise UsageError(f"{what} must name its `{where}`, but does not.") from error
        raise UsageError(f"`{where}` of {what}: {first['msg'].lower()}, but got {first['input']!r}.") from error

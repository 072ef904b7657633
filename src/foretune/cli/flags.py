"""Options of a tuner as flags of their own: ``--tuner lora --rank 16`` is ``--tuner lora --option rank=16``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from foretune.errors import UsageError
from foretune.registry import find


def with_tuner_options(words: Iterable[str], own: Iterable[str]) -> list[str]:
    """``words`` of a command line in which flags named as a field of its tuner are written as ``--option``.

    The tuner is the one that ``--tuner`` names, or the file of ``--config``. Done before the command line is read; a
    flag that is not the command's stays as it is, to be refused there, unless a tuner has it or has one much like it.

    Args:
        own: parameters of the command itself, which win over a tuner's fields of the same name.

    Raises:
        UsageError: a flag of another tuner, or of one where none is named; a flag without its value; a slip of the pen.

    >>> with_tuner_options(["train.csv", "--tuner", "lora", "--rank", "16", "--lr=1e-3"], ["tuner", "lr"])
    ['train.csv', '--tuner', 'lora', '--option', 'rank=16', '--lr=1e-3']
    >>> with_tuner_options(["train.csv", "--tuner=dynamic-subset", "--no-reset"], ["tuner"])
    ['train.csv', '--tuner=dynamic-subset', '--option', 'reset=false']
    """
    words, known = list(words), {*own, "help"}
    tuner = _named(words)
    offered = {name: field for name, field in (_fields(tuner) if tuner else {}).items() if name not in known}
    written, rest = [], iter(words)
    for word in rest:
        name, given, _ = word.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--") or key in known or key.removeprefix("no_") in known:
            written.append(word)
        elif key in offered or (key.removeprefix("no_") in offered and not given):
            written += _as_option(word, key, offered, rest)
        else:
            _refuse_slip(name, key, tuner, offered, known)
            written.append(word)
    return written


def _as_option(word: str, key: str, offered: dict[str, Field[Any]], rest: Iterator[str]) -> list[str]:
    """``--option`` and its text, taking the value from ``rest`` where it stands apart."""
    name, given, value = word.partition("=")
    bare = key if key in offered else key.removeprefix("no_")
    if given:
        return ["--option", f"{key}={value}"]
    if str(offered[bare].type) == "bool":
        return ["--option", f"{bare}={'true' if key == bare else 'false'}"]
    if key != bare:
        raise UsageError(
            f"`{name}` switches off what can be on or off, but `--{bare.replace('_', '-')}` takes a value."
        )
    following = next(rest, None)
    if following is None:
        raise UsageError(f"`{name}` needs a value, but none follows. Write `{name} VALUE`.")
    return ["--option", f"{key}={following}"]


def _refuse_slip(name: str, key: str, tuner: str | None, offered: dict[str, Field[Any]], known: set[str]) -> None:
    """Refuse a flag that another tuner has, or that is nearly one of the tuner's own; pass over any other."""
    from foretune.tuners import TUNERS

    having = [other for other in TUNERS if key.removeprefix("no_") in _fields(other)]
    if having:
        than = f", not of `{tuner}`" if tuner else ""
        raise UsageError(
            f"`{name}` is an option of {', '.join(f'`{other}`' for other in having)}{than}: name one with `--tuner`."
        )
    every = list(offered) or [field for other in TUNERS for field in _fields(other)]
    near = difflib.get_close_matches(key, [*known, *every], n=1)
    if near and near[0] not in known:
        meant = f"--{near[0].replace('_', '-')}"
        of = f"`{tuner}`" if tuner else "any tuner. Such options go with `--tuner`"
        raise UsageError(f"`{name}` is no option of this command or of {of}. Did you mean `{meant}`?")


def _named(words: list[str]) -> str | None:
    """What ``--tuner`` names, else the file that ``--config`` names."""
    if (tuner := _value(words, "--tuner")) is not None:
        return tuner
    config = _value(words, "--config")
    if config is None:
        return None
    from foretune.pipeline.options import read_yaml

    try:
        told = read_yaml(Path(config)).get("tuner")
    except UsageError:  # said when the command itself reads it
        return None
    return told if isinstance(told, str) else None


def _value(words: list[str], flag: str) -> str | None:
    """The value of ``flag``, in either spelling."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _fields(tuner: str) -> dict[str, Field[Any]]:
    """The fields of a tuner by name; nothing where the flag that names it has no value.

    Raises:
        UsageError: there is no such tuner.
    """
    from foretune.tuners import TUNERS

    return {f.name: f for f in fields(find("tuner", tuner, TUNERS))} if tuner else {}

"""Options of a tuner as flags of their own: ``--tuner lora --rank 16`` is ``--tuner lora --option rank=16``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields


def with_tuner_options(words: Iterable[str], own: Iterable[str]) -> list[str]:
    """``words`` of a command line in which flags named as a field of its ``--tuner`` are written as ``--option``.

    Done before the command line is read, so that what is no such field stays an unknown flag, and is said to be one.

    Args:
        own: parameters of the command itself, which win over a tuner's fields of the same name.

    >>> with_tuner_options(["train.csv", "--tuner", "lora", "--rank", "16", "--lr=1e-3"], ["tuner", "lr"])
    ['train.csv', '--tuner', 'lora', '--option', 'rank=16', '--lr=1e-3']
    >>> with_tuner_options(["train.csv", "--tuner=dynamic-subset", "--no-reset"], ["tuner"])
    ['train.csv', '--tuner=dynamic-subset', '--option', 'reset=false']
    """
    words = list(words)
    kinds = _fields(_tuner(words), frozenset(own))
    written, rest = [], iter(words)
    for word in rest:
        name, given, value = word.partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if not name.startswith("--"):
            written.append(word)
        elif kinds.get(key.removeprefix("no_")) == "bool" and not given:
            written += ["--option", f"{key.removeprefix('no_')}={'false' if key.startswith('no_') else 'true'}"]
        elif key not in kinds:
            written.append(word)
        elif given:
            written += ["--option", f"{key}={value}"]
        elif (following := next(rest, None)) is not None:
            written += ["--option", f"{key}={following}"]
        else:
            written.append(word)
    return written


def _tuner(words: list[str]) -> str | None:
    """What ``--tuner`` names."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--tuner":
            return following
        if word.startswith("--tuner="):
            return word.partition("=")[2]
    return None


def _fields(tuner: str | None, own: frozenset[str]) -> dict[str, str]:
    """Name -> type, as it is written, of the tuner's fields; nothing for a tuner that does not exist."""
    if tuner is None:
        return {}
    from foretune.tuners import TUNERS

    return {f.name: str(f.type) for f in fields(TUNERS[tuner]) if f.name not in own} if tuner in TUNERS else {}

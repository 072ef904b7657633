"""Every exception that foretune raises on purpose.

The family, with the exit code that the command line gives each::

    ForetuneError                      1
    ├── UsageError     (ValueError)    2   an option, a name or a configuration that cannot be
    ├── DataError      (ValueError)    3   the user's file: unreadable, ragged, one class only, ...
    ├── ModelError     (ValueError)    4   a checkpoint that is absent, unsafe or not served
    ├── ResourceError  (RuntimeError)  5   memory, disk or time that is not there
    ├── StoreError     (RuntimeError)  6   a run folder or a store that cannot be read or written
    ├── ExportError    (RuntimeError)  7   an export that did not reproduce the recorded predictions
    ├── DivergedError  (RuntimeError)  8   a loss that is no longer a number
    └── Interrupted                  130   Ctrl-C or SIGTERM: the folder holds what is needed to go on

A message is a rule, the values that break it and the way out, so that the reader need not open the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ForetuneError(Exception):
    """The base of the family: catch this one to catch them all.

    >>> issubclass(DataError, ForetuneError) and issubclass(DataError, ValueError)
    True
    """

    exit_code = 1


class UsageError(ForetuneError, ValueError):
    """An option, a name or a configuration that cannot be."""

    exit_code = 2


class DataError(ForetuneError, ValueError):
    """The user's data break a rule; the message names the file, the row and the way out."""

    exit_code = 3


class ModelError(ForetuneError, ValueError):
    """A checkpoint that is absent, unsafe, or that the chosen method does not serve."""

    exit_code = 4


class ResourceError(ForetuneError, RuntimeError):
    """Memory, disk or time that is not there."""

    exit_code = 5


class StoreError(ForetuneError, RuntimeError):
    """A run folder or a store that cannot be read or written."""

    exit_code = 6


class ExportError(ForetuneError, RuntimeError):
    """An export that, reloaded in a fresh process, did not give the recorded predictions."""

    exit_code = 7


class DivergedError(ForetuneError, RuntimeError):
    """The training loss is no longer a number; the record says at which step."""

    exit_code = 8


class Interrupted(ForetuneError):
    """Stopped by Ctrl-C or SIGTERM; the run folder holds what is needed to go on."""

    exit_code = 130


def require(rules: Mapping[str, bool], values: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for the first rule that is not kept.

    Args:
        rules: rule as a user reads it -> whether it is kept; the first name in it is the option it is about.
        values: option -> value, for example ``vars`` of what was configured.

    >>> require({"0 < rate <= 1": False}, {"rate": 2.0})
    Traceback (most recent call last):
    foretune.errors.UsageError: `0 < rate <= 1` must hold, but got rate=2.0.
    """
    for rule, kept in rules.items():
        if not kept:
            name = next(word for word in rule.split() if word.isidentifier())
            raise UsageError(f"`{rule}` must hold, but got {name}={values[name]!r}.")

"""Tables and JSON for commands that only read: no torch, and no text of a user is taken for markup or control."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

UNSEEN_WIDTH = 200
"""Columns when the output is no terminal: rich would otherwise fold everything into 80."""

HARMLESS = "\u00a0\u2068\u2069\u200c\u200d"
"""No-break space, the isolates that our sentences put around a user's words, and the joiners of Persian and Hindi."""


def print_json(value: Any) -> None:
    """One JSON value on stdout, ASCII only, so that any encoding of the terminal will do."""
    print(json.dumps(value, indent=2, allow_nan=False))


def clean(text: str) -> str:
    """``text`` with everything that a terminal would obey, or cannot show, replaced.

    >>> clean("a\\x1b[31mb\\n\\ud83d")
    'a\\ufffd[31mb\\ufffd\\ufffd'
    """
    return "".join(c if c.isprintable() or c in HARMLESS else "\ufffd" for c in text)


def say(*lines: str) -> None:
    """Plain lines on stdout."""
    for line in lines:
        print(clean(line))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """A table on stdout; long cells fold and nothing is cut off."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table: Table = Table(box=box.SIMPLE_HEAD, title=title and Text(clean(title)), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else UNSEEN_WIDTH, highlight=False).print(table)

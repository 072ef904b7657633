"""``foretune recommend``: the plan alone."""

from __future__ import annotations

import inspect
from typing import Any

import typer

from foretune.cli.tune import COMMAND, run, tune

app = typer.Typer()

OWN = ("source", "config", "explain", "json")
"""What is asked of this command itself; see ``tune.COMMAND``."""


def recommend(**values: Any) -> None:
    """Say which pipeline to use, what it should cost, and what that rests on.

    Trains nothing but a few steps on this machine, whose time is measured. `foretune tune` with the same words runs it.
    """
    source, config, explain, json = (values.pop(name) for name in OWN)
    run(source, values, config, out=None, dry_run=True, overwrite=False, remember=False, explain=explain, json=json)


_signature = inspect.signature(tune, eval_str=True)
_shared = [p for p in _signature.parameters.values() if p.name not in COMMAND or p.name in OWN]
recommend.__signature__ = _signature.replace(parameters=_shared)  # type: ignore[attr-defined]
recommend.__annotations__ = {p.name: p.annotation for p in _shared}
app.command()(recommend)

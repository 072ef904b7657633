"""What the settings of a prefix must fulfil: one list for the tuner's options and PEFT's configuration. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretune.errors import UsageError

CHOICES: dict[str, tuple[str, ...]] = {
    "init": ("normal", "text"),
    "init_scale": ("none", "hold_rms"),
    "alpha": ("uniform",),
    "per": ("observation", "batch"),
    "position_mode": ("shift", "no_shift"),
}


def check(settings: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` unless ``settings``, fields of ``PrefixSubspaceConfig`` by name, keep its rules.

    >>> check({"n_vertices": 0})
    Traceback (most recent call last):
    foretune.errors.UsageError: `n_vertices >= 1` must hold, but got n_vertices=0.
    """
    limits = {
        "n_vertices": ("{} >= 1", lambda value: value >= 1),
        "num_virtual_tokens": ("{} >= 1", lambda value: (value or 0) >= 1),
        "beta": ("{} >= 0", lambda value: value >= 0),
        "prefix_dropout": ("0 <= {} < 1", lambda value: 0 <= value < 1),
        "init_std": ("{} >= 0", lambda value: value is None or value >= 0),
    }
    if settings.get("init_weights") is not None:
        raise UsageError(
            f"`init_weights` is stock PEFT's way to start, but got init_weights={settings['init_weights']!r}. "
            "Use `init_std`, of which 0 is the zero start."
        )
    for name, value in settings.items():
        if name in limits:
            rule, kept = limits[name]
            if not kept(value):
                raise UsageError(f"`{rule.format(name)}` must hold, but got {name}={value!r}.")
        elif name in CHOICES and value not in CHOICES[name]:
            raise UsageError(f"`{name}` must be {' or '.join(CHOICES[name])}, but got {value!r}.")
    _check_start(
        **{name: settings[name] for name in ("n_vertices", "init", "init_std", "init_text") if name in settings}
    )


def _check_start(
    n_vertices: int = 1, init: str = "normal", init_std: float | None = None, init_text: tuple[str, ...] = ()
) -> None:
    if init == "text" and len(init_text) not in (1, n_vertices):
        raise UsageError(f'init="text" takes one text or one per vertex ({n_vertices}), but got {len(init_text)}.')
    if init != "text" and init_text:
        raise UsageError(
            f'`init_text` is read with init="text" only, but got init="{init}" and {len(init_text)} texts.'
        )
    if n_vertices > 1 and init_std == 0 and len(set(init_text)) < n_vertices:
        raise UsageError(
            f"{n_vertices} vertices must start apart, for identical ones stay together, but got init_std=0 with "
            f'{len(set(init_text))} different texts. Give `init_std` a value above 0, or init="text" with '
            f"{n_vertices} different texts."
        )

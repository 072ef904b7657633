"""Laps: every entry meets every held-out task with every seed; nothing is learned twice, and nothing is lost.

Tasks of one group come one after another, and within them all recommenders of one seed and one control: they have the
same past there, and what several of them learn of it is learned once (``recommenders/shelf.py``). A recommender that
reads no past has the laps of its real race under every control too. Laps that were kept are not run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from foretune.comparison.replay.controls import CONTROLS
from foretune.comparison.replay.entries import Entry
from foretune.comparison.replay.kept import Kept, Key
from foretune.comparison.replay.pace import Ahead, Pace
from foretune.comparison.replay.pools import Held
from foretune.comparison.replay.race import Lap, race
from foretune.recommenders.shelf import sharing
from foretune.store.metadataset import MetaDataset

Laps = dict[str, tuple[tuple[Lap, ...], ...]]
"""Entry -> task -> seed -> lap."""


@dataclass(frozen=True)
class Heat:
    """A lap that is to be run: ``held`` is as its control has it, ``drawn`` the seed of the race."""

    entry: Entry
    held: Held
    seed: int
    drawn: int

    @property
    def key(self) -> Key:
        """What the lap is kept by."""
        return self.entry.name, self.held.task.task_id, self.seed


def run_laps(
    held: Sequence[Held],
    entries: Sequence[Entry],
    budgets: tuple[float, ...],
    unit: str,
    seeds: int,
    kept: Kept,
    watch: Callable[[Ahead], None],
) -> Laps:
    """All laps; each is in ``kept`` as soon as it is over.

    Args:
        budgets, unit: see ``race``.
        watch: told of every lap before it is run.
    """
    racing = [entry for entry in entries if entry.races]
    every: list[Key] = [(e.name, h.task.task_id, seed) for e in racing for h in held for seed in range(seeds)]
    pace = Pace([key[0] for key in every if key not in kept])
    for heats in _heats(held, racing, seeds, kept):
        with sharing(heats[0].held.past):
            for heat in heats:
                watch(pace.ahead(heat.entry.name, heat.held.task.name))
                began = perf_counter()
                kept.add(heat.key, race(heat.held, heat.entry.start, budgets, heat.drawn, unit))
                pace.ran(heat.entry.name, perf_counter() - began)
    return {
        entry.name: tuple(tuple(kept.lap((entry.raced, h.task.task_id, seed)) for seed in range(seeds)) for h in held)
        for entry in entries
    }


def _heats(held: Sequence[Held], entries: Sequence[Entry], seeds: int, kept: Kept) -> Iterator[list[Heat]]:
    """The laps that are missing, those with the same past together."""
    for number, group in enumerate(dict.fromkeys(h.task.group_key for h in held)):
        here = [h for h in held if h.task.group_key == group]
        for seed in range(seeds):
            drawn = drawn_for(number, seed)
            for control in dict.fromkeys(entry.control for entry in entries):
                of = [entry for entry in entries if entry.control == control]
                wanted = [[entry for entry in of if (entry.name, h.task.task_id, seed) not in kept] for h in here]
                shown = _under([h for h, want in zip(here, wanted, strict=True) if want], control, drawn)
                found: dict[int, list[Heat]] = {}
                for h, want in zip(shown, filter(None, wanted), strict=True):
                    found.setdefault(id(h.past), []).extend(Heat(entry, h, seed, drawn) for entry in want)
                yield from found.values()


def _under(held: Sequence[Held], control: str, drawn: int) -> list[Held]:
    """``held`` as a control has it; where it leaves the pools alone, those with the same past still have the same."""
    if not control:
        return list(held)
    pasts: dict[int, MetaDataset] = {}
    found = []
    for h in held:
        generator = np.random.default_rng([drawn, sorted(CONTROLS).index(control)])
        pool, past = CONTROLS[control](h.pool, h.past, generator)
        if pool is h.pool:
            past = pasts.setdefault(id(h.past), past)
        found.append(replace(h, pool=pool, past=past))
    return found


def drawn_for(group: int, seed: int) -> int:
    """The seed of a race. Every group of tasks has draws of its own: one lucky order on all of them would pass for many
    wins. Within a group, which counts once, they are the same: what is learned from its past is then learned once."""
    return int(np.random.SeedSequence([group, seed]).generate_state(1)[0])

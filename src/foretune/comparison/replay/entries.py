"""Entries: what races in a replay: a recommender with its options, on the real past or under a control."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from foretune.comparison.replay.controls import CONTROLS
from foretune.errors import UsageError
from foretune.recommenders import RECOMMENDERS
from foretune.recommenders.base import Recommender
from foretune.records import Value
from foretune.registry import did_you_mean, find
from foretune.store.metadataset import MetaDataset

DEFAULT = "default"
NOT_OPTIONS = ("self", "pool", "past", "default", "seed", "known", "standard", "fit")
"""What a recommender is given and nobody types."""


@dataclass(frozen=True)
class Entry:
    """A recommender by name, with its options, on the real past or under a control."""

    recommender: str
    options: Mapping[str, Value]
    control: str = ""

    @property
    def name(self) -> str:
        """How tables call it."""
        told = "".join(f":{key}={value}" for key, value in self.options.items())
        return f"{self.recommender}{told}" + (f", {self.control.replace('-', ' ')}" if self.control else "")

    @property
    def races(self) -> bool:
        """Whether it has a race of its own: a control is nothing to a recommender that reads no past."""
        return not self.control or find("recommender", self.recommender, RECOMMENDERS).reads_past

    @property
    def raced(self) -> str:
        """The name of the entry whose laps are its own."""
        return self.name if self.races else replace(self, control="").name

    @classmethod
    def parse(cls, text: str) -> Entry:
        """An entry as it is typed: a name, and options behind colons.

        Raises:
            UsageError: no such recommender, or no such option.

        >>> Entry.parse("halving:eta=4")
        Entry(recommender='halving', options={'eta': 4}, control='')
        """
        name, *pairs = text.strip().split(":")
        known = _options(find("recommender", name, RECOMMENDERS))
        options: dict[str, Value] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or key not in known:
                told = f"Known: {', '.join(known)}." if known else "It has none."
                raise UsageError(f"`{pair}` is no option of `{name}`.{did_you_mean(key, known)} {told}")
            options[key] = value_of(value)
        return cls(name, options)

    def start(self, pool: MetaDataset, past: MetaDataset, default: int | None, seed: int) -> Recommender:
        """The recommender on a pool."""
        made: Callable[..., Recommender] = find("recommender", self.recommender, RECOMMENDERS)
        return made(pool, past, default=default, seed=seed, **self.options)


def parsed(recommenders: Sequence[str], controls: Sequence[str], default: bool) -> tuple[Entry, ...]:
    """Everything that races: each recommender, then each of them under each control.

    Args:
        default: whether it is known which candidate is the published default.

    Raises:
        UsageError: a name or an option that does not exist.
    """
    real = tuple({entry.name: entry for entry in map(Entry.parse, recommenders)}.values())
    if not real:
        raise UsageError(f"a race needs at least 1 recommender. Known: {', '.join(RECOMMENDERS)}.")
    if not default and any(entry.recommender == DEFAULT for entry in real):
        raise UsageError(
            "`default` can race only where it is known which candidate that is. Give its settings: `--default lr=1e-3`."
        )
    for name in controls:
        find("control", name, CONTROLS)
    raced = [entry for entry in real if entry.recommender != DEFAULT]  # its row needs no race
    return (*raced, *(replace(entry, control=name) for name in controls for entry in raced))


def _options(kind: type[Recommender]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(kind.__init__).parameters if name not in NOT_OPTIONS)


def value_of(text: str) -> Value:
    """A typed word as a truth value, a number, or itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text

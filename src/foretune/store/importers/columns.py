"""Which columns of a table of runs say what was learned and by which model: the same for every kind of table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foretune.errors import UsageError
from foretune.records import MetaTask, ModelCard, Value
from foretune.registry import did_you_mean


@dataclass(frozen=True)
class Columns:
    """Column names as the user gave them; None: as the format has it.

    Attributes:
        task: what was learned; runs with an equal value compete with each other.
        group: what no split may separate; else every task is a group of its own.
        model, family: which model was tuned, where that is given and not chosen. They are no setting of a run then,
            and a task is the data with the model.
        minimise: less is better. No value is changed.
    """

    task: str | None = None
    group: str | None = None
    model: str | None = None
    family: str | None = None
    minimise: bool = False

    def named(self) -> tuple[str, ...]:
        """The columns that are no settings."""
        return tuple(name for name in (self.task, self.group, self.model, self.family) if name)

    def require(self, known: Sequence[str], where: str) -> None:
        """Raise ``UsageError`` where a column does not exist."""
        for name in self.named():
            if name not in known:
                raise UsageError(f"{where} has no column `{name}`.{did_you_mean(name, known)}")

    def task_of(self, row: Mapping[str, Any], data: str, source: str, metric: str, **known: Any) -> MetaTask:
        """The task that ``row`` was run on.

        Args:
            row: column -> value.
            data: name of the data where no column tells it.
            known: further fields of ``MetaTask``.
        """
        name = str(row.get(self.task, data)) if self.task else data
        given, family = (str(row.get(name) or "") if name else "" for name in (self.model, self.family))
        model = given or family
        return MetaTask(
            task_id=f"{source}:{name}" + (f" with {model}" if model else ""),
            name=name,
            group_key=str(row.get(self.group, name)) if self.group else name,
            metric=metric,
            direction="min" if self.minimise else "max",
            model=ModelCard(model, family or family_of(model)) if model else None,
            source=source,
            **known,
        )


def family_of(model: str) -> str:
    """The letters that the name of a model begins with.

    >>> family_of("meta-llama/Llama-3.2-3B"), family_of("gpt2")
    ('llama', 'gpt')
    """
    name = model.rpartition("/")[2].lower()
    end = next((place for place, character in enumerate(name) if not character.isalpha()), len(name))
    return name[:end] or name


def constant_columns(configs: Sequence[Mapping[str, Value]]) -> tuple[str, ...]:
    """The settings that are the same in every run: nothing can be learned about them.

    >>> constant_columns([{"lr": 0.1, "batch": 8}, {"lr": 0.2, "batch": 8}])
    ('batch',)
    """
    names = dict.fromkeys(name for config in configs for name in config)
    return tuple(name for name in names if len({config.get(name) for config in configs}) == 1)


def constant_note(configs: Sequence[Mapping[str, Value]]) -> tuple[str, ...]:
    """One sentence on the settings that never vary; nothing where all do."""
    same = constant_columns(configs)
    if not same or len(configs) < 2:
        return ()
    settings = ", ".join(f"{name} = {configs[0].get(name)}" for name in same)
    return (f"The same in all {len(configs)} runs, so nothing is learned of it: {settings}.",)

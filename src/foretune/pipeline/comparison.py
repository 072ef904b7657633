"""Comparison: a verdict as a user holds it, with tables, contrasts and a page to ask of it.

A verdict is figures alone (``records/verdict.py``); what a reader sees of it is drawn by ``report``, which the room
that compares may not know. So the two meet here, as run and report do in ``Result``.
"""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, final

from foretune.comparison import Protocol
from foretune.comparison import compare as run_and_judge
from foretune.errors import UsageError
from foretune.records import SCORE, Contrast, Verdict
from foretune.registry import did_you_mean
from foretune.report import comparison_page, html, table_files, verdict_tables


@final
class Comparison(Verdict):
    """What ``foretune.compare`` returns: a ``Verdict`` that can be asked and shown."""

    @classmethod
    def of(cls, verdict: Verdict) -> Comparison:
        """The same figures."""
        return cls(**{field.name: getattr(verdict, field.name) for field in fields(Verdict)})

    def table(self, metric: str | None = None, *, task: str | None = None) -> str:
        """Methods and floors by label budget, each score with its interval: one Markdown table for each task.

        Args:
            metric: of the tasks that are shown; None is every task by its own.
            task: the only one that is shown.

        Raises:
            UsageError: no task is judged by that metric, or has that name.
        """
        metrics = {name: verdict_tables.metric_of(verdict_tables.of(self, name)) for name in self.tasks}
        _known("task", task, self.tasks)
        _known("metric", metric, tuple(dict.fromkeys(metrics.values())))
        shown = [name for name in self.tasks if task in (None, name) and metric in (None, metrics[name])]
        if not shown:
            raise UsageError(f"`{task}` is judged by {metrics[str(task)]}, not by {metric}. Leave one of them out.")
        return "\n\n".join(table_files.piped(verdict_tables.scores(self, name)) for name in shown)

    def contrast(
        self,
        first: str,
        second: str,
        *,
        task: str | None = None,
        shots: int | None = None,
        measure: str = SCORE,
    ) -> tuple[Contrast, ...]:
        """``first`` against ``second`` on every task and label budget, and on ``all`` tasks where that was asked.

        Args:
            task, shots: the only ones; 0 shots is every row.
            measure: ``score``, or ``ood:NAME`` for an out-of-domain set.

        Returns:
            Contrasts turned so that above zero speaks for ``first``. Their intervals are adjusted for the whole family
            that the protocol declared, whichever of them is looked at.

        Raises:
            UsageError: the two were not to be contrasted, or not there.
        """
        for name in (first, second):
            _known("method", name, self.methods)
        turned = [
            c if c.first == first else c.turned() for c in self.contrasts if {c.first, c.second} == {first, second}
        ]
        found = [c for c in turned if task in (None, c.task) and shots in (None, c.shots) and c.measure == measure]
        if not turned:
            raise UsageError(
                f"A contrast must be declared before the first run, but `{first}` and `{second}` were not. Name the "
                "pair in the protocol's `contrasts`: with it, all intervals widen."
            )
        if not found:
            there = sorted({f"{c.measure} on {c.task} with {c.shots or 'all'} shots" for c in turned})
            raise UsageError(f"`{first}` and `{second}` are not contrasted there. There is: {', '.join(there)}.")
        return tuple(found)

    def report(self, path: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write the page to ``path`` if it ends in ``.html``; otherwise page, record and tables into that folder.

        Raises:
            StoreError: a file cannot be written.
        """
        target = Path(path)
        if target.suffix.lower() == ".html":
            return (html.written(target, comparison_page.render(self)),)
        return comparison_page.write(self, target)


def compare(protocol: Protocol | str | os.PathLike[str], **options: Any) -> Comparison:
    """Run every method of ``protocol`` under the same rules, and judge: see ``foretune.comparison.compare``.

    Args:
        protocol: or the path of a YAML file.
        options: ``store``, ``data_dir``, ``workers``, ``run``, ``retry_failed``, ``keep_adapters``, ``watch`` and
            ``backend``.
    """
    return Comparison.of(run_and_judge(protocol, **options))


def _known(what: str, given: str | None, known: tuple[str, ...]) -> None:
    if given is not None and given not in known:
        raise UsageError(
            f"`{given}` is no {what} of this comparison.{did_you_mean(given, known)} There is: {', '.join(known)}."
        )

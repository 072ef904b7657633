"""What a protocol may not say. Each refusal has the rule, the values that break it and the way out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from foretune.comparison.methods import BUDGET
from foretune.errors import DataError, UsageError
from foretune.registry import did_you_mean
from foretune.tasks import catalog
from foretune.tasks.load import is_catalog_name

if TYPE_CHECKING:
    from foretune.comparison.protocol import Protocol

SELECTIONS = ("last", "dev")
SHOTS_ARE = ("per_class", "total")
DECAYS = ("linear", "cosine", "constant")
CONTRASTS = ("all", "first", "none")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(:[\w.-]+)?")


def check(protocol: Protocol) -> None:
    """Raise ``UsageError`` for the first rule that ``protocol`` breaks."""
    _lists(protocol)
    _words(protocol)
    _numbers(protocol)
    _sources(protocol)
    _tuning(protocol)
    _equal_budgets(protocol)
    _claims(protocol)
    _held(protocol)


def _lists(protocol: Protocol) -> None:
    for name in ("tasks", "methods", "shots", "data_seeds"):
        if not getattr(protocol, name):
            raise UsageError(f"`{name}` must have at least one entry, but is empty. Name what is to be compared.")
    named = {
        "tasks": [task.called for task in protocol.tasks],
        "methods": [method.name for method in protocol.methods],
        **{name: getattr(protocol, name) for name in ("shots", "data_seeds", "init_seeds", "tuning_seeds")},
    }
    for name, values in named.items():
        _distinct(name, values)
    for name in ("shots", "data_seeds", "init_seeds", "tuning_seeds"):
        for value in getattr(protocol, name):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise UsageError(f"`{name}` must be whole numbers of 0 or more, but one is {value!r}. Correct it.")


def _distinct(name: str, values: Iterable[Any]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        way = "Give one of them a `name` of its own." if name in ("tasks", "methods") else "Name each once."
        raise UsageError(f"`{name}` must differ, but `{twice[0]}` is there twice. {way}")


def _words(protocol: Protocol) -> None:
    if protocol.selection in ("test", "ood", "best", "oracle"):
        raise UsageError(
            f"Nothing may be selected on test or out-of-domain rows, but `selection` is `{protocol.selection}`: the "
            "score of a checkpoint that its own test rows chose is no estimate. Use `last`, or `dev`, which is paid "
            "for out of the shots."
        )
    for name, known in (("selection", SELECTIONS), ("shots_are", SHOTS_ARE), ("decay", DECAYS)):
        value = getattr(protocol, name)
        if value not in known:
            raise UsageError(
                f"`{name}` must be one of {', '.join(known)}, but got `{value}`.{did_you_mean(str(value), known)}"
            )
    if protocol.compute != "steps":
        raise UsageError(
            f"`compute` must be `steps`: what is equal for all methods are optimizer steps, but got "
            f"`{protocol.compute}`. Tokens and seconds are measured and stand beside every score."
        )


def _numbers(protocol: Protocol) -> None:
    limits = {
        **dict.fromkeys(("steps", "test_rows", "epochs", "fewest_steps", "batch_size", "micro_batch"), (1, None)),
        **dict.fromkeys(("evaluations", "tuning_trials"), (1, None)),
        "most_steps": (protocol.fewest_steps, None),
        **dict.fromkeys(("dev_fraction", "test_fraction"), (0, 0.9)),
        "warmup": (0, 1),
        "weight_decay": (0, None),
    }
    for name, (low, high) in limits.items():
        value = getattr(protocol, name)
        if value is not None and not (low <= value and (high is None or value <= high)):
            rule = f"at least {low}" if high is None else f"in [{low}, {high}]"
            raise UsageError(f"`{name}` must be {rule}, but got {value}. Correct it.")
    for name in ("margin", "tuning_seconds", "clip"):
        value = getattr(protocol, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"`{name}` must be above 0, but got {value}. Leave it out, or give a positive number.")
    if not 0 < protocol.alpha < 1:
        raise UsageError(f"`alpha` must lie between 0 and 1, but got {protocol.alpha}. 0.05 is usual.")
    if protocol.dev_share == 0.0 and (protocol.selection == "dev" or protocol.tunes_on_dev):
        raise UsageError(
            "Something is chosen on dev rows, but `dev_fraction` is 0: there would be none. Use `dev_fraction: 0.25`, "
            "or `selection: last` with `tuning_trials: 1`."
        )


def _sources(protocol: Protocol) -> None:
    for task in (*protocol.tasks, *protocol.tuning_tasks):
        for source in (task.source, *task.ood.values()):
            if not known_source(source):
                beside = (
                    os.listdir(os.path.dirname(source) or ".") if os.path.isdir(os.path.dirname(source) or ".") else []
                )
                near = did_you_mean(source, catalog.names()) or did_you_mean(os.path.basename(source), beside)
                raise DataError(
                    f"`{source}` is neither a task of the catalog, nor a file or folder here, nor a Hub id `org/name`."
                    f"{near} `foretune tasks` lists the catalog."
                )


def known_source(source: str) -> bool:
    """Whether ``source`` can be a task: a name of the catalog, something on this disk, or a Hub id.

    >>> known_source("cola"), known_source("cloa")
    (True, False)
    """
    return is_catalog_name(source) or os.path.exists(source) or bool(_HUB_ID.fullmatch(source))


def _held(protocol: Protocol) -> None:
    """Held texts are texts that nothing learns from."""
    held = protocol.forgetting
    if held is None:
        return
    if held.rows < 1:
        raise UsageError(f"`rows` of `forgetting` must be at least 1, but got {held.rows}. 200 is usual.")
    read = {method.name: method.pretrain.source for method in protocol.methods if method.pretrain}
    read |= {method.name: str(method.objective_options.get("texts", "")) for method in protocol.methods} | read
    for name, source in read.items():
        if _same(source, held.source):
            raise UsageError(
                f"`forgetting` must be measured on texts that no method learns from, but `{name}` learns from "
                f"`{source}` too. Name another source."
            )


def _same(first: str, second: str) -> bool:
    return first == second or (os.path.exists(first) and os.path.exists(second) and os.path.samefile(first, second))


def _tuning(protocol: Protocol) -> None:
    if protocol.tuning_tasks:
        _tuned_apart(protocol)
    if protocol.tuning_tasks and protocol.tuning_trials == 1:
        raise UsageError(
            "`tuning_tasks` are where rates are chosen, but `tuning_trials` is 1: there is nothing to choose. Use "
            "`tuning_trials: 4`, or leave the tuning tasks out."
        )
    if protocol.tuning_seconds is not None and protocol.tuning_trials == 1:
        raise UsageError(
            f"`tuning_seconds` ({protocol.tuning_seconds:g}) limits trials, but `tuning_trials` is 1: nothing is "
            "tuned. Leave it out, or raise `tuning_trials`."
        )


def _tuned_apart(protocol: Protocol) -> None:
    if not protocol.tuning_seeds:
        raise UsageError("`tuning_tasks` need `tuning_seeds`, but there are none. Use `tuning_seeds: [100, 101]`.")
    both = [t.source for t in protocol.tuning_tasks if any(_same(t.source, each.source) for each in protocol.tasks)]
    if both:
        raise UsageError(
            f"Rates may not be chosen on a task that is compared, but `{both[0]}` is among `tasks` and "
            "`tuning_tasks`. Take another one, or leave `tuning_tasks` out: then each run pays for its own dev rows."
        )
    seeds = set(protocol.data_seeds) & set(protocol.tuning_seeds)
    if seeds:
        raise UsageError(
            f"`tuning_seeds` must be others than `data_seeds`, but {min(seeds)} is in both. Use numbers from 100 on."
        )


def _equal_budgets(protocol: Protocol) -> None:
    """Equal trials, steps and batches for all that is trained."""
    if protocol.allow_unequal:
        return
    way = "Make them equal, or say `allow_unequal: true` (`--allow-unequal`): every table then says so."
    trained = [method for method in protocol.methods if method.trained]
    for method in trained:
        trials = len(protocol.trials(method))
        if trials != protocol.tuning_trials:
            raise UsageError(
                f"Every method must have as many trials, but `{method.name}` gives {trials} rates and `tuning_trials` "
                f"is {protocol.tuning_trials}. {way}"
            )
    for name in BUDGET:
        own = {method.name: method.schedule[name] for method in trained if name in method.schedule}
        values = {own.get(method.name, getattr(protocol, name)) for method in trained}
        if len(values) > 1:
            listed = ", ".join(f"`{each}` {value}" for each, value in own.items())
            raise UsageError(
                f"Every method must have as many {'steps' if name == 'steps' else 'rows in a batch'}, but the "
                f"protocol says {getattr(protocol, name) or 'by epochs'} and {listed}. {way}"
            )


def _claims(protocol: Protocol) -> None:
    names = [method.name for method in protocol.methods]
    if isinstance(protocol.contrasts, str):
        if protocol.contrasts not in CONTRASTS:
            raise UsageError(
                f"`contrasts` must be one of {', '.join(CONTRASTS)} or a list of pairs, but got "
                f"`{protocol.contrasts}`.{did_you_mean(protocol.contrasts, CONTRASTS)}"
            )
    else:
        _pairs(protocol.contrasts, names)
    seeds = protocol.seeds
    if len(seeds) < 2 and protocol.pairs:
        raise UsageError(
            f"A claim needs at least 2 seeds, but there is 1 ({seeds[0][0]}): nothing says what another draw would "
            "give. Use `data_seeds: [0, 1, 2, 3, 4]` (`--seeds 5`), or `contrasts: none` to report without a claim."
        )


def _pairs(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> None:
    for pair in pairs:
        for name in pair:
            if name not in names:
                raise UsageError(
                    f"`contrasts` must name methods of the protocol, but `{name}` is none.{did_you_mean(name, names)} "
                    f"They are: {', '.join(names)}."
                )
    _distinct("contrasts", [" - ".join(sorted(pair)) for pair in pairs])
    same = [pair for pair in pairs if pair[0] == pair[1]]
    if same:
        raise UsageError(f"A contrast needs two methods, but got `{same[0][0]}` twice. Name another one.")

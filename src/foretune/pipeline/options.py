"""TuneOptions: everything a user may ask of ``tune``, from Python, the command line or YAML; one frozen class.

None means "not asked": the task, the checkpoint or the recommender decides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from foretune.errors import UsageError
from foretune.recommenders.transfer import MODES
from foretune.records import KINDS
from foretune.registry import did_you_mean

_POSITIVE = (
    "lr", "head_lr", "epochs", "steps", "batch_size", "micro_batch", "evaluations", "patience", "shots",
    "pretrain_steps", "pretrain_lr",
)  # fmt: skip
_CHOICES = {
    "kind": KINDS,
    "decay": ("linear", "cosine", "constant"),
    "precision": ("fp32", "bf16"),
    "pooling": ("cls", "mean", "last", "eos"),
    "recommender": ("transfer", "default"),
    "mode": MODES,
}


@dataclass(frozen=True)
class TuneOptions:
    """What ``tune`` and ``recommend`` can be told.

    Attributes:
        model: a folder, a Hub id, or ``demo``.
        text, pair, label, prompt, response, choices, kind, metric: override what is detected in the data.
        dev, test: files of their own for these splits.
        ood: out-of-domain test sets, ``path`` or ``path:name``.
        data_dir: where catalog tasks lie.
        shots, dev_fraction, test_fraction, seed: what is drawn.
        tuner, option, objective, objective_option: the method; ``option`` holds ``key=value`` texts or a mapping for
            the tuner, ``objective_option`` for the objective.
        lr, head_lr, epochs, steps, batch_size, micro_batch, weight_decay, warmup, decay, clip, evaluations, patience,
            precision: the schedule. ``clip=0`` means none.
        max_length, pooling, trust_remote_code, revision: how the model is read.
        pretrain: unlabelled texts to go on pretraining on before the task; ``pretrain_steps``, ``pretrain_lr`` and
            ``pretrain_seed`` say how.
        held_text: texts that nothing learns from, to measure on them what was forgotten.
        budget: wall time for the whole command: ``90``, ``"90s"``, ``"20m"``, ``"1.5h"``.
        recommender: ``transfer`` learns from earlier runs, ``default`` is the published default.
        mode: how ``transfer`` chooses: ``one-shot``, ``portfolio`` or ``grey-box``, which needs a budget.
        refit: in the mode ``grey-box``, learn again from what was seen of the task while the budget is played.
    """

    __pydantic_config__ = {"extra": "forbid", "coerce_numbers_to_str": True}  # noqa: RUF012

    model: str = "demo"
    revision: str | None = None
    text: str | None = None
    pair: str | None = None
    label: str | None = None
    prompt: str | None = None
    response: str | None = None
    choices: tuple[str, ...] = ()
    kind: str | None = None
    metric: str | None = None
    dev: str | None = None
    test: str | None = None
    ood: tuple[str, ...] = ()
    data_dir: str | None = None
    shots: int | None = None
    dev_fraction: float = 0.25
    test_fraction: float = 0.2
    seed: int = 0
    tuner: str | None = None
    option: Mapping[str, Any] = field(default_factory=dict)
    objective: str | None = None
    objective_option: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    head_lr: float | None = None
    epochs: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    micro_batch: int | None = None
    weight_decay: float | None = None
    warmup: float | None = None
    decay: str | None = None
    clip: float | None = None
    evaluations: int | None = None
    patience: int | None = None
    precision: str | None = None
    max_length: int | None = None
    pooling: str | None = None
    trust_remote_code: bool = False
    pretrain: str | None = None
    pretrain_steps: int | None = None
    pretrain_lr: float | None = None
    pretrain_seed: int | None = None
    held_text: str | None = None
    budget: str | None = None
    recommender: str = "transfer"
    mode: str = "one-shot"
    refit: bool = False

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"`{flag(name)}` must be greater than 0 and finite, but got {value}.")
        for name in ("weight_decay", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UsageError(f"`{flag(name)}` must be 0 or more and finite, but got {value}.")
        for name, high in (("dev_fraction", 0.9), ("test_fraction", 0.9), ("warmup", 1)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= high:
                raise UsageError(f"`{flag(name)}` must lie in [0, {high}], but got {value}.")
        if self.test_fraction == 0:
            raise UsageError(
                "`--test-fraction` must be greater than 0, but got 0. To judge on rows of your own, give `--test`."
            )
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                hint = did_you_mean(value, known)
                raise UsageError(f"`{flag(name)}` must be one of {', '.join(known)}, but got `{value}`.{hint}")
        if self.steps is not None and self.epochs is not None:
            raise UsageError(f"Give `--steps` or `--epochs`, not both, but got {self.steps} and {self.epochs:g}.")
        if self.max_length is not None and self.max_length < 4:
            raise UsageError(f"`--max-length` must be at least 4 tokens, but got {self.max_length}.")
        parse_budget(self.budget)
        self._check_mode()
        self._check_pretraining()

    def _check_mode(self) -> None:
        if self.mode != "one-shot" and self.recommender != "transfer":
            raise UsageError(
                f"`--mode {self.mode}` says how `transfer` chooses, but `--recommender {self.recommender}` was asked "
                "for. Leave one of them out."
            )
        if self.mode == "grey-box" and self.budget is None:
            raise UsageError(
                "`--mode grey-box` plays candidates until a budget is spent. Say how much: `--budget 20m`."
            )
        if self.refit and self.mode != "grey-box":
            raise UsageError(
                f"`--refit` learns again while a budget is played, but `--mode {self.mode}` plays none. Give `--mode "
                "grey-box --budget 20m`, or leave it out."
            )

    def _check_pretraining(self) -> None:
        idle = [n for n in ("pretrain_steps", "pretrain_lr", "pretrain_seed") if getattr(self, n) is not None]
        if idle and self.pretrain is None:
            raise UsageError(f"`{flag(idle[0])}` is of a stage on unlabelled texts. Name them with `--pretrain`.")
        if self.pretrain is not None and self.budget is not None:
            raise UsageError(
                "`--budget` cannot be kept with `--pretrain`, for the stage must be whole to be used again. Give "
                "`--pretrain-steps` and `--steps` instead."
            )

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults: what was asked, and nothing else.

        >>> TuneOptions(lr=0.001, seed=3).given()
        {'seed': 3, 'lr': 0.001}
        """
        blank = {f.name: asdict(TuneOptions())[f.name] for f in fields(TuneOptions)}
        return {name: value for name, value in asdict(self).items() if value != blank[name]}


def make_options(values: Mapping[str, Any]) -> TuneOptions:
    """Validate plain values: from YAML, JSON, keyword arguments or the command line.

    Raises:
        UsageError: an unknown name (with the nearest known one) or a value of the wrong type or range.

    >>> make_options({"lr": "1e-3", "ood": ["other.csv"]}).ood
    ('other.csv',)
    """
    from pydantic import TypeAdapter, ValidationError

    known = [f.name for f in fields(TuneOptions)]
    plain = {key.replace("-", "_"): value for key, value in values.items()}
    for key in plain:
        if key not in known:
            raise UsageError(f"`{key}` is not an option of `tune`.{did_you_mean(key, known)}")
    if isinstance(plain.get("option"), list | tuple):
        plain["option"] = pairs(plain["option"])
    if isinstance(plain.get("objective_option"), list | tuple):
        plain["objective_option"] = pairs(plain["objective_option"], texts=True)
    for name in ("ood", "choices"):
        if isinstance(plain.get(name), str):
            plain[name] = (plain[name],)
    try:
        return TypeAdapter(TuneOptions).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, UsageError):
            raise cause from error
        name = flag(str(first["loc"][0])) if first["loc"] else "options"
        raise UsageError(f"`{name}` does not fit: {first['msg'].lower()}, but got `{first['input']}`.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The options of a YAML file (safe loader).

    Raises:
        UsageError: no such file, no YAML, or no mapping.
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The configuration `{path}` cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"`{path}` is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise UsageError(f"`{path}` must hold `name: value` lines, but holds {type(loaded).__name__}.")
    return loaded


def pairs(given: tuple[str, ...] | list[str], texts: bool = False) -> dict[str, Any]:
    """``["rank=16", "targets=qv"]`` as a mapping; values are read as YAML.

    Args:
        texts: every scalar stays a text, for whoever knows its type: YAML holds ``No`` for false.

    >>> pairs(["rank=16", "targets=qv"])
    {'rank': 16, 'targets': 'qv'}
    >>> pairs(["words={0: No, 1: Yes}"], texts=True)
    {'words': {'0': 'No', '1': 'Yes'}}
    """
    import yaml

    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"An option is written `key=value`, but got `{text}`. Example: `--option rank=16`.")
        try:
            found[key.strip().replace("-", "_")] = _text(value) if texts else _value(value)
        except yaml.YAMLError as error:
            raise UsageError(f"The value of the option `{text}` cannot be read. Quote it.") from error
    return found


def parse_budget(text: str | None) -> float | None:
    """Seconds of ``90``, ``90s``, ``20m`` or ``1.5h``; None stays None.

    >>> parse_budget("1.5h"), parse_budget("20m"), parse_budget("45")
    (5400.0, 1200.0, 45.0)
    """
    if text is None:
        return None
    number, unit = (text[:-1], text[-1]) if text and text[-1] in "smh" else (text, "s")
    try:
        seconds = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"`--budget` must be a time such as 90s, 20m or 1.5h, but got `{text}`.")
    return seconds


def _value(text: str) -> Any:
    import yaml

    return float(text) if _is_float(text) else yaml.safe_load(text)


def _text(text: str) -> Any:
    """``text`` itself, or the mapping of texts that it writes, as in ``{0: No, 1: Yes}``.

    >>> _text("{0: No}"), _text("{text}: {answer}")
    ({'0': 'No'}, '{text}: {answer}')
    """
    import yaml

    try:
        found = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return text
    return found if isinstance(found, dict) and all(isinstance(v, str) and v for v in found.values()) else text


def _is_float(text: str) -> bool:
    """Whether YAML 1.1 would miss that this is a number (``1e-3`` has no dot)."""
    try:
        float(text)
    except ValueError:
        return False
    return "e" in text.lower()


def flag(name: str) -> str:
    """How the command line spells a field.

    >>> flag("dev_fraction")
    '--dev-fraction'
    """
    return "--" + name.replace("_", "-")

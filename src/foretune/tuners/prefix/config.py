"""PrefixSubspaceConfig: every setting of a simplex of prefixes, as PEFT keeps settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from peft import PrefixTuningConfig

from foretune.errors import UsageError
from foretune.tuners import _peft
from foretune.tuners.prefix.rules import check


@dataclass
class PrefixSubspaceConfig(PrefixTuningConfig):
    """A simplex of ``n_vertices`` prefixes of ``num_virtual_tokens`` keys and values in every layer.

    The paper (Falissard et al. 2023, arXiv 2310.15793) does not publish its settings; each default is foretune's own.

    Attributes:
        n_vertices: corners of the simplex; 1 is plain prefix tuning.
        init: ``normal``: independent normal vertices. ``text``: the keys and values of ``init_text``, plus noise.
        init_text: one text per vertex, or one for all, of at least ``num_virtual_tokens`` tokens.
        init_std: standard deviation of the normal start, or of the noise; None: 1.0 for ``normal``, 0.02 for ``text``.
        init_scale: ``hold_rms`` widens the start by sqrt((n + 1) / 2), so that a random member of the simplex is as
            long as a single prefix would be.
        alpha: the law of the weights; ``uniform`` on the simplex.
        per: whether every ``observation`` has its own draw or the ``batch`` shares one.
        layerwise: whether every layer has its own draw.
        kv_shared: whether the keys and values of a layer share theirs.
        beta: weight of the mean squared cosine over pairs of vertices, which keeps them apart.
        head_subspace: every linear layer of the head is a simplex too.
        train_pooler: also train a pooler that the checkpoint brought.
        prefix_dropout: dropout on the mixed prefix in training.
        position_mode: ``shift``: the text starts at position P, as in stock PEFT, which can therefore load the
            midpoint. ``no_shift``: it starts at 0, and no position is lost.
        seed: of the private generator of the weights.
        start_std: the standard deviation that was drawn with, ``init_scale`` included; written when a model is made.
    """

    n_vertices: int = field(default=3)
    init: Literal["normal", "text"] = field(default="normal")
    init_text: Sequence[str] = field(default=())
    init_std: float | None = field(default=None)
    init_scale: Literal["none", "hold_rms"] = field(default="none")
    alpha: Literal["uniform"] = field(default="uniform")
    per: Literal["observation", "batch"] = field(default="observation")
    layerwise: bool = field(default=True)
    kv_shared: bool = field(default=True)
    beta: float = field(default=0.0)
    head_subspace: bool = field(default=True)
    train_pooler: bool = field(default=False)
    prefix_dropout: float = field(default=0.0)
    position_mode: Literal["shift", "no_shift"] = field(default="shift")
    seed: int = field(default=0)
    start_std: float | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.init_text, str):
            raise UsageError(f"`init_text` is a list of texts, but got one text: [{self.init_text!r}] is meant.")
        self.init_text = tuple(self.init_text)
        check({f.name: vars(self)[f.name] for f in fields(PrefixSubspaceConfig)})

    @classmethod
    def read(cls, folder: Path) -> PrefixSubspaceConfig:
        """The configuration in ``folder``; that of a plain prefix adapter has one vertex.

        Raises:
            ModelError: nothing readable is there, or the adapter is of another type.
        """
        plain = _peft.read_plain(folder, "PREFIX_TUNING")
        known = {f.name for f in fields(cls)} - {"init_weights"}
        return cls(**{"n_vertices": 1, **{key: value for key, value in plain.items() if key in known}})

    def to_dict(self) -> dict[str, Any]:
        """As PEFT writes it: without the projection, for what is saved came out of it; and for a plain prefix without
        the fields that stock PEFT does not know."""
        plain: dict[str, Any] = super().to_dict() | {"prefix_projection": False}
        if self.n_vertices == 1 and self.position_mode == "shift":
            own = {f.name for f in fields(PrefixSubspaceConfig)} - {f.name for f in fields(PrefixTuningConfig)}
            return {key: value for key, value in plain.items() if key not in own}
        return plain

"""LoRA and its variants, IA3 and LN-tuning: methods that change what a layer computes, as PEFT implements them.

The ranges of ``lr`` are where PEFT's own suite found each method to work (Llama-3.2-3B, GSM8K); the defaults lean
towards small data and small encoders, and name their source.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from foretune.errors import UsageError
from foretune.records import Choice, Real, Space
from foretune.tuners import _peft
from foretune.tuners.heads import head_modules
from foretune.tuners.peft_tuner import PeftTuner
from foretune.tuners.targets import feedforward_outputs, keys_and_values, linears, norms, transposed, written

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

LOW_RANK = Space(
    {
        "lr": Real(5e-5, 1e-3, log=True),
        "rank": Choice((2, 4, 8, 16, 32)),
        "alpha": Choice((8, 16, 32)),
        "dropout": Choice((0.0, 0.1)),
        "targets": Choice(("all-linear", "attention", "qv")),
    }
)


@dataclass(frozen=True)
class LowRank(PeftTuner):
    """W + s B A with A (rank, in) and B (out, rank), B zero at the start (Hu et al. 2021, arXiv 2106.09685, sec. 4.1).

    Attributes:
        rank: rows of A.
        alpha: the numerator of the scale s.
        dropout: on the input of A, in training.
        targets: ``all-linear``: every linear map of the layer stack; ``attention``: those of attention; ``qv``: its
            query and value projections, as in the paper.
        init: of A: ``kaiming`` (uniform) or ``gaussian`` (standard deviation 1 / rank).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: Literal["all-linear", "attention", "qv"] = "all-linear"
    init: Literal["kaiming", "gaussian"] = "kaiming"

    space: ClassVar[Space] = LOW_RANK
    peft_type: ClassVar[str] = "LORA"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise UsageError(
                "`rank >= 1`, `alpha > 0` and `0 <= dropout < 1` must hold, "
                f"but got rank={self.rank}, alpha={self.alpha:g}, dropout={self.dropout:g}."
            )

    @abstractmethod
    def variant(self) -> dict[str, bool]:
        """What PEFT's ``LoraConfig`` is told beyond the common options."""

    def peft_config(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PeftConfig:
        from peft import LoraConfig

        names = linears(network, head_modules(network, fresh), self.targets)
        return LoraConfig(
            task_type=_peft.task_type(network),
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=written(network, names),
            fan_in_fan_out=transposed(network, names),
            init_lora_weights=True if self.init == "kaiming" else "gaussian",
            **self.variant(),
        )


@dataclass(frozen=True)
class LoRA(LowRank):
    """Low-rank adaptation, s = alpha / rank. ``lr`` 5e-4: RoBERTa-base on GLUE (Hu et al. 2021, table 9).

    >>> LoRA(rank=4).part.options["rank"]
    4
    """

    name: ClassVar[str] = "lora"
    lr: ClassVar[float] = 5e-4

    def variant(self) -> dict[str, bool]:
        return {}


@dataclass(frozen=True)
class RsLoRA(LowRank):
    """Rank-stabilised LoRA, s = alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732).

    ``lr`` 2e-4: at rank 8 the scale is 2.8 times LoRA's, so the rate is 2.5 times smaller.
    """

    name: ClassVar[str] = "rslora"
    lr: ClassVar[float] = 2e-4

    def variant(self) -> dict[str, bool]:
        return {"use_rslora": True}


@dataclass(frozen=True)
class DoRA(LowRank):
    """LoRA on the direction of each weight row, its length trained apart (Liu et al. 2024, arXiv 2402.09353).

    ``lr`` 5e-4, as for LoRA, whose settings the paper keeps.
    """

    name: ClassVar[str] = "dora"
    lr: ClassVar[float] = 5e-4

    def variant(self) -> dict[str, bool]:
        return {"use_dora": True}


@dataclass(frozen=True)
class IA3(PeftTuner):
    """One multiplier per key, value and inner feed-forward unit (Liu et al. 2022, arXiv 2205.05638, section 3.3).

    Where query, key and value are one fused projection (GPT-2, ModernBERT), all three are scaled.
    ``lr`` 3e-3: the paper's few-shot recipe T-Few.
    """

    name: ClassVar[str] = "ia3"
    space: ClassVar[Space] = Space({"lr": Real(1e-3, 2e-2, log=True)})
    lr: ClassVar[float] = 3e-3
    peft_type: ClassVar[str] = "IA3"

    def peft_config(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PeftConfig:
        from peft import IA3Config

        heads = head_modules(network, fresh)
        inner = feedforward_outputs(network, heads)
        names = keys_and_values(network, heads) + inner
        return IA3Config(
            task_type=_peft.task_type(network),
            target_modules=written(network, names),
            feedforward_modules=written(network, inner),
            fan_in_fan_out=transposed(network, names),
        )


@dataclass(frozen=True)
class LNTuning(PeftTuner):
    """Gains and biases of every normalisation layer (arXiv 2304.01917; PEFT's is arXiv 2312.11420).

    ``lr`` 5e-3 in [1e-3, 5e-2]: at 1e-4 PEFT's suite reads 0.0.
    """

    name: ClassVar[str] = "ln-tuning"
    space: ClassVar[Space] = Space({"lr": Real(1e-3, 5e-2, log=True)})
    lr: ClassVar[float] = 5e-3
    peft_type: ClassVar[str] = "LN_TUNING"

    def peft_config(self, network: PreTrainedModel, fresh: Sequence[str] = ()) -> PeftConfig:
        from peft import LNTuningConfig

        names = norms(network, head_modules(network, fresh))
        return LNTuningConfig(task_type=_peft.task_type(network), target_modules=written(network, names))

"""The network for a kind of task: always a stock transformers class, so that stock tools can reload what we save.

``none`` is a language model with its own head: masked, causal or sequence to sequence, by family. ``cls``, ``last`` and
``eos`` use ``AutoModelForSequenceClassification``. ``mean`` uses
``AutoModelForTokenClassification``: where its head is linear (of the usual families only ModernBERT's is not), the mean
of the per-token logits over the attention mask *is* the head applied to the mean-pooled hidden state, and no class of
our own has to exist when the adapter is loaded elsewhere.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from foretune.errors import ModelError, ResourceError
from foretune.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


TRAINED = {
    "encoder": "Name one that was trained to fill masks and kept that head, such as `google-bert/bert-base-uncased`, "
    "`FacebookAI/roberta-base` or `answerdotai/ModernBERT-base`; sentence encoders have lost it.",
    "decoder": "Name a checkpoint that was trained to write text.",
    "encoder-decoder": "Name a checkpoint that was trained to write text.",
}
"""Family -> which checkpoints hold a language-model head."""


@dataclass(frozen=True)
class Network:
    """A loaded model.

    Attributes:
        module: the transformers model, in fp32 and evaluation mode.
        fresh: qualified names of the modules that the checkpoint did not hold, or held for another number of classes,
            e.g. ``("classifier",)``.
    """

    module: PreTrainedModel
    fresh: tuple[str, ...]


def build(checkpoint: Checkpoint, outputs: int, fresh_head: bool = False) -> Network:
    """Load the weights into the class that ``checkpoint.ref.pooling`` asks for, with ``outputs`` logits per text.

    Fresh weights are drawn from torch's global generator: seed it just before.

    Args:
        fresh_head: an encoder's language-model head may be fresh, where it is to be trained.

    Raises:
        ModelError: transformers has no such class for this architecture, or the weights do not fit it.
        ResourceError: the weights alone exceed the free memory.
    """
    import transformers
    from safetensors import SafetensorError

    pooling = checkpoint.ref.pooling
    sizes: dict[str, Any]
    if pooling == "none":
        auto = {
            "encoder": transformers.AutoModelForMaskedLM,
            "decoder": transformers.AutoModelForCausalLM,
            "encoder-decoder": transformers.AutoModelForSeq2SeqLM,
        }[checkpoint.family]
        sizes = {}
    else:
        mean = pooling == "mean"
        auto = transformers.AutoModelForTokenClassification if mean else transformers.AutoModelForSequenceClassification
        sizes = {"num_labels": outputs}
        if pooling == "cls" and "classifier_pooling" in checkpoint.config.to_dict():
            sizes["classifier_pooling"] = pooling
    require_memory(checkpoint.parameters * 4, f"the weights of `{checkpoint.ref.name}`")
    try:
        with quiet():
            module, info = auto.from_pretrained(
                checkpoint.folder,
                **sizes,
                dtype="float32",
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=checkpoint.ref.trust_remote_code,
            )
    except (ValueError, OSError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"`{checkpoint.ref.name}` does not load as {auto.__name__}: {first}") from error
    module.config.pad_token_id = checkpoint.tokenizer.pad_token_id
    missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    fresh = fresh_modules(module, missing)
    if pooling == "none" and fresh and not (fresh_head and checkpoint.family == "encoder"):
        raise ModelError(
            f"`{checkpoint.ref.name}` holds no language-model head ({', '.join(fresh)} would start at random). "
            f"{TRAINED[checkpoint.family]}"
        )
    require_whole(checkpoint.ref.name, module, missing, fresh)
    return Network(module.eval(), fresh)


def fresh_modules(module: PreTrainedModel, missing: set[str]) -> tuple[str, ...]:
    """The outermost modules all of whose parameters are ``missing``, but for those that have a second name.

    The output matrix of a language-model head is the embedding, under another name: it says nothing of the head.

    >>> import torch
    >>> net = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Sequential(torch.nn.Linear(2, 2))})
    >>> fresh_modules(net, {"head.0.weight", "head.0.bias"})
    ('head',)
    """
    found: list[str] = []
    names = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    for name, part in module.named_modules():
        own = {f"{name}.{key}" for key, p in part.named_parameters() if names[id(p)] == 1}
        if name and own and own <= missing and not any(name.startswith(f"{outer}.") for outer in found):
            found.append(name)
    return tuple(found)


def require_whole(name: str, module: PreTrainedModel, missing: set[str], fresh: tuple[str, ...]) -> None:
    """Raise ``ModelError`` when weights are ``missing`` that no task head explains: part of the body would be random.

    A head is a module beside the backbone, or the backbone's pooler.
    """
    body = f"{module.base_model_prefix}."
    heads = tuple(f"{f}." for f in fresh if not f"{f}.".startswith(body) or "pool" in f)
    lost = sorted(key for key in missing if not key.startswith(heads))
    if lost:
        raise ModelError(
            f"The weights of `{name}` lack {len(lost)} tensors of {type(module).__name__}, or have them in another "
            f"shape (first: `{lost[0]}`): they would start at random. Name a complete checkpoint of this architecture."
        )


def require_memory(needed: int, what: str) -> None:
    """Raise ``ResourceError`` when ``needed`` bytes are more than what is free now."""
    import psutil

    free = psutil.virtual_memory().available
    if needed > free:
        raise ResourceError(
            f"{what} need {needed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB of memory are free. "
            "Close other programs, or take a smaller model or batch."
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' loading bar and its table of missing keys: ``Network.fresh`` says the same."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

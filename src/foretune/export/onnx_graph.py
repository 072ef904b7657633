"""A network as one ONNX file whose output is already pooled, compared with torch at several lengths and batch sizes.

Two exporters of torch are tried, the first whose graph agrees everywhere is kept. Tracing comes first: on MiniLM
(torch 2.13, onnxruntime 1.31, one thread) it takes 1.4 s instead of 17 s and its graph runs 10 % faster, with the same
differences. It freezes every Python branch, which the comparison would show, and torch has announced its end, which is
why ``torch.export`` stands behind it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foretune.errors import ExportError, ModelError, UsageError
from foretune.models import Checkpoint
from foretune.models.network import quiet

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 18
LARGEST = 2**31
"""Bytes of a protobuf message, which one ``.onnx`` file is."""

TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest of its batch (or to 1): fused kernels add in another order."""

LONGEST = 48
"""Tokens of the longest text of the comparison: a graph with a frozen length fails long before."""

Inputs = dict[str, "torch.Tensor"]


def require_onnx() -> None:
    """Raise ``UsageError`` unless the packages of the extra ``onnx`` are installed."""
    absent = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if absent:
        raise UsageError(f"ONNX needs {', '.join(absent)}, not installed here. Run: pip install 'foretune[onnx]'.")


def export_graph(model: nn.Module, checkpoint: Checkpoint, path: Path, virtual_tokens: int = 0) -> str:
    """Write ``path`` and return the name of the exporter.

    Inputs ``input_ids``, ``attention_mask`` (and ``token_type_ids`` where the tokenizer makes them), int64
    ``(batch, length)``, right-padded; output ``logits``, float32 ``(batch, C)``.

    Args:
        model: gives one row of logits per text, or one per token, which are averaged over the mask.
        virtual_tokens: positions that the tuner takes for itself.

    Raises:
        ModelError: too large for one file.
        ExportError: neither exporter writes a graph that computes the same.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size >= LARGEST:
        raise ModelError(
            f"One ONNX file holds less than 2 GiB, but these weights take {size / 2**30:.1f} GiB. Use `--to merged`."
        )
    pooled, example = _pooled(model), sample(checkpoint, (5, 9))
    longest = min(checkpoint.ref.max_length, (checkpoint.positions or LONGEST) - virtual_tokens, LONGEST)
    reasons: list[str] = []
    for name, write in EXPORTERS.items():
        try:
            with silent():
                write(pooled, example, path)
                difference = disagreement(pooled, checkpoint, path, longest)
        except OSError:  # a full disk is not the graph's fault
            raise
        except Exception as error:  # exporters raise whatever the operator they stumble on raises
            first = str(error).strip().splitlines()
            reasons.append(f"{name}: {first[0] if first else type(error).__name__}")
            continue
        if difference <= TOLERANCE:
            return name
        reasons.append(f"{name}: logits differ by {difference:.2g}, where {TOLERANCE:g} is allowed")
    raise ExportError(f"`{checkpoint.ref.name}` cannot be written as ONNX ({'; '.join(reasons)}). Use `--to merged`.")


def traced(model: nn.Module, example: Inputs, path: Path) -> None:
    """Record the operations of one pass."""
    import torch

    axes = {name: {0: "batch", 1: "length"} for name in example} | {"logits": {0: "batch"}}
    torch.onnx.export(
        model, tuple(example.values()), str(path), input_names=list(example), output_names=["logits"],
        dynamic_axes=axes, opset_version=OPSET, dynamo=False,
    )  # fmt: skip


def exported(model: nn.Module, example: Inputs, path: Path) -> None:
    """Capture the whole program with ``torch.export``."""
    import torch

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        model, tuple(example.values()), str(path), input_names=list(example), output_names=["logits"],
        dynamic_shapes=tuple(free for _ in example), opset_version=OPSET, dynamo=True, external_data=False,
        verbose=False,
    )  # fmt: skip


EXPORTERS: dict[str, Callable[[nn.Module, Inputs, Path], None]] = {"trace": traced, "torch.export": exported}


def disagreement(model: nn.Module, checkpoint: Checkpoint, path: Path, longest: int) -> float:
    """Largest difference between the file under onnxruntime and ``model``, as ``TOLERANCE`` counts it."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for lengths in ((1,), (2,), (longest,), (3, longest, 1), tuple(range(1, longest + 1, 3))):
        inputs = sample(checkpoint, lengths)
        with torch.inference_mode():
            wanted = model(*inputs.values()).numpy()
        found = session.run(["logits"], {name: tensor.numpy() for name, tensor in inputs.items()})[0]
        if found.shape != wanted.shape:
            return float("inf")
        worst = max(worst, float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max())))
    return worst


def sample(checkpoint: Checkpoint, lengths: tuple[int, ...]) -> Inputs:
    """Random token ids of the given lengths, padded on the right, in the form the tokenizer gives; always the same."""
    import torch

    made = checkpoint.tokenizer("a", "b")
    rng = np.random.Generator(np.random.PCG64(len(lengths)))
    mask = np.arange(max(lengths))[None, :] < np.array(lengths)[:, None]
    ids = np.where(mask, rng.integers(0, checkpoint.config.vocab_size, mask.shape), checkpoint.tokenizer.pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if "token_type_ids" in made:
        second = max(made["token_type_ids"])
        inputs["token_type_ids"] = np.where(mask & (np.arange(mask.shape[1]) > 2)[None, :], second, 0)
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def _pooled(model: nn.Module) -> nn.Module:
    """``model`` as a module of positional inputs that gives pooled logits."""
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            logits = self.model(input_ids=input_ids, attention_mask=attention_mask, **kinds).logits
            if logits.dim() == 2:
                return logits
            mask = attention_mask.unsqueeze(-1).to(logits.dtype)
            return (logits[:, -input_ids.shape[1] :] * mask).sum(1) / mask.sum(1)

    return Pooled().eval()


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keep the exporters' warnings, prints and log lines to themselves: what counts is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            quiet(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(before)

"""The ONNX file: any length, any batch; an exporter whose graph is wrong is not believed."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_cases import Runs

from foretune.errors import ExportError, UsageError
from foretune.export import onnx_graph
from foretune.export.formats import onnx
from foretune.export.source import Source


@pytest.mark.parametrize("name", ["mean", "pair"])
def test_padding_and_company_change_nothing(runs: Runs, tmp_path: Path, name: str) -> None:
    import onnxruntime

    source = Source.open(runs(name))
    assert onnx(source, tmp_path) == {"exporter": "trace"}
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    batch = {k: v.numpy() for k, v in onnx_graph.sample(source.checkpoint, (1, 7, 20)).items()}
    assert [node.name for node in session.get_inputs()] == list(batch)
    together = session.run(["logits"], batch)[0]
    assert together.shape == (3, 3)
    for row, length in enumerate((1, 7, 20)):
        alone = session.run(["logits"], {k: v[row : row + 1, :length] for k, v in batch.items()})[0]
        np.testing.assert_allclose(alone[0], together[row], atol=1e-5)


def test_a_graph_that_knows_one_shape_only_is_not_believed(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def frozen(model: Any, example: Any, path: Path) -> None:
        import torch

        names = list(example)
        torch.onnx.export(
            model, tuple(example.values()), str(path), input_names=names, output_names=["logits"], dynamo=False
        )

    monkeypatch.setitem(onnx_graph.EXPORTERS, "trace", frozen)
    monkeypatch.delitem(onnx_graph.EXPORTERS, "torch.export")
    with pytest.raises(ExportError, match="--to merged"):
        onnx(Source.open(runs("mean")), tmp_path)


def test_a_graph_that_computes_something_else_is_not_believed(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(model: Any, example: Any, path: Path) -> None:
        from torch import nn

        class Shifted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, *inputs: Any) -> Any:
                return self.inner(*inputs) + 0.01

        onnx_graph.traced(Shifted(), example, path)

    monkeypatch.setitem(onnx_graph.EXPORTERS, "trace", shifted)
    monkeypatch.delitem(onnx_graph.EXPORTERS, "torch.export")
    with pytest.raises(ExportError, match=r"logits differ by 0\.0"):
        onnx(Source.open(runs("mean")), tmp_path)


@pytest.mark.slow
def test_the_second_exporter_serves_where_the_first_does_not(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(model: Any, example: Any, path: Path) -> None:
        raise TypeError("torch took it away")

    monkeypatch.setitem(onnx_graph.EXPORTERS, "trace", gone)
    assert onnx(Source.open(runs("mean")), tmp_path) == {"exporter": "torch.export"}
    assert [path.name for path in tmp_path.glob("model*")] == ["model.onnx"]


def test_the_absent_extra_is_named_with_its_pip_line(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"onnxruntime, not installed here\. Run: pip install 'foretune\[onnx\]'"):
        onnx(Source.open(runs("mean")), tmp_path)

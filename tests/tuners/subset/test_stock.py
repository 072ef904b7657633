"""A subset as an adapter of stock PEFT: what fits, bit for bit where addition allows it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import ModelError
from foretune.testing import toys
from foretune.testing.contracts import logits, train
from foretune.tuners._peft import merge
from foretune.tuners.dynamic_subset import DynamicSubset, StaticSubset, SubsetTuner
from foretune.tuners.subset.model import subset_of
from foretune.tuners.subset.part import Part
from foretune.tuners.subset.stock import FORMS, convert, save, sparsity

pytestmark = [  # both are stock PEFT's
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def tuned(tuner: SubsetTuner, name: str = "bert", kind: str = "sequence", dtype: torch.dtype = torch.float32):
    """A toy after some steps."""
    network = toys.network(name, kind).to(dtype)
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner, 5)
    return model.eval()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "kind", "tuner", "dtype"),
    [
        ("bert", "sequence", DynamicSubset(density=0.03), torch.float32),
        ("llama", "language", StaticSubset(density=0.01, silo="global", mask="gradient"), torch.float32),
        ("llama", "language", DynamicSubset(density=0.03), torch.bfloat16),
        ("t5", "language", DynamicSubset(density=0.003, k_min=2, targets="qv"), torch.float32),
    ],
)
def test_what_stock_peft_loads_is_the_tuned_model_but_for_roundings_that_are_counted(
    tmp_path: Path, form: str, name: str, kind: str, tuner: SubsetTuner, dtype: torch.dtype
) -> None:
    model = tuned(tuner, name, kind, dtype)
    wanted = {key: value.detach().clone() for key, value in model.state_dict().items()}
    batch = toys.batch(model)
    answers, away = logits(model, batch), sum(len(part.index) for part in subset_of(model).parts)
    fit = save(model, tmp_path, form)
    base = toys.network(name, kind).to(dtype)
    assert not torch.equal(logits(base, batch), answers)
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    assert loaded.peft_config["default"].peft_type == form.upper()
    again, merged = logits(loaded, batch), merge(loaded).state_dict()
    off = torch.cat([(merged[key].float() - wanted[key].float()).abs().flatten() for key in wanted])
    assert int(off.count_nonzero()) == fit.rounded
    assert float(off.max()) == fit.largest_rounding
    assert fit.weights == away
    assert torch.equal(again, answers) or fit.rounded


@pytest.mark.parametrize("form", FORMS)
def test_entries_that_a_format_wants_too_many_are_zeros_outside_the_subset(form: str) -> None:
    model = tuned(DynamicSubset(density=0.02, silo="global"))
    batch = toys.batch(model)
    answers = logits(model, batch)
    parts = {part.name: set(part.index.tolist()) for part in subset_of(model).parts if len(part.index)}
    converted, fit = convert(model, form)
    torch.testing.assert_close(logits(converted, batch), answers, rtol=0, atol=1e-6)
    entries = zeros = 0
    for name, index in parts.items():
        layer = converted.get_base_model().get_submodule(name.removesuffix(".weight"))
        if form == "supertuning":
            places, values = layer.supertuning_indices["default"].long(), layer.supertuning_values["default"]
        else:
            rows, columns = layer.shira_indices["default"].long()
            places, values = rows * layer.in_features + columns, layer.shira_weight["default"]
        assert bool((places[1:] > places[:-1]).all())
        assert index <= set(places.tolist())
        assert all(place in index for place in places[values != 0].tolist())
        entries, zeros = entries + len(places), zeros + len(places) - len(index)
    assert (fit.weights + fit.padding, fit.padding) == (entries, zeros)
    assert zeros > 0


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(1e-9, 1.0)), min_size=1, max_size=6))
def test_the_sparsity_leaves_room_for_every_layer_and_none_to_spare(drawn: list[tuple[int, float]]) -> None:
    parts = [(size, max(1, int(size * share))) for size, share in drawn]
    found = sparsity(parts)
    assert 0 <= found < 1
    room = [int(size * (1 - found)) for size, _ in parts]
    assert all(entries >= needed for entries, (_, needed) in zip(room, parts, strict=True))
    assert any(entries == needed for entries, (_, needed) in zip(room, parts, strict=True))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "tuner", "says"),
    [
        ("bert", DynamicSubset(density=0.1, more=("norms",)), r"LayerNorm.weight`, in a `LayerNorm`"),
        ("bert", DynamicSubset(density=0.1, more=("biases",)), r"LayerNorm.bias`, in a `LayerNorm`"),
        ("bert", DynamicSubset(density=0.1, more=("embeddings",)), r"word_embeddings.weight`, in a `Embedding`"),
        ("gpt2", DynamicSubset(density=0.1), r"c_attn.weight`, in a `Conv1D`"),
    ],
)
def test_a_tensor_that_the_format_cannot_hold_is_named_and_nothing_is_touched(
    tmp_path: Path, form: str, name: str, tuner: SubsetTuner, says: str
) -> None:
    model = tuned(tuner, name)
    batch = toys.batch(model)
    before = logits(model, batch)
    with pytest.raises(ModelError, match=rf"`[\w.]*{says}.*--to merged` \(in `export_to`: `full`\)"):
        save(model, tmp_path, form)
    assert torch.equal(logits(model, batch), before)
    assert subset_of(model).size
    assert not any(tmp_path.iterdir())


def test_a_subset_too_dense_for_shira_is_refused_with_the_ranks(tmp_path: Path) -> None:
    model = tuned(DynamicSubset(density=0.95))
    with pytest.raises(ModelError, match=r"needs r=10, and `.*` has room for r=8.*--to supertuning"):
        save(model, tmp_path, "shira")
    assert save(model, tmp_path, "supertuning").padding == 0


def test_check_06_a_matrix_with_places_beyond_32_bits_is_refused_by_super_tuning() -> None:
    parts = [Part("w", torch.empty(2**16, 2**15 + 1, device="meta"))]
    with pytest.raises(ModelError, match=r"`w` has 2,147,549,184 weights. Use `--to shira` or .*`export_to`: `full`"):
        FORMS["supertuning"].config(parts)


@pytest.mark.parametrize("form", FORMS)
def test_before_the_first_step_there_is_nothing_to_hold(tmp_path: Path, form: str) -> None:
    network = toys.network("bert")
    with pytest.raises(ModelError, match="No weight is away from the base"):
        save(DynamicSubset().attach(network, toys.fresh(network)), tmp_path, form)

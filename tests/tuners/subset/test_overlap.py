"""Two subsets: what they share, what chance would make them share, and which ones cannot be compared."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import ModelError
from foretune.testing import toys
from foretune.testing.contracts import train
from foretune.tuners import TUNERS
from foretune.tuners.dynamic_subset import StaticSubset
from foretune.tuners.subset.overlap import Overlap, overlap, overlap_of

SETS = st.sets(st.integers(0, 29))


def saved(folder: Path, **options) -> Path:
    """The adapter of a toy after two steps under a random mask."""
    tuner = StaticSubset(**{"density": 0.2, **options})
    network = toys.network("bert")
    model = tuner.attach(network, toys.fresh(network))
    train(model, toys.batch(network), tuner, 2)
    tuner.save(model, folder)
    return folder


@given(SETS, SETS)
def test_what_is_shared_is_the_intersection_whichever_comes_first(first, second) -> None:
    a, b = ({"w": np.array(sorted(places), dtype=np.int64)} for places in (first, second))
    found = overlap_of(a, b, {"w": 30, "other": 5})
    assert (found.first, found.second, found.shared) == (len(first), len(second), len(first & second))
    other = overlap_of(b, a, {"w": 30, "other": 5})
    assert (other.shared, other.shared_by_chance) == (found.shared, found.shared_by_chance)
    if first | second:
        assert found.jaccard == len(first & second) / len(first | second)
        assert 0 <= found.jaccard_by_chance <= 1
    else:
        assert math.isnan(found.jaccard)


def test_chance_is_the_mean_over_random_subsets() -> None:
    rng = np.random.default_rng(1)
    sizes, counts = {"a": 60, "b": 200}, {"a": (20, 15), "b": (10, 30)}

    def drawn(which: int) -> dict[str, np.ndarray]:
        return {name: rng.choice(size, counts[name][which], replace=False) for name, size in sizes.items()}

    found = [overlap_of(drawn(0), drawn(1), sizes) for _ in range(300)]
    assert found[0].shared_by_chance == pytest.approx(20 * 15 / 60 + 10 * 30 / 200)
    assert np.mean([each.shared for each in found]) == pytest.approx(found[0].shared_by_chance, rel=0.05)


def test_a_run_overlaps_itself_whole_and_another_seed_about_as_chance_has_it(tmp_path: Path) -> None:
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two", seed=1)
    same = overlap(one, one)
    assert same.jaccard == 1
    assert same.shared == same.first == same.second > 0
    other = overlap(str(one), str(two))
    assert other.jaccard == pytest.approx(other.jaccard_by_chance, abs=0.04)


def test_the_folder_of_a_run_stands_for_its_adapter(tmp_path: Path) -> None:
    saved(tmp_path / "run" / "adapter")
    assert overlap(tmp_path / "run", tmp_path / "run" / "adapter").jaccard == 1


def test_subsets_of_other_matrices_or_another_base_are_refused(tmp_path: Path) -> None:
    one, fewer = saved(tmp_path / "one"), saved(tmp_path / "fewer", targets="qv")
    with pytest.raises(ModelError, match="the same matrices"):
        overlap(one, fewer)
    moved = shutil.copytree(one, tmp_path / "moved")
    config = moved / "adapter_config.json"
    text = config.read_text()
    config.write_text(text.replace('"base_hash": "', '"base_hash": "x'))
    with pytest.raises(ModelError, match="the same base"):
        overlap(one, moved)


def test_what_holds_no_subset_is_named(tmp_path: Path) -> None:
    one = saved(tmp_path / "one")
    with pytest.raises(ModelError, match="holds no adapter"):
        overlap(one, tmp_path)
    lora = TUNERS["lora"](rank=2)
    lora.save(lora.attach(toys.network("bert")), tmp_path / "lora")
    with pytest.raises(ModelError, match="must hold a subset of weights, but it holds LORA"):
        overlap(one, tmp_path / "lora")
    spoiled = shutil.copytree(one, tmp_path / "spoiled")
    (spoiled / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match="not a readable adapter configuration"):
        overlap(one, spoiled)
    cut = shutil.copytree(one, tmp_path / "cut")
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="is not whole"):
        overlap(one, cut)


def test_nothing_and_nothing_have_no_jaccard() -> None:
    assert math.isnan(Overlap(0, 0, 0, 0.0).jaccard_by_chance)

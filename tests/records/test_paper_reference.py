"""What a paper does not publish is written down, and no page claims more than can be compared."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from foretune.records import PaperReference
from foretune.tuners import TUNERS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = sorted((ROOT / "src" / "foretune" / "cli").glob("*.py"))
KNOWN = {name: tuner.paper_reference for name, tuner in TUNERS.items() if tuner.paper_reference is not None}
CLAIM = re.compile(r"[^.|]*\breproduc\w*\b[^.|]*", re.I)


def test_a_run_can_be_compared_once_models_settings_results_and_their_spread_are_known() -> None:
    known = PaperReference("A paper", "arXiv 0000.00000", ("m",), {"lr": 1.0}, results={"rte": 0.7})
    assert known.unpublished == ("baselines", "spread", "ablations", "overhead", "limits")
    assert not known.comparable
    assert replace(known, spread={"rte": 0.02}).comparable


@pytest.mark.parametrize("name", KNOWN)
def test_the_page_of_a_method_says_what_its_paper_does_not_publish(name: str) -> None:
    paper = KNOWN[name]
    assert paper is not None
    (page,) = [
        text
        for p in PAGES
        if p.parent.name == "docs" and f"[{paper.source}]" in (text := p.read_text(encoding="utf-8"))
    ]
    told = re.search(r"`paper_reference`[^.]*\.", page)
    assert told
    assert set(re.findall(r"`(\w+)`", told[0])) == {"paper_reference", *paper.unpublished}


def test_check_27_no_page_and_no_command_claims_to_reproduce_a_paper_that_cannot_be_compared() -> None:
    assert {name for name, paper in KNOWN.items() if paper} >= {"prefix-subspace", "dynamic-subset"}
    assert not [name for name, paper in KNOWN.items() if paper and paper.comparable]
    texts = {path: " ".join(path.read_text(encoding="utf-8").split()) for path in (*PAGES, *COMMANDS)}
    claims = [said for text in texts.values() for said in CLAIM.findall(text) if re.search(r"\bpapers?\b", said)]
    assert claims
    assert [said for said in claims if not re.search(r"\bnot\b|\bno\b", said)] == []

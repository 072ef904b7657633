"""Check 10 of the comparison harness: a GSM8K answer is a number, whatever it is dressed in."""

import json
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError
from foretune.evaluation import generation, gsm8k_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,000", 1000),
        ("1000", 1000),
        ("1,450,000", 1450000),
        ("$1,000.00", 1000),
        ("1{,}000", 1000),
        ("50%", 50),
        ("12.", 12),
        ("1,000.", 1000),
        ("3.50", Fraction(7, 2)),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        ("3 / 4", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("2 1/2", Fraction(5, 2)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        ("-10", -10),
        ("−10", -10),
        ("-$5", -5),
        ("$-5", -5),
        ("x=-5", -5),
        ("(-2)", -2),
        ("€7", 7),
        (r"$\boxed{18}$", 18),
        ("**18**", 18),
        ("007", 7),
        ("१२", 12),
    ],
)
@pytest.mark.parametrize("frame", ["{}", "#### {}", "2 + 3 = 5 and so 7.\n#### {}", "She had 3 and gets {}"])
def test_check_10_gsm8k_reads_a_number_in_any_dress(text, expected, frame):
    assert gsm8k_answer(frame.format(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9 - 4 = 5", 5),
        ("between 3-5", 5),
        ("$3-$5", 5),
        ("5, 6, 7", 7),
        ("The answer is 18.", 18),
        ("18 apples #### ", 18),
        ("#### 18\n\nQuestion: Tom has 3.\n#### 20", 18),
        ("#### Step one\nSo it is 7", 7),
        ("####18", 18),
        ("#### **$18.00**", 18),
        ("#### -3", -3),
        ("no number", None),
        ("", None),
        ("5/0", None),
        ("9" * 5000, None),
    ],
)
def test_check_10_gsm8k_takes_the_first_mark_or_else_the_last_number(text, expected):
    assert gsm8k_answer(text) == expected


@given(st.integers(-(10**12), 10**12), st.integers(0, 99))
def test_check_10_gsm8k_reads_what_python_formats(whole, cents):
    assert gsm8k_answer(f"#### {whole:,}") == gsm8k_answer(f"So it is {whole}.") == whole
    assert gsm8k_answer(f"${abs(whole):,}.{cents:02d}") == Fraction(abs(whole) * 100 + cents, 100)


@given(st.text(alphabet="0123456789,.-−/$%# \nax{}", max_size=60))
def test_any_text_gives_a_number_or_none(text):
    assert isinstance(gsm8k_answer(text), Fraction | None)


def test_scores_compare_numbers_not_texts():
    found = generation.gsm8k([["#### 1,000"], ["#### 0.5"], ["#### 3"]], ["It is 1000.00", "It is 1/2", "no idea"])
    assert found.examples.tolist() == [1.0, 1.0, 0.0]
    assert found.value == pytest.approx(2 / 3)


def test_a_reference_without_a_number_is_an_error_of_the_data():
    with pytest.raises(DataError, match=r"example 2 has none: 'three'.*exact_match"):
        generation.gsm8k([["1"], ["three"]], ["1", "3"])


@pytest.mark.slow
@pytest.mark.skipif("FORETUNE_DATA" not in os.environ, reason="needs the GSM8K files")
def test_check_10_gsm8k_reads_every_test_answer():
    rows = (Path(os.environ["FORETUNE_DATA"]) / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    written = [json.loads(row)["answer"] for row in rows]
    bare = [answer.rsplit("####", 1)[1].strip() for answer in written]
    assert (sum("," in b for b in bare), sum(b.startswith("-") for b in bare)) == (14, 2)
    assert [gsm8k_answer(answer) for answer in written] == [Fraction(b.replace(",", "")) for b in bare]

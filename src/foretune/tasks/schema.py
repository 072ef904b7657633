"""Schema: what the columns of a data set mean, and the one normalised form every loader delivers.

Whatever the source, a split becomes a ``pyarrow.Table`` with exactly these columns (``SPLIT_COLUMNS``):

=========  =====================  ==============================================================================
``row``    int64                  the row's number in its source, counted from 1 after any header: what errors name
``text``   string                 the text, the first text of a pair, the question of a choice, or the prompt
``pair``   string, null           the second text of a pair
``choices`` list<string>, null    the candidate texts of a multiple choice
``label``  string, null           the class name, the number as written, the index of the right choice (``"0"``), or
                                  the response; null where the source has no label (rows to predict)
=========  =====================  ==============================================================================

An out-of-domain set whose rows belong to parts (the heuristics of HANS, the shops of reviews) has one column more
(``GROUPED_COLUMNS``): ``group``, string, null where a row belongs to none.

Labels stay strings in this form: it is the one in which nothing is lost. ``Task.targets`` turns them into numbers.
Arrow keeps 100,000 rows in contiguous buffers (and memory-mapped where the source is a ``datasets`` folder).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

SPLIT_COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("text", pa.string()),
        ("pair", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("label", pa.string()),
    ]
)

GROUPED_COLUMNS = SPLIT_COLUMNS.append(pa.field("group", pa.string()))


@dataclass(frozen=True)
class Schema:
    """The meaning of the columns, as detected or as the user said.

    Attributes:
        kind: one of ``foretune.records.KINDS``.
        columns: role (``text``, ``pair``, ``choices``, ``label``, ``prompt``, ``response``) -> source column name(s).
            ``coding`` is no column: it says how a choice's label was written, one of ``labels.CODINGS``.
        labels: class names in the order of the logits (classification only): sorted, numbers as numbers.
        metric: what selects the checkpoint: ``accuracy``, ``macro_f1``, ``mcc``, ``spearman``, ``pearson``,
            ``exact_match``, ``token_f1``, ``rouge_l``, ``chrf``, ``bleu``, ``gsm8k``.
        references: several accepted responses per row are joined by this separator in ``label``; None = one only.
        ood_label_map: out-of-domain set -> (class of this task -> class of that set), where several of our classes are
            one of its classes. A prediction is made first (argmax over our classes) and renamed after, as McCoy et al.
            (2019) judge three-class models on HANS; the probability of a class of that set is the sum over ours.
        ood_groups: out-of-domain set with a column ``group`` -> what it tells apart (``heuristic``, ``shop``).
    """

    kind: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    metric: str = "accuracy"
    references: str | None = None
    ood_label_map: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ood_groups: Mapping[str, str] = field(default_factory=dict)

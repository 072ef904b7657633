"""The gap between in-domain and out-of-domain scores of one method, for new seeds and for new rows of both sets.

The same model answers both sets, so seeds are paired; the rows of the two sets are independent samples. With the
variance components of ``evaluation.crossed`` (a: seeds, b: items, e: residual), a of the gap over seeds, b and e of
either set::

    V = max(a + (b1 - e1) + (b2 - e2), a, b1 + b2)
    df = max(S - 1, V^2 / (a^2/(S-1) + b1^2/(I1-1) + b2^2/(I2-1) + (e1^2/(I1-1) + e2^2/(I2-1))/(S-1)))
"""

from __future__ import annotations

import math

import numpy as np

from foretune.comparison.evidence import Evidence, grouped, measured
from foretune.evaluation import over_seeds
from foretune.evaluation.crossed import components
from foretune.evaluation.estimate import student
from foretune.records.verdict import Measured

CROSSED = "crossed seeds and items of both sets"


def gap(evidence: Evidence, split: str) -> Measured | None:
    """In-domain minus out-of-domain, turned so that more is worse; None where either has no score."""
    inside, outside = evidence.means(), evidence.means(split)
    seeds = sorted(set(inside) & set(outside))
    if not seeds:
        return None
    sign = 1.0 if evidence.greater else -1.0
    each = sign * (grouped({s: inside[s] for s in seeds}) - grouped({s: outside[s] for s in seeds}))
    if len(each) < 2:
        return Measured(float(each[0]), n_seeds=1)
    first, second = evidence.items(), evidence.items(split)
    if first is None or second is None:
        return measured(over_seeds(each))
    tables = [grouped({s: items[s] for s in seeds}) for items in (first, second)]
    parts = [components(table) for table in tables]
    a, free = float(each.var(ddof=1)) / len(each), len(each) - 1
    b, e = ([float(getattr(part, name)) for part in parts] for name in ("items", "residual"))
    rows = [table.shape[1] - 1 for table in tables]
    variance = max(a + sum(b) - sum(e), a, sum(b))
    below = a**2 / free + sum((x**2 + y**2 / free) / n for x, y, n in zip(b, e, rows, strict=True))
    df = max(float(free), variance**2 / below) if below else float(free)
    found = student(
        float(np.mean(each)),
        math.sqrt(variance),
        df,
        CROSSED,
        scale=1.0,
        n_seeds=len(each),
        n_items=sum(rows) + len(rows),
    )
    return measured(found)

"""A student stands between two references: its teacher with the context, and the same model without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from foretune.evaluation import METRICS
from foretune.records import Evaluation, Teaching
from foretune.training.measure import judged
from foretune.training.prepare import Prepared


def judge_teacher(run: Prepared) -> Teaching | None:
    """What the record says of the teacher, with its scores on every split that is judged; None where there is none."""
    lessons = run.lessons
    if lessons is None:
        return None
    return replace(
        lessons.told,
        with_context={split: judged(run, split, guess).scores for split, guess in lessons.with_context.items()},
        without_context={split: judged(run, split, guess).scores for split, guess in lessons.without_context.items()},
    )


def told(
    teaching: Teaching, metric: str, evaluations: Mapping[str, Evaluation]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a reader should know of teacher and student, and what a reader must know: sentences.

    >>> scores = {"test": {"accuracy": 0.9}}, {"test": {"accuracy": 0.5}}
    >>> teaching = Teaching("d1", 80, 2, ((1, 2), (2, 3)), 3.0, 900, False, *scores)
    >>> said, raised = told(teaching, "accuracy", {"test": Evaluation(40, {"accuracy": 0.45})})
    >>> said[-1]
    'On test the model has accuracy 0.900 with the demonstrations in its context, 0.500 untrained without them, and \
0.450 trained without them.'
    >>> raised
    ('The student lies below the untrained model without a context on test: it has learned nothing of use there.',)
    """
    sign = 1.0 if METRICS[metric].greater_is_better else -1.0
    again = ", of an earlier run" if teaching.reused else ""
    said = [
        f"A teacher with {len(teaching.shown)} contexts of {len(teaching.shown[0])} demonstrations answered "
        f"{teaching.texts:,} unlabelled texts: {teaching.tokens:,} tokens, {teaching.seconds:.1f} s{again}."
    ]
    if teaching.left_out:
        said.append(f"{teaching.left_out:,} unlabelled texts repeat a row of a split and were left out.")
    raised = []
    for split, evaluation in evaluations.items():
        above, below = (side[split][metric] for side in (teaching.with_context, teaching.without_context))
        score = evaluation.scores[metric]
        said.append(
            f"On {split} the model has {metric} {above:.3f} with the demonstrations in its context, {below:.3f} "
            f"untrained without them, and {score:.3f} trained without them."
        )
        if sign * score < sign * below:
            raised.append(
                f"The student lies below the untrained model without a context on {split}: it has learned nothing of "
                "use there."
            )
        elif sign * score > sign * above:
            raised.append(
                f"The student lies above its teacher on {split}: what it has learned there is not the context's alone."
            )
    return tuple(said), tuple(raised)

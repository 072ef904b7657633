"""FLOOR 1: arithmetic on predictions. numpy alone at import; scipy, scikit-learn, sacrebleu where used; never torch."""

from foretune.evaluation.aggregate import iqm, probability_of_improvement
from foretune.evaluation.best_of import BestOf, best_of
from foretune.evaluation.calibration import collapse, fit_temperature, softmax, temperature_note
from foretune.evaluation.claim import Claim, claims
from foretune.evaluation.crossed import crossed
from foretune.evaluation.equivalence import Equivalence, detectable_difference, tost
from foretune.evaluation.estimate import Estimate, at_level, over_seeds
from foretune.evaluation.evidence import logme
from foretune.evaluation.floors import Inputs, floors, probe
from foretune.evaluation.front import front_probability
from foretune.evaluation.holm import Adjusted, holm
from foretune.evaluation.intervals import bootstrap, wilson
from foretune.evaluation.judge import judge
from foretune.evaluation.metrics import Reliability, confusion, reliability
from foretune.evaluation.named import METRICS, Metric
from foretune.evaluation.numerals import gsm8k_answer
from foretune.evaluation.paired import Significance, mcnemar, newcombe, paired_t, sign_flip, welch, wilcoxon
from foretune.evaluation.ranks import Ranks, rank_tasks
from foretune.evaluation.shift import gap

__all__ = [
    "METRICS",
    "Adjusted",
    "BestOf",
    "Claim",
    "Equivalence",
    "Estimate",
    "Inputs",
    "Metric",
    "Ranks",
    "Reliability",
    "Significance",
    "at_level",
    "best_of",
    "bootstrap",
    "claims",
    "collapse",
    "confusion",
    "crossed",
    "detectable_difference",
    "fit_temperature",
    "floors",
    "front_probability",
    "gap",
    "gsm8k_answer",
    "holm",
    "iqm",
    "judge",
    "logme",
    "mcnemar",
    "newcombe",
    "over_seeds",
    "paired_t",
    "probability_of_improvement",
    "probe",
    "rank_tasks",
    "reliability",
    "sign_flip",
    "softmax",
    "temperature_note",
    "tost",
    "welch",
    "wilcoxon",
    "wilson",
]

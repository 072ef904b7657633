"""FLOOR 1: arithmetic on predictions. numpy alone at import; scipy, scikit-learn, sacrebleu where used; never torch."""

from foretune.evaluation.calibration import collapse, fit_temperature, softmax, temperature_note
from foretune.evaluation.floors import Inputs, floors, probe
from foretune.evaluation.intervals import bootstrap, over_seeds, wilson
from foretune.evaluation.judge import judge
from foretune.evaluation.metrics import Reliability, confusion, reliability
from foretune.evaluation.named import METRICS, Metric
from foretune.evaluation.numerals import gsm8k_answer
from foretune.evaluation.shift import gap

__all__ = [
    "METRICS",
    "Inputs",
    "Metric",
    "Reliability",
    "bootstrap",
    "collapse",
    "confusion",
    "fit_temperature",
    "floors",
    "gap",
    "gsm8k_answer",
    "judge",
    "over_seeds",
    "probe",
    "reliability",
    "softmax",
    "temperature_note",
    "wilson",
]

"""LogME: the exact marginal likelihood of a linear model, for more rows than features and for fewer."""

import numpy as np
import pytest
from scipy.stats import kendalltau, multivariate_normal

from foretune.errors import UsageError
from foretune.evaluation import logme
from foretune.evaluation.evidence import log_evidence


@pytest.mark.parametrize(("n", "d"), [(16, 64), (32, 200), (40, 40), (300, 20)])
def test_the_evidence_is_the_exact_gaussian_marginal(n, d):
    rng = np.random.default_rng(n)
    features = rng.normal(size=(n, d))
    y = (features[:, 0] + rng.normal(size=n) > 0).astype(float)
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    value, alpha, beta = log_evidence(u.T @ y, s**2, float(y @ y), n)
    exact = multivariate_normal.logpdf(y, np.zeros(n), np.eye(n) / beta + features @ features.T / alpha)
    assert value == pytest.approx(exact, abs=1e-4)


def test_it_rises_with_the_signal():
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(200, 16)), rng.normal(size=200)
    direction = rng.normal(size=16) / 4
    found = [logme(features, strength * features @ direction + noise > 0) for strength in (0, 1, 2, 4, 8)]
    assert found == sorted(found)


def test_with_fewer_rows_than_features_it_ranks_candidates_by_signal_and_not_by_scale():
    rng = np.random.default_rng(0)
    labels, signals, found = rng.integers(0, 2, 32), np.linspace(0, 1, 40), []
    for signal in signals:
        features = rng.normal(size=(32, 256))
        features[:, :64] += signal * (2 * labels[:, None] - 1)
        found.append(logme(features * np.exp(rng.normal() * 0.3), labels))
    assert kendalltau(found, signals).statistic > 0.75


def test_numbers_are_targets_too_and_constant_features_are_no_error():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(50, 3))
    assert logme(features, features[:, 0], "regression") > logme(features, rng.normal(size=50), "regression")
    assert np.isfinite(logme(np.zeros((8, 4)), [0, 1] * 4))


@pytest.mark.parametrize(("features", "targets"), [(np.zeros((0, 3)), []), (np.ones((2, 2)), [1]), ([[np.nan]], [1])])
def test_what_cannot_be_is_refused(features, targets):
    with pytest.raises(UsageError, match="finite features"):
        logme(features, targets)

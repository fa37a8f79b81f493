"""Holm's adjustment by hand, against statsmodels, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.multiple_tests import holm_adjusted, holm_threshold

pytestmark = pytest.mark.numerics


def test_by_hand():
    assert holm_adjusted(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjusted(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])


def test_it_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 20):
        p = rng.uniform(0, 0.2, size)
        p[::3] = p[0]  # ties
        np.testing.assert_allclose(holm_adjusted(p), multitest.multipletests(p, method="holm")[1], rtol=1e-12)


def test_what_was_not_tested_is_left_out():
    np.testing.assert_allclose(holm_adjusted(np.array([0.01, np.nan, 0.04])), [0.02, np.nan, 0.04])
    assert np.isnan(holm_adjusted(np.array([np.nan, np.nan]))).all()
    assert len(holm_adjusted(np.zeros(0))) == 0


def test_weights_divide_the_level():
    """The first step by hand; with equal weights, plain Holm; and no more than 5 % of logs reject what is true."""
    np.testing.assert_allclose(holm_adjusted(np.array([0.01, 0.01]), np.array([0.8, 0.2])), [0.0125, 0.0125])
    np.testing.assert_allclose(holm_adjusted(np.array([0.04, 0.001]), np.array([0.8, 0.2])), [0.04, 0.005])
    p = np.array([0.03, 0.2, np.nan, 0.004])
    np.testing.assert_allclose(holm_adjusted(p, np.full(4, 7.0)), holm_adjusted(p))
    rng = np.random.default_rng(3)
    weights = np.array([0.8, 0.1, 0.06, 0.04])
    rejects = [holm_adjusted(each, weights).min() < 0.05 for each in rng.random((20_000, 4))]
    assert np.mean(rejects) < 0.05 + 3 * (0.05 * 0.95 / 20_000) ** 0.5


def test_the_threshold_divides_what_is_rejected_from_the_rest():
    rng = np.random.default_rng(2)
    for size in (1, 2, 5, 9):
        for p in rng.random((200, size)) ** 4:
            rejected = p < holm_threshold(p, 0.05)
            np.testing.assert_array_equal(rejected, holm_adjusted(p) < 0.05)
    assert holm_threshold(np.array([0.01]), 0.05) == 0.05
    assert holm_threshold(np.array([0.001, 0.03, 0.04, np.nan]), 0.05) == pytest.approx(0.025)
    assert holm_threshold(np.array([np.nan]), 0.05) == 0.05

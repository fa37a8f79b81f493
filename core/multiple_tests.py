"""P-values of several tests together."""

from __future__ import annotations

import numpy as np

from crosschannel.core.arrays import FloatArray


def holm_adjusted(p_values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    r"""Return p-values (k,) adjusted for all of them: the family-wise levels from which on each test rejects.

    In the order of :math:`p / w`,

    .. math:: \tilde p_{(j)} = \max_{i \le j} \min\Big(1, \frac{p_{(i)}}{w_{(i)}} \sum_{l \ge i} w_{(l)}\Big)

    A test with a larger weight has more power, at the expense of the others. NaN stays NaN and does not count. Holm
    (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics.

    Args:
        p_values: P-values (k,); NaN where nothing was tested.
        weights: Positive weights of the tests (k,); by default equal.
    """
    p = np.asarray(p_values, dtype=np.float64)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested] / w[tested], kind="stable")]
    left = np.cumsum(w[order][::-1])[::-1]
    out = np.full(len(p), np.nan)
    out[order] = np.minimum(np.maximum.accumulate(p[order] / w[order] * left), 1.0)
    return out


def holm_threshold(p_values: FloatArray, level: float) -> float:
    """Return the p-value below which each of several tests (k,) rejects, so that `level` holds for all together.

    With m tests of which Holm's method rejects r, those below level / (m - r) are the rejected ones. It is the level
    itself for a single test, and where every test rejects.

    Args:
        p_values: P-values (k,); NaN where nothing was tested.
        level: Probability that any of them rejects where all their hypotheses hold; at most.
    """
    adjusted = holm_adjusted(p_values)
    left = int(np.count_nonzero(adjusted >= level))
    return level / max(left, 1)

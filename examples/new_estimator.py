"""An estimator of your own: one method, `terms`, and it stands beside the others with its interval.

    python examples/new_estimator.py

Inverse propensity scoring is unbiased, but a few large weights carry it. This one cuts weights at a limit: less
variance for some bias, which is always towards the actions that the log takes often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tyro

from crosschannel.core import ActionSpace, Module
from crosschannel.evaluation import IPS, SNIPS, Estimator, Evaluation, LoggedDecisions, Sample, evaluate, text_table
from crosschannel.evaluation.estimators import Terms


@dataclass(frozen=True)
class ClippedIPS(Estimator):
    r"""Inverse propensity score with weights of at most :math:`M`.

    .. math:: \hat V = \frac{\sum_i c_i \min(w_i, M) r_i}{\sum_i c_i}

    Assumption: the propensities are right, and what is cut off would earn little. Ionides (2008), "Truncated importance
    sampling", Journal of Computational and Graphical Statistics 17.

    Attributes:
        limit: The largest weight M.
    """

    limit: float = 10.0
    name: ClassVar[str] = "clipped ips"

    def terms(self, sample: Sample) -> Terms:
        """Return the clipped weights times rewards, over all decisions."""
        return Terms(constant=sample.zeros, slope=np.minimum(sample.weights, self.limit), denominator=sample.ones)


def main(decisions: int = 5_000, limit: float = 10.0, seed: int = 0) -> Evaluation:
    """Simulate a log in which a good offer is rare, and estimate the policy that always makes it (truth: 0.4).

    Args:
        decisions: Decisions of the log.
        limit: The largest weight.
        seed: Seed of the log.
    """
    rng = np.random.default_rng(seed)
    modules = ActionSpace([Module("offer", ("none", "small", "large"))])
    chances, means = np.array([0.5, 0.42, 0.08]), np.array([0.0, 0.1, 0.4])
    action = rng.choice(3, decisions, p=chances)
    log = LoggedDecisions(
        modules=modules,
        actions=action[:, None],
        propensity=chances[action][:, None],
        joint=chances[action],
        user=np.arange(decisions),
        name="a simulated log",
    )
    always_large = [np.tile([0.0, 0.0, 1.0], (decisions, 1))]
    rewards = rng.normal(means[action], 1.0)
    estimators = [ClippedIPS(limit), IPS(), SNIPS()]
    found = evaluate(log, always_large, rewards, rng=rng, estimators=estimators, policy="always large")
    print(text_table(found))
    return found


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

"""Estimators of a policy's value over several slots, from another policy's log: one small class each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.evaluation.sequential.trajectories import Trajectories


@dataclass(frozen=True)
class RatioTerms:
    r"""The terms of an estimator on n trajectories: every estimator here is a sum of K ratios of sums.

    .. math:: \hat V = \sum_k \Big( \sum_i c_i \, \text{numerator}_{ik} \Big/
        \sum_i c_i \, \text{denominator}_{ik} \Big)

    The bootstrap changes only the counts c, so that the terms are computed once.

    Attributes:
        numerators: (n, K).
        denominators: (n, K).
    """

    numerators: FloatArray
    denominators: FloatArray

    @classmethod
    def for_mean(cls, values: FloatArray) -> RatioTerms:
        """Return the terms of a plain mean of values (n,)."""
        return cls(numerators=values[:, None], denominators=np.ones((len(values), 1)))

    def value(self, counts: FloatArray) -> float:
        """Return the value for counts (n,), NaN where a denominator is 0."""
        total = counts @ self.denominators
        return float((counts @ self.numerators / np.where(total > 0, total, np.nan)).sum())

    def influence(self, counts: FloatArray) -> FloatArray:
        r"""Return the influences (n,) for counts (n,), NaN where a denominator is 0.

        .. math:: \psi_i = c_i \sum_k (\text{numerator}_{ik} - \hat V_k \, \text{denominator}_{ik}) \Big/
            \textstyle\sum_j c_j \, \text{denominator}_{jk}
        """
        total = counts @ self.denominators
        total = np.where(total > 0, total, np.nan)
        ratios = counts @ self.numerators / total
        return np.asarray(counts * ((self.numerators - ratios * self.denominators) / total).sum(1))


class TrajectoryEstimator(ABC):
    """An estimator of a policy's value over H slots.

    Attributes:
        name: Short name, for tables.
        uses_weights: Whether it uses importance weights, and so propensities.
        uses_model: Whether it uses modelled sums of rewards.
        centred: Whether it weights deviations from a mean or a model; if not, its error grows with the mean weight's.
    """

    name: ClassVar[str]
    uses_weights: ClassVar[bool] = True
    uses_model: ClassVar[bool] = False
    centred: ClassVar[bool] = True

    @abstractmethod
    def terms(self, trajectories: Trajectories) -> RatioTerms:
        """Return the estimator's terms.

        Raises:
            NotIdentified: If a ratio or a model that the estimator needs is missing.
        """

    def value(self, trajectories: Trajectories) -> float:
        """Return the value, in reward units.

        Raises:
            NotIdentified: If at some slot no user has any weight, or a ratio or model is missing.
        """
        value = self.terms(trajectories).value(trajectories.counts)
        if np.isnan(value):
            raise NotIdentified("at some slot no user has any weight")
        return value


@dataclass(frozen=True)
class TrajectoryIPS(TrajectoryEstimator):
    r"""Inverse propensity score of whole trajectories.

    .. math:: \hat V = \frac{\sum_i c_i \, w_{i,H-1} \sum_t \gamma^t r_{it}}{\sum_i c_i}

    Assumption: the propensities are right, and the log takes every action that the policy takes. It is then unbiased;
    every reward is weighted by all H actions, later ones too. Precup, Sutton & Singh (2000), "Eligibility traces for
    off-policy policy evaluation", ICML.
    """

    name: ClassVar[str] = "trajectory ips"
    centred: ClassVar[bool] = False

    def terms(self, trajectories: Trajectories) -> RatioTerms:
        """Return the sums of rewards with the last slot's weight."""
        return RatioTerms.for_mean(trajectories.weights[:, -1] * trajectories.returns)


@dataclass(frozen=True)
class PerDecisionIPS(TrajectoryEstimator):
    r"""Per-decision inverse propensity score.

    .. math:: \hat V = \frac{\sum_i c_i \sum_t \gamma^t w_{it} r_{it}}{\sum_i c_i}

    Assumption: as for `TrajectoryIPS`. It is then unbiased; a reward is weighted by the actions up to it, as later ones
    cannot have caused it. Precup, Sutton & Singh (2000), "Eligibility traces for off-policy policy evaluation", ICML.
    """

    name: ClassVar[str] = "per-decision ips"
    centred: ClassVar[bool] = False

    def terms(self, trajectories: Trajectories) -> RatioTerms:
        """Return the weighted rewards over all trajectories."""
        return RatioTerms.for_mean((trajectories.weights * trajectories.rewards) @ trajectories.discount_factors)


@dataclass(frozen=True)
class PerDecisionSNIPS(TrajectoryEstimator):
    r"""Self-normalised per-decision inverse propensity score.

    .. math:: \hat V = \sum_t \gamma^t \frac{\sum_i c_i w_{it} r_{it}}{\sum_i c_i w_{it}}

    Assumption: as for `TrajectoryIPS`. It has a bias of order 1/n, and stays at each slot within the range of its
    rewards. Precup, Sutton & Singh (2000), "Eligibility traces for off-policy policy evaluation", ICML, normalise once
    for all slots; Thomas (2015), "Safe reinforcement learning", PhD thesis, University of Massachusetts, normalises
    slot by slot, which is consistent.
    """

    name: ClassVar[str] = "per-decision snips"

    def terms(self, trajectories: Trajectories) -> RatioTerms:
        """Return, slot by slot, the weighted rewards over the weights."""
        w = trajectories.weights
        return RatioTerms(trajectories.discount_factors * w * trajectories.rewards, w)


@dataclass(frozen=True)
class SequentialDR(TrajectoryEstimator):
    r"""Sequential doubly robust: the modelled value, corrected at every slot by the weighted error of its model.

    .. math:: \hat V = \frac{1}{\sum_i c_i} \sum_i c_i \sum_t \gamma^t
        \{ w_{i,t-1} E_{a \sim \pi} q_t(x_{it}, a) + w_{it} (r_{it} - q_t(x_{it}, a_{it})) \}, \qquad w_{i,-1} = 1

    Assumption: the propensities are right and the log has support, or the model is right; one of the two is enough.
    Jiang & Li (2016), "Doubly robust off-policy value evaluation for reinforcement learning", ICML.
    """

    name: ClassVar[str] = "sequential dr"
    uses_model: ClassVar[bool] = True

    def terms(self, trajectories: Trajectories) -> RatioTerms:
        """Return the model and its weighted errors over all trajectories."""
        q_logged, q_policy = trajectories.modelled_sums()
        slots = trajectories.previous_weights * q_policy + trajectories.weights * (trajectories.rewards - q_logged)
        return RatioTerms.for_mean(slots @ trajectories.discount_factors)


@dataclass(frozen=True)
class WeightedDR(TrajectoryEstimator):
    r"""Weighted doubly robust: sequential dr with every slot's weights normalised.

    .. math:: \hat V = \sum_t \gamma^t \Big\{ \frac{\sum_i c_i w_{i,t-1} E_{a \sim \pi} q_t(x_{it}, a)}
        {\sum_i c_i w_{i,t-1}} + \frac{\sum_i c_i w_{it} (r_{it} - q_t(x_{it}, a_{it}))}{\sum_i c_i w_{it}} \Big\}

    Assumption: as for `SequentialDR`. It has a bias of order 1/n, and is less noisy where weights are skewed. Thomas &
    Brunskill (2016), "Data-efficient off-policy policy evaluation for reinforcement learning", ICML.
    """

    name: ClassVar[str] = "weighted dr"
    uses_model: ClassVar[bool] = True

    def terms(self, trajectories: Trajectories) -> RatioTerms:
        """Return, slot by slot, the model and its weighted errors over their weights."""
        q_logged, q_policy = trajectories.modelled_sums()
        w, previous, gamma = trajectories.weights, trajectories.previous_weights, trajectories.discount_factors
        numerators = [gamma * previous * q_policy, gamma * w * (trajectories.rewards - q_logged)]
        return RatioTerms(
            numerators=np.concatenate(numerators, axis=1), denominators=np.concatenate([previous, w], axis=1)
        )


@dataclass(frozen=True)
class FQE(TrajectoryEstimator):
    r"""Fitted Q evaluation: the mean of the model's predictions at the first slot (`fit_q_values`).

    .. math:: \hat V = \frac{\sum_i c_i E_{a \sim \pi} q_0(x_{i0}, a)}{\sum_i c_i}

    Assumption: the model is right. It needs no propensities and has little variance, but all of the model's bias, which
    its interval ignores. Le, Voloshin & Yue (2019), "Batch policy learning under constraints", ICML.
    """

    name: ClassVar[str] = "fqe"
    uses_weights: ClassVar[bool] = False
    uses_model: ClassVar[bool] = True

    def terms(self, trajectories: Trajectories) -> RatioTerms:
        """Return the modelled value at the first slot."""
        _, q_policy = trajectories.modelled_sums()
        return RatioTerms.for_mean(q_policy[:, 0])


TRAJECTORY_ESTIMATORS: tuple[TrajectoryEstimator, ...] = (
    SequentialDR(),
    WeightedDR(),
    PerDecisionSNIPS(),
    PerDecisionIPS(),
    TrajectoryIPS(),
    FQE(),
)

"""Estimators of what a policy is worth over several slots, from another policy's log: one small class each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evaluation.sequential.trajectories import Trajectories
from histories.errors import NotIdentified
from histories.modules import FloatArray


@dataclass(frozen=True)
class Sums:
    r"""An estimator's terms on n stretches: every estimator here is a sum of K ratios of sums.

    .. math:: \hat V = \sum_k \Big( \sum_i c_i \, \text{part}_{ik} \Big/ \sum_i c_i \, \text{mass}_{ik} \Big)

    So the bootstrap, which changes only the counts c, needs them once.

    Attributes:
        parts: (n, K).
        masses: (n, K).
    """

    parts: FloatArray
    masses: FloatArray

    @classmethod
    def mean(cls, part: FloatArray) -> Sums:
        """A plain mean of (n,)."""
        return cls(part[:, None], np.ones((len(part), 1)))

    def value(self, counts: FloatArray) -> float:
        """The value for counts (n,), NaN where some mass is 0."""
        mass = counts @ self.masses
        return float((counts @ self.parts / np.where(mass > 0, mass, np.nan)).sum())

    def influence(self, counts: FloatArray) -> FloatArray:
        r"""Influences (n,); NaN where some mass is 0.

        .. math:: \psi_i = c_i \sum_k (\text{part}_{ik} - \hat V_k \, \text{mass}_{ik}) \Big/
            \textstyle\sum_j c_j \, \text{mass}_{jk}
        """
        mass = counts @ self.masses
        mass = np.where(mass > 0, mass, np.nan)
        values = counts @ self.parts / mass
        return np.asarray(counts * ((self.parts - values * self.masses) / mass).sum(1))


class TrajectoryEstimator(ABC):
    """The value of a policy over H slots.

    Attributes:
        name: Short name, for tables.
        weighted: Whether it rests on importance weights, so on propensities.
        modelled: Whether it rests on modelled sums of rewards.
        centred: Whether its error is that of deviations from a mean or a model; if not, it moves with the mean weight.
    """

    name: ClassVar[str]
    weighted: ClassVar[bool] = True
    modelled: ClassVar[bool] = False
    centred: ClassVar[bool] = True

    @abstractmethod
    def terms(self, trajectories: Trajectories) -> Sums:
        """The terms. Raises `NotIdentified` if it needs a ratio or a model that there is none of."""

    def value(self, trajectories: Trajectories) -> float:
        """The value, in reward units. Raises `NotIdentified` where at some slot nobody has any weight."""
        value = self.terms(trajectories).value(trajectories.counts)
        if np.isnan(value):
            raise NotIdentified("at some slot nobody has any weight")
        return value


@dataclass(frozen=True)
class TrajectoryIPS(TrajectoryEstimator):
    r"""Inverse propensity score of whole trajectories.

    .. math:: \hat V = \frac{\sum_i c_i \, w_{i,H-1} \sum_t \gamma^t r_{it}}{\sum_i c_i}

    Unbiased where the log has support; every reward carries the weight of all H actions, later ones too. Precup,
    Sutton & Singh (2000), "Eligibility traces for off-policy policy evaluation", ICML.
    """

    name: ClassVar[str] = "trajectory ips"
    centred: ClassVar[bool] = False

    def terms(self, trajectories: Trajectories) -> Sums:
        """The sums of rewards with the last slot's weight."""
        return Sums.mean(trajectories.weights[:, -1] * trajectories.returns)


@dataclass(frozen=True)
class PerDecisionIPS(TrajectoryEstimator):
    r"""Per-decision inverse propensity score.

    .. math:: \hat V = \frac{\sum_i c_i \sum_t \gamma^t w_{it} r_{it}}{\sum_i c_i}

    Unbiased where the log has support; a reward carries the weight of the actions up to it, as later ones cannot have
    caused it. Precup, Sutton & Singh (2000), "Eligibility traces for off-policy policy evaluation", ICML.
    """

    name: ClassVar[str] = "per-decision ips"
    centred: ClassVar[bool] = False

    def terms(self, trajectories: Trajectories) -> Sums:
        """The weighted rewards over all stretches."""
        return Sums.mean((trajectories.weights * trajectories.rewards) @ trajectories.discounts)


@dataclass(frozen=True)
class PerDecisionSNIPS(TrajectoryEstimator):
    r"""Self-normalised per-decision inverse propensity score.

    .. math:: \hat V = \sum_t \gamma^t \frac{\sum_i c_i w_{it} r_{it}}{\sum_i c_i w_{it}}

    Biased of order 1/n, consistent, at each slot within the range of its rewards. Precup, Sutton & Singh (2000),
    "Eligibility traces for off-policy policy evaluation", ICML, normalise once for all slots; normalised slot by slot,
    and so consistent, in Thomas (2015), "Safe reinforcement learning", PhD thesis, University of Massachusetts.
    """

    name: ClassVar[str] = "per-decision snips"

    def terms(self, trajectories: Trajectories) -> Sums:
        """Slot by slot, the weighted rewards over the weights."""
        w = trajectories.weights
        return Sums(trajectories.discounts * w * trajectories.rewards, w)


@dataclass(frozen=True)
class SequentialDR(TrajectoryEstimator):
    r"""Sequential doubly robust: the modelled value, corrected at every slot by the weighted error of its model.

    .. math:: \hat V = \frac{1}{\sum_i c_i} \sum_i c_i \sum_t \gamma^t
        \{ w_{i,t-1} E_{a \sim \pi} q_t(x_{it}, a) + w_{it} (r_{it} - q_t(x_{it}, a_{it})) \}, \qquad w_{i,-1} = 1

    Unbiased if the propensities or the model are right. Jiang & Li (2016), "Doubly robust off-policy value evaluation
    for reinforcement learning", ICML.
    """

    name: ClassVar[str] = "sequential dr"
    modelled: ClassVar[bool] = True

    def terms(self, trajectories: Trajectories) -> Sums:
        """The model and its weighted errors over all stretches."""
        q_logged, q_policy = trajectories.model()
        slots = trajectories.before * q_policy + trajectories.weights * (trajectories.rewards - q_logged)
        return Sums.mean(slots @ trajectories.discounts)


@dataclass(frozen=True)
class WeightedDR(TrajectoryEstimator):
    r"""Weighted doubly robust: sequential dr with every slot's weights normalised.

    .. math:: \hat V = \sum_t \gamma^t \Big\{ \frac{\sum_i c_i w_{i,t-1} E_{a \sim \pi} q_t(x_{it}, a)}
        {\sum_i c_i w_{i,t-1}} + \frac{\sum_i c_i w_{it} (r_{it} - q_t(x_{it}, a_{it}))}{\sum_i c_i w_{it}} \Big\}

    Biased of order 1/n, consistent, less noisy where weights are skewed. Thomas & Brunskill (2016), "Data-efficient
    off-policy policy evaluation for reinforcement learning", ICML.
    """

    name: ClassVar[str] = "weighted dr"
    modelled: ClassVar[bool] = True

    def terms(self, trajectories: Trajectories) -> Sums:
        """Slot by slot, the model and its weighted errors over their weights."""
        q_logged, q_policy = trajectories.model()
        w, before, gamma = trajectories.weights, trajectories.before, trajectories.discounts
        parts = [gamma * before * q_policy, gamma * w * (trajectories.rewards - q_logged)]
        return Sums(np.concatenate(parts, axis=1), np.concatenate([before, w], axis=1))


@dataclass(frozen=True)
class FQE(TrajectoryEstimator):
    r"""Fitted Q evaluation: the model's word for it (`evaluation.fitted_q`).

    .. math:: \hat V = \frac{\sum_i c_i E_{a \sim \pi} q_0(x_{i0}, a)}{\sum_i c_i}

    Needs no propensities and has little variance, but all of the model's bias, which no interval around it shows. Le,
    Voloshin & Yue (2019), "Batch policy learning under constraints", ICML.
    """

    name: ClassVar[str] = "fqe"
    weighted: ClassVar[bool] = False
    modelled: ClassVar[bool] = True

    def terms(self, trajectories: Trajectories) -> Sums:
        """The modelled value at the first slot."""
        _, q_policy = trajectories.model()
        return Sums.mean(q_policy[:, 0])


TRAJECTORY_ESTIMATORS: tuple[TrajectoryEstimator, ...] = (
    SequentialDR(),
    WeightedDR(),
    PerDecisionSNIPS(),
    PerDecisionIPS(),
    TrajectoryIPS(),
    FQE(),
)

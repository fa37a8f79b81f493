"""Off-policy estimators: the value of a policy from decisions that another policy made, one small class each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import Fault, InputError, NotIdentified

SOURCE = "evaluation sample"


@dataclass(frozen=True)
class Sample:
    r"""The data of n decisions that an estimator sees.

    Attributes:
        rewards: Rewards :math:`r_i` of the logged actions, in reward units (n,).
        weights: Importance weights :math:`w_i = \pi(a_i|x_i) / \mu(a_i|x_i)`, 0 or more (n,).
        counts: How often each decision counts, :math:`c_i` (n,): ones for the data as they are, times a user's number
            of draws in a bootstrap replicate.
        q_logged: Modelled reward of the logged action :math:`q(x_i, a_i)` (n,), or None.
        q_policy: Modelled reward of the evaluated policy :math:`E_{a \sim \pi} q(x_i, a)` (n,), or None.

    Raises:
        InputError: If shapes differ, an entry is not finite, or a weight or count is negative.
    """

    rewards: FloatArray
    weights: FloatArray
    counts: FloatArray
    q_logged: FloatArray | None = None
    q_policy: FloatArray | None = None

    def __post_init__(self) -> None:
        faults: list[Fault] = []
        for name in ("rewards", "weights", "counts", "q_logged", "q_policy"):
            array = getattr(self, name)
            if array is not None:
                faults += _column_faults(name, array, len(self.rewards), nonnegative=name in ("weights", "counts"))
        if faults:
            raise InputError(faults)

    @cached_property
    def zeros(self) -> FloatArray:
        """Zeros (n,)."""
        return np.zeros(len(self.rewards))

    @cached_property
    def ones(self) -> FloatArray:
        """Ones (n,)."""
        return np.ones(len(self.rewards))

    def modelled_rewards(self) -> tuple[FloatArray, FloatArray]:
        """Return the modelled rewards of the logged action and of the policy.

        Raises:
            NotIdentified: If there is no outcome model.
        """
        if self.q_logged is None or self.q_policy is None:
            raise NotIdentified("there is no outcome model: pass `q_logged` and `q_policy`")
        return self.q_logged, self.q_policy


def _column_faults(name: str, array: FloatArray, n: int, *, nonnegative: bool) -> Sequence[Fault]:
    """Return the faults of a column that should be (n,) and finite, and 0 or more where asked."""
    if array.shape != (n,):
        problem = f"the shape is {array.shape}, not ({n},)"
        return [Fault(file=SOURCE, problem=problem, remedy="Pass one entry for each decision.", column=name)]
    faults = []
    for wrong, problem, remedy in (
        (~np.isfinite(array), "is not a finite number", "Leave out decisions without one, and count them."),
        ((array < 0) & nonnegative, "is negative", "Weights and counts are 0 or more."),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            faults.append(
                Fault(
                    file=SOURCE,
                    problem=problem,
                    remedy=remedy,
                    column=name,
                    row=row + 1,
                    value=float(array[row]),
                    count=int(wrong.sum()),
                )
            )
    return faults


@dataclass(frozen=True)
class Terms:
    r"""The terms of an estimator on n decisions: every estimator here is a ratio of sums, linear in the rewards.

    .. math:: \hat V = \sum_i c_i (\text{constant}_i + \text{slope}_i r_i) \Big/ \sum_i c_i \, \text{denominator}_i

    The bootstrap changes only the counts c and the rewards r, so that the terms are computed once.
    """

    constant: FloatArray
    slope: FloatArray
    denominator: FloatArray


class Estimator(ABC):
    """An estimator of a policy's value from a sample.

    Attributes:
        name: Short name, for tables.
        uses_weights: Whether it uses importance weights, and so propensities.
        uses_model: Whether it uses an outcome model.
    """

    name: ClassVar[str]
    uses_weights: ClassVar[bool] = True
    uses_model: ClassVar[bool] = False

    @abstractmethod
    def terms(self, sample: Sample) -> Terms:
        """Return the estimator's terms, each (n,).

        Raises:
            NotIdentified: If the estimator needs a model and there is none.
        """

    def value(self, sample: Sample) -> float:
        """Return the value, in reward units.

        Raises:
            NotIdentified: If no decision has any weight, or a model is missing.
        """
        t = self.terms(sample)
        denominator = float(sample.counts @ t.denominator)
        if not denominator > 0:
            raise NotIdentified("no decision has any weight")
        return float(sample.counts @ (t.constant + t.slope * sample.rewards)) / denominator


@dataclass(frozen=True)
class IPS(Estimator):
    r"""Inverse propensity score.

    .. math:: \hat V = \frac{\sum_i c_i w_i r_i}{\sum_i c_i}, \qquad w_i = \pi(a_i|x_i) / \mu(a_i|x_i)

    Assumption: the propensities are right, and the log takes every action that the policy takes. It is then unbiased;
    its variance grows with the largest weight. Horvitz & Thompson (1952), "A generalization of sampling without
    replacement from a finite universe", JASA.
    """

    name: ClassVar[str] = "ips"

    def terms(self, sample: Sample) -> Terms:
        """Return the weighted rewards over all decisions."""
        return Terms(constant=sample.zeros, slope=sample.weights, denominator=sample.ones)


@dataclass(frozen=True)
class SNIPS(Estimator):
    r"""Self-normalised inverse propensity score.

    .. math:: \hat V = \sum_i c_i w_i r_i \Big/ \sum_i c_i w_i

    Assumption: as for `IPS`. It has a bias of order 1/n, stays within the range of the rewards, and shifts with a
    constant that is added to them. Swaminathan & Joachims (2015), "The self-normalized estimator for counterfactual
    learning", NeurIPS.
    """

    name: ClassVar[str] = "snips"

    def terms(self, sample: Sample) -> Terms:
        """Return the weighted rewards over the weights."""
        return Terms(constant=sample.zeros, slope=sample.weights, denominator=sample.weights)


@dataclass(frozen=True)
class BetaIPS(Estimator):
    r"""Inverse propensity score with the baseline of least variance.

    .. math:: \hat V = \frac{\sum_i c_i w_i (r_i - b)}{\sum_i c_i} + b, \qquad
        b = \mathrm{cov}(w r, w) / \mathrm{var}(w)

    Assumption: as for `IPS`. As the baseline is estimated from the same decisions, it has a bias of order 1/n; to first
    order its error does not add to that of the value, so that the bootstrap holds it fixed. No constant baseline,
    self-normalisation among them, has less variance where decisions are independent and count alike; where users have
    several or counts :math:`c_i` differ another one may have less, and the value is as right. Jeunen (2026), arXiv
    2602.14914; Gupta, Jeunen, Oosterhuis & de Rijke (2024), "Optimal baseline corrections for off-policy contextual
    bandits", RecSys.
    """

    name: ClassVar[str] = "beta-ips"

    def terms(self, sample: Sample) -> Terms:
        """Return the weighted deviations of the rewards from the baseline, and the baseline, over all decisions."""
        b = optimal_baseline(sample.weights, sample.rewards, sample.counts)
        return Terms(constant=b * (1.0 - sample.weights), slope=sample.weights, denominator=sample.ones)


def optimal_baseline(weights: FloatArray, rewards: FloatArray, counts: FloatArray) -> float:
    r"""Return the baseline :math:`\mathrm{cov}(w r, w) / \mathrm{var}(w)` of least variance; 0 if w is constant."""
    total = counts.sum()
    if not total > 0:
        return 0.0
    deviation = weights - counts @ weights / total
    variance = float(counts @ deviation**2)
    # Weights that differ by rounding only are constant.
    if variance <= 1e-20 * float(counts @ weights**2):
        return 0.0
    return float(counts @ (deviation * weights * rewards)) / variance


@dataclass(frozen=True)
class DM(Estimator):
    r"""Direct method: the mean of the outcome model's predictions under the policy.

    .. math:: \hat V = \frac{\sum_i c_i E_{a \sim \pi} q(x_i, a)}{\sum_i c_i}

    Assumption: the outcome model is right. It needs no propensities and has little variance, but all of the model's
    bias, which its interval ignores. Dudik, Langford & Li (2011), "Doubly robust policy evaluation and learning", ICML.
    """

    name: ClassVar[str] = "dm"
    uses_weights: ClassVar[bool] = False
    uses_model: ClassVar[bool] = True

    def terms(self, sample: Sample) -> Terms:
        """Return the modelled rewards over all decisions."""
        _, q_policy = sample.modelled_rewards()
        return Terms(constant=q_policy, slope=sample.zeros, denominator=sample.ones)


@dataclass(frozen=True)
class DR(Estimator):
    r"""Doubly robust: the direct method, corrected by the weighted errors of its model.

    .. math:: \hat V = \frac{\sum_i c_i \{ E_{a \sim \pi} q(x_i, a) + w_i (r_i - q(x_i, a_i)) \}}{\sum_i c_i}

    Assumption: the propensities are right and the log has support, or the outcome model is right; one of the two is
    enough. It is less noisy than `IPS` by what the model explains. Dudik, Langford & Li (2011), "Doubly robust policy
    evaluation and learning", ICML.
    """

    name: ClassVar[str] = "dr"
    uses_model: ClassVar[bool] = True

    def terms(self, sample: Sample) -> Terms:
        """Return the model and its weighted errors over all decisions."""
        q_logged, q_policy = sample.modelled_rewards()
        return Terms(constant=q_policy - sample.weights * q_logged, slope=sample.weights, denominator=sample.ones)


@dataclass(frozen=True)
class SwitchDR(Estimator):
    r"""Doubly robust where the weight is small, the model alone where it is large.

    .. math:: \hat V = \frac{\sum_i c_i \{ E_{a \sim \pi} q(x_i, a) + w_i s_i (r_i - q(x_i, a_i)) \}}{\sum_i c_i},
        \qquad s_i = 1[w_i \le \tau]

    Assumption: as for `DR` where the weight is at most :math:`\tau`; elsewhere the outcome model is right. It trades
    the variance of large weights for the model's bias. Wang, Agarwal & Dudik (2017), "Optimal and adaptive off-policy
    evaluation in contextual bandits", ICML.

    Attributes:
        threshold: :math:`\tau`, the largest weight that is used.
    """

    threshold: float = 10.0
    name: ClassVar[str] = "switch-dr"
    uses_model: ClassVar[bool] = True

    def terms(self, sample: Sample) -> Terms:
        """Return the model, and its errors where the weight is small enough, over all decisions."""
        q_logged, q_policy = sample.modelled_rewards()
        weights = np.where(sample.weights <= self.threshold, sample.weights, 0.0)
        return Terms(constant=q_policy - weights * q_logged, slope=weights, denominator=sample.ones)

    def model_only_share(self, sample: Sample) -> float:
        """Return the share of the weight that is above the threshold, where the value comes from the model alone."""
        weight = sample.weights * sample.counts
        total = float(weight.sum())
        return float(weight[sample.weights > self.threshold].sum()) / total if total > 0 else 0.0


ESTIMATORS: tuple[Estimator, ...] = (DR(), BetaIPS(), SNIPS(), IPS(), SwitchDR(), DM())

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
    r"""What an estimator sees of n decisions.

    Attributes:
        rewards: Rewards :math:`r_i` of the logged actions, in reward units (n,).
        weights: Importance weights :math:`w_i = \pi(a_i|x_i) / \mu(a_i|x_i)`, 0 or more (n,).
        counts: How often each decision counts (n,): ones for the data as they are, a user's number of draws in a
            bootstrap replicate.
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
                faults += check_column(name, array, len(self.rewards), nonnegative=name in ("weights", "counts"))
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

    def model(self) -> tuple[FloatArray, FloatArray]:
        """Modelled rewards of the logged action and of the policy. Raises `NotIdentified` where there are none."""
        if self.q_logged is None or self.q_policy is None:
            raise NotIdentified("there is no outcome model: hand in `q_logged` and `q_policy`")
        return self.q_logged, self.q_policy


def check_column(
    name: str, array: FloatArray, n: int, *, nonnegative: bool = False, file: str = SOURCE
) -> Sequence[Fault]:
    """Faults of a column that should be (n,) and finite, and 0 or more where asked."""
    if array.shape != (n,):
        return [Fault(file, f"the shape is {array.shape}, not ({n},)", "Give one entry for each decision.", name)]
    faults = []
    for wrong, problem, remedy in (
        (~np.isfinite(array), "is not a finite number", "Leave out decisions without one, and count them."),
        ((array < 0) & nonnegative, "is negative", "Weights and counts are 0 or more."),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            faults.append(Fault(file, problem, remedy, name, row + 1, float(array[row]), int(wrong.sum())))
    return faults


@dataclass(frozen=True)
class Terms:
    r"""An estimator's terms on n decisions: every estimator here is a ratio of sums, linear in the rewards.

    .. math:: \hat V = \sum_i c_i (\text{constant}_i + \text{slope}_i r_i) \Big/ \sum_i c_i \, \text{mass}_i

    So the bootstrap, which changes only the counts c and the rewards r, needs them once.
    """

    constant: FloatArray
    slope: FloatArray
    mass: FloatArray


class Estimator(ABC):
    """The value of a policy from a sample.

    Attributes:
        name: Short name, for tables.
        weighted: Whether it rests on importance weights, so on propensities.
        modelled: Whether it rests on an outcome model.
    """

    name: ClassVar[str]
    weighted: ClassVar[bool] = True
    modelled: ClassVar[bool] = False

    @abstractmethod
    def terms(self, sample: Sample) -> Terms:
        """The terms of the estimator, each (n,). Raises `NotIdentified` if it needs a model and there is none."""

    def value(self, sample: Sample) -> float:
        """The value, in reward units. Raises `NotIdentified` where no decision has any mass, or a model is missing."""
        t = self.terms(sample)
        mass = float(sample.counts @ t.mass)
        if not mass > 0:
            raise NotIdentified("no decision has any weight")
        return float(sample.counts @ (t.constant + t.slope * sample.rewards)) / mass


@dataclass(frozen=True)
class IPS(Estimator):
    r"""Inverse propensity score.

    .. math:: \hat V = \frac{\sum_i c_i w_i r_i}{\sum_i c_i}, \qquad w_i = \pi(a_i|x_i) / \mu(a_i|x_i)

    Unbiased where the log has support; its variance grows with the largest weight. Horvitz & Thompson (1952), "A
    generalization of sampling without replacement from a finite universe", JASA.
    """

    name: ClassVar[str] = "ips"

    def terms(self, sample: Sample) -> Terms:
        """The weighted rewards over all decisions."""
        return Terms(sample.zeros, sample.weights, sample.ones)


@dataclass(frozen=True)
class SNIPS(Estimator):
    r"""Self-normalised inverse propensity score.

    .. math:: \hat V = \sum_i c_i w_i r_i \Big/ \sum_i c_i w_i

    Biased of order 1/n, within the range of the rewards, unchanged by a constant added to them. Swaminathan &
    Joachims (2015), "The self-normalized estimator for counterfactual learning", NeurIPS.
    """

    name: ClassVar[str] = "snips"

    def terms(self, sample: Sample) -> Terms:
        """The weighted rewards over the weights."""
        return Terms(sample.zeros, sample.weights, sample.weights)


@dataclass(frozen=True)
class DM(Estimator):
    r"""Direct method: the outcome model's word for it.

    .. math:: \hat V = \frac{\sum_i c_i E_{a \sim \pi} q(x_i, a)}{\sum_i c_i}

    Needs no propensities and has little variance, but all of the model's bias, which no interval around it shows.
    Dudik, Langford & Li (2011), "Doubly robust policy evaluation and learning", ICML.
    """

    name: ClassVar[str] = "dm"
    weighted: ClassVar[bool] = False
    modelled: ClassVar[bool] = True

    def terms(self, sample: Sample) -> Terms:
        """The modelled rewards over all decisions."""
        _, q_policy = sample.model()
        return Terms(q_policy, sample.zeros, sample.ones)


@dataclass(frozen=True)
class DR(Estimator):
    r"""Doubly robust: the direct method, corrected by the weighted errors of its model.

    .. math:: \hat V = \frac{\sum_i c_i \{ E_{a \sim \pi} q(x_i, a) + w_i (r_i - q(x_i, a_i)) \}}{\sum_i c_i}

    Unbiased if the propensities or the model are right, and less noisy than IPS by what the model explains. Dudik,
    Langford & Li (2011), "Doubly robust policy evaluation and learning", ICML.
    """

    name: ClassVar[str] = "dr"
    modelled: ClassVar[bool] = True

    def terms(self, sample: Sample) -> Terms:
        """The model and its weighted errors over all decisions."""
        q_logged, q_policy = sample.model()
        return Terms(q_policy - sample.weights * q_logged, sample.weights, sample.ones)


@dataclass(frozen=True)
class SwitchDR(Estimator):
    r"""Doubly robust where the weight is small, the model alone where it is large.

    .. math:: \hat V = \frac{\sum_i c_i \{ E_{a \sim \pi} q(x_i, a) + w_i s_i (r_i - q(x_i, a_i)) \}}{\sum_i c_i},
        \qquad s_i = 1[w_i \le \tau]

    Trades the variance of large weights for the model's bias on the decisions that have them. Wang, Agarwal & Dudik
    (2017), "Optimal and adaptive off-policy evaluation in contextual bandits", ICML.

    Attributes:
        threshold: :math:`\tau`, the largest weight that is used.
    """

    threshold: float = 10.0
    name: ClassVar[str] = "switch-dr"
    modelled: ClassVar[bool] = True

    def terms(self, sample: Sample) -> Terms:
        """The model, and its errors where the weight is small enough, over all decisions."""
        q_logged, q_policy = sample.model()
        kept = np.where(sample.weights <= self.threshold, sample.weights, 0.0)
        return Terms(q_policy - kept * q_logged, kept, sample.ones)

    def left_to_model(self, sample: Sample) -> float:
        """Share of the weight that is above the threshold: there the value is the model's alone."""
        weight = sample.weights * sample.counts
        total = float(weight.sum())
        return float(weight[sample.weights > self.threshold].sum()) / total if total > 0 else 0.0


ESTIMATORS: tuple[Estimator, ...] = (DR(), SNIPS(), IPS(), SwitchDR(), DM())

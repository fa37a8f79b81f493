"""The reward kinds by name, and re-fitting one inside a bootstrap."""

from __future__ import annotations

from collections.abc import Callable

from histories.errors import ConfigError, nearest
from histories.modules import FloatArray
from reward.adjusted import DidDoublyRobustReward, DidRegressionReward
from reward.models import ChangeReward, DidReward, RawReward, RewardModel
from reward.outcomes import Outcomes, RewardSpec

REWARDS: dict[str, Callable[[RewardSpec], RewardModel]] = {
    "raw": RawReward,
    "change": ChangeReward,
    "did": DidReward,
    "did_regression": DidRegressionReward,
    "did_dr": DidDoublyRobustReward,
}


def make_reward(kind: str, spec: RewardSpec) -> RewardModel:
    """The reward model of a kind by its name.

    Raises:
        ConfigError: If there is no such kind.
    """
    if kind not in REWARDS:
        raise ConfigError(f"there is no reward kind {kind!r}. {nearest(kind, REWARDS)}")
    return REWARDS[kind](spec)


def refit(model: RewardModel, outcomes: Outcomes) -> Callable[[FloatArray], FloatArray]:
    """A function from decision weights (n,) to rewards (n,), with the model re-fitted on the weighted outcomes.

    The bootstrap calls it in every replicate, so that the error of the controls' means is part of its interval.
    """
    return lambda weights: model.fit_outcomes(outcomes, weights).transform_outcomes(outcomes).reward

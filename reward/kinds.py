"""The reward kinds by name, and re-fitting one inside a bootstrap."""

from __future__ import annotations

from collections.abc import Callable

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.serialization import import_class
from crosschannel.reward.adjusted import DidDoublyRobustReward, DidRegressionReward
from crosschannel.reward.measurement.outcomes import Outcomes
from crosschannel.reward.models import ChangeReward, DidReward, RawReward, RewardModel, refit_did
from crosschannel.reward.spec import RewardSpec

REWARDS: dict[str, Callable[[RewardSpec], RewardModel]] = {
    "raw": RawReward,
    "change": ChangeReward,
    "did": DidReward,
    "did_regression": DidRegressionReward,
    "did_dr": DidDoublyRobustReward,
}

_REQUIRED_ATTRIBUTES = ("name", "adjust", "spec", "measure", "fit", "fit_outcomes", "fit_transform")


def make_reward(kind: str, spec: RewardSpec) -> RewardModel:
    """Make the reward model of a kind by its name, or of a user's own class as `package.module:Class`.

    A user's class is called as `Class(spec)` and returns a `RewardModel`. Agents learn from it and evaluation re-fits
    it; average effects with errors need an influence function, which only this package's kinds have.

    Raises:
        ConfigError: If there is no such kind, or the class does not fit.
    """
    if kind in REWARDS:
        return REWARDS[kind](spec)
    if ":" not in kind:
        raise ConfigError(
            f"there is no reward kind {kind!r}. {nearest(kind, REWARDS)} Your own is 'package.module:Class'"
        )
    model: RewardModel = import_class(kind, "reward kind")(spec)
    if missing := [part for part in _REQUIRED_ATTRIBUTES if not hasattr(model, part)]:
        raise ConfigError(f"{kind} is not a reward model: it lacks {', '.join(missing)}")
    return model


def refit(model: RewardModel, outcomes: Outcomes) -> Callable[[FloatArray], FloatArray]:
    """Return a function from decision weights (n,) to rewards (n,), with the model re-fitted on the weighted outcomes.

    The bootstrap calls it in every replicate, so that the error of the controls' means is part of its interval.
    """
    if type(model) is DidReward:  # a subclass may fit otherwise
        return refit_did(model.spec, outcomes)
    return lambda weights: model.fit_outcomes(outcomes, weights).transform_outcomes(outcomes).reward

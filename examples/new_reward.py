"""A reward of your own: `measure`, `fit`, `fit_outcomes` and `fit_transform`, used wherever a reward model is.

    python examples/new_reward.py

Difference in differences is right on average, but one reward is mostly the noise of one user's day. This one keeps
the average of each action of the first module and moves each reward towards it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import tyro

from crosschannel.core import FloatArray, IntArray
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import History
from crosschannel.reward import DidReward, FittedReward, Outcomes, RewardFrame, RewardModel, RewardSpec


@dataclass(frozen=True)
class FittedShrunk:
    """A fitted DiD reward, and the mean reward of each action of the first module (A,), NaN where there is none."""

    inner: FittedReward
    mean: FloatArray
    keep: float

    def transform(self, history: History) -> RewardFrame:
        """Rewards of every decision of a history."""
        return self.shrink(self.inner.transform(history), history.decisions.actions)

    def transform_outcomes(self, outcomes: Outcomes) -> RewardFrame:
        """The same, from outcomes that were measured already."""
        return self.shrink(self.inner.transform_outcomes(outcomes), outcomes.actions)

    def shrink(self, frame: RewardFrame, actions: IntArray) -> RewardFrame:
        """What the log does not identify stays NaN: nothing is filled in."""
        known = np.append(self.mean, np.nan)  # the last one is for actions that training did not have
        mean = known[np.minimum(actions[:, 0], len(self.mean))]
        return replace(frame, reward=mean + self.keep * (frame.reward - mean), se=self.keep * frame.se)


@dataclass(frozen=True)
class ShrunkDidReward:
    r"""A DiD reward moved towards the mean of its action.

    .. math:: \tilde r_i = \bar r_{a_i} + k (r_i - \bar r_{a_i})

    with the mean over the training decisions of the same first action. Group means stay those of DiD; single rewards
    lose noise, and with it 1 - k of what is special about a user: a bias that pays where noise is most of the variance
    (Efron & Morris, 1975, "Data analysis using Stein's estimator and its generalizations", JASA).
    """

    spec: RewardSpec = field(default_factory=RewardSpec)
    keep: float = 0.1
    name: ClassVar[str] = "shrunk_did"
    adjust: ClassVar[bool] = False

    def measure(self, history: History) -> Outcomes:
        """Outcomes of a history, as DiD needs them."""
        return DidReward(self.spec).measure(history)

    def fit(self, train: History) -> FittedShrunk:
        """Learns the controls' change, and the mean reward of each action."""
        return self.fit_outcomes(self.measure(train))

    def fit_outcomes(self, outcomes: Outcomes, weights: FloatArray | None = None) -> FittedShrunk:
        """The same from measured outcomes, each counted `weights` (n,) times: a bootstrap calls this."""
        inner = DidReward(self.spec).fit_outcomes(outcomes, weights)
        reward, action = inner.transform_outcomes(outcomes).reward, outcomes.actions[:, 0]
        w = np.where(np.isnan(reward), 0.0, 1.0 if weights is None else weights)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(action, w * np.nan_to_num(reward)) / np.bincount(action, w)
        return FittedShrunk(inner, mean, self.keep)

    def fit_transform(self, train: History) -> RewardFrame:
        """Rewards of the decisions that it learns from, which are measured once."""
        outcomes = self.measure(train)
        return self.fit_outcomes(outcomes).transform_outcomes(outcomes)


def main(users: int = 4_000, seed: int = 0, keep: float = 0.1) -> dict[str, float]:
    """Simulates a log, and compares both rewards with the true effect of every message.

    Args:
        users: Users of the log.
        seed: Seed of the market.
        keep: Share k of a reward's distance from its mean that is kept.
    """
    config = MarketConfig(users=users, seed=seed)
    history, truth = simulate_history(Market(config))
    spec = RewardSpec(goals=config.goals, pre="2d", post="1d", overlap="exclude")
    sent = history.modules.sends(history.decisions.actions)
    models: list[RewardModel] = [DidReward(spec), ShrunkDidReward(spec, keep)]
    distances = {}
    for model in models:
        frame = model.fit_transform(history)
        rows = sent & frame.identified
        distance = frame.reward[rows] - truth.logged[rows]
        distances[model.name] = rmse = float(np.sqrt((distance**2).mean()))
        print(
            f"{model.name:10} {rows.sum():,} messages: mean reward {frame.reward[rows].mean():+.4f} "
            f"(truth {truth.logged[rows].mean():+.4f}), distance of one reward from its truth {rmse:.4f}"
        )
    return distances


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)

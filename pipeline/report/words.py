"""A run's reward in words, for its report, its card at the top, and its model card."""

from __future__ import annotations

from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.following import INCREMENTAL


def reward_in_words(config: Config) -> str:
    """Return what counts as a reward, for the card."""
    reward = config.reward
    goals = ", ".join(
        f"{goal.weight:+g} x {'' if goal.measure == 'count' else f'{goal.measure} of '}`{goal.event}`"
        for goal in reward.goals
    )
    text = f"{goals}, in the {reward.post} after a decision"
    return f"{text}, less what happens without a message" if reward.kind in INCREMENTAL else text


def reward_text(config: Config) -> str:
    """Return how rewards are computed, for the head of the report."""
    reward = config.reward
    goals = ", ".join(f"{goal.weight:+g} x {goal.event} ({goal.measure})" for goal in reward.goals)
    parts = [
        f"{reward.kind}: {goals}; window {reward.pre} before and {reward.post} after",
        f"time buckets of {reward.time_bucket}",
        f"overlap {reward.overlap}",
        f"controls {reward.controls}",
    ]
    if reward.seasonality:
        parts.append(f"seasonality {reward.seasonality}")
    if reward.matching.within:
        parts.append(f"within {', '.join(reward.matching.within)}")
    if reward.matching.strata > 1:
        parts.append(f"{reward.matching.strata} strata of activity")
    return ", ".join(parts)

"""The value of a run's policy if it is followed over several slots, and the cost events of its users meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crosschannel.core import serialization
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import InputError, NotIdentified
from crosschannel.core.times import NEVER, duration
from crosschannel.evaluation import (
    Interval,
    LoggedDecisions,
    PerDecisionSNIPS,
    Trajectories,
    TrajectoryEstimate,
    TrajectoryEvaluation,
    TrajectoryIndex,
    evaluate_trajectories,
    value_trajectories,
)
from crosschannel.evaluation.report.formatting import align, format_bounds, format_number, format_point, why_not
from crosschannel.evaluation.report.plain_values import interval_to_dict, read_interval
from crosschannel.evaluation.sequential.serialization import (
    estimate_from_dict,
    estimate_to_dict,
    trajectories_from_dict,
    trajectories_to_dict,
)
from crosschannel.evaluation.support import unsupported_mass
from crosschannel.evaluation.weights import importance_weights
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline, running_totals
from crosschannel.pipeline.building import Split, TrainingData
from crosschannel.pipeline.configuration import Config, RewardConfig
from crosschannel.reward import Reason
from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.ties import boundaries
from crosschannel.reward.reason import REWARD_REASONS

#: Stream of random numbers, beside the run's seed.
FOLLOWING = 8
#: Kinds of reward that are 0 by definition where nothing is sent.
INCREMENTAL = ("did", "did_regression", "did_dr")
#: Why a slot is outside what a user's rewards can be measured in, whatever was sent at it.
OUTSIDE = (Reason.OUTSIDE_OBSERVATION, Reason.USER_NOT_OBSERVED, Reason.NO_SEASONALITY, Reason.CHURNED)
#: With fewer users no model of later slots is fitted.
MIN_USERS_OF_MODEL = 100


@dataclass(frozen=True)
class FollowedCost:
    """How often a cost event happens to a user while a policy is followed.

    Attributes:
        event: The event's name.
        logged: Mean number per episode in the log.
        estimate: The same under the policy, and the difference to the log.
    """

    event: str
    logged: Interval
    estimate: TrajectoryEstimate


@dataclass(frozen=True)
class FollowedPolicy:
    """What a policy is worth if it decides at each of several slots in a row.

    Attributes:
        slots: Slots of an episode.
        value: The estimates; None where the log has no rewards of episodes.
        costs: Cost events per user and episode: goals with a negative weight.
        reason: Why there is no value; empty where there is one.
    """

    slots: int
    value: TrajectoryEvaluation | None = None
    costs: tuple[FollowedCost, ...] = ()
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values; what is not a finite number is None."""
        return {
            "slots": self.slots,
            "reason": self.reason or None,
            "value": None if self.value is None else trajectories_to_dict(self.value),
            "costs": [
                {
                    "event": cost.event,
                    "logged": interval_to_dict(cost.logged),
                    "estimate": estimate_to_dict(cost.estimate),
                }
                for cost in self.costs
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FollowedPolicy:
        """Return what `to_dict` turned into plain values; what is None becomes NaN.

        Raises:
            ConfigError: If a value is of another type.
        """
        value = data["value"]
        return cls(
            slots=serialization.convert(int, data["slots"], "slots"),
            value=None if value is None else trajectories_from_dict(value),
            costs=tuple(
                FollowedCost(
                    event=serialization.convert(str, cost["event"], "event"),
                    logged=serialization.from_dict(Interval, read_interval(cost["logged"]), "logged"),
                    estimate=estimate_from_dict(cost["estimate"]),
                )
                for cost in data["costs"]
            ),
            reason=data["reason"] or "",
        )


def followed_title(followed: FollowedPolicy) -> str:
    """Return what the values of a followed policy are, in words."""
    return f"If the policy is followed over {followed.slots} slots, by user"


def followed_text(followed: FollowedPolicy) -> str:
    """Return the value of a followed policy and its cost events as text for the terminal."""
    if followed.value is None:
        return f"The log does not identify it: {followed.reason}."
    lines = [str(followed.value)]
    if followed.costs:
        level = f"{followed.value.settings.confidence_level:.0%}"
        lines += ["", *align([cost_columns(level), *map(cost_cells, followed.costs)])]
    return "\n".join(lines)


def cost_columns(level: str) -> tuple[str, ...]:
    """Return the names of the columns of a table of cost events."""
    return ("cost events per user", "log", "policy", level, "difference", level)


def cost_cells(cost: FollowedCost) -> tuple[str, ...]:
    """Return a cost event as texts, one for each of `cost_columns`."""
    e, logged = cost.estimate, format_number(cost.logged.point, ".4g")
    if not e.identified:
        return (cost.event, logged, why_not(e.reason), "", "", "")
    value = (format_number(e.value.point, ".4g"), format_bounds(e.value))
    return (cost.event, logged, *value, format_point(e.difference), format_bounds(e.difference))


def follow(config: Config, data: TrainingData, probabilities: Sequence[FloatArray]) -> FollowedPolicy | None:
    """Value a policy over the episodes of `evaluation.trajectories`; None where there are none.

    Rewards of incremental kinds are 0 by definition where nothing is sent; those of other kinds are needed at every
    slot. They are fitted again in every replicate of the bootstrap, as those of the one-step estimates are. What the
    policy sees at a slot is the logged context.

    Args:
        config: The configuration.
        data: The history and its splits.
        probabilities: The policy's probabilities at the test users' decisions.
    """
    settings, test = config.evaluation.trajectories, data.test
    if settings.slots is None:
        return None
    try:
        if data.not_identified:
            raise NotIdentified(data.not_identified)
        index = episodes(config, test)
        _check_rewards(config.reward, test, index)
        log = replace(LoggedDecisions.from_history(test.history), name=f"the test users of {test.history.name}")
        value = evaluate_trajectories(
            log,
            probabilities,
            _rewards(config.reward, test),
            index,
            rng=np.random.default_rng([config.seed, FOLLOWING]),
            context=test.observations.context if _has_users(index) else None,
            discount=settings.discount,
            settings=config.evaluation.estimation,
            policy=config.agent.name,
        )
    except (NotIdentified, InputError) as error:
        return FollowedPolicy(slots=settings.slots, reason=str(error))
    return FollowedPolicy(settings.slots, value, _costs(config, test, log, probabilities, index))


def episodes(config: Config, split: Split) -> TrajectoryIndex:
    """Cut the slots of some users into episodes, by what does not depend on what was sent.

    Slots whose windows extend beyond the observation, and those after a user churned, are left out first: that is a
    matter of time. So are users of the holdout, at whom no policy is valued. A user's last slot before churning ends an
    episode; users whose log ends otherwise before an episode does are excluded.

    Raises:
        NotIdentified: If no episode is complete.
        InputError: If a user has two slots at the same time.
    """
    history, frame = split.history, split.rewards
    d = history.decisions
    churned_at = history.churned_at[d.user]
    held_out = np.bincount(d.user, weights=split.held_out, minlength=history.n_users)[d.user] > 0
    before = d.time <= churned_at
    rows = np.flatnonzero(before & ~held_out & ~np.isin(frame.reason, OUTSIDE))
    last = np.zeros(history.n_users, dtype=np.int64)
    np.maximum.at(last, d.user[before], np.flatnonzero(before))
    churned = (churned_at[rows] < NEVER) & (rows == last[d.user[rows]])
    index = config.evaluation.trajectories.cut(d.user[rows], d.time[rows], churned)
    return replace(index, rows=np.where(index.rows >= 0, rows[index.rows], -1))


def _check_rewards(reward: RewardConfig, split: Split, index: TrajectoryIndex) -> None:
    """Refuse episodes whose rewards are not all known, or contain the effect of another message.

    The window before a message must not reach into the window after the user's message before it: a policy that sends
    more often than the log would seem to lose what the earlier message earned.

    Raises:
        NotIdentified: If some are.
    """
    history, frame = split.history, split.rewards
    needed = index.rows[index.rows >= 0]
    pre, post = duration(reward.pre), duration(reward.post)
    if reward.kind in INCREMENTAL:
        needed = needed[history.modules.sends(history.decisions.actions)[needed]]
        # The message before may come at exactly `pre + post`: its window ends where the next one's begins.
        others = Messages.from_history(history).others_active(history, 1 - pre - post, post)
        if mixed := int(others[needed].sum()):
            raise NotIdentified(
                f"{mixed:,} of {len(needed):,} messages come within {reward.post} before or {reward.pre} + "
                f"{reward.post} after another one of the user, so that an effect would be in two rewards: choose "
                "`reward.pre` and `reward.post` whose sum is no longer than the time between messages"
            )
    elif len(gaps := _gaps(history, index)) and gaps.min() < post:
        raise NotIdentified(
            f"the window of {reward.post} after a decision extends beyond the next slot, so that what happens there "
            "would be in two rewards: choose `reward.post` no longer than the time between slots"
        )
    lacking = needed[~frame.identified[needed]]
    if len(lacking):
        counts = ((int((frame.reason[lacking] == reason).sum()), reason.text) for reason in REWARD_REASONS)
        named = ", ".join(f"{count:,} {text}" for count, text in counts if count)
        raise NotIdentified(
            f"{len(lacking):,} of {len(needed):,} rewards within the episodes are not identified ({named}), and "
            "leaving those episodes out would depend on what was sent"
        )


def _gaps(history: History, index: TrajectoryIndex) -> IntArray:
    """Return the times between successive slots of the episodes, microseconds."""
    both = index.rows[:, 1:] >= 0
    time = history.decisions.time
    return np.asarray(time[index.rows[:, 1:][both]] - time[index.rows[:, :-1][both]])


def _rewards(reward: RewardConfig, split: Split) -> Any:
    """Return the function of a replicate that fits the rewards again."""
    fitted = split.refit()
    if reward.kind not in INCREMENTAL:
        return fitted
    sent: BoolArray = split.history.modules.sends(split.history.decisions.actions)
    return lambda counts: np.where(sent, fitted(counts), 0.0)


def _has_users(index: TrajectoryIndex) -> bool:
    return len(np.unique(index.user[index.rows[:, -1] >= 0])) >= MIN_USERS_OF_MODEL


def _costs(
    config: Config,
    split: Split,
    log: LoggedDecisions,
    probabilities: Sequence[FloatArray],
    index: TrajectoryIndex,
) -> tuple[FollowedCost, ...]:
    """Return how often each goal with a negative weight happens per episode, by per-decision snips."""
    found = []
    for goal in config.reward.goals:
        if goal.weight >= 0:
            continue
        trajectories = Trajectories(
            rewards=events_by_slot(split.history, config.reward, goal.event, index),
            ratios=index.gather(importance_weights(log, probabilities, None)),
            length=index.length,
            user=index.user,
            counts=np.ones(len(index.user)),
        )
        evaluation = value_trajectories(
            trajectories,
            rng=np.random.default_rng([config.seed, FOLLOWING]),
            settings=config.evaluation.estimation,
            estimators=[PerDecisionSNIPS()],
            unsupported=unsupported_mass(log, probabilities, None),
        )
        found.append(FollowedCost(goal.event, evaluation.logged, evaluation.headline))
    return tuple(found)


def events_by_slot(history: History, reward: RewardConfig, event: str, index: TrajectoryIndex) -> FloatArray:
    """Return how often an event happens from each slot of the episodes to the next (n, H); 0 after a user churned.

    The last slot of an episode lasts as long as the reward's window after it, or until the user churned if the episode
    ends by that. Events at the time of a slot belong to the slot before it, or, with `history.ties: after`, to it.
    """
    e, time = history.events, boundaries(history, reward.goals)
    chosen = np.isin(e.event, history.event_codes([event], "constraints.cost_events"))
    total = running_totals(chosen.astype(np.int64))
    active, rows = index.rows >= 0, np.where(index.rows >= 0, index.rows, 0)
    start = time[rows]
    last = np.arange(index.horizon) == index.length[:, None] - 1
    churned = (index.length < index.horizon)[:, None]
    until = np.where(churned, history.churned_at[index.user][:, None] + 1, 0)
    end = np.where(last, np.maximum(start + duration(reward.post), until), np.roll(start, -1, axis=1))
    user = np.broadcast_to(index.user[:, None], start.shape)[active]
    timeline = Timeline(e.time, history.event_offsets)
    out = np.zeros(start.shape)
    out[active] = total[timeline.before(user, end[active])] - total[timeline.before(user, start[active])]
    return out

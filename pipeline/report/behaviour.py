"""Pictures of what a policy does beside the log: choices, weeks, segments, weights, calibration and cost events."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from crosschannel.agents import ALL_DECISIONS
from crosschannel.agents.policy_views import group_name
from crosschannel.evaluation import CalibrationBin, CostEvent, WeightBin
from crosschannel.evaluation.report.formatting import NOTHING
from crosschannel.evaluation.report.pictures import Lines, Pair, Picture, Row, line_chart, pair_chart, row_chart
from crosschannel.evaluation.report.pictures.rows import (
    bin_name,
    calibration_rows,
    cost_rows,
    interval_of_bounds,
    weight_rows,
)
from crosschannel.pipeline.judgement.records import ActionShare, Calibration, EventBin

NAMES = ("the log", "the policy")


def share_picture(shares: Sequence[ActionShare]) -> Picture | None:
    """Draw the shares of all actions over all decisions, by module; None where there are none."""
    shown = [row for row in shares if not row.period]
    if not shown:
        return None
    changed = max(shown, key=lambda row: abs(row.policy - row.logged) if math.isfinite(row.policy - row.logged) else -1)
    caption = (
        f"How often each action is chosen at the same {shown[0].decisions:,} decisions: the first module's of all "
        "decisions, the others' of the messages."
    )
    if math.isfinite(changed.policy - changed.logged):
        caption += (
            f" The largest change is `{changed.module}` {changed.action}: {changed.logged:.1%} in the log, "
            f"{changed.policy:.1%} by the policy."
        )
    rows = [Pair(row.action, row.logged, row.policy, row.module) for row in shown]
    return Picture(
        title="What the policy chooses, beside the log",
        drawing=pair_chart(rows, NAMES, "share of the choices"),
        caption=caption,
        name="choices",
        columns=("module", "action", "logged", "policy", "decisions"),
        numbers=tuple((row.module, row.action, row.logged, row.policy, row.decisions) for row in shown),
    )


def period_picture(shares: Sequence[ActionShare]) -> Picture | None:
    """Draw the shares of messages by week or day, and of each of the first module's actions in the numbers."""
    by_period: dict[str, list[ActionShare]] = {}
    for row in shares:
        if row.period:
            by_period.setdefault(row.period, []).append(row)
    if len(by_period) < 2:
        return None
    actions = [row.action for row in next(iter(by_period.values()))][1:]
    logged, policy = (
        {action: [getattr(rows[k], who) for rows in by_period.values()] for k, action in enumerate(actions, start=1)}
        for who in ("logged", "policy")
    )
    sends = Lines(
        "any message",
        [1 - rows[0].logged for rows in by_period.values()],
        [1 - rows[0].policy for rows in by_period.values()],
    )
    rows = [sends, *(Lines(action, logged[action], policy[action]) for action in actions)]
    return Picture(
        title="Messages by time and channel",
        drawing=line_chart(rows, list(by_period), NAMES, "share of the decisions"),
        caption=(
            f"Over {len(by_period)} periods the policy sends a message at {min(sends.second):.1%} to "
            f"{max(sends.second):.1%} of the decisions, the log at {min(sends.first):.1%} to {max(sends.first):.1%}."
        ),
        name="periods",
        columns=("from", "module", "action", "logged", "policy", "decisions"),
        numbers=tuple(
            (row.period, row.module, row.action, row.logged, row.policy, row.decisions)
            for rows in by_period.values()
            for row in rows
        ),
    )


def worth_picture(table: pd.DataFrame) -> Picture | None:
    """Draw what the agent expects of a message with each action, by module; None for agents without estimates."""
    shown = table[(table["segment"] == ALL_DECISIONS) & table["reward"].notna()].to_dict("records")
    rows = [
        Row(
            label=str(row["action"]),
            interval=interval_of_bounds(row["reward"], row["low"], row["high"]),
            group=group_name(row["module"], row["given"]),
        )
        for row in shown
        if math.isfinite(row["low"]) and row["low"] < row["high"]
    ]
    if not rows:
        return None
    return Picture(
        title="What the agent expects of each action",
        drawing=row_chart(rows, "expected reward of a message with the action, without shadow prices"),
        caption=(
            "95 % intervals of the agent's own estimates, at the policy's mean over the other modules: why it chooses "
            "as it does. They come from the training users and do not show what the actions are worth; the estimates "
            "above do."
        ),
        name="expected",
        columns=("module", "given", "action", "expected", "low", "high", "share"),
        numbers=tuple(
            tuple(row[name] for name in ("module", "given", "action", "reward", "low", "high", "share"))
            for row in shown
        ),
    )


def segment_picture(table: pd.DataFrame) -> Picture | None:
    """Draw how often the policy sends, by segment of users; None where there is one segment."""
    records = table.to_dict("records")
    nothing = {str(row["segment"]): row for row in reversed(records) if row["module"] == records[0]["module"]}
    if len(nothing) < 2:
        return None
    overall = 1 - float(nothing.pop(ALL_DECISIONS)["share"])
    rows = [
        Pair(f"{segment} ({row['decisions']:,})", overall, 1 - float(row["share"]))
        for segment, row in reversed(nothing.items())
    ]
    most, least = (pick(rows, key=lambda row: row.second) for pick in (max, min))
    return Picture(
        title="How often the policy sends, by segment",
        drawing=pair_chart(rows, ("all decisions", "the segment"), "share of decisions with a message"),
        caption=(
            f"The policy sends most to {most.label}: {most.second:.1%} of decisions, and least to {least.label}: "
            f"{least.second:.1%}. The tables below have every module."
        ),
        name="segments",
        columns=("segment", "module", "given", "action", "share", "decisions"),
        numbers=tuple(
            tuple(row[name] for name in ("segment", "module", "given", "action", "share", "decisions"))
            for row in records
        ),
    )


def weight_picture(bins: Sequence[WeightBin], ess: float) -> Picture | None:
    """Draw how many decisions have which weights, and their share of the error; None where there are no weights.

    Args:
        bins: The bins.
        ess: Effective sample size of the headline.
    """
    if not bins:
        return None
    heavy = max((each for each in bins if each.decisions), key=lambda each: each.squared_share)
    total = sum(each.decisions for each in bins)
    size = f"{ess:,.0f}" if math.isfinite(ess) else NOTHING
    return Picture(
        title="Weights of the decisions, and where the error comes from",
        drawing=pair_chart(
            weight_rows(bins), ("decisions", "squared weights"), "shares of all; squared weights drive the error"
        ),
        caption=(
            f"{total:,} decisions are as precise as {size} equally weighted ones. Those with a weight "
            f"{bin_name(heavy)} are {heavy.share:.1%} of the decisions and have {heavy.squared_share:.0%} of "
            "the squared weights. Weights of order 1 can be negative."
        ),
        name="weights",
        columns=("above", "up to", "decisions", "share of decisions", "share of squared weights"),
        numbers=tuple((each.low, each.high, each.decisions, each.share, each.squared_share) for each in bins),
    )


def calibration_picture(bins: Sequence[CalibrationBin], calibration: Calibration | None) -> Picture | None:
    """Draw held-out rewards of messages by what the agent expected of them; None where there are no bins."""
    if not bins:
        return None
    outside = sum(not each.low <= each.expected <= each.high for each in bins)
    caption = (
        "Logged messages of users that the agent has not learned from, from the least to the most that it expected of "
        f"them. In {outside} of {len(bins)} groups the expected reward is outside the 95 % interval of the mean reward."
    )
    return Picture(
        title="What the agent expected, and what messages earned",
        drawing=row_chart(calibration_rows(bins), "mean reward of the messages", marker="expected"),
        caption=caption if calibration is None else f"{caption} {calibration}",
        name="calibration",
        columns=("messages", "expected", "observed", "low", "high"),
        numbers=tuple((each.messages, each.expected, each.observed, each.low, each.high) for each in bins),
    )


def cost_picture(costs: Sequence[CostEvent]) -> Picture | None:
    """Draw how often cost events follow decisions under the policy, beside the log; None where there are none."""
    if not costs:
        return None
    identified = [cost for cost in costs if not cost.reason]
    sentences = [
        f"`{cost.event}` follows {cost.policy.point:.3%} [{cost.policy.low:.3%}, {cost.policy.high:.3%}] of the "
        f"policy's decisions, and {cost.logged:.3%} of the log's."
        for cost in identified
    ]
    return Picture(
        title="Cost events after a decision",
        drawing=row_chart(cost_rows(costs), "rate per decision", marker="logged"),
        caption=" ".join(sentences) or "The log does not identify how often they follow the policy's decisions.",
        name="cost-events",
        columns=("event", "logged", "policy", "low", "high", "not identified"),
        numbers=tuple(
            (cost.event, cost.logged, cost.policy.point, cost.policy.low, cost.policy.high, cost.reason)
            for cost in costs
        ),
    )


def event_picture(bins: Sequence[EventBin], pre_trends: str) -> Picture | None:
    """Draw the effect of the logged messages by time since the decision; None where there is no event study.

    Args:
        bins: The bins, ascending.
        pre_trends: What the pre-trend test found.
    """
    if not bins:
        return None
    rows = [
        Row(
            label=f"from day {each.start:+g}{' (tested: should be 0)' if each.tested else ''}",
            interval=interval_of_bounds(each.effect, each.low, each.high),
            note="" if math.isfinite(each.effect + each.low + each.high) else "not identified",
            group="before the message" if each.start < 0 else "after it",
        )
        for each in bins
    ]
    return Picture(
        title="What the logged messages did, by time",
        drawing=row_chart(rows, "effect on the goals per bin, relative to the bin before the message"),
        caption=(
            f"An event study of the training users' messages: what the rewards take for their effect. {pre_trends}"
        ),
        name="event-study",
        columns=("from day", "effect", "low", "high", "tested"),
        numbers=tuple((each.start, each.effect, each.low, each.high, int(each.tested)) for each in bins),
    )

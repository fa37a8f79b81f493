"""Rules about what arrived: decisions, their actions, deliveries, rewards, and the log itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, bdtrc

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.times import DAY, duration, timestamps
from crosschannel.histories.arms import AGENT
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import since
from crosschannel.pipeline.loop.decisions.delivery import ALL, delivered_share
from crosschannel.pipeline.loop.decisions.eligible import own_decisions
from crosschannel.pipeline.watch.records import Alert, NotChecked
from crosschannel.pipeline.watch.settings import AlertsConfig
from crosschannel.reward import Reason, make_reward
from crosschannel.reward.spec import RewardSpec

#: A share is beyond its bound if it is so by more than chance: level of the binomial tests.
LEVEL = 1e-3


def agent_decisions(history: History, now: int) -> BoolArray:
    """Return which decisions (n,) a policy made for users of its own arm up to a time."""
    d = history.decisions
    mine = own_decisions(d) & (d.time <= now)
    return mine if d.arm is None else mine & np.asarray(d.arm == AGENT, dtype=bool)


def log_age(history: History, now: int, limit: str) -> list[Alert]:
    """Return an alert if the log ended too long ago."""
    age = now - history.span[1]
    if age <= duration(limit):
        return []
    finding = f"The log ends at {_time(history.span[1])}, {age / DAY:.1f} days ago; the bound is {limit}."
    remedy = "Repair the export of the log: the policy decides without knowing what happened since."
    return [Alert("age of the log", "critical", finding, remedy)]


@dataclass(frozen=True)
class DecisionCounts:
    """How many decisions a policy made for users of its own arm at each time; `+` adds other users.

    Attributes:
        times: Decision times, microseconds (T,), ascending.
        decisions: Decisions at each (T,).
        messages: Messages among them (T,).
    """

    times: IntArray
    decisions: IntArray
    messages: IntArray

    @classmethod
    def from_history(cls, history: History, now: int) -> DecisionCounts:
        """Count the decisions of a history up to a time."""
        d, rows = history.decisions, agent_decisions(history, now)
        sent = history.modules.sends(d.actions)[rows]
        return cls._by_time(d.time[rows], np.ones(len(sent), dtype=np.int64), sent.astype(np.int64))

    def __add__(self, other: DecisionCounts) -> DecisionCounts:
        columns = zip(vars(self).values(), vars(other).values(), strict=True)
        return self._by_time(*(np.concatenate(both) for both in columns))

    @classmethod
    def _by_time(cls, time: IntArray, decisions: IntArray, messages: IntArray) -> DecisionCounts:
        times, code = np.unique(time, return_inverse=True)
        sums = (np.bincount(code, each, minlength=len(times)).astype(np.int64) for each in (decisions, messages))
        return cls(times, *sums)


def decision_numbers(counts: DecisionCounts, now: int, period: int, max_drop: float) -> list[Alert]:
    """Return an alert if the newest day has no decisions, hardly any, or no message.

    The newest day is the period up to `now`: run the check after `decide`.

    Args:
        counts: The decisions of the policy.
        now: Time of the check, microseconds.
        period: Time from one decision time to the next, microseconds.
        max_drop: Largest drop against the decision time before, as a share.
    """
    rule, times = "decisions", counts.times
    look = "Look at the daily job: whether `crosschannel decide` ran, what it printed, and where --out is."
    if not len(times):
        return [Alert(rule, "critical", "The policy has not decided anything yet.", look)]
    newest = int(times[-1])
    if now - newest >= period:
        return [Alert(rule, "critical", f"There are no decisions since {_time(newest)}.", look)]
    if len(times) < 2:
        return []
    before, n = counts.decisions[-2:].tolist()
    found = []
    if n < (1 - max_drop) * before:
        finding = (
            f"{n:,} decisions at {_time(newest)}, after {before:,} the time before: a drop of {1 - n / before:.0%}; "
            f"the bound is {max_drop:.0%}."
        )
        remedy = "Look whether the log lost users, whether they churned, and whether --only-users or --ramp changed."
        found.append(Alert(rule, "critical", finding, remedy))
    before_sent, now_sent = counts.messages[-2:].tolist()
    if before_sent and not now_sent:
        finding = f"None of {n:,} decisions at {_time(newest)} sends a message, after {before_sent:,} the time before."
        remedy = "Look at eligibility, guardrails and the prices in decide.json, and at the policy version."
        found.append(Alert(rule, "critical", finding, remedy))
    return found


def action_shares(history: History, now: int, bound: float) -> list[Alert]:
    """Return an alert if nearly all of the newest messages are one whole action, although they could have been others.

    Whole actions are compared, not those of one module: of two subject lines one may rightly be the better one for
    everybody. A message counts if at least two of a module's actions other than "none" were eligible, given what was
    chosen before. By chance alone, an action whose probability is at the bound gives an alert with a probability of at
    most `LEVEL`.
    """
    d, modules = history.decisions, history.modules
    rows = agent_decisions(history, now) & modules.sends(d.actions)
    if not rows.any():
        raise NotChecked("the policy has sent nothing yet")
    newest = int(d.time[agent_decisions(history, now)].max())
    at = np.flatnonzero(rows & (d.time == newest))
    actions, feasible = d.actions[at], modules.feasible_mask(history.eligible[at])
    options = [modules.conditional_mask(m, feasible, actions)[:, int(m == 0) :] for m in range(len(modules))]
    choice = np.any([mask.sum(axis=1) > 1 for mask in options], axis=0)
    if not choice.any():
        return []
    n = int(choice.sum())
    whole, counts = np.unique(actions[choice], axis=0, return_counts=True)
    most = int(counts.max())
    if most <= bound * n or bdtrc(most - 1, n, bound) >= LEVEL:
        return []
    names = [module.actions[a] for module, a in zip(modules, whole[counts.argmax()], strict=True)]
    finding = (
        f"`{', '.join(names)}` is the action of {most:,} of {n:,} messages at {_time(newest)} that could have had "
        f"another: {most / n:.1%}, and the bound is {bound:.0%} (alerts.max_action_share)."
    )
    remedy = (
        "Look at `crosschannel explain` for some of them and at eligibility; to go back: "
        "`crosschannel update RUN --use VERSION`."
    )
    return [Alert("share of an action", "warning", finding, remedy)]


def deliveries(history: History, now: int, settings: AlertsConfig) -> list[Alert]:
    """Return an alert for each channel whose messages are delivered too rarely, by more than chance."""
    bound, named = settings.min_delivered_share, {*settings.delivered, *settings.failed}
    assert bound is not None  # the rule is on
    if not named:
        raise NotChecked("no event tells of deliveries: name some in alerts.delivered or alerts.failed")
    known = [tuple(n for n in names if n in history.event_names) for names in (settings.delivered, settings.failed)]
    start = now - duration(settings.window)
    rule = "deliveries"
    remedy = (
        "Look at the sending tool: its caps, its list of blocked users, and whether it reads the day's decisions. "
        "What was decided stays the action: effects are those of the attempt."
    )
    if settings.delivered and not known[0]:
        d = history.decisions
        closed = d.time + duration(settings.delivered_within) <= history.span[1]
        sent = agent_decisions(history, now) & history.modules.sends(d.actions) & (d.time >= start) & closed
        names = ", ".join(settings.delivered)
        finding = f"The log has none of the events {names}, and {int(sent.sum()):,} messages were decided."
        return [Alert(rule, "critical", finding, remedy)] if sent.any() else []
    if not any(known):  # nothing has failed yet
        return []
    table = delivered_share(history, known[0], duration(settings.delivered_within), failed=known[1], since=start)
    found = []
    for channel, n, k, share in table.itertuples(index=False):
        if n and share < bound and bdtr(k, n, bound) < LEVEL:
            which = "all messages" if channel == ALL else f"messages by {channel}"
            finding = f"{k:,} of {n:,} {which} were delivered ({share:.0%}); the bound is {bound:.0%}."
            found.append(Alert(rule, "warning", finding, remedy))
    return found


def rewards_closed(
    history: History, now: int, period: int, reward: RewardSpec, kind: str, settings: AlertsConfig
) -> list[Alert]:
    """Return an alert if fewer of the newest closed messages have a reward than of those before.

    A message is closed when `reward.post` and `alerts.lag` are over. Decisions to send nothing do not count: whether
    they have a reward depends on what was sent before them. Reasons without a reward are those of
    `RewardFrame.reason`: too few controls, another message within the windows, a window that was not observed.
    """
    drop = settings.max_closed_drop
    assert drop is not None  # the rule is on
    start = max(now - duration(settings.window) - duration(reward.pre), history.span[0])
    if start >= history.span[1]:
        raise NotChecked("the log ended before the window")
    recent = since(history, start)
    d = recent.decisions
    end = min(now, recent.span[1])
    closed = agent_decisions(recent, now) & (d.time + duration(reward.post) + duration(settings.lag) <= end)
    closed &= recent.modules.sends(d.actions) & (d.time >= start + duration(reward.pre))
    if not closed.any():
        raise NotChecked("no message of the policy is older than reward.post and alerts.lag yet")
    newest = int(d.time[closed].max())
    new, old = closed & (d.time > newest - period), closed & (d.time <= newest - period)
    if not old.any():
        raise NotChecked("only one day of messages has closed yet")
    frame = make_reward(kind, reward).fit_transform(recent)
    has = frame.identified
    n, k, before = int(new.sum()), int((new & has).sum()), float(has[old].mean())
    bound = (1 - drop) * before
    if not (k < bound * n and bdtr(k, n, bound) < LEVEL):
        return []
    reason, number = _main_reason(frame.reason[new & ~has])
    finding = (
        f"{k:,} of {n:,} messages at {_time(newest)} have a reward ({k / n:.0%}), after {before:.0%} of "
        f"{int(old.sum()):,} before. The others, above all: {reason.text} ({number:,})."
    )
    remedy = (
        f"{_remedy_of(reason)} All reasons: `crosschannel effects`. Nothing is learned from messages without a reward."
    )
    return [Alert("rewards", "critical", finding, remedy)]


def _main_reason(reasons: IntArray) -> tuple[Reason, int]:
    """Return the most frequent of the reasons (N,) why decisions have no reward, and its number."""
    numbers, counts = np.unique(reasons, return_counts=True)
    most = int(np.argmax(counts))
    return tuple(Reason)[int(numbers[most])], int(counts[most])


def _remedy_of(reason: Reason) -> str:
    """Return what to look at where messages have no reward."""
    if reason is Reason.FEW_CONTROLS:
        return (
            "Look whether the holdout still has users. Where a policy is nearly sure of most users the others are few, "
            "or count little by their propensities (`did_dr`): a run with `reward.controls: holdout` compares with the "
            "holdout, and `reward.matching.fallback: [time]` in wider cells."
        )
    return (
        "Look whether goal events reach the log; where messages overlap, a larger `guardrails.min_gap` or shorter "
        "windows keep them apart."
    )


def _time(time: int) -> str:
    moment = timestamps(np.array([time]))[0]
    return f"{moment:%Y-%m-%d}" if time % DAY == 0 else f"{moment:%Y-%m-%d %H:%M} UTC"

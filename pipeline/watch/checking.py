"""Check all rules of a deployment, and write what they found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crosschannel.core.errors import NotIdentified
from crosschannel.core.times import duration, parse_moment
from crosschannel.evaluation.trials.outcomes import UserAmounts
from crosschannel.evaluation.trials.settings import TrialConfig
from crosschannel.histories.arms import AGENT, BUSINESS_AS_USUAL
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import until
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.run_files import write_json
from crosschannel.pipeline.watch import daily_rules, statistical_rules
from crosschannel.pipeline.watch.records import Alert, Alerts, NotChecked

ALERTS_FILE = "alerts.json"


@dataclass(frozen=True)
class Watched:
    """What the rules look at.

    Attributes:
        history: The log, or the log of a sample of its users.
        users: A history that has everybody, with the decisions that tell arms.
        counts: How many decisions the policy made for everybody.
        sums: Adds up what everybody did; None where `users` has it all.
    """

    history: History
    users: History
    counts: daily_rules.DecisionCounts
    sums: UserAmounts | None = None


def check_alerts(config: Config, history: History, now: int, period: int) -> Alerts:
    """Check all rules that are switched on, with what was known at a time.

    Args:
        config: The configuration of the run, with the section `alerts`.
        history: The log, with the decisions of the policy and everybody's arm.
        now: Time of the check, microseconds since 1970 UTC.
        period: Time from one decision time to the next, microseconds.
    """
    history = until(history, now + 1)  # with the decisions for this very moment
    watched = Watched(history, history, daily_rules.DecisionCounts.from_history(history, now))
    return check_watched(config, watched, now, period)


def check_watched(config: Config, watched: Watched, now: int, period: int) -> Alerts:
    """Check all rules that are switched on; the other arguments are those of `check_alerts`."""
    history, settings = watched.history, config.alerts
    window = duration(settings.window)
    rules: dict[str, tuple[object | None, Callable[[], list[Alert]]]] = {
        "age of the log": (
            settings.max_log_age,
            lambda: daily_rules.log_age(history, now, settings.max_log_age or ""),
        ),
        "decisions": (
            settings.max_drop,
            lambda: daily_rules.decision_numbers(watched.counts, now, period, settings.max_drop or 0.0),
        ),
        "share of an action": (
            settings.max_action_share,
            lambda: daily_rules.action_shares(history, now, settings.max_action_share or 0.0),
        ),
        "importance weights": (
            settings.weights_alpha,
            lambda: statistical_rules.importance_weights(history, now, window, settings.weights_alpha or 0.0),
        ),
        "cost events": (settings.cost_alpha, lambda: _cost_events(config, watched, now)),
        "placebo": (settings.placebo_alpha, lambda: _placebo(config, watched, now)),
        "rewards": (
            settings.max_closed_drop,
            lambda: daily_rules.rewards_closed(history, now, period, config.reward, config.reward.kind, settings),
        ),
        "deliveries": (settings.min_delivered_share, lambda: daily_rules.deliveries(history, now, settings)),
    }
    found, checked, left = list[Alert](), list[str](), dict[str, str]()
    for name, (bound, rule) in rules.items():
        if bound is None:
            left[name] = "switched off"
            continue
        try:
            found += rule()
            checked.append(name)
        except (NotChecked, NotIdentified) as reason:
            left[name] = str(reason)
    return Alerts(now, tuple(sorted(found, key=lambda one: one.severity)), tuple(checked), left)


def write_alerts(found: Alerts, folder: Path) -> Path:
    """Write `alerts.json` into a run's folder, as a whole or not at all; return its path."""
    path = folder / ALERTS_FILE
    write_json(found.to_dict(), path)
    return path


def _cost_events(config: Config, watched: Watched, now: int) -> list[Alert]:
    history = watched.users
    trial = _begun_trial(config, history, now)
    arms = statistical_rules.arm_table(config, history, trial)
    if absent := {AGENT, BUSINESS_AS_USUAL} - statistical_rules.arms_of(history, arms):
        raise NotChecked(f"nobody is in the arm {min(absent)}")
    funnel = config.reward.funnel
    churn = tuple(history.event_names[int(code)] for code in history.churn_codes)
    events = config.alerts.cost_events or (() if funnel is None else tuple(funnel.costs)) or churn
    return statistical_rules.cost_events(
        history, now, trial, events, config.alerts.cost_alpha or 0.0, arms, watched.sums
    )


def _placebo(config: Config, watched: Watched, now: int) -> list[Alert]:
    history, alpha = watched.users, config.alerts.placebo_alpha or 0.0
    trial = statistical_rules.trial_of(config, history)
    arms = statistical_rules.arm_table(config, history, trial)
    if len(statistical_rules.arms_of(history, arms)) < 2:
        return statistical_rules.reward_placebo(watched.history, now, config, alpha)
    trial = _begun_trial(config, history, now)
    return statistical_rules.placebo(history, now, trial, tuple(config.reward.goals), alpha, arms, watched.sums)


def _begun_trial(config: Config, history: History, now: int) -> TrialConfig:
    trial = statistical_rules.trial_of(config, history)
    assert trial.start is not None  # trial_of has found it
    if parse_moment(trial.start) + duration(trial.every) > min(now, history.span[1]):
        raise NotChecked("the first look at the arms is not over yet")
    return trial

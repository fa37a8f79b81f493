"""Rules that are tests: logged propensities, cost events of the agent's arm, users of the arms before the start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import duration, parse_moment, timestamps
from crosschannel.evaluation.trials.arms import ArmTable, read_arms
from crosschannel.evaluation.trials.checks import check_trial
from crosschannel.evaluation.trials.design import before, trial_design
from crosschannel.evaluation.trials.outcomes import Amounts, UserAmounts, outcomes_of_goals
from crosschannel.evaluation.trials.readout import read_trial
from crosschannel.evaluation.trials.settings import TrialConfig
from crosschannel.histories.arms import AGENT, ARMS, BUSINESS_AS_USUAL, HOLDOUT, assign_arms
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import since
from crosschannel.histories.propensities.mean_weights import (
    Choices,
    above_one,
    below_one_of_many,
    below_one_of_two,
    likely_actions,
)
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.decisions.eligible import own_decisions
from crosschannel.pipeline.watch.daily_rules import agent_decisions
from crosschannel.pipeline.watch.records import Alert, NotChecked
from crosschannel.reward import make_reward
from crosschannel.reward.effects.diagnostics import time_placebo
from crosschannel.reward.effects.estimates import TreatmentEffects
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS


def importance_weights(history: History, now: int, window: int, alpha: float) -> list[Alert]:
    r"""Return an alert for each policy version whose mean importance weights are not 1.

    Under the logged propensities, for each action a of the first module over the decisions of the agent's arm in which
    it was eligible and could be drawn,

    .. math:: E[\, 1\{A = a\} / p(a) \,] = 1

    The tests are those of `histories.propensities.mean_weights`: too large a mean for any action; too small a mean,
    where that contradicts the propensities although a policy may give an eligible action no probability; too many
    large propensities. They are Bonferroni-adjusted over all tests of all versions in the window, and allow for
    propensities that were rounded. Decisions of the holdout are left out.

    Args:
        history: The log.
        now: Time of the check, microseconds.
        window: How far back decisions are looked at, microseconds.
        alpha: Level over all versions.
    """
    d, names = history.decisions, history.modules[0].actions
    wanted = agent_decisions(history, now) & (d.time > now - window) & ~np.isnan(d.propensity[:, 0])
    wanted &= history.modules.split(history.eligible)[0].sum(axis=1) > 1
    if not wanted.any():
        raise NotChecked("no decision of the policy in the window had a choice and a propensity")
    assert d.policy is not None  # they name the policy
    versions = dict.fromkeys(np.asarray(d.policy)[wanted].tolist())
    tests = {version: _tests(history, np.flatnonzero(wanted & (d.policy == version))) for version in versions}
    n_tests = sum(len(one[2]) for one in tests.values())
    found = []
    for version, (action, mean, p_value, rows) in tests.items():
        worst = int(np.argmin(p_value)) if len(p_value) else 0
        if not len(p_value) or not p_value[worst] < alpha / n_tests:
            continue
        what = (
            f"the mean importance weight of `{names[action[worst]]}` is {mean[worst]:.2f}"
            if action[worst] >= 0
            else f"large propensities are {mean[worst]:.2f} times as frequent as propensities of drawn actions can be"
        )
        finding = (
            f"In {rows[worst]:,} decisions of policy {version} {what} and should be 1 (p = {p_value[worst]:.1g}, "
            f"{n_tests} tests)."
        )
        remedy = (
            "Logged propensities are not those of the draws: look whether decisions were filtered or changed after "
            "`decide`, and leave these days out of learning and evaluation."
        )
        found.append(Alert("importance weights", "critical", finding, remedy))
    return found


def _tests(history: History, rows: IntArray) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    """Return the action (-1 for none), the mean, the p-value and the number of rows of each test (k,) of some rows."""
    d = history.decisions
    eligible = np.array(history.modules.split(history.modules.feasible_mask(history.eligible[rows]))[0], dtype=bool)
    eligible[np.arange(len(rows)), d.actions[rows, 0]] = True
    choices = Choices(
        user=d.user[rows],
        taken=d.actions[rows, 0],
        p=d.propensity[rows, 0],
        eligible=eligible,
        size=history.modules.sizes[0],
    )
    parts = [above_one(choices), below_one_of_two(choices), below_one_of_many(choices), likely_actions(choices)]
    action, mean, p_value, n = (np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS)
    known = ~np.isnan(p_value)
    return action[known], mean[known], p_value[known], n[known]


_COLUMNS = ("action", "mean", "p_value", "rows")


def cost_events(
    history: History,
    now: int,
    settings: TrialConfig,
    events: tuple[str, ...],
    alpha: float,
    arms: ArmTable | None = None,
    sums: UserAmounts | None = None,
) -> list[Alert]:
    """Return an alert for each event that is more frequent in the agent's arm than in business as usual.

    It is the group-sequential test of the trial (`evaluation.trials.boundaries`), one-sided: a look after each
    `trial.every` from the start to the declared end, of which the upper boundaries at twice the level count. So an
    alert on any day, without a difference, has a probability of `alpha`; plus half of that of crossing both
    boundaries, which is below 1e-4. Events share the level by Bonferroni.

    Args:
        history: The log.
        now: Time of the check, microseconds.
        settings: The declaration of the trial, with its start.
        events: The events.
        alpha: Level over all days and events, below .25.
        arms: Arms of the users; by default those of the log.
        sums: Adds up what the users did, where the history does not hold it all; by default from the history.

    Raises:
        NotChecked: If there is nothing to compare yet.
    """
    known = [name for name in events if name in history.event_names]
    if not known:
        raise NotChecked(f"the log has none of the events {', '.join(events)}" if events else "no cost event is named")
    trial = replace(
        settings,
        alpha=2 * alpha / len(known),
        compare=(f"{AGENT}:{BUSINESS_AS_USUAL}",),
        shares={},
        looks="group_sequential",
        follow_up=None,
        planned_users=None,
        segments=(),
    )
    found = []
    for name in known:
        one = replace(trial, goals=(Goal(name, weight=-1.0),))
        trial_now = read_trial(history, one, (), arms=arms, at=min(now, history.span[1]), sums=sums)
        lift = trial_now.comparisons[0].outcomes[0]
        crossed = next((point for point in lift.course if point.z >= point.critical), None)
        if crossed is None:
            continue
        agent, usual = lift.means
        finding = (
            f"`{name}` is more frequent in the arm {AGENT} than in {BUSINESS_AS_USUAL}: {agent:.4f} against "
            f"{usual:.4f} a user since the start; the boundary over all days (alpha {alpha:g}) was crossed on "
            f"{timestamps(np.array([crossed.at]))[0]:%Y-%m-%d} ({crossed.z:.1f} standard errors, "
            f"{crossed.critical:.1f} needed)."
        )
        remedy = (
            f"Limit it (constraints.cost_events: {{event: {name}, at_most: log}}), send less (guardrails), or go back: "
            "`crosschannel update RUN --use VERSION`."
        )
        found.append(Alert("cost events", "critical", finding, remedy))
    return found


def placebo(
    history: History,
    now: int,
    settings: TrialConfig,
    goals: tuple[Goal, ...],
    alpha: float,
    arms: ArmTable | None = None,
    sums: UserAmounts | None = None,
) -> list[Alert]:
    """Return an alert for each check of the trial's arms that fails: shares, entry, balance, placebo before the start.

    Args:
        history: The log, whose decisions have arms.
        now: Time of the check, microseconds.
        settings: The declaration of the trial, with its start.
        goals: What is compared, where the declaration names no goals of its own.
        alpha: Level of each check.
        arms: Arms of the users; by default those of the log.
        sums: Adds up what the users did, where the history does not hold it all; by default from the history.
    """
    trial = replace(settings, looks="group_sequential", follow_up=None, planned_users=None)
    design, pairs = trial_design(history, trial, arms, min(now, history.span[1]), None)
    outcomes, sums = outcomes_of_goals(history, settings.goals or goals), sums or Amounts(history)
    checks = check_trial(design, outcomes, before(design, outcomes, sums), pairs, sums)
    return [
        Alert(
            "placebo",
            "critical" if check.invalidates else "warning",
            f"The check `{check.name}` of the arms fails (p = {check.p_value:.1g}): {check.finding}",
            check.remedy or "Look whether the arms are those that were drawn.",
        )
        for check in checks
        if check.p_value < alpha
    ]


def reward_placebo(history: History, now: int, config: Config, alpha: float) -> list[Alert]:
    """Return an alert if the reward finds an effect before the messages of the policy, in the last window.

    It is the placebo in time of `crosschannel effects`, for logs without two arms.
    """
    spec = config.reward
    if spec.kind in WITHOUT_CONTROLS:
        raise NotChecked(f"rewards of the kind {spec.kind} have no controls")
    reach = duration(config.alerts.window) + 2 * (duration(spec.pre) + duration(spec.post))
    if now - reach >= history.span[1]:
        raise NotChecked("the log ended before the window")
    recent = since(history, max(now - reach, history.span[0]))
    fitted = TreatmentEffects.fit(make_reward(spec.kind, spec), recent)
    effect = time_placebo(fitted, recent)
    if not effect.se > 0:
        raise NotChecked("too few decisions have observed windows long enough before them")
    p = two_sided_p_value(effect.value / effect.se, effect.n_users - 1)
    if not p < alpha:
        return []
    finding = (
        f"The reward finds an effect of {effect.value:.3g} (95 % interval {effect.low:.3g} to {effect.high:.3g}, "
        f"p = {p:.1g}) at a time before the messages, where there is none."
    )
    remedy = "Look at `crosschannel effects`; with logged propensities, reward.kind: did_dr needs no parallel trends."
    return [Alert("placebo", "warning", finding, remedy)]


def trial_of(config: Config, history: History) -> TrialConfig:
    """Return the declaration of the trial, which starts with the first decision of the policy if nothing else is said.

    Its shares and its cluster are those of the arms, where it has none of its own.

    Raises:
        NotChecked: If the policy has not decided yet.
    """
    trial, d = config.trial, history.decisions
    mine = own_decisions(d)
    if not mine.any():
        raise NotChecked("the policy has not decided yet")
    start = trial.start or str(np.datetime64(int(d.time[mine].min()), "us"))
    trial = replace(trial, start=start, cluster=trial.cluster or config.arms.cluster)
    shares = {BUSINESS_AS_USUAL: config.arms.business_as_usual, HOLDOUT: config.arms.holdout}
    shares[AGENT] = 1.0 - sum(shares.values())
    shares = {name: share for name, share in shares.items() if share > 0}
    if trial.shares or len(shares) == 1 or not set(shares) <= arms_of(history, arm_table(config, history, trial)):
        return trial
    return replace(trial, shares=shares)


def arms_of(history: History, table: ArmTable | None) -> set[str]:
    """Return the arms that have a user, by a table of arms or else by the log."""
    arm = history.decisions.arm if table is None else table.arms
    return set() if arm is None else {str(name) for name in np.unique(np.asarray(arm).astype(str))} & set(ARMS)


def arm_table(config: Config, history: History, trial: TrialConfig) -> ArmTable | None:
    """Return everybody's arm: of the folder of decisions, or by hash; None where the log itself has them."""
    if config.history.decided is not None:
        return read_arms(config.history.decided, None if trial.start is None else parse_moment(trial.start))
    if config.arms.holdout or config.arms.business_as_usual:
        return ArmTable(history.user_ids, assign_arms(history.user_ids, config.arms, history.users))
    return None

"""What a policy does beside what the log did, where its weights lie, and how well its agent expects rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from crosschannel.agents import Agent
from crosschannel.agents.explain import EstimatingAgent
from crosschannel.agents.funnel.funnel import Funnel
from crosschannel.agents.policy import chunks
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import DAY, WEEK, duration, timestamps
from crosschannel.evaluation import (
    CalibrationBin,
    Evaluation,
    LoggedDecisions,
    WeightBin,
    calibration_bins,
    weight_bins,
)
from crosschannel.histories.propensities.sources import KNOWN_SOURCES
from crosschannel.pipeline.building import Split, TrainingData
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.headline_order import HeadlineOrder, lacks_propensities
from crosschannel.pipeline.judgement.records import ActionShare, EventBin, Evidence
from crosschannel.reward.effects import Check, EventStudy, explain_pre_trends, pre_trend_check
from crosschannel.reward.effects.checks.check import PRE_TRENDS

#: Messages that the bins of expected rewards are computed from at most.
MAX_MESSAGES = 20_000


def evidence_of(
    config: Config, data: TrainingData, agent: Agent, probabilities: Sequence[FloatArray], evaluation: Evaluation
) -> Evidence:
    """Collect the evidence on the test users' decisions.

    Args:
        config: The configuration.
        data: The history and its splits.
        agent: The agent.
        probabilities: Its policy's probabilities there, one array per module.
        evaluation: The evaluation of the policy.
    """
    test = data.test
    log = LoggedDecisions.from_history(test.history)
    time = test.history.decisions.time
    kept = test.rewards.identified
    counts = test.rewards.ipc_weight[kept]
    weights: tuple[WeightBin, ...] = ()
    part = log[kept]
    if len(part) and not lacks_propensities(part):
        order = HeadlineOrder.from_evaluation(config, part, evaluation)
        found = order.weights(part, [p[kept] for p in probabilities])
        weights = weight_bins(found * counts / counts.mean())
    events, pre_trends = event_bins(data)
    return Evidence(
        shares=(
            *action_shares(log.modules, log.actions, probabilities),
            *shares_by_period(log.modules, log.actions, probabilities, time),
        ),
        weights=weights,
        calibration=_calibration(agent, data, probabilities),
        events=events,
        pre_trends=pre_trends,
    )


def event_bins(data: TrainingData) -> tuple[tuple[EventBin, ...], str]:
    """Return the event study of the training users' messages, and what its pre-trend test found, in sentences.

    Nothing for rewards of a user's own kind, which need not have an influence function.
    """
    if data.reward_tests is None:
        return (), ""
    found = data.reward_tests.events
    days = found.times.offsets * duration(found.times.bin) / DAY
    bins = tuple(
        EventBin(start=float(start), effect=e.value, low=e.low, high=e.high, tested=bool(tested))
        for start, e, tested in zip(days, found.effects, found.leads, strict=True)
    )
    checks = {check.name: check for check in data.reward_tests.diagnostics.checks}
    return bins, pre_trend_sentences(checks.get(PRE_TRENDS, pre_trend_check(found)), found, data.train)


def pre_trend_sentences(check: Check, events: EventStudy, split: Split) -> str:
    """Return what the pre-trend test found, and where it fails what that points at, in sentences.

    Args:
        check: The test, by itself or at the level of all tests together.
        events: The event study.
        split: The split that it is of.
    """
    if check.status != "failed":
        return f"Pre-trends {check.status}: {check.text}."
    known = split.history.propensity_source in KNOWN_SOURCES
    why = explain_pre_trends(events, split.model.spec.pre, known_propensities=known)
    return f"Pre-trends {check.status}: {check.text}. {why}".strip()


def action_shares(
    modules: ActionSpace, actions: IntArray, probabilities: Sequence[FloatArray], period: str = ""
) -> tuple[ActionShare, ...]:
    """Return how often each action is chosen by the log and by a policy at the same decisions.

    Args:
        modules: The action space.
        actions: The log's actions (n, M).
        probabilities: The policy's probabilities, one array (n, *modules.shape(m)) per module.
        period: Name of the period that the decisions are of.
    """
    marginals = modules.marginals(list(probabilities))
    sent, rows = modules.sends(actions), []
    for m, module in enumerate(modules):
        made = actions[:, m] if m == 0 else actions[sent, m]
        logged = np.bincount(made, minlength=len(module.actions)) / max(len(made), 1)
        chosen = marginals[m].sum(0)
        policy = chosen / chosen.sum() if chosen.sum() > 0 else np.full(len(chosen), np.nan)
        rows += [
            ActionShare(
                period=period,
                module=module.name,
                action=action,
                logged=float(logged[code]) if len(made) else math.nan,
                policy=float(policy[code]),
                decisions=len(actions),
            )
            for code, action in enumerate(module.actions)
        ]
    return tuple(rows)


def shares_by_period(
    modules: ActionSpace, actions: IntArray, probabilities: Sequence[FloatArray], time: IntArray
) -> tuple[ActionShare, ...]:
    """Return `action_shares` of the first module by week, or by day where the decisions span less than two weeks."""
    if not len(time):
        return ()
    length = WEEK if time.max() - time.min() >= 2 * WEEK else DAY
    start = time.min() - time.min() % DAY
    code = (time - start) // length
    first = ActionSpace(modules[:1])
    rows: list[ActionShare] = []
    for k in np.unique(code):
        here = code == k
        name = f"{timestamps(np.array([start + k * length]))[0]:%Y-%m-%d}"
        rows += action_shares(first, actions[here, :1], [probabilities[0][here]], name)
    return tuple(rows)


def expected_of_actions(
    modules: ActionSpace, estimates: Sequence[FloatArray], probabilities: Sequence[FloatArray], actions: IntArray
) -> FloatArray:
    r"""Return the reward (n,) that an agent expects of whole actions (n, M), from its estimates by module.

    .. math:: q(a) = \bar q_0(a_0) + \sum_{m \ge 1} \big( \bar q_m(a_m) - E_{\pi_m} \bar q_m \big)

    An estimate of a module's action holds for the policy's mean over the other modules, so that a message's parts add
    up to it. Assumption: what the parts earn adds up given the channel.

    Args:
        modules: The action space.
        estimates: Estimates (K, n, *modules.shape(m)) of each module's actions.
        probabilities: The policy's probabilities, one array (n, *modules.shape(m)) per module.
        actions: The actions; every one sends a message.
    """
    rows = np.arange(len(actions))
    total = np.zeros(len(actions))
    for m in range(len(modules)):
        mean = estimates[m].astype(np.float64).mean(0)
        c = modules.condition(m)
        if c is not None:
            mean = mean[rows, actions[:, c]]
        total += mean[rows, actions[:, m]]
        if m > 0:
            chosen = modules.conditional(m, probabilities[m], actions)
            total -= np.where(chosen > 0, mean * chosen, 0.0).sum(1)
    return total


def _calibration(agent: Agent, data: TrainingData, probabilities: Sequence[FloatArray]) -> tuple[CalibrationBin, ...]:
    """Return the calibration of a funnel's values on evenly spaced logged messages of the test users.

    Estimates of other agents are not comparable with rewards: they hold other choices as logged, or look further ahead.
    """
    test = data.test
    actions, modules = test.history.decisions.actions, agent.modules
    known = test.rewards.identified & modules.sends(actions) & ~np.isnan(test.rewards.p_uncensored)
    rows = np.flatnonzero(known)
    funnel = getattr(agent, "funnel", None)
    if not isinstance(agent, EstimatingAgent) or not isinstance(funnel, Funnel) or funnel.heads is None:
        return ()
    if not len(rows):
        return ()
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, MAX_MESSAGES).astype(np.int64))]
    found = np.full(len(rows), np.nan)
    for part, chunk in chunks(test.observations[rows]):
        chosen = [p[rows[part]] for p in probabilities]
        found[part] = expected_of_actions(modules, agent.expected_rewards(chunk), chosen, actions[rows[part]])
    finite = np.isfinite(found)
    rows = rows[finite]
    counts = test.rewards.ipc_weight[rows]
    return calibration_bins(found[finite], test.rewards.reward[rows], counts, test.history.decisions.user[rows])

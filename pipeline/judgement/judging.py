"""Judge a policy: off-policy on held-out users, and by the market's ground truth where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.agents import (
    Agent,
    Decisions,
    Observations,
    check_probabilities,
    policy_table,
    sample_actions,
    uniform_shares,
)
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.agents.funnel.funnel import Funnel
from crosschannel.core.arrays import BoolArray, Float32Array, FloatArray, IntArray
from crosschannel.core.wording import counted
from crosschannel.envs.market import ContextPolicy, FreshUsers, MarketPolicy
from crosschannel.evaluation import (
    CrossFittedOutcomes,
    Evaluation,
    LoggedDecisions,
    evaluate,
)
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.outcomes.cross_fitting import FOLDS
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.building import Split, TrainingData, outcome_regressor
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.comparators import NO_SEND, compare
from crosschannel.pipeline.judgement.constants import one_hot
from crosschannel.pipeline.judgement.evidence import evidence_of
from crosschannel.pipeline.judgement.following import INCREMENTAL, follow
from crosschannel.pipeline.judgement.gating import verdict_of
from crosschannel.pipeline.judgement.records import Calibration, Comparator, ConstraintUse, TrueValue
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.planning import advice_on
from crosschannel.pipeline.pricing import LogPace, PricedPolicy, priced_policy
from crosschannel.reward.effects import attribute_groups
from crosschannel.reward.effects.checks.check import SIGNIFICANCE_LEVEL
from crosschannel.reward.effects.checks.rewards import REFUSAL_LEVEL
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS

#: Cost events below which a limit on them was exceeded in the simulated market with the default margin, and the margin
#: that such a limit needs (docs/constraints.md).
FEW_EVENTS, SAFE_MARGIN = 200, 0.4
#: Streams of random numbers, beside the run's seed.
BOOTSTRAP, DEPLOYMENT = 1, 2


def fit_outcomes(
    config: Config, split: Split, folds: int = FOLDS, fold: IntArray | None = None
) -> CrossFittedOutcomes | None:
    """Fit the expected reward of an action in a context, cross-fitted on the users that are evaluated.

    None of the test users has trained the agent, so that model and agent share no noise. Where agents are cross-fitted,
    the model of a fold and the agent that the fold judges have learned from the same users, and neither from the fold:
    that leaves weighted estimates unbiased, and makes the model alone (`dm`) too favourable.

    None where there are fewer users with a reward than folds: then nothing is identified either.

    Args:
        config: The configuration.
        split: The users that are evaluated.
        folds: Number of folds of users.
        fold: Fold of each decision (n,); by default a hash of its user.

    Raises:
        ConfigError: If `evaluation.outcome_model` cannot be imported or made.
    """
    decisions, rewards = split.history.decisions, split.rewards
    if len(np.unique(decisions.user[rewards.identified])) < folds:
        return None
    return CrossFittedOutcomes.fit(
        split.history.modules,
        split.observations.context,
        decisions.actions,
        rewards.reward,
        decisions.user,
        regressor=outcome_regressor(config),
        folds=folds,
        fold=fold,
    )


@dataclass(frozen=True)
class ExplainedPolicy:
    """What a policy does at the test users' slots.

    Attributes:
        probabilities: Its probabilities there, one array per module, under the constraints.
        table: The same by module, action and segment of users: see `agents.policy_table`.
        prices: The constraints' prices, use and budgets at each decision time: see `PricedPolicy.table`.
    """

    probabilities: list[FloatArray]
    table: pd.DataFrame
    prices: pd.DataFrame


def policy_at(config: Config, data: TrainingData, agent: Agent, split: Split, *, explore: bool = True) -> PricedPolicy:
    """Return the agent's policy at the slots of some users, under the constraints; by default the exploring one.

    Slots that are less than a period apart are decided together. Limits per user count those who have not churned, as
    where the policy decides.
    """
    d = split.history.decisions
    group, has_slot = d.time // data.pace.period, split.history.churned_at[d.user] >= d.time
    return priced_policy(agent, split.observations, group, config.constraints, data.pace, has_slot, explore=explore)


def greedy_probabilities(config: Config, data: TrainingData, agent: Agent) -> list[FloatArray]:
    """Return the probabilities of the agent's policy without exploration at the test users' slots."""
    if config.constraints.price_messages:
        return policy_at(config, data, agent, data.test, explore=False).probabilities
    return one_hot(agent.modules, agent.act(data.test.observations, explore=False).actions)


def explain_policy(config: Config, data: TrainingData, agent: Agent) -> ExplainedPolicy:
    """Compute what the agent's exploring policy does at the test users' slots.

    Raises:
        ConfigError: If the users have no attribute `evaluation.segments`, or what the agent states are not
            probabilities.
    """
    test = data.test.history
    segments = None
    if config.evaluation.segments is not None:
        segments = np.full(len(test.decisions), "other", dtype=object)
        for label, users in attribute_groups(test, config.evaluation.segments):
            segments[users[test.decisions.user]] = label
    found = policy_at(config, data, agent, data.test)
    check_probabilities(agent.modules, found.probabilities, data.test.observations.action_mask)
    table = policy_table(agent, data.test.observations, segments, found.probabilities)
    return ExplainedPolicy(found.probabilities, table, found.table)


def judge(
    config: Config,
    data: TrainingData,
    agent: Agent,
    policy: ExplainedPolicy,
    notes: tuple[str, ...] = (),
) -> EvaluationResult:
    """Evaluate the agent's exploring policy, as it would be deployed, on users it has not learned from.

    Args:
        config: The configuration.
        data: The history and its splits.
        agent: The agent.
        policy: What its policy does at the test users' slots: `explain_policy`.
        notes: What a reader has to know before the numbers.
    """
    greedy = greedy_probabilities(config, data, agent)
    # The two need nothing of each other, and NumPy lets other threads work: the results do not depend on the order.
    with ThreadPoolExecutor(1) as background:
        deployments = background.submit(_true_values, config, data, agent, policy.probabilities)
        logger.info("evaluating the policy on the test users")
        outcomes = fit_outcomes(config, data.test)
        evaluation = off_policy(config, data, policy.probabilities, outcomes, config.agent.name, "the test users")
        logger.info("comparing the policy with others")
        comparators = compare(config, data, policy.probabilities, greedy, evaluation)
        followed = follow(config, data, policy.probabilities)
        truth = deployments.result()
    constraints = ConstraintUse.summarise(policy.prices)
    return EvaluationResult(
        evaluation=evaluation,
        truth=truth,
        comparators=comparators,
        followed=followed,
        gate=verdict_of(config, data, policy.probabilities, evaluation, constraints),
        advice=advice_on(config, data, policy.probabilities, evaluation),
        evidence=evidence_of(config, data, agent, policy.probabilities, evaluation),
        policy_table=policy.table,
        losses={"training": data.train.losses, "test": data.test.losses},
        constraints=constraints,
        calibration=calibration_of(agent),
        history=data.history.summary(),
        notes=(
            *notes,
            *map(_sentence, data.history.cautions),
            *_reward_notes(data),
            *nothing_notes(config.reward.kind, comparators),
            *_price_note(config, data),
            *limit_notes(config.constraints, data.pace),
        ),
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _reward_notes(data: TrainingData) -> list[str]:
    """Return what the tests of the rewards say of every value below, in sentences."""
    tests = data.reward_tests
    if tests is None or tests.diagnostics.kind in WITHOUT_CONTROLS or not tests.sentences:
        return []
    if tests.refusal:
        head = (
            f"No value is identified, the log's own included: {tests.refusal}. So the log's mean reward is not what "
            "its messages changed."
        )
    elif tests.fails_only_before:
        head = (
            "Sent decisions and controls differ before the pre window, and not clearly within it, nor do controls that "
            "are weighted by their propensities, so that rewards may be right."
        )
    else:
        head = (
            f"Rewards fail tests at {SIGNIFICANCE_LEVEL:.0%}, all tests together, and none that refuses values at "
            f"{REFUSAL_LEVEL:.0%}: read values with care."
        )
    return [" ".join([head, *tests.sentences])]


def nothing_notes(kind: str, comparators: Sequence[Comparator]) -> list[str]:
    """Return what values contain that no message earned, in a sentence; nothing where that may be 0.

    Sending nothing changes nothing. Where the log values it otherwise, what is expected without a message is wrong by
    as much on average over all decisions: `did_dr` corrects its regression for those at which something was sent.

    Args:
        kind: Kind of the rewards.
        comparators: What the policy is compared with.
    """
    value = next((row.value for row in comparators if row.policy == NO_SEND), UNDEFINED)
    if kind not in INCREMENTAL or not value.is_defined or value.low <= 0.0 <= value.high:
        return []
    return [
        f"Each value contains {value.point:+.3g} [{value.low:.3g}, {value.high:.3g}] that no message earned: sending "
        "nothing changes nothing, but this is what rewards make of it, as what they expect without a message is not "
        f"right for all decisions alike. Differences between policies are free of it, also that to `{NO_SEND}`, which "
        "is what a policy's messages earn."
    ]


def _price_note(config: Config, data: TrainingData) -> list[str]:
    price = data.pace.message_price
    if not config.constraints.discount:
        return []
    return [
        f"a message is charged {price:.3g} reward units for what it costs at the user's later slots "
        f"(discount {config.constraints.discount:g} a slot)"
    ]


def limit_notes(constraints: Constraints, pace: LogPace) -> list[str]:
    """Return a caution for each limit on a cost event that rests on few of these events, in sentences."""
    return [
        f"The limit on {limit.event} rests on {counted(pace.events[limit.event], 'such event')} of the training users. "
        "Hazards that are learned from so few understate what the policy causes: in the simulated market it exceeded "
        f"such limits by a third with 65 events, and by 5 % with 162. Give it a margin of {SAFE_MARGIN} or more "
        "(docs/constraints.md)."
        for limit in constraints.cost_events
        if pace.events.get(limit.event, FEW_EVENTS) < FEW_EVENTS and limit.margin < SAFE_MARGIN
    ]


def calibration_of(agent: Agent) -> Calibration | None:
    """Return the calibration of an agent's funnel; None without one."""
    funnel = getattr(agent, "funnel", None)
    if not isinstance(funnel, Funnel) or funnel.heads is None:
        return None
    blend = funnel.heads.blend
    return Calibration(
        slope=blend.slope,
        slope_se=blend.slope_se,
        intercept=blend.intercept,
        weight_of_funnel=blend.funnel,
        weight_of_all_sends=blend.all_sends,
        weight_of_missed=blend.missed,
        weight_of_personal=blend.personal,
    )


def off_policy(
    config: Config,
    data: TrainingData,
    probabilities: list[FloatArray],
    outcomes: CrossFittedOutcomes | None,
    policy: str,
    whose: str,
) -> Evaluation:
    """Return the off-policy estimates from the test users' log.

    Args:
        config: The configuration.
        data: The history and its splits.
        probabilities: The policy's probabilities at the test users' decisions.
        outcomes: The outcome models there; None without.
        policy: Name of the policy.
        whose: The users, in words.
    """
    test, history, frame = data.test, data.test.history, data.test.rewards
    actions = history.decisions.actions
    return evaluate(
        replace(LoggedDecisions.from_history(history), name=f"{whose} of {history.name}"),
        probabilities,
        test.refit(),
        rng=np.random.default_rng([config.seed, BOOTSTRAP]),
        q_values=None if outcomes is None else outcomes.q_values(test.observations.context, actions, probabilities),
        settings=config.evaluation.estimation,
        policy=policy,
        reward_counts=frame.counts(),
        p_uncensored=frame.p_uncensored,
        no_overlap=data.not_identified,
        refused=data.refused,
    )


def _true_values(
    config: Config, data: TrainingData, agent: Agent, probabilities: list[FloatArray]
) -> tuple[TrueValue, ...]:
    """Return the true value of each policy, the run's own first; nothing where the history is not simulated."""
    truth = data.truth
    if truth is None:
        return ()
    market, modules, identified = truth.market, data.history.modules, data.test.rewards.identified
    weight = data.test.rewards.ipc_weight[identified]
    rows = np.flatnonzero(data.rows("test"))[identified]
    mask = data.history.eligible[rows]

    def expected(shares: list[FloatArray]) -> float:
        given = [modules.condition(m) for m in range(len(modules))]
        return float(np.average(truth.expected_effect(rows, shares, given), weights=weight))

    learned = expected([p[identified] for p in probabilities])
    best = float(np.average(truth.best_effect(rows, mask), weights=weight))
    logged = float(np.average(truth.effect(rows, truth.actions[rows]), weights=weight))
    policies: list[tuple[str, str | MarketPolicy, float]] = [
        (config.agent.name, deployable_policy(config, data, agent), learned),
        ("oracle", "oracle", best),
        ("business as usual", "business_as_usual", logged),
        ("uniform", "uniform", expected(uniform_shares(modules, mask))),
        ("no_send", "no_send", 0.0),
    ]
    fresh_users = FreshUsers.draw(market, config.evaluation.market_users)
    values = []
    for name, policy, per_decision in policies:
        logger.info(f"deploying {name} to {config.evaluation.market_users:,} simulated users")
        deployed = fresh_users.deploy(policy)
        values.append(
            TrueValue(
                policy=name,
                per_decision=per_decision,
                per_user=deployed.mean,
                per_user_se=deployed.se,
                lift=deployed.lift,
                sends_per_user=float(deployed.sends.mean()),
                unsubscribed=float(deployed.unsubscribed.mean()),
                users=len(deployed.effect),
            )
        )
    return tuple(values)


def deployable_policy(config: Config, data: TrainingData, agent: Agent, name: str | None = None) -> ContextPolicy:
    """Return the agent's exploring policy under the constraints as a market policy that sees context and mask only."""
    return market_policy(name or config.agent.name, data.features, agent, config.constraints, data.pace, config.seed)


def market_policy(
    name: str, features: ContextFeatures, agent: Agent, constraints: Constraints, pace: LogPace, seed: int
) -> ContextPolicy:
    """Return an agent's exploring policy under constraints as a market policy that sees context and mask only.

    Its draws have a generator of their own, so that a policy's value does not depend on what it has chosen before.

    Args:
        name: Name of the policy.
        features: How contexts are built.
        agent: The agent.
        constraints: The constraints.
        pace: How often decisions are made, and how often cost events follow.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng([seed, DEPLOYMENT])

    def act(context: Float32Array, mask: BoolArray) -> Decisions:
        together = np.zeros(len(context), dtype=np.int64)
        seen = Observations(context, mask)
        policy = priced_policy(agent, seen, together, constraints, pace)
        return sample_actions(agent.modules, policy.probabilities, rng)

    return ContextPolicy(name, features, act)

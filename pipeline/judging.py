"""Judges a policy: off-policy on held-out users, and by the market's truth where there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.agents import Agent, Decisions, Observations, policy_table, sample_actions, uniform_shares
from crosschannel.agents.base import Float32Array
from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.envs.market import ContextPolicy, MarketPolicy, PolicyValue, evaluate_policy
from crosschannel.evaluation import (
    DR,
    Evaluation,
    LoggedDecisions,
    OutcomeModel,
    Sample,
    effective_sample_size,
    evaluate,
    importance_weights,
)
from crosschannel.evaluation.support import kurtosis, required_ess
from crosschannel.pipeline.building import Prepared
from crosschannel.pipeline.configuration import Config
from crosschannel.reward import RewardFrame, refit
from crosschannel.reward.effects import attribute_groups

Progress = Callable[[str], None]

#: Streams of random numbers, beside the run's seed.
BOOTSTRAP, DEPLOYMENT = 1, 5


def fit_outcome_model(prepared: Prepared) -> OutcomeModel:
    """The reward expected of an action in a context, learned from the training users alone."""
    train, decisions = prepared.train, prepared.train.history.decisions
    return OutcomeModel.fit(
        prepared.history.modules, train.observations.context, decisions.actions, train.rewards.reward, decisions.user
    )


@dataclass(frozen=True)
class Validation:
    """A quick doubly robust estimate on the validation users, for the eye while training; without an interval.

    Attributes:
        log: The logged decisions with a reward.
        observations: What a policy sees there.
        rewards: Their rewards, from the validation users' own controls.
        counts: How often each decision counts: the inverse of its chance to keep its reward.
        model: The outcome model, from the training users.
        floor: Effective sample size below which there is no value: the evaluation's, raised as there where few
            decisions earn all.
    """

    log: LoggedDecisions
    observations: Observations
    rewards: FloatArray
    counts: FloatArray
    model: OutcomeModel
    floor: float

    @classmethod
    def of(cls, config: Config, prepared: Prepared, model: OutcomeModel) -> Validation | None:
        """Prepares the validation users' decisions; None where none can be judged: no reward, or no propensity."""
        if config.split.validation == 0:
            return None
        split = prepared.validation
        log, frame, keep = LoggedDecisions.from_history(split.history), split.rewards, split.rewards.identified
        p_uncensored = frame.p_uncensored[keep]
        if not keep.any() or np.isnan(log.propensity[keep]).any() or np.isnan(p_uncensored).any():
            return None
        rewards = frame.reward[keep]
        return cls(
            log[keep],
            split.observations[keep],
            rewards,
            1.0 / p_uncensored,
            model,
            required_ess(config.evaluation.min_ess, kurtosis(rewards - rewards.mean())),
        )

    def scores(self, agent: Agent) -> dict[str, float]:
        """The effective sample size, and above the floor the policy's value and its difference to the logged one."""
        probabilities = agent.action_probabilities(self.observations)
        weights = importance_weights(self.log, probabilities, None)
        scores = {"validation/ess": effective_sample_size(weights * self.counts)}
        if scores["validation/ess"] >= self.floor:
            q = self.model.q_values(self.observations.context, self.log.actions, probabilities)[0]
            value = DR().value(Sample(self.rewards, weights, self.counts, q.logged, q.policy))
            logged = float(self.counts @ self.rewards / self.counts.sum())
            scores |= {"validation/value": value, "validation/minus_logged": value - logged}
        return scores


def explained(config: Config, prepared: Prepared, agent: Agent) -> pd.DataFrame:
    """What the policy does at the test users' slots and why, by module, action and segment: see `agents.policy_table`.

    Raises:
        ConfigError: If the users have no attribute `evaluation.segments`.
    """
    test = prepared.test.history
    segments = None
    if config.evaluation.segments is not None:
        segments = np.full(len(test.decisions), "other", dtype=object)
        for label, users in attribute_groups(test, config.evaluation.segments):
            segments[users[test.decisions.user]] = label
    return policy_table(agent, prepared.test.observations, segments)


@dataclass(frozen=True)
class TrueValue:
    """What the market knows of one policy.

    Attributes:
        name: The policy.
        per_decision: Mean true effect per decision at the test users' logged decisions: the estimand of the off-policy
            estimates.
        deployed: What it was worth on fresh users over the market's days.
    """

    name: str
    per_decision: float
    deployed: PolicyValue


@dataclass(frozen=True)
class Assessment:
    """All that is known of the learned policy.

    Attributes:
        evaluation: Off-policy estimates on the test users.
        truth: True values by policy, the learned one first; empty where the history is not simulated.
    """

    evaluation: Evaluation
    truth: tuple[TrueValue, ...]


def assess(config: Config, prepared: Prepared, agent: Agent, model: OutcomeModel, say: Progress) -> Assessment:
    """Evaluates the agent's exploring policy, as it would be deployed, on users it has not learned from.

    `model` is the outcome model of the training users: `fit_outcome_model`.
    """
    say("evaluating the policy on the test users")
    test, history, frame = prepared.test, prepared.test.history, prepared.test.rewards
    probabilities = agent.action_probabilities(test.observations)
    evaluation = evaluate(
        replace(LoggedDecisions.from_history(history), name=f"the test users of {history.name}"),
        probabilities,
        refit(prepared.model, test.outcomes),
        rng=np.random.default_rng([config.seed, BOOTSTRAP]),
        q_values=model.q_values(test.observations.context, history.decisions.actions, probabilities),
        settings=config.evaluation,
        policy=config.agent.name,
        reward_counts=frame.counts(),
        p_uncensored=frame.p_uncensored,
    )
    if prepared.truth is None:
        return Assessment(evaluation, ())
    return Assessment(evaluation, tuple(_true_values(config, prepared, agent, probabilities, frame, say)))


def _true_values(
    config: Config,
    prepared: Prepared,
    agent: Agent,
    probabilities: list[FloatArray],
    frame: RewardFrame,
    say: Progress,
) -> list[TrueValue]:
    truth = prepared.truth
    assert truth is not None
    market, modules = truth.market, prepared.history.modules
    rows = np.flatnonzero(prepared.rows("test"))[frame.identified]
    mask = prepared.history.eligible[rows]

    def expected(shares: list[FloatArray]) -> float:
        given = [modules.condition(m) for m in range(len(modules))]
        return float(truth.expected_effect(rows, shares, given).mean())

    learned = expected([p[frame.identified] for p in probabilities])
    best = float(truth.best_effect(rows, mask).mean())
    policies: list[tuple[str, str | MarketPolicy, float]] = [
        (config.agent.name, learned_policy(config.agent.name, prepared, agent, config.seed), learned),
        ("oracle", "oracle", best),
        ("business as usual", "business_as_usual", float(truth.effect(rows, truth.actions[rows]).mean())),
        ("uniform", "uniform", expected(uniform_shares(modules, mask))),
        ("no_send", "no_send", 0.0),
    ]
    values = []
    for name, policy, per_decision in policies:
        say(f"deploying {name} to {config.evaluation.market_users:,} simulated users")
        values.append(TrueValue(name, per_decision, evaluate_policy(market, policy, config.evaluation.market_users)))
    return values


def learned_policy(name: str, prepared: Prepared, agent: Agent, seed: int) -> ContextPolicy:
    """The agent's exploring policy as a market policy that sees context and mask only.

    Its draws have a generator of their own, so that a policy's value does not depend on what it has chosen before.
    """
    rng = np.random.default_rng([seed, DEPLOYMENT])

    def act(context: Float32Array, mask: BoolArray) -> Decisions:
        return sample_actions(agent.modules, agent.action_probabilities(Observations(context, mask)), rng)

    return ContextPolicy(name, prepared.features, act)

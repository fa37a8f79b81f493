"""What the log of a configuration would need for the value of a policy to be known: for `plan` and for evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from crosschannel.agents import uniform_shares
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.core.times import WEEK
from crosschannel.evaluation import (
    ChosenWeights,
    DataNeed,
    Evaluation,
    Interval,
    LoggedDecisions,
    LogSize,
    advice,
    data_needs,
    headline,
    kurtosis,
    required_ess,
    t_interval,
    user_bootstrap,
)
from crosschannel.pipeline.building import TrainingData
from crosschannel.pipeline.configuration import Config

#: Stream of random numbers, beside the run's seed.
PLANNING = 5
#: Replicates of the bootstrap of the logged mean: it has no weights, so that few are enough.
REPLICATES = 100
#: The policies that a plan without a run is for.
UNIFORM, ONE_ACTION = "uniform choices", "always one action of each module (mean over the actions)"
#: The error that a plan is for by default, in errors of the log's own mean.
DEFAULT_ERROR = 2.0


def logged_mean(config: Config, data: TrainingData) -> Interval:
    """Return the mean reward of the test users' decisions, with the interval of a bootstrap that re-fits the rewards.

    Raises:
        NotIdentified: If too few decisions have a reward.
    """
    frame, fitted = data.test.rewards, data.test.refit()
    p_uncensored = np.where(np.isnan(frame.p_uncensored), 1.0, frame.p_uncensored)
    identified = frame.identified
    user = data.test.history.decisions.user

    def statistics(counts: FloatArray) -> FloatArray:
        rewards = fitted(counts)
        weights = np.where(np.isnan(rewards) | ~identified, 0.0, counts / p_uncensored)
        total = weights.sum()
        return np.array([weights @ np.nan_to_num(rewards) / total if total > 0 else np.nan])

    point = float(statistics(np.ones(len(user)))[0])
    rng = np.random.default_rng([config.seed, PLANNING])
    draws = user_bootstrap(statistics, user, REPLICATES, rng)[:, 0]
    influence = np.where(identified, (np.nan_to_num(frame.reward) - point) / p_uncensored, 0.0)
    by_user = np.bincount(np.unique(user, return_inverse=True)[1], weights=influence).astype(np.float64)
    found = t_interval(point, draws, by_user, config.evaluation.confidence_level)
    if not found.is_defined:
        raise NotIdentified("the mean reward of the log has no interval: too few decisions have a reward")
    return found


def log_size(data: TrainingData, logged: Interval) -> LogSize:
    """Return how much a log holds: all of its users, and the test users' decisions with a reward."""
    time = data.history.decisions.time
    return LogSize(
        users=data.history.n_users,
        decisions=int(data.test.rewards.identified.sum()),
        weeks=float(time.max() - time.min() + data.pace.period) / WEEK,
        logged=logged,
    )


def needs_of_policy(
    config: Config,
    data: TrainingData,
    probabilities: Sequence[FloatArray],
    logged: Interval,
    error: float | None = None,
) -> tuple[DataNeed, ...]:
    """Return what the value of a policy needs, from its probabilities at the test users' slots; see `data_needs`.

    Args:
        config: The configuration.
        data: The history and its splits.
        probabilities: The policy's probabilities at the test users' decisions.
        logged: Mean reward of the test users' decisions with its interval.
        error: Half of the width of the interval that is asked for; by default twice that of the log's own mean.

    Raises:
        ConfigError: If a propensity is missing, or the error is not above 0.
    """
    kept = data.test.rewards.identified
    log = LoggedDecisions.from_history(data.test.history)[kept]
    weights = ChosenWeights.from_log(log, [p[kept] for p in probabilities], config.evaluation.factors)
    return _needs(config, data, weights, logged, error)


def advice_on(
    config: Config, data: TrainingData, probabilities: Sequence[FloatArray], evaluation: Evaluation
) -> tuple[str, ...]:
    """Return what would identify the value of a policy, in sentences; nothing where its evaluation identifies it.

    Args:
        config: The configuration.
        data: The history and its splits.
        probabilities: The policy's probabilities at the test users' decisions.
        evaluation: The evaluation of the policy there.
    """
    if headline(evaluation).identified:
        return ()
    if data.reward_tests is not None and (remedies := data.reward_tests.remedies):
        return (f"More data of this kind does not help: {data.not_identified}.", *remedies)
    needs: tuple[DataNeed, ...] = ()
    propensity = data.test.history.decisions.propensity[data.test.rewards.identified]
    varies = evaluation.logged.is_defined and evaluation.logged.high > evaluation.logged.low
    if varies and not np.isnan(propensity).any():
        needs = needs_of_policy(config, data, probabilities, evaluation.logged)
    return tuple(advice(evaluation, needs))


def plan(
    config: Config, data: TrainingData, error: float | None = None, probabilities: Sequence[FloatArray] | None = None
) -> Mapping[str, tuple[DataNeed, ...]]:
    """Return what the value of a run's policy needs, or without one of the policies that can be named before training.

    Args:
        config: The configuration.
        data: The history and its splits.
        error: Half of the width of the interval that is asked for; by default twice that of the log's own mean.
        probabilities: The policy's probabilities at the test users' decisions, where there is a run.

    Raises:
        ConfigError: If a propensity is missing, or the error is not above 0.
        NotIdentified: If too few decisions have a reward.
    """
    logged = logged_mean(config, data)
    if probabilities is not None:
        return {config.agent.name: needs_of_policy(config, data, probabilities, logged, error)}
    test = data.test
    kept = test.rewards.identified
    log = LoggedDecisions.from_history(test.history)[kept]
    uniform = uniform_shares(data.history.modules, test.observations.action_mask[kept])
    weights = ChosenWeights.from_log(log, uniform, config.evaluation.factors)
    constant = ChosenWeights.of_constant_actions(log, weights.factors)
    return {
        UNIFORM: _needs(config, data, weights, logged, error),
        ONE_ACTION: _needs(config, data, constant, logged, error),
    }


def _needs(
    config: Config, data: TrainingData, weights: ChosenWeights, logged: Interval, error: float | None
) -> tuple[DataNeed, ...]:
    rewards = data.test.rewards.reward[data.test.rewards.identified]
    least = required_ess(config.evaluation.min_ess, kurtosis(rewards - rewards.mean()))
    half = (logged.high - logged.low) / 2
    return data_needs(weights, log_size(data, logged), DEFAULT_ERROR * half if error is None else error, least)

"""Evaluations of a small logged bandit, for the tests of the report."""

from __future__ import annotations

from functools import cache

import numpy as np

from crosschannel.evaluation import Evaluation, EvaluationSettings, OutcomeModel, evaluate
from tests.evaluation.bandit_worlds import OFFERS, World


def evaluated(**changes: object) -> Evaluation:
    """An evaluation of the world's policy, with some arguments of `evaluate` changed."""
    world = World.make(OFFERS, seed=1)
    log, cell, rewards = world.draw(np.random.default_rng(0), 400, 2)
    p = world.policy(cell)
    model = OutcomeModel.fit(OFFERS, world.one_hot(cell), log.actions, rewards, log.user)
    arguments = {
        "settings": EvaluationSettings(bootstrap_replicates=60),
        "q_values": model.q_values(world.one_hot(cell), log.actions, p),
    }
    return evaluate(log, p, rewards, rng=np.random.default_rng(1), **{**arguments, **changes})  # type: ignore[arg-type]


@cache
def identified() -> Evaluation:
    """An evaluation of which all estimates are identified."""
    return evaluated(policy="agent")


@cache
def refused() -> Evaluation:
    """An evaluation whose rewards fail their tests."""
    return evaluated(policy="agent", refused="the rewards fail their tests")


@cache
def not_identified() -> Evaluation:
    """An evaluation of which no weighted estimate is identified."""
    return evaluated(policy="agent", settings=EvaluationSettings(bootstrap_replicates=60, min_ess=1e6))

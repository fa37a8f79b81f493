"""The references of the market's tables: the best constant message, and the choice of boosted trees."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.market_references import Constant, TLearner, best_constant, constant_values
from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import FreshUsers, Market, MarketConfig
from crosschannel.envs.market.vocabulary import MODULES

EMAIL = MODULES["channel"].actions.index("email")


@pytest.mark.parametrize("scenario", ["default", "fatigue", "direct", "subject_lines", "slow"])
def test_values_of_constant_messages_are_those_of_their_paths(scenario):
    """The path taken by each user who never unsubscribes, its effects weighted by the probability of being there."""
    users = FreshUsers.draw(Market(MarketConfig(scenario=scenario, days=10)), 150, seed=2)
    values, market = constant_values(users), users.market
    assert values.shape == tuple(MODULES.sizes)
    assert (values[0] == 0).all()
    rng = np.random.default_rng(0)
    for message in MODULES.joint_actions[rng.integers(1, len(MODULES.joint_actions), 12)]:
        state, value, stays = users.start.copy(), np.zeros(150), np.ones(150)
        for _ in range(10):
            leaves = market.open_value(state).unsubscribe_probability[:, message[0]]
            result = market.step(state, Constant(message).choose(market, state).actions)
            value += stays * result.true_effect
            stays *= np.where(result.executed[:, 0] > 0, 1.0 - leaves, 1.0)
            state.subscribed[:] = True
        assert values[tuple(message)] == pytest.approx(value.mean(), abs=1e-9)


def test_the_best_constant_is_the_best_of_all_messages():
    for scenario in ("default", "refresh"):
        users = FreshUsers.draw(Market(MarketConfig(scenario=scenario)), 400, seed=1)
        best = best_constant(users)
        assert constant_values(users)[tuple(best.message)] == constant_values(users).max()
        found = users.deploy(best)
        assert found.mean == pytest.approx(constant_values(users).max(), rel=0.2)
        assert found.mean > users.deploy(Constant(np.array([EMAIL, 0, 0, 0, 0, 0]))).mean


class Additive:
    """A fitted regression that adds a weight for each input."""

    def __init__(self, weights):
        self.weights = weights

    def predict(self, inputs):
        return inputs @ self.weights


def test_boosted_trees_choose_the_eligible_message_with_the_largest_prediction():
    rng = np.random.default_rng(3)
    others = sum(MODULES.sizes[1:])
    models = {c: Additive(np.append(rng.normal(size=3), rng.normal(size=others) - 0.3)) for c in (1, 3)}
    learner = TLearner(MODULES, models)
    context = rng.normal(size=(300, 3)).astype(np.float32)
    mask = rng.random((300, MODULES.total)) < 0.6
    mask[:, [part.start for part in MODULES.slices]] = True
    chosen = learner.act(context, mask).actions

    def value(actions):
        hot = np.hstack([np.eye(size)[actions[:, m]] for m, size in enumerate(MODULES.sizes) if m > 0])
        found = np.zeros(len(actions))
        for c, model in models.items():
            rows = actions[:, 0] == c
            found[rows] = model.predict(np.hstack([context[rows], hot[rows]]))
        return found

    table = np.full((300, len(MODULES.joint_actions)), -np.inf)
    joint = MODULES.joint_mask(mask)
    for j, action in enumerate(MODULES.joint_actions):
        if action[0] in (0, *models):
            table[:, j] = value(np.tile(action, (300, 1)))
    best = np.where(joint, table, -np.inf).max(1)
    assert value(chosen) == pytest.approx(best)
    assert 20 < (chosen[:, 0] == 0).sum() < 280
    assert joint[np.arange(300), MODULES.joint_index(chosen)].all()


def test_boosted_trees_need_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(ConfigError, match="baselines"):
        TLearner.fit(None, 0)

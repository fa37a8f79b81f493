"""Cross-fitted outcome models: no decision is modelled from its own user, whatever the regressor."""

from __future__ import annotations

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.evaluation import CrossFittedOutcomes, OutcomeModel
from crosschannel.evaluation.outcomes import RegressorOutcomes, regressors
from crosschannel.evaluation.outcomes.outcome_model import folds_of_users
from tests.evaluation.bandit_worlds import OFFERS, TABLES, World

pytestmark = pytest.mark.numerics


class LeastSquares:
    """A linear regression with an intercept."""

    def fit(self, x, y):
        z = np.column_stack([np.ones(len(x)), x])
        self.coefficients = np.linalg.lstsq(z, y, rcond=None)[0]
        return self

    def predict(self, x):
        return np.column_stack([np.ones(len(x)), x]) @ self.coefficients


class Broken(LeastSquares):
    def predict(self, x):
        return np.full((len(x), 2), np.nan)


def drawn(modules=OFFERS, users=200):
    world = World.make(modules, seed=1)
    log, cell, rewards = world.draw(np.random.default_rng(0), users, 2)
    return world, log, cell, rewards, world.one_hot(cell), world.policy(cell)


def fitted_by(regressor, log, x, rewards):
    """The models of the folds; the ridge with one penalty, as that number is chosen from all folds."""
    if regressor is not None:
        return CrossFittedOutcomes.fit(OFFERS, x, log.actions, rewards, log.user, regressor=regressor)
    models = OutcomeModel.fit_folds(OFFERS, x, log.actions, rewards, log.user, penalties=[10.0])
    return CrossFittedOutcomes(tuple(models), folds_of_users(log.user, 5))


@pytest.mark.parametrize("regressor", [None, LeastSquares], ids=["ridge", "regressor"])
def test_a_decision_is_not_modelled_from_its_own_user(regressor):
    """The rewards of one fold change; its own models do not, and those of the others do."""
    _, log, _, rewards, x, p = drawn()
    own = folds_of_users(log.user, 5) == 2
    first, second = (
        fitted_by(regressor, log, x, r).q_values(x, log.actions, p) for r in (rewards, np.where(own, 100.0, rewards))
    )
    for before, after in zip(first, second, strict=True):
        assert after.logged[own] == pytest.approx(before.logged[own], abs=1e-9)
        assert after.policy[own] == pytest.approx(before.policy[own], abs=1e-9)
        assert np.abs(after.logged[~own] - before.logged[~own]).min() > 1.0


def test_folds_are_models_of_the_other_folds():
    _, log, _, rewards, x, p = drawn()
    fold = folds_of_users(log.user, 5)
    fitted = CrossFittedOutcomes.fit(OFFERS, x, log.actions, rewards, log.user)
    found = fitted.q_values(x, log.actions, p)
    for k in range(5):
        rest, own = fold != k, fold == k
        alone = OutcomeModel.fit(
            OFFERS, x[rest], log.actions[rest], rewards[rest], log.user[rest], penalties=[fitted.models[k].penalty]
        )
        expected = alone.q_values(x[own], log.actions[own], [each[own] for each in p])
        for q, part in zip(found, expected, strict=True):
            assert q.logged[own] == pytest.approx(part.logged, rel=1e-6, abs=1e-9)
            assert q.policy[own] == pytest.approx(part.policy, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("regressor", [None, LeastSquares], ids=["ridge", "regressor"])
def test_folds_that_are_handed_in_are_those_of_the_models(regressor):
    """As if a hash had divided the users so: other rewards in a fold leave its own models as they are."""
    _, log, _, rewards, x, p = drawn()
    fold = (log.user % 3).astype(np.int64)
    fitted = CrossFittedOutcomes.fit(OFFERS, x, log.actions, rewards, log.user, regressor=regressor, folds=3, fold=fold)
    assert len(fitted.models) == 3
    np.testing.assert_array_equal(fitted.fold, fold)
    for k, model in enumerate(fitted.models):
        rest, own = fold != k, fold == k
        if regressor is None:
            alone = OutcomeModel.fit(
                OFFERS, x[rest], log.actions[rest], rewards[rest], log.user[rest], penalties=[model.penalty]
            )
        else:
            alone = RegressorOutcomes.fit(LeastSquares, OFFERS, x[rest], log.actions[rest], rewards[rest])
        expected = alone.q_values(x[own], log.actions[own], [each[own] for each in p])
        found = fitted.q_values(x, log.actions, p)
        for q, part in zip(found, expected, strict=True):
            assert q.policy[own] == pytest.approx(part.policy, rel=1e-6, abs=1e-9)


def test_folds_that_divide_a_user_are_refused():
    _, log, _, rewards, x, _ = drawn()
    arguments = (OFFERS, x, log.actions, rewards, log.user)
    with pytest.raises(InputError, match="a user is in several folds"):
        CrossFittedOutcomes.fit(*arguments, folds=2, fold=np.arange(len(rewards)) % 2)
    with pytest.raises(InputError, match="with entries from 0 to 1"):
        CrossFittedOutcomes.fit(*arguments, folds=2, fold=log.user % 3)


def test_some_of_the_decisions_keep_their_folds():
    _, log, _, rewards, x, p = drawn()
    fitted = CrossFittedOutcomes.fit(OFFERS, x, log.actions, rewards, log.user)
    rows = np.arange(len(log)) % 3 == 0
    part = fitted.of_rows(rows).q_values(x[rows], log.actions[rows], [each[rows] for each in p])
    for q, whole in zip(part, fitted.q_values(x, log.actions, p), strict=True):
        assert (q.logged == whole.logged[rows]).all()


@pytest.mark.parametrize("modules", [OFFERS, TABLES], ids=["parents", "conditions"])
def test_the_mean_of_a_regressor_under_a_policy_is_a_sum_over_its_actions(modules):
    _, log, _, rewards, x, p = drawn(modules)
    model = RegressorOutcomes.fit(LeastSquares, modules, x, log.actions, rewards)
    whole, *by_module = model.q_values(x, log.actions, p)
    joint = modules.all_joint_probabilities(p)
    n, expected = len(log), np.zeros(len(log))
    for j, action in enumerate(modules.joint_actions):
        rows = np.tile(action, (n, 1))
        expected += joint[:, j] * model.q_values(x, rows, p)[0].logged
    assert whole.policy == pytest.approx(expected, abs=1e-9)
    # The first module's mean does not depend on what the log did.
    first = sum(
        p[0][:, a]
        * model.q_values(x, np.tile(modules.joint_actions[modules.joint_actions[:, 0] == a][0], (n, 1)), p)[1].logged
        for a in range(modules.sizes[0])
    )
    assert by_module[0].policy == pytest.approx(first, abs=1e-9)
    nothing = ~modules.sends(log.actions)
    assert (by_module[1].policy[nothing] == by_module[1].logged[nothing]).all()


def test_many_actions_are_drawn_with_the_policy_s_probabilities(monkeypatch):
    _, log, _, rewards, x, p = drawn(users=3000)
    model = RegressorOutcomes.fit(LeastSquares, OFFERS, x, log.actions, rewards)
    exact = model.q_values(x, log.actions, p)[0].policy
    monkeypatch.setattr(regressors, "MAX_ENUMERATED", 0)
    sampled = model.q_values(x, log.actions, p)[0].policy
    error = sampled - exact
    assert np.abs(error).max() > 0
    assert abs(error.mean()) < 4 * error.std() / len(error) ** 0.5


def test_predictions_that_are_no_numbers_are_refused():
    _, log, _, rewards, x, p = drawn()
    fitted = CrossFittedOutcomes.fit(OFFERS, x, log.actions, rewards, log.user, regressor=Broken)
    with pytest.raises(InputError, match="predictions of shape"):
        fitted.q_values(x, log.actions, p)


@pytest.mark.parametrize("regressor", [None, LeastSquares], ids=["ridge", "regressor"])
def test_shapes_and_users_are_checked(regressor):
    _, log, _, rewards, x, _ = drawn()
    with pytest.raises(InputError, match="column 'user'"):
        CrossFittedOutcomes.fit(OFFERS, x, log.actions, rewards, log.user[:-1], regressor=regressor)
    few = np.where(log.user < 3, rewards, np.nan)
    with pytest.raises(ConfigError, match="5 folds, 3 users"):
        CrossFittedOutcomes.fit(OFFERS, x, log.actions, few, log.user, regressor=regressor)


def test_regressors_of_scikit_learn():
    ensemble = pytest.importorskip("sklearn.ensemble")
    _, log, _, rewards, x, p = drawn()
    made = CrossFittedOutcomes.fit(
        OFFERS, x, log.actions, rewards, log.user, regressor=lambda: ensemble.RandomForestRegressor(5, random_state=0)
    )
    assert all(np.isfinite(q.policy).all() for q in made.q_values(x, log.actions, p))


class Drawing(LeastSquares):
    """A regressor that draws from a generator of its own where nobody names a seed, as those of scikit-learn do."""

    def __init__(self) -> None:
        self.random_state = None

    def predict(self, x):
        return np.random.default_rng(self.random_state).normal(size=len(x))


def test_a_regressor_that_draws_random_numbers_finds_the_same_again():
    _, log, _, rewards, x, p = drawn()
    found = [
        CrossFittedOutcomes.fit(OFFERS, x, log.actions, rewards, log.user, regressor=Drawing).q_values(
            x, log.actions, p
        )
        for _ in range(2)
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.logged, other.logged)
        np.testing.assert_array_equal(one.policy, other.policy)

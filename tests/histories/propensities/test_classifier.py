"""Propensities by any classifier, on a log whose policy is a rule that no linear logit follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import InputError
from crosschannel.core.hashing import derive, keys
from crosschannel.core.serialization import reproducible
from crosschannel.core.times import DAY
from crosschannel.evaluation import IPS, SNIPS, EvaluationSettings, LoggedDecisions, evaluate
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.propensities.classifier import ClassifiedActions
from crosschannel.histories.propensities.estimate import _FOLD_SALT, estimate_propensities

pytestmark = pytest.mark.numerics

MODULES = ActionSpace([Module("channel", ("none", "email", "push"))])
SPEC = ContextSpec(windows=("3d",), messages=False, clock=False)
#: Users of the middle band get most messages; a rule of two thresholds.
BAND, OFTEN, SELDOM, EMAIL = 0.7, 0.8, 0.15, 0.6
CAN_PUSH = 0.7


class Tree:
    """A classification tree of a few levels, each split by the best of some thresholds of all features."""

    depth, least = 3, 50

    def fit(self, x: FloatArray, y: np.ndarray) -> None:
        self.classes_ = np.unique(y)
        self.root = self._grow(x, np.searchsorted(self.classes_, y), self.depth)

    def _shares(self, y: np.ndarray) -> FloatArray:
        return (np.bincount(y, minlength=len(self.classes_)) + 0.5) / (len(y) + 0.5 * len(self.classes_))

    def _grow(self, x: FloatArray, y: np.ndarray, depth: int) -> tuple:
        best = (1.0, None, None)
        for j in range(x.shape[1] if depth else 0):
            for threshold in np.unique(np.quantile(x[:, j], np.linspace(0.05, 0.95, 19))):
                left = x[:, j] <= threshold
                if self.least <= left.sum() <= len(y) - self.least:
                    impurity = sum(s.mean() * (1 - (self._shares(y[s]) ** 2).sum()) for s in (left, ~left))
                    best = min(best, (impurity, j, threshold), key=lambda each: each[0])
        if best[1] is None:
            return (self._shares(y),)
        left = x[:, best[1]] <= best[2]
        return (*best[1:], self._grow(x[left], y[left], depth - 1), self._grow(x[~left], y[~left], depth - 1))

    def predict_proba(self, x: FloatArray) -> FloatArray:
        out = np.zeros((len(x), len(self.classes_)))
        stack = [(self.root, np.arange(len(x)))]
        while stack:
            node, rows = stack.pop()
            if len(node) == 1:
                out[rows] = node[0]
                continue
            left = x[rows, node[0]] <= node[1]
            stack += [(node[2], rows[left]), (node[3], rows[~left])]
        return out


def rule_log(seed: int, users: int = 3000, slots: int = 3) -> tuple[History, FloatArray, FloatArray]:
    """A log by a rule of thresholds; its true propensities (n,), and each user's band (n,)."""
    rng = np.random.default_rng(seed)
    attribute = rng.normal(size=users)
    user, day = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(slots), indexing="ij"))
    n = len(user)
    band = np.abs(attribute[user]) < BAND
    eligible = np.ones((n, 3), dtype=bool)
    eligible[:, 2] = rng.random(n) < CAN_PUSH
    sent = np.where(band, OFTEN, SELDOM)
    email = np.where(eligible[:, 2], EMAIL, 1.0)
    p = np.stack([1 - sent, sent * email, sent * (1 - email)], axis=1)
    action = (p.cumsum(1) < rng.random(n)[:, None]).sum(1)
    ids = np.array([f"d{i}" for i in range(n)], dtype=object)
    at = day * DAY + DAY // 2
    history = History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=at,
            actions=action[:, None],
            propensity=np.full((n, 1), np.nan),
            joint=np.full(n, np.nan),
            eligible=eligible,
        ),
        EventLog(
            user=np.zeros(0, dtype=np.int64),
            time=np.zeros(0, dtype=np.int64),
            event=np.zeros(0, dtype=np.int64),
            value=np.zeros(0),
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:05d}" for i in range(users)], dtype=object),
        event_names=("order",),
        span=(0, (slots + 1) * DAY),
        users=pd.DataFrame({"a": attribute}),
        propensity_source="missing",
    )
    return history, p[np.arange(n), action], band


def sklearn_classifier():
    return pytest.importorskip("sklearn.ensemble").GradientBoostingClassifier


def error(history: History, truth: FloatArray) -> float:
    return float(np.abs(history.decisions.propensity[:, 0] - truth).mean())


@pytest.mark.parametrize("make", [lambda: Tree, sklearn_classifier], ids=["own", "scikit-learn"])
def test_a_rule_defeats_the_logit_and_a_tree_finds_it(make):
    history, truth, _ = rule_log(0)
    linear, _ = estimate_propensities(history, SPEC)
    tree, report = estimate_propensities(history, SPEC, classifier=make())
    assert error(linear, truth) > 0.2
    assert error(tree, truth) < 0.06
    assert report.errors["channel"] < 0.05
    assert report.pooled == ()
    assert set(tree.decisions.propensity_source.tolist()) == set(linear.decisions.propensity_source.tolist())
    assert "are estimated" in tree.notes[-1]


def test_values_by_the_tree_are_right_and_those_by_the_logit_are_not():
    """A policy that sends no message at random: those in the band earn 1 without one, and the others nothing.

    Its value is the band's share. The logit weighs the few of the band without a message as if they were as many as the
    others' and finds less than two thirds; with the tree's propensities the value is within 4 standard errors.
    """
    history, _, band = rule_log(1)
    p = [np.tile([1.0, 0.0, 0.0], (len(band), 1))]
    values = {}
    for name, classifier in (("logit", None), ("tree", Tree)):
        estimated, _ = estimate_propensities(history, SPEC, classifier=classifier)
        log = LoggedDecisions.from_history(estimated)
        rewards = band * (log.actions[:, 0] == 0).astype(float)
        found = evaluate(
            log,
            p,
            rewards,
            rng=np.random.default_rng(0),
            estimators=[SNIPS(), IPS()],
            settings=EvaluationSettings(bootstrap_replicates=60),
        )
        values[name] = next(e.value for e in found.estimates if e.module is None and e.estimator == "snips")
    truth = band.mean()
    assert values["logit"].point < 2 / 3 * truth
    assert not values["logit"].contains(truth)
    assert abs(values["tree"].point - truth) < 4 * values["tree"].se


def test_propensities_come_from_other_users_only():
    """Other decisions of some users of a fold change nothing for the others of the fold, and those of other folds."""
    history, _, _ = rule_log(2, users=800)
    d = history.decisions
    fold = np.asarray(derive(history.user_keys, _FOLD_SALT) % np.uint64(5), dtype=np.int64)[d.user]
    changed = (fold == 0) & (d.user % 2 == 0)
    actions = np.where(changed[:, None], np.where(d.actions == 0, 1, 0), d.actions)
    other = replace(history, decisions=replace(d, actions=actions))
    first, second = (estimate_propensities(h, SPEC, classifier=Tree)[0].decisions.propensity for h in (history, other))
    same = (fold == 0) & ~changed
    np.testing.assert_array_equal(first[same], second[same])
    assert not np.array_equal(first[fold == 2], second[fold == 2])


def test_the_order_of_rows_changes_nothing():
    history, _, _ = rule_log(3, users=600)
    order = np.random.default_rng(0).permutation(len(history.decisions))
    shuffled = replace(history, decisions=take_rows(history.decisions, order))
    first, _ = estimate_propensities(history, SPEC, classifier=Tree)
    second, _ = estimate_propensities(shuffled, SPEC, classifier=Tree)
    np.testing.assert_array_equal(first.decisions.propensity[order], second.decisions.propensity)


def test_random_numbers_are_the_same_each_time():
    forest = pytest.importorskip("sklearn.ensemble").RandomForestClassifier
    history, _, _ = rule_log(4, users=400)
    found = [estimate_propensities(history, SPEC, classifier=forest)[0].decisions.propensity for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert reproducible(forest)().random_state == 0
    assert reproducible(lambda: forest(random_state=5))().random_state == 5
    assert not hasattr(reproducible(Tree)(), "random_state")


def test_actions_that_were_never_taken_have_the_smallest_score():
    x, taken = np.zeros((100, 1)), np.tile([0, 2], 50)
    x[taken == 2] = 1.0
    eligible = np.ones((100, 3), dtype=bool)
    model = ClassifiedActions.fit(Tree, x, taken, eligible)
    scores = model.scores(x, eligible)
    assert scores[:, 1] == pytest.approx(np.log(0.5 / 100))
    assert np.exp(scores[0, 0]) == pytest.approx(50.5 / 51)
    single = ClassifiedActions.fit(Tree, x, np.ones(100, dtype=int), eligible)
    assert single.scores(x, eligible)[0].tolist() == pytest.approx([np.log(0.005), 0.0, np.log(0.005)])
    assert model.scores(x[:0], eligible[:0]).shape == (0, 3)


class Labels(Tree):
    """States labels in place of probabilities."""

    def predict_proba(self, x: FloatArray) -> FloatArray:
        return np.zeros(len(x))


class Negative(Tree):
    """States numbers below 0."""

    def predict_proba(self, x: FloatArray) -> FloatArray:
        return super().predict_proba(x) - 0.5


@pytest.mark.parametrize("classifier", [Labels, Negative])
def test_a_classifier_that_states_no_probabilities_is_refused(classifier):
    history, _, _ = rule_log(5, users=300)
    with pytest.raises(InputError, match=r"propensity model, column 'predict_proba': .* are not probabilities of 3"):
        estimate_propensities(history, SPEC, classifier=classifier)

"""Estimated propensities against logs whose policy is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.hashing import derive, keys
from crosschannel.core.times import DAY
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import DecisionLog, EventLog, History
from crosschannel.histories.logs import take_rows
from crosschannel.histories.propensities.calibration import PlattScaling, Reliability, softmax
from crosschannel.histories.propensities.estimate import _FOLD_SALT, PropensityReport, estimate_propensities

pytestmark = pytest.mark.numerics

MODULES = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("offer", ("e1", "e2", "p1", "p2", "p3"), "channel", ("email", "email", "push", "push", "push")),
        Module("hour", ("am", "pm")),
    ]
)
SPEC = ContextSpec(windows=("3d",), messages=False, clock=False)


def simulated_log(seed: int, users: int = 4000, slots: int = 5) -> tuple[History, FloatArray]:
    """A log whose policy depends on two attributes, the day, eligibility and earlier choices.

    Returns the history without propensities, and the true conditional propensities (n, 3) of what was done.
    """
    rng = np.random.default_rng(seed)
    attributes = rng.normal(size=(users, 2))
    user, day = (a.ravel() for a in np.meshgrid(np.arange(users), np.arange(slots), indexing="ij"))
    n, x = len(user), attributes[user]
    may_push = rng.random(n) < 0.7
    eligible = np.ones((n, MODULES.total), dtype=bool)
    eligible[:, 2] = may_push

    score = np.stack([np.zeros(n), -0.7 + 0.9 * x[:, 0] + 0.3 * (day == 1), -1.0 - 0.6 * x[:, 1] + 0.2 * day], axis=1)
    channel = softmax(score, eligible[:, :3])
    first = (channel.cumsum(1) < rng.random(n)[:, None]).sum(1)
    offer = np.zeros((n, 5))
    offer[:, :2] = softmax(np.stack([0.8 * x[:, 1], np.zeros(n)], axis=1), np.ones((n, 2), dtype=bool))
    offer[:, 2:] = softmax(np.stack([x[:, 0], np.zeros(n), -x[:, 0]], axis=1), np.ones((n, 3), dtype=bool))
    draw = rng.random(n)[:, None]
    second = np.where(
        first == 1, (offer[:, :2].cumsum(1) < draw).sum(1), 2 + np.minimum((offer[:, 2:].cumsum(1) < draw).sum(1), 2)
    )
    hour = softmax(
        np.stack([np.zeros(n), 0.5 * x[:, 1] + 1.2 * (first == 2) - 0.4], axis=1), np.ones((n, 2), dtype=bool)
    )
    third = (rng.random(n) < hour[:, 1]).astype(np.int64)
    actions = MODULES.canonical(np.stack([first, second, third], axis=1))
    truth = MODULES.chosen_probabilities([channel, offer, hour], actions)

    # Orders depend on what makes messages likely, and on the action, so that ignoring the policy misleads.
    hit = (actions[:, 0] == 1) & (actions[:, 1] == 0) & (actions[:, 2] == 0)
    orders = rng.poisson(np.exp(0.5 * x[:, 0]) + 1.0 * hit)
    ids = np.array([f"d{i}" for i in range(n)], dtype=object)
    at = day * DAY + DAY // 2
    history = History.from_arrays(
        DecisionLog(
            id=ids,
            key=keys(ids),
            user=user,
            time=at,
            actions=actions,
            propensity=np.full((n, 3), np.nan),
            joint=np.full(n, np.nan),
            eligible=eligible,
        ),
        EventLog(
            user=np.repeat(user, orders),
            time=np.repeat(at, orders) + DAY // 8,
            event=np.zeros(int(orders.sum()), dtype=np.int64),
            value=np.ones(int(orders.sum())),
        ),
        modules=MODULES,
        user_ids=np.array([f"u{i:05d}" for i in range(users)], dtype=object),
        event_names=("order",),
        span=(0, (slots + 1) * DAY),
        users=pd.DataFrame({"a": attributes[:, 0], "b": attributes[:, 1]}),
        propensity_source="missing",
    )
    return history, truth


@pytest.fixture(scope="module")
def log() -> tuple[History, FloatArray]:
    return simulated_log(0)


@pytest.fixture(scope="module")
def estimated(log) -> tuple[History, PropensityReport]:
    return estimate_propensities(log[0], SPEC)


def test_estimates_are_close_to_the_true_propensities(log, estimated) -> None:
    truth, got = log[1], estimated[0].decisions.propensity
    sent = log[0].modules.sends(log[0].decisions.actions)
    for m, rows in enumerate((np.ones(len(sent), dtype=bool), sent, sent)):
        assert np.abs(got[rows, m] - truth[rows, m]).mean() < 0.03
        assert np.corrcoef(got[rows, m], truth[rows, m])[0, 1] > 0.97
    np.testing.assert_array_equal(got[~sent, 1:], 1.0)
    np.testing.assert_allclose(estimated[0].decisions.joint, got.prod(1))


def test_estimates_are_calibrated_and_the_report_says_so(estimated) -> None:
    history, report = estimated
    assert history.propensity_source == "estimated"
    assert set(report.errors) == {"channel", "offer", "hour"}
    assert max(report.errors.values()) < 0.03
    table = report.table
    far = np.abs(table["predicted"] - table["observed"]) > 4 * table["se"] + 0.01
    assert far.mean() < 0.03
    # Every choice among the actions of a module is one observation for each of them.
    channel = table[table["module"] == "channel"]
    assert channel[channel["action"] == "email"]["n"].sum() == len(history.decisions)
    assert channel[channel["action"] == "push"]["n"].sum() < len(history.decisions)
    assert report.pooled == ()
    assert history.summary().endswith(report.summary())
    assert "estimated" in report.summary()


def test_inverse_estimated_propensities_recover_a_policys_value(log, estimated) -> None:
    """The value of always (email, e1, am) is E[e^{a/2}] + 1 = e^{1/8} + 1; the mean over its own decisions is not."""
    history = log[0]
    truth = np.exp(0.5**2 / 2) + 1.0
    events = history.events
    slot = np.searchsorted(history.decisions.time[:5], events.time, side="right") - 1
    rewards = np.bincount(5 * events.user + slot, minlength=len(history.decisions))
    actions = history.decisions.actions
    hit = (actions[:, 0] == 1) & (actions[:, 1] == 0) & (actions[:, 2] == 0)
    terms = hit * rewards / estimated[0].decisions.joint
    by_user = np.bincount(history.decisions.user, terms - terms.mean())
    se = np.sqrt((by_user**2).sum()) / len(terms)
    assert abs(terms.mean() - truth) < 3 * se
    assert se < 0.15
    assert rewards[hit].mean() > truth + 0.2


def test_probabilities_of_a_fold_do_not_depend_on_what_its_users_did(log) -> None:
    history = log[0]
    fold = np.asarray(derive(history.user_keys, _FOLD_SALT) % np.uint64(5))[history.decisions.user]
    mine = fold == 2
    actions = history.decisions.actions
    pm = mine & (actions[:, 2] == 1)
    # Everybody in the fold who was sent something at pm gets it at am, and some others at pm: the estimate of pm for
    # those who still have pm may not move, while other folds' estimates must.
    turned = actions.copy()
    change = mine & (actions[:, 0] > 0) & (np.arange(len(mine)) % 3 > 0)
    turned[change, 2] = 0
    other = replace(history, decisions=replace(history.decisions, actions=turned))
    before, _ = estimate_propensities(history, SPEC)
    after, _ = estimate_propensities(other, SPEC)
    kept = pm & ~change
    assert kept.sum() > 50
    np.testing.assert_array_equal(before.decisions.propensity[kept], after.decisions.propensity[kept])
    elsewhere = ~mine & (actions[:, 0] > 0)
    assert (before.decisions.propensity[elsewhere, 2] != after.decisions.propensity[elsewhere, 2]).mean() > 0.9


def test_order_of_users_and_rows_does_not_matter_to_the_last_bit(log, estimated) -> None:
    history = log[0]
    rng = np.random.default_rng(1)
    new_code = rng.permutation(history.n_users)
    back = np.argsort(new_code)
    rows = rng.permutation(len(history.decisions))
    decisions, events = take_rows(history.decisions, rows), history.events
    assert history.users is not None
    shuffled = History.from_arrays(
        replace(decisions, user=new_code[decisions.user]),
        replace(events, user=new_code[events.user]),
        modules=history.modules,
        user_ids=history.user_ids[back],
        event_names=history.event_names,
        span=history.span,
        users=history.users.iloc[back].reset_index(drop=True),
        propensity_source="missing",
    )
    got, report = estimate_propensities(shuffled, SPEC)
    place = {key: row for row, key in enumerate(got.decisions.id)}
    same = np.array([place[key] for key in history.decisions.id])
    np.testing.assert_array_equal(got.decisions.propensity[same], estimated[0].decisions.propensity)
    pd.testing.assert_frame_equal(report.table, estimated[1].table)


def test_small_propensities_are_raised_to_the_floor_and_counted(log, estimated) -> None:
    history, report = estimate_propensities(log[0], SPEC, floor=0.2)
    free = estimated[0].decisions.propensity
    assert estimated[1].floored == (free <= 1e-3).any(1).sum()
    np.testing.assert_array_equal(history.decisions.propensity, np.maximum(free, 0.2))
    assert report.floored == (free < 0.2).any(1).sum() > 0


def test_rare_actions_are_pooled_and_named(log) -> None:
    history, report = estimate_propensities(log[0], SPEC, min_rows=10**6)
    # Which action of two is the more frequent one may differ from fold to fold, but nothing was never the rarer.
    assert {"channel=email", "channel=push"} <= set(report.pooled)
    assert "channel=none" not in report.pooled
    # Without slopes, users with the same eligible actions have the same propensities within a fold.
    d = history.decisions
    first = d.propensity[(d.actions[:, 0] == 1) & ~history.eligible[:, 2], 0]
    assert len(np.unique(first)) == report.folds


def test_a_single_kind_of_choice_is_not_identified(log) -> None:
    history = log[0]
    actions = history.decisions.actions.copy()
    actions[:] = 0
    with pytest.raises(NotIdentified, match=r"'channel'.*same action, .none."):
        estimate_propensities(replace(history, decisions=replace(history.decisions, actions=actions)), SPEC)
    few = history.select_users(np.arange(history.n_users) < 3)
    with pytest.raises(NotIdentified, match="3 users are too few for 5 folds"):
        estimate_propensities(few, SPEC)


def test_a_module_without_choice_has_probability_one(log) -> None:
    history = log[0]
    eligible = history.eligible.copy()
    eligible[:, 8:] = False
    eligible[np.arange(len(eligible)), 8 + history.decisions.actions[:, 2]] = True
    got, report = estimate_propensities(replace(history, decisions=replace(history.decisions, eligible=eligible)), SPEC)
    np.testing.assert_array_equal(got.decisions.propensity[:, 2], 1.0)
    assert np.isnan(report.errors["hour"])


@pytest.mark.parametrize(("settings", "message"), [({"folds": 2}, "folds is 2"), ({"floor": 0.0}, "floor is 0.0")])
def test_settings_out_of_range_are_refused(log, settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        estimate_propensities(log[0], SPEC, **settings)


def test_platt_scaling_undoes_scores_that_are_too_sure() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(size=(20_000, 3))
    eligible = np.ones(true.shape, dtype=bool)
    p = softmax(true + np.array([0.0, 0.5, -0.5]), eligible)
    taken = np.minimum((p.cumsum(1) < rng.random(len(p))[:, None]).sum(1), 2)
    fitted = PlattScaling.fit(np.zeros(3), 2.5 * true, eligible, taken)
    assert fitted.slope == pytest.approx(1 / 2.5, rel=0.05)
    assert fitted.offset[1] - fitted.offset[0] == pytest.approx(0.5, abs=0.08)
    assert np.abs(fitted.predict(2.5 * true, eligible) - p).mean() < 0.01


def test_reliability_counts_by_hand() -> None:
    bins = Reliability.from_predictions(np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, True, True, True]), bins=2)
    np.testing.assert_array_equal(bins.n, [2, 2])
    np.testing.assert_allclose(bins.predicted, [0.1, 0.9])
    np.testing.assert_allclose(bins.observed, [0.5, 1.0])
    assert bins.error == pytest.approx(0.25)

"""Rewards against hand arithmetic, their invariances, and what is not identified."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, duration
from crosschannel.histories.history import History
from crosschannel.reward import REWARDS, DidReward, Goal, Reason, RewardSpec, make_reward, measure, refit
from crosschannel.reward.effects import TreatmentEffects
from crosschannel.reward.exact_sums import ExactSums
from tests.samples import random_history

pytestmark = pytest.mark.numerics

SPEC = RewardSpec(goals=(Goal("order", measure="value"),), pre="2d", post="1d", min_controls=3)


def test_did_is_the_change_minus_the_controls_mean_change():
    history = random_history(5)
    frame = DidReward(SPEC).fit(history).transform(history)
    outcomes = measure(history, SPEC)
    table = pd.DataFrame({"cell": outcomes.time_bucket, "change": outcomes.change, "control": outcomes.control})
    means = table[table.control].groupby("cell").change.agg(["mean", "std", "size"])
    ok = frame.identified
    expected = table.change - means["mean"].reindex(table.cell).to_numpy()
    np.testing.assert_allclose(frame.reward[ok], expected[ok], atol=1e-9)
    n, sd = means["size"].reindex(table.cell).to_numpy(), means["std"].reindex(table.cell).to_numpy()
    np.testing.assert_allclose(frame.se[ok], (sd * np.sqrt(1 + 1 / n))[ok], rtol=1e-9)
    assert (frame.n_controls[ok] == n[ok]).all()
    assert (frame.available_at == history.decisions.time + DAY).all()
    for cell in np.unique(outcomes.time_bucket[ok]):
        assert frame.reward[ok & outcomes.control & (outcomes.time_bucket == cell)].sum() == pytest.approx(0, abs=1e-8)


def test_raw_and_change():
    history = random_history(5)
    outcomes = measure(history, SPEC)
    raw = make_reward("raw", SPEC).fit(history).transform(history)
    change = make_reward("change", SPEC).fit(history).transform(history)
    ok = outcomes.observed
    np.testing.assert_array_equal(raw.reward[ok], outcomes.post[ok])
    np.testing.assert_array_equal(change.reward[ok], outcomes.change[ok])
    assert np.isnan(raw.reward[~ok]).all()


def test_cells_without_enough_controls_give_no_reward_and_are_counted():
    history = random_history(2, users=24)
    outcomes = measure(history, SPEC)
    n = pd.Series(outcomes.control).groupby(outcomes.time_bucket).sum().reindex(outcomes.time_bucket).to_numpy()
    enough = int(np.median(n))
    spec = replace(SPEC, min_controls=enough)
    frame = DidReward(spec).fit(history).transform(history)
    few = (n < enough) & outcomes.observed
    assert few.any()
    assert not few[outcomes.observed].all()
    assert np.isnan(frame.reward[few]).all()
    assert frame.counts()[Reason.FEW_CONTROLS.text] == few.sum()
    assert sum(frame.counts().values()) == len(frame)


def test_excluded_overlap_gives_no_reward():
    history = random_history(2)
    frame = DidReward(replace(SPEC, overlap="exclude")).fit(history).transform(history)
    outcomes = measure(history, SPEC)
    assert np.isnan(frame.reward[outcomes.overlap]).all()
    assert frame.identified[outcomes.observed & ~outcomes.overlap].all()


def test_cells_that_were_not_in_the_fit_give_no_reward():
    history = random_history(4)
    outcomes = measure(history, SPEC)
    early = outcomes.select(outcomes.time_bucket <= np.median(outcomes.time_bucket))
    frame = DidReward(SPEC).fit_outcomes(early).transform_outcomes(outcomes)
    late = outcomes.observed & ~np.isin(outcomes.time_bucket, early.time_bucket)
    assert late.any()
    assert np.isnan(frame.reward[late]).all()


def test_refit_with_whole_weights_equals_repeated_rows():
    """A bootstrap replicate that counts some users twice must equal the log in which they stand twice."""
    history = random_history(6, users=25)
    outcomes = measure(history, SPEC)
    counts = np.random.default_rng(0).poisson(1.0, history.n_users).astype(float)
    weighted = refit(DidReward(SPEC), outcomes)(counts[outcomes.user])
    rows = np.repeat(np.arange(len(outcomes)), counts[outcomes.user].astype(int))
    repeated = outcomes.select(rows)  # type: ignore[arg-type]
    again = DidReward(SPEC).fit_outcomes(repeated).transform_outcomes(outcomes).reward
    np.testing.assert_allclose(weighted, again, atol=1e-12)


@pytest.mark.parametrize("kind", list(REWARDS))
def test_rewards_do_not_depend_on_order_or_on_labels_of_users(kind):
    """To the last bit: the sums are exact, so nobody else's place in the log can matter.

    The adjusted kinds divide users into folds by a hash of their ids, so only the order of rows is changed for them.
    """
    history = random_history(7)
    frame = make_reward(kind, SPEC).fit(history).transform(history)
    rng = np.random.default_rng(1)
    adjusted = kind in ("did_regression", "did_dr")
    label = np.arange(history.n_users) if adjusted else rng.permutation(history.n_users)
    d, e = history.decisions, history.events
    shuffle, shuffle_events = rng.permutation(len(d)), rng.permutation(len(e))
    other = History.from_arrays(
        replace(
            d,
            **{name: getattr(d, name)[shuffle] for name in ("id", "key", "time", "actions", "propensity", "joint")},
            user=label[d.user][shuffle],
        ),
        replace(
            e,
            **{name: getattr(e, name)[shuffle_events] for name in ("time", "event", "value")},
            user=label[e.user][shuffle_events],
        ),
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=history.event_names,
        span=history.span,
    )
    again = make_reward(kind, SPEC).fit(other).transform(other)
    place = pd.Series(np.arange(len(d)), index=other.decisions.id).loc[d.id].to_numpy()
    if kind.startswith("did"):  # the spread of raw and change is an ordinary float, their rewards are not touched by it
        np.testing.assert_array_equal(frame.se, again.se[place])
    np.testing.assert_array_equal(frame.reward, again.reward[place])


class Twice(DidReward):
    """A reward model of a user's own."""

    name = "twice"


class NoModel:
    """What is no reward model."""

    name = "nothing"

    def __init__(self, spec: RewardSpec) -> None:
        self.spec = spec


def test_a_users_own_reward_model():
    history = random_history(2)
    model = make_reward(f"{__name__}:Twice", SPEC)
    assert isinstance(model, Twice)
    mine, did = (m.fit(history).transform(history).reward for m in (model, DidReward(SPEC)))
    np.testing.assert_array_equal(mine, did)
    with pytest.raises(ConfigError, match="'twice' has no influence function"):
        TreatmentEffects.fit(model, history)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("didd", r"no reward kind 'didd'. Did you mean 'did'\? Your own is 'package.module:Class'"),
        (
            "no_such_module:Twice",
            "the reward kind 'no_such_module:Twice' cannot be imported: No module named .* `export PYTHONPATH=.`",
        ),
        ("math:pi", "the reward kind 'math:pi' is of type float: name a class"),
        (f"{__name__}:Thrice", "cannot be imported: module .* has no attribute 'Thrice'"),
        (f"{__name__}:NoModel", "is not a reward model: it lacks adjust, measure, fit, fit_outcomes"),
    ],
)
def test_what_is_no_reward_kind_is_explained(kind, message):
    with pytest.raises(ConfigError, match=message):
        make_reward(kind, SPEC)


def test_exact_sums_add_up_over_any_division():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(10_000) * 10.0 ** rng.integers(-6, 6, 10_000)
    group = rng.integers(0, 7, 10_000)
    whole = ExactSums.from_values(values, group, 7)
    order = rng.permutation(10_000)
    parts = [ExactSums.from_values(values[p], group[p], 7) for p in np.array_split(order, 13)]
    total = sum(parts[1:], parts[0])
    np.testing.assert_array_equal(whole.value(), total.value())
    np.testing.assert_allclose(whole.value(), np.bincount(group, values), rtol=1e-10)


def test_a_future_event_never_changes_a_closed_reward():
    """Events after a window closed do not change its reward, if the controls' windows closed too."""
    history = random_history(8)
    outcomes = measure(history, SPEC)
    cut = int(np.quantile(outcomes.available_at, 0.5))
    values = np.where(history.events.time > cut, history.events.value * 3 + 1, history.events.value)
    changed = replace(history, events=replace(history.events, value=values))
    before = DidReward(SPEC).fit(history).transform(history)
    after = DidReward(SPEC).fit(changed).transform(changed)
    closed = outcomes.available_at <= cut
    np.testing.assert_array_equal(before.reward[closed], after.reward[closed])
    assert not np.array_equal(before.reward[~closed], after.reward[~closed], equal_nan=True)


def test_duration_texts():
    assert duration("72h") == duration("3d") == 3 * DAY


def test_raw_rewards_need_no_time_before_the_decision():
    """As in a trial whose log begins with its decisions."""
    history = random_history(0)
    first = int(history.decisions.time.min())
    log = replace(history, span=(first, history.span[1]), observed_from=np.full(history.n_users, first))
    spec = RewardSpec(goals=(Goal("order"),), pre="20d", post="1d", min_controls=2)
    frame = make_reward("raw", spec).fit(log).transform(log)
    assert frame.identified.any()
    assert np.isnan(frame.pre[frame.identified]).all()
    whole = make_reward("raw", replace(spec, pre="1d")).fit_transform(history)
    np.testing.assert_array_equal(frame.reward[frame.identified], whole.reward[frame.identified])
    assert not make_reward("did", spec).fit_transform(log).identified.any()

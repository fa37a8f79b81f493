"""What must never change a reward, to the last bit: time shifts, labels, the order of rows, splits, the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosschannel.core.times import WEEK
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.logs import take_rows
from crosschannel.reward import REWARDS, RewardFrame, make_reward, refit
from crosschannel.reward.effects import TreatmentEffects
from crosschannel.reward.measurement.outcomes import fold_of_users
from tests.reward.samples import LEARNED, OPTIONS, rebuilt, rich_history, spec_of

pytestmark = pytest.mark.numerics

SEEDS = st.integers(0, 10_000)
CASES = [(kind, option) for kind in REWARDS for option in OPTIONS]
EXAMPLES = settings(max_examples=12, deadline=None)


def frame_of(history: History, kind: str, option: str) -> RewardFrame:
    return make_reward(kind, spec_of(option)).fit(history).transform(history)


def assert_same(one: RewardFrame, other: RewardFrame, rows: np.ndarray | slice = slice(None)) -> None:
    """Equal bits of everything that a learner or a report sees; `rows` of the other frame."""
    for name in ("reward", "se", "pre", "post", "counterfactual", "n_controls", "level", "overlap", "reason"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name)[rows], err_msg=name)


def in_order_of(history: History, other: History) -> np.ndarray:
    """Places in the other history of this one's decisions."""
    return pd.Index(other.decisions.id).get_indexer(pd.Index(history.decisions.id))


@pytest.mark.parametrize("kind", REWARDS)
def test_every_option_gives_some_rewards(kind):
    """Otherwise the properties below would compare nothing."""
    for option in OPTIONS:
        frame = frame_of(rich_history(0, users=150), kind, option)
        assert frame.identified.mean() > 0.1, option
        assert np.ptp(frame.reward[frame.identified]) > 0, option
        assert sum(frame.counts_by_level().values()) == frame.identified.sum()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", REWARDS)
def test_fitting_and_transforming_at_once_is_fitting_then_transforming(kind, option):
    history = rich_history(3, users=80)
    model = make_reward(kind, spec_of(option))
    once, twice = model.fit_transform(history), model.fit(history).transform(history)
    for name in once.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(once, name), getattr(twice, name), err_msg=name)


@pytest.mark.parametrize("option", OPTIONS)
def test_refitting_is_fitting_with_weights(option):
    """To the bit, though what does not depend on the weights is computed once."""
    history = rich_history(4, users=80)
    model = make_reward("did", spec_of(option))
    outcomes = model.measure(history)
    again, rng = refit(model, outcomes), np.random.default_rng(0)
    for _ in range(3):
        weights = np.bincount(rng.integers(80, size=80), minlength=80).astype(float)[outcomes.user]
        expected = model.fit_outcomes(outcomes, weights).transform_outcomes(outcomes).reward
        np.testing.assert_array_equal(again(weights), expected)


@EXAMPLES
@given(seed=SEEDS, case=st.sampled_from(CASES), weeks=st.integers(-4000, 300))
def test_shifting_all_times_by_whole_weeks(seed, case, weeks):
    history = rich_history(seed)
    by = weeks * WEEK
    shifted = replace(
        history,
        decisions=replace(history.decisions, time=history.decisions.time + by),
        events=replace(history.events, time=history.events.time + by),
        span=(history.span[0] + by, history.span[1] + by),
        observed_from=history.observed_from + by,
        observed_until=history.observed_until + by,
    )
    one, other = frame_of(history, *case), frame_of(shifted, *case)
    assert_same(one, other)
    np.testing.assert_array_equal(one.available_at + by, other.available_at)


@EXAMPLES
@given(seed=SEEDS, case=st.sampled_from(CASES))
def test_shuffling_rows(seed, case):
    history = rich_history(seed)
    rng = np.random.default_rng(seed)
    d, e = rng.permutation(len(history.decisions)), rng.permutation(len(history.events))
    shuffled = rebuilt(history, take_rows(history.decisions, d), take_rows(history.events, e))
    assert_same(frame_of(history, *case), frame_of(shuffled, *case), in_order_of(history, shuffled))


def ids_in_the_folds_of(history: History) -> np.ndarray:
    """Other ids (U,), each of which is hashed into the fold of the user in its place."""
    ids = [f"someone else {i}" for i in range(60 * history.n_users)]
    blank = replace(history, user_ids=np.array(ids, dtype=object))
    free: dict[int, list[str]] = {}
    for name, fold in zip(ids, fold_of_users(blank).tolist(), strict=True):
        free.setdefault(fold, []).append(name)
    return np.array([free[fold].pop() for fold in fold_of_users(history).tolist()], dtype=object)


@EXAMPLES
@given(seed=SEEDS, case=st.sampled_from(CASES), same_folds=st.booleans())
def test_relabelling_users(seed, case, same_folds):
    """Cross-fitted kinds divide users by a hash of their ids: new labels in other folds are another division.

    No stable hash of a label is the same for another label. So kinds are compared with one fold, or with labels that
    are hashed into the same folds; what other folds do is below.
    """
    kind, option = case
    history = rich_history(seed)
    place = np.random.default_rng(seed).permutation(history.n_users)  # where each user goes
    back = np.argsort(place)
    assert history.users is not None
    ids = np.array([f"someone else {i}" for i in range(history.n_users)], dtype=object)
    if same_folds:
        ids = ids_in_the_folds_of(history)[back]
    relabelled = rebuilt(
        history,
        replace(history.decisions, user=place[history.decisions.user]),
        replace(history.events, user=place[history.events.user]),
        user_ids=ids,
        users=history.users.iloc[back].reset_index(drop=True).assign(user_id=ids),
    )
    model = make_reward(kind, spec_of(option) if same_folds else replace(spec_of(option), folds=1))
    one, other = (model.fit(h).transform(h) for h in (history, relabelled))
    assert_same(one, other, in_order_of(history, relabelled))


@pytest.mark.parametrize("kind", ["did_regression", "did_dr"])
def test_labels_in_other_folds_change_the_effect_by_less_than_its_error(kind):
    """5 relabellings of 300 users: the estimates' spread stays below a quarter of the standard error."""
    history = rich_history(4, users=300)
    model = make_reward(kind, spec_of("plain"))
    values, errors = [], []
    for k in range(5):
        ids = np.array([f"{k} {name}" for name in history.user_ids], dtype=object)
        users = None if history.users is None else history.users.assign(user_id=ids)
        effect = TreatmentEffects.fit(model, replace(history, user_ids=ids, users=users)).effect()
        values.append(effect.value)
        errors.append(effect.se)
    assert 0 < np.std(values) < 0.25 * np.mean(errors)


@EXAMPLES
@given(seed=SEEDS, case=st.sampled_from(CASES))
def test_splitting_a_log_by_user(seed, case):
    kind, option = case
    history = rich_history(seed)
    fitted = make_reward(kind, spec_of(option)).fit(history)
    whole = fitted.transform(history)
    mine = np.random.default_rng(seed).random(history.n_users) < 0.3
    for chosen in (mine, ~mine):
        part = history.select_users(chosen)
        assert_same(fitted.transform(part), whole, chosen[history.decisions.user])


def with_another_future(history: History, cut: int, seed: int) -> History:
    """The same until `cut`; later events have other values and new ones come."""
    rng = np.random.default_rng([seed, 1])
    e = history.events
    new = rng.integers(0, len(e), 200)
    value = np.where(e.time > cut, e.value * 3 + 1, e.value)
    events = replace(
        e,
        user=np.concatenate([e.user, e.user[new]]),
        time=np.concatenate([e.time, rng.integers(cut + 1, history.span[1], 200)]),
        event=np.concatenate([e.event, e.event[new]]),
        value=np.concatenate([value, np.full(200, 7.5)]),
    )
    return rebuilt(history, history.decisions, events)


@EXAMPLES
@given(seed=SEEDS, case=st.sampled_from(CASES), share=st.floats(0.3, 0.9))
def test_the_future_never_changes_a_closed_reward(seed, case, share):
    """Neither events nor messages after a cut change the rewards that were available at it, given the fitted model."""
    kind, option = case
    history = rich_history(seed)
    cut = int(np.quantile(history.decisions.time, share))
    fitted = make_reward(kind, spec_of(option)).fit(history)
    before = fitted.transform(history)
    changed = with_another_future(history, cut, seed)
    d = changed.decisions
    actions = np.where((d.time > cut)[:, None], 1 - np.minimum(d.actions, 1), d.actions)
    after = fitted.transform(replace(changed, decisions=replace(d, actions=history.modules.canonical(actions))))
    closed = before.available_at <= cut
    np.testing.assert_array_equal(before.reward[closed], after.reward[closed])
    np.testing.assert_array_equal(before.reason[closed], after.reason[closed])


@EXAMPLES
@given(seed=SEEDS, case=st.sampled_from(CASES), share=st.floats(0.3, 1.0))
def test_a_future_event_never_changes_a_closed_reward_after_another_fit(seed, case, share):
    """Also where the model is fitted again: a reward is available only when all that it was learned from has closed."""
    history = rich_history(seed)
    cut = int(np.quantile(history.decisions.time, share))
    before = frame_of(history, *case)
    after = frame_of(with_another_future(history, cut, seed), *case)
    closed = (before.available_at <= cut) & before.identified
    np.testing.assert_array_equal(before.reward[closed], after.reward[closed])


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_what_rests_on_the_whole_log_is_available_when_it_has_closed(case):
    """Adjusted kinds, strata and learned limits wait for the last window; `did` within fixed cells does not."""
    kind, option = case
    history = rich_history(3)
    frame = frame_of(history, kind, option)
    outcomes = make_reward(kind, spec_of(option)).measure(history)
    last = outcomes.available_at[outcomes.observed].max()
    found = frame.available_at[frame.identified]
    if kind.startswith("did_") or option in LEARNED:
        assert (found == last).all()
    else:
        assert (found < last).mean() > 0.5


@EXAMPLES
@given(seed=SEEDS, share=st.floats(0.1, 0.9))
def test_a_future_event_never_changes_an_earlier_context(seed, share):
    history = rich_history(seed)
    cut = int(np.quantile(history.decisions.time, share))
    features = ContextFeatures.fit(history, ContextSpec())
    early = history.decisions.time <= cut
    before = features.transform(history)
    np.testing.assert_array_equal(before[early], features.transform(with_another_future(history, cut, seed))[early])


def test_the_future_does_change_what_is_not_closed():
    """The properties above could not fail if nothing ever changed."""
    history = rich_history(3)
    cut = int(np.median(history.decisions.time))
    for option in OPTIONS:
        before, after = (frame_of(h, "did", option) for h in (history, with_another_future(history, cut, 3)))
        open_ = before.available_at > cut
        assert not np.array_equal(before.reward[open_], after.reward[open_], equal_nan=True), option

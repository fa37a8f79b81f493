"""Rewards with components over buckets are those of the whole history, however it is divided."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import reduce

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.buckets import leaf_of
from crosschannel.histories.history import History
from crosschannel.reward import DidReward, FunnelSpec, Goal, Matching, RewardFrame, RewardSpec
from crosschannel.reward.buckets.passes import check_kind, fit_rewards, goals_to_measure
from crosschannel.reward.measurement.amounts import largest_amounts

pytestmark = pytest.mark.numerics

GOALS = (Goal("order:*"), Goal("visit:*", 0.1), Goal("unsubscribed", -3.0))
FUNNEL = FunnelSpec(
    engagement={"email": "opened:email", "push": "opened:push", "sms": "opened:sms", "in_app": "opened:in_app"},
    costs=("unsubscribed",),
    surrogates={"order:*": ("visit:food", "visit:rides")},
)
SPEC = RewardSpec(goals=GOALS, pre="2d", post="1d", overlap="exclude", min_controls=5, funnel=FUNNEL)
HISTORY, _ = simulate_history(Market(MarketConfig(users=500, days=10, goals=GOALS)))
WHOLE = ("reward", "se", "reason", "level", "n_controls", "available_at")
PARTS = ("engaged", "cost", "engaged_reason", "cost_reason", "value_reason")


def divided(n: int) -> list[History]:
    bucket = leaf_of(HISTORY.user_ids) % n
    return [HISTORY.select_users(bucket == b) for b in range(n)]


def over_buckets(parts: list[History], spec: RewardSpec, sample: History = HISTORY) -> dict[str, np.ndarray]:
    """Columns of rewards and components in the order of the decisions' keys."""
    largest = reduce(np.maximum, [largest_amounts(goals_to_measure(spec), part) for part in parts])
    fitted = fit_rewards(sample, spec, largest, lambda function, what: map(function, parts))
    frames = [fitted.transform(part) for part in parts]
    order = np.argsort(np.concatenate([part.decisions.key for part in parts]))
    return {name: np.concatenate([columns(frame)[name] for frame in frames])[order] for name in columns(frames[0])}


def columns(frame: RewardFrame) -> dict[str, np.ndarray]:
    found = {name: getattr(frame, name) for name in WHOLE}
    if frame.components is not None:
        found |= {name: getattr(frame.components, name) for name in (*PARTS, "value")}
    return found


def whole(spec: RewardSpec) -> dict[str, np.ndarray]:
    order = np.argsort(HISTORY.decisions.key)
    return {name: column[order] for name, column in columns(DidReward(spec).fit_transform(HISTORY)).items()}


@pytest.mark.parametrize("n", [1, 4, 16])
def test_they_are_those_of_the_whole_history(n: int) -> None:
    found, wanted = over_buckets(divided(n), SPEC), whole(SPEC)
    assert found.keys() == wanted.keys()
    assert np.isfinite(wanted["value"]).sum() > 1_000
    for name in (*WHOLE, *PARTS):
        assert found[name].tobytes() == wanted[name].tobytes(), name
    # Prices are sums in another unit, which rounds them to 2^-36 or better.
    np.testing.assert_allclose(found["value"], wanted["value"], rtol=1e-9, atol=1e-9)


def test_the_number_of_buckets_changes_no_bit() -> None:
    few, many = over_buckets(divided(2), SPEC), over_buckets(divided(32), SPEC)
    for name in few:
        assert few[name].tobytes() == many[name].tobytes(), name


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, funnel=replace(FUNNEL, surrogates={})),
        replace(SPEC, funnel=None),
        replace(SPEC, matching=Matching(within=("platform",))),
        replace(SPEC, goals=(replace(GOALS[0], winsor=0.9), *GOALS[1:]), matching=Matching(strata=3, activity="5d")),
        replace(SPEC, overlap="shared", funnel=replace(FUNNEL, engagement="opened:email")),
        replace(SPEC, post="3d"),
    ],
    ids=["no surrogates", "no funnel", "within", "winsor and strata", "one event", "later messages"],
)
def test_other_rewards(spec: RewardSpec) -> None:
    """What is learned from amounts comes from a sample, which is here the whole history."""
    found, wanted = over_buckets(divided(4), spec), whole(spec)
    for name in wanted:
        if name == "value":
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, atol=1e-9)
        else:
            assert found[name].tobytes() == wanted[name].tobytes(), name


def test_a_channel_that_tells_engagement_in_another_bucket_tells_it_here() -> None:
    """A bucket in which nobody has opened an SMS has messages with engagement 0, not unknown."""
    opened = HISTORY.events.event == HISTORY.event_names.index("opened:sms")
    users = np.zeros(HISTORY.n_users, dtype=bool)
    users[HISTORY.events.user[opened]] = True
    parts = [HISTORY.select_users(users), HISTORY.select_users(~users)]
    found, wanted = over_buckets(parts, SPEC), whole(SPEC)
    assert found["engaged"].tobytes() == wanted["engaged"].tobytes()
    alone = DidReward(SPEC).fit_transform(parts[1]).components
    assert alone is not None
    sms = parts[1].decisions.actions[:, 0] == HISTORY.modules[0].actions.index("sms")
    assert np.isnan(alone.engaged[sms]).all()


def test_a_sample_without_the_largest_amount_keeps_rewards() -> None:
    """Scales come from all users: the sample decides about limits alone, and without limits about nothing."""
    sample = HISTORY.select_users(np.arange(HISTORY.n_users) < 60)
    found, wanted = over_buckets(divided(4), SPEC, sample), whole(SPEC)
    for name in WHOLE:
        assert found[name].tobytes() == wanted[name].tobytes(), name


def test_other_kinds_are_refused() -> None:
    check_kind("did")
    with pytest.raises(ConfigError, match=r"reward.kind is 'did_dr', but rewards over buckets are of the kind 'did'"):
        check_kind("did_dr")


def test_all_columns_are_compared() -> None:
    """Whoever adds a column to the frame decides here whether buckets have it."""
    left_out = {"pre", "post", "counterfactual", "overlap", "p_uncensored", "components"}
    assert {f.name for f in fields(RewardFrame)} == {*WHOLE, *left_out}

"""Arms: permanent by user, in the declared shares, equal within a cluster, and steady where shares change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories import ARMS, Arms, assign_arms, held_out
from tests.samples import MODULES, random_history

IDS = np.array([f"user {k}" for k in range(20_000)], dtype=object)


def test_shares_are_those_declared_and_salts_are_independent():
    arms = Arms(0.1, 0.2)
    found = assign_arms(IDS, arms)
    assert set(found) == set(ARMS)
    for arm, share in (("holdout", 0.1), ("business_as_usual", 0.2), ("agent", 0.7)):
        # Five standard deviations of a binomial share.
        assert abs((found == arm).mean() - share) < 5 * np.sqrt(share * (1 - share) / len(IDS)), arm
    other = assign_arms(IDS, replace(arms, salt="next trial"))
    both = ((found == "holdout") & (other == "holdout")).mean()
    assert abs(both - 0.01) < 5 * np.sqrt(0.01 * 0.99 / len(IDS))
    assert (assign_arms(IDS, Arms()) == "agent").all()


def test_an_arm_depends_on_the_id_alone():
    arms = Arms(0.1, 0.2)
    found = assign_arms(IDS, arms)
    assert (assign_arms(IDS[::-1], arms) == found[::-1]).all()
    assert (assign_arms(IDS[5:9], arms) == found[5:9]).all()
    whole = np.arange(500)
    assert (assign_arms(whole, arms) == assign_arms(whole.astype(str).astype(object), arms)).all()


def test_the_assignment_is_the_same_in_every_version():
    """Arms last for years: a change of this list would move users of a running trial."""
    found = assign_arms(np.array(["ann", "bob", "17", "u042", "zoë"], dtype=object), Arms(0.3, 0.3))
    assert found.tolist() == ["business_as_usual", "agent", "holdout", "holdout", "agent"]


@pytest.mark.parametrize(
    ("larger", "arm"), [(Arms(0.2, 0.2), "holdout"), (Arms(0.1, 0.5), "business_as_usual"), (Arms(0.15, 0.3), "either")]
)
def test_a_larger_share_takes_users_from_the_agent_alone(larger, arm):
    before, after = assign_arms(IDS, Arms(0.1, 0.2)), assign_arms(IDS, larger)
    moved = before != after
    assert moved.any()
    assert (before[moved] == "agent").all()
    assert arm == "either" or (after[moved] == arm).all()


def test_users_of_a_cluster_share_an_arm():
    household = pd.Series(np.arange(len(IDS)) // 4, dtype=float)
    household[::10] = np.nan
    arms = Arms(0.3, 0.3, cluster="household")
    users = pd.DataFrame({"user_id": IDS, "household": household})
    found = pd.Series(assign_arms(IDS, arms, users))
    named = household.notna()
    assert (found[named].groupby(household[named]).nunique() == 1).all()
    alone = found[~named]
    assert {*alone} == {*ARMS}
    # A value that is missing makes a column of whole numbers one of floats; arms stay.
    whole = users.assign(household=household.fillna(7).astype(int))
    assert (assign_arms(IDS, arms, whole)[named] == found[named]).all()
    with pytest.raises(ConfigError, match="the users have no attribute 'household'"):
        assign_arms(IDS, arms)
    with pytest.raises(ConfigError, match="Did you mean 'household'"):
        assign_arms(IDS, replace(arms, cluster="houshold"), users)


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, 1.0), (0.5, 0.5), (float("nan"), 0.0)])
def test_shares_that_leave_nobody_to_the_agent_are_refused(shares):
    with pytest.raises(ConfigError, match=r"arm|agent"):
        Arms(*shares)


@pytest.mark.parametrize("with_eligibility", [True, False])
def test_rows_of_the_holdout_are_those_at_which_nothing_could_be_sent(with_eligibility):
    history = random_history(0)
    d = history.decisions
    n, sent = len(d), history.modules.sends(d.actions)
    arm = np.where(d.user % 2 == 0, "holdout", "agent").astype(object)
    assert not held_out(d, MODULES).any()
    certain = (d.time > np.median(d.time)) & (arm == "holdout") & ~sent
    eligible = np.ones((n, MODULES.total), dtype=bool)
    eligible[certain, 1:3] = False
    joint = np.where(certain, 1.0, 0.5)
    d = replace(d, arm=arm, joint=joint, eligible=eligible if with_eligibility else None)
    assert (held_out(d, MODULES) == certain).all()
    assert certain.any()
    waits = np.where(certain, "0123456789ab (waiting)", "0123456789ab").astype(object)
    assert (held_out(replace(d, arm=None, policy=waits), MODULES) == certain).all()
    sent_anyway = replace(d, arm=None, policy=np.full(n, "0123456789ab (waiting)", dtype=object))
    assert (held_out(sent_anyway, MODULES) == certain).all()

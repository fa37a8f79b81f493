"""Explanations say what the policy does and what it believes, counted again here row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.agents import (
    AGENTS,
    ALL_DECISIONS,
    Agent,
    Observations,
    as_markdown,
    as_scalars,
    as_text,
    make_agent,
    policy_table,
)
from crosschannel.agents.explain import COLUMNS
from crosschannel.core.action_space import ActionSpace
from tests.agents.samples import NESTED, SETTINGS, TABLES, everything, observations_of, random_batch

pytestmark = pytest.mark.numerics

KINDS = {"nested": NESTED, "tables": TABLES}


def trained(name: str, modules: ActionSpace) -> Agent:
    agent = make_agent(name, modules, 4, SETTINGS.get(name), seed=5)
    agent.observe(random_batch(400, modules))
    agent.update(3)
    return agent


def seen(modules: ActionSpace, n: int = 60) -> Observations:
    return observations_of(np.random.default_rng(1).random((n, modules.total)) < 0.7)


def cell(table: pd.DataFrame, segment: str, module: str, action: str, given: str = "any") -> pd.Series:
    rows = table[(table["segment"] == segment) & (table["module"] == module) & (table["action"] == action)]
    rows = rows[rows["given"] == given]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["linear_thompson", "beta_thompson", "bootstrapped_q"])
def test_shares_and_rewards_are_means_over_the_segment(name: str, kind: str) -> None:
    modules = KINDS[kind]
    agent, observations = trained(name, modules), seen(modules)
    segments = np.array(["young", "old"])[np.arange(60) % 2]
    table = policy_table(agent, observations, segments)
    known = agent.action_probabilities(observations)
    pd.testing.assert_frame_equal(policy_table(agent, observations, segments, known), table)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["segment"].unique()) == [ALL_DECISIONS, "old", "young"]
    joint = modules.all_joint_probabilities(agent.action_probabilities(observations))
    estimates = agent.expected_rewards(observations)  # type: ignore[attr-defined]
    mask = modules.feasible_mask(observations.action_mask)
    old = segments == "old"
    sent = modules.joint_actions[:, 0] != 0
    for m, module in enumerate(modules):
        for code, action in enumerate(module.actions):
            row = cell(table, "old", module.name, action)
            these = (modules.joint_actions[:, m] == code) & (sent | (m == 0))
            asked = joint[old].sum() if m == 0 else joint[old][:, sent].sum()
            assert row["decisions"] == 30
            assert row["share"] == pytest.approx(joint[old][:, these].sum() / asked)
            eligible = old & mask[:, modules.slices[m].start + code]
            c = modules.condition(m)
            if c is None:
                each = estimates[m][:, eligible, code]
            else:
                upper = modules.marginals(agent.action_probabilities(observations))[c].copy()
                if c == 0:
                    upper[:, 0] = 0.0
                upper /= np.maximum(upper.sum(1, keepdims=True), 1e-300)
                each = np.einsum("nc,knc->kn", upper, estimates[m][..., code])[:, eligible]
            assert row["reward"] == pytest.approx(each.mean(), abs=1e-9)
            spread = each.mean(1).std(ddof=1)
            assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * spread, abs=1e-9)


@pytest.mark.parametrize("name", ["linear_thompson", "ensemble_thompson"])
def test_a_module_that_is_given_an_earlier_choice_has_rows_for_each(name: str) -> None:
    agent, observations = trained(name, TABLES), seen(TABLES)
    old = np.arange(60) % 2 == 1
    table = policy_table(agent, observations, np.where(old, "old", "young"))
    known, mask = agent.action_probabilities(observations), TABLES.split(TABLES.feasible_mask(observations.action_mask))
    marginals, estimates = TABLES.marginals(known), agent.expected_rewards(observations)  # type: ignore[attr-defined]
    found = 0
    for m, module in enumerate(TABLES):
        c = TABLES.condition(m)
        if c is None:
            assert set(table.loc[table["module"] == module.name, "given"]) == {"any"}
            continue
        for choice, given in enumerate(TABLES[c].actions):
            if c == 0 and choice == 0:
                assert not ((table["module"] == module.name) & (table["given"] == given)).any()
                continue
            asked = marginals[c][old, choice]
            for code, action in enumerate(module.actions):
                row = cell(table, "old", module.name, action, given)
                share = (asked * known[m][old, choice, code]).sum() / asked.sum()
                assert row["share"] == pytest.approx(share)
                both = old & mask[m][:, code] & mask[c][:, choice]
                each = estimates[m][:, both, choice, code].astype(float)
                assert row["reward"] == pytest.approx(each.mean(), abs=1e-6)
                spread = each.mean(1).std(ddof=1)
                assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * spread, abs=1e-6)
                found += 1
    assert found
    assert "given " in as_text(table)
    assert not any("given" in tag for tag in as_scalars(table))


def test_a_choice_that_is_called_any_is_not_taken_for_the_policys_own() -> None:
    modules = ActionSpace.from_mapping(
        [{"name": "channel", "actions": ["none", "any", "push"]}, {"name": "offer", "actions": ["a", "b"]}]
    )
    table = policy_table(trained("linear_thompson", modules), seen(modules))
    offers = table[table["module"] == "offer"]
    assert list(dict.fromkeys(offers["given"])) == ["any", "channel any", "push"]
    assert not offers.duplicated(["given", "action"]).any()


def test_the_top_vote_share_is_that_of_the_best_action() -> None:
    """Where nothing is known votes are spread, after many rows with one good channel they agree."""
    observations = observations_of(everything(80, TABLES))
    new = make_agent("linear_thompson", TABLES, 4, {"draws": 200})
    before = cell(policy_table(new, observations), ALL_DECISIONS, "channel", "push")
    assert before["top_vote_share"] < 0.7
    assert before["entropy"] > 0.7
    batch = random_batch(4000, TABLES)
    rewards = (batch.actions[:, 0] == 2) * 2.0 + 0.1 * batch.rewards
    new.observe(replace(batch, rewards=rewards))
    new.update(1)
    after = cell(policy_table(new, observations), ALL_DECISIONS, "channel", "push")
    assert after["top_vote_share"] > 0.99
    assert after["entropy"] < 0.05
    assert after["low"] > 1.5
    assert after["share"] > 0.95


@pytest.mark.parametrize("name", list(AGENTS))
def test_every_agent_can_be_explained_in_words(name: str) -> None:
    agent = trained(name, NESTED)
    table = policy_table(agent, seen(NESTED))
    text = as_text(table)
    assert "all decisions (60), channel" in text
    assert len(as_markdown(table).splitlines()) == 2 + len(table)
    scalars = as_scalars(table)
    has_estimates = hasattr(agent, "expected_rewards")
    assert ("explain/reward/channel/push" in scalars) == has_estimates
    assert ("policy/top_vote_share/channel" in scalars) == has_estimates
    assert all(np.isfinite(list(scalars.values())))
    assert table["share"].between(0, 1 + 1e-12).all() or name == "no_send"


def test_a_segment_that_never_asks_a_module_has_no_numbers_for_it() -> None:
    table = policy_table(make_agent("no_send", NESTED, 4), seen(NESTED))
    assert table.loc[table["module"] == "offer", "share"].isna().all()
    assert cell(table, ALL_DECISIONS, "channel", "none")["share"] == 1.0
    assert "never" in as_text(table)

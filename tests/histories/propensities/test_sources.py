"""Propensities of several sources in one log: read, written, estimated where they are missing, and labelled by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.evaluation import LoggedDecisions, evaluate, from_dict, text_table, to_dict
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.propensities.sources import ESTIMATED, LOGGED, MISSING, source_codes
from crosschannel.histories.readers.folder import read_history, write_history
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import Config, HistoryConfig, RewardConfig
from crosschannel.reward import Goal
from tests.samples import MODULES, random_history

OLD, NEW = 0.2, 0.7
SPEC = ContextSpec(windows=("3d",))


def two_policies(seed: int = 0, users: int = 200) -> tuple[History, np.ndarray]:
    """A log of two policies that send at random with other probabilities; only the second, on the last days, logs them.

    Returns the history, and which decisions are the second policy's (n,).
    """
    history = random_history(seed, users=users)
    d = history.decisions
    rng = np.random.default_rng(seed + 1)
    new = d.time > np.median(d.time)
    chance = np.where(new, NEW, OLD)
    sent = rng.random(len(d)) < chance
    actions = np.stack([np.where(sent, rng.integers(1, 3, len(d)), 0), rng.integers(0, 2, len(d)) * sent], axis=1)
    propensity = np.stack([np.where(sent, chance / 2, 1 - chance), np.where(sent, 0.5, 1.0)], axis=1)
    propensity[~new] = np.nan
    later = 19_000 * DAY
    history = replace(
        history,
        decisions=replace(d, actions=actions, time=d.time + later),
        events=replace(history.events, time=history.events.time + later),
        span=(history.span[0] + later, history.span[1] + later),
        observed_from=history.observed_from + later,
        observed_until=history.observed_until + later,
    )
    return history.with_propensities(propensity, propensity.prod(1), "logged"), new


def tables(history: History) -> tuple[pd.DataFrame, pd.DataFrame]:
    return history.decisions_frame(), history.events_frame()


def read(decisions: pd.DataFrame, events: pd.DataFrame, **options) -> History:
    return History.from_tables(decisions, events, MODULES, **options)


def test_each_row_has_its_own_source_and_the_history_counts_them():
    history, new = two_policies()
    assert history.propensity_source == "mixed"
    np.testing.assert_array_equal(history.decisions.propensity_source, np.where(new, LOGGED, MISSING))
    assert f"propensities logged for {new.sum():,} decisions, missing for {(~new).sum():,}" in history.summary()


def test_a_partly_filled_column_is_read_as_it_is():
    history, new = two_policies()
    decisions, events = tables(history)
    assert decisions["propensity_channel"].isna().to_numpy().tolist() == (~new).tolist()
    again = read(decisions, events)
    np.testing.assert_array_equal(again.decisions.propensity, history.decisions.propensity)
    np.testing.assert_array_equal(again.decisions.joint, history.decisions.joint)
    np.testing.assert_array_equal(again.decisions.propensity_source, history.decisions.propensity_source)
    joint_only = read(decisions.drop(columns=["propensity_channel", "propensity_offer"]), events)
    np.testing.assert_array_equal(joint_only.decisions.propensity_source, history.decisions.propensity_source)
    modules_only = read(decisions.drop(columns="propensity"), events)
    np.testing.assert_array_equal(modules_only.decisions.joint, history.decisions.joint)


def test_a_row_with_the_propensities_of_some_modules_is_a_fault():
    decisions, events = tables(two_policies()[0])
    row = int(np.flatnonzero(decisions["propensity_channel"].notna() & (decisions["channel"] != "none"))[0])
    decisions.loc[row, ["propensity_offer", "propensity"]] = None
    with pytest.raises(
        InputError, match=rf"'propensity_offer', row {row + 1}, value nan: the propensity is missing, although"
    ):
        read(decisions, events)


def test_a_later_modules_gap_where_nothing_is_sent_is_none():
    decisions, events = tables(two_policies()[0])
    unsent = decisions["channel"] == "none"
    decisions.loc[unsent, "propensity_offer"] = None
    logged = decisions["propensity_channel"].notna().to_numpy()
    np.testing.assert_array_equal(np.isnan(read(decisions, events).decisions.propensity[:, 1]), ~logged)


def test_the_sources_of_rows_survive_writing_and_change_the_fingerprint(tmp_path):
    history, _ = two_policies()
    estimated, _ = estimate_propensities(history, SPEC, only_missing=True)
    for log in (history, estimated, history.with_propensities(*known(history), "by design")):
        write_history(log, tmp_path)
        again = read_history(tmp_path)
        np.testing.assert_array_equal(again.decisions.propensity_source, log.decisions.propensity_source)
        assert again.propensity_source == log.propensity_source
        assert again.fingerprint() == log.fingerprint()
    d = estimated.decisions
    relabelled = estimated.with_propensities(d.propensity, d.joint, "logged")
    assert relabelled.fingerprint() != estimated.fingerprint()


def known(history: History) -> tuple[np.ndarray, np.ndarray]:
    d = history.decisions
    sent = history.modules.sends(d.actions)
    old = np.stack([np.where(sent, OLD / 2, 1 - OLD), np.where(sent, 0.5, 1.0)], axis=1)
    propensity = np.where(np.isnan(d.propensity), old, d.propensity)
    return propensity, propensity.prod(1)


def test_a_tables_own_sources_precede_that_of_the_whole_log():
    history, new = two_policies()
    decisions, events = tables(history)
    names = np.where(new, "estimated", "missing").astype(object)
    names[np.flatnonzero(new)[:3]] = None
    log = read(decisions.assign(source_of_propensity=names), events, propensity_source="by design")
    assert log.decisions.propensity_source[new].tolist() == [1] * 3 + [2] * int(new.sum() - 3)


def test_propensities_that_are_declared_missing_are_not_used():
    decisions, events = tables(two_policies()[0])
    log = read(decisions, events, propensity_source="missing")
    assert log.propensity_source == "missing"
    assert np.isnan(log.decisions.propensity).all()
    assert np.isnan(log.decisions.joint).all()


@pytest.mark.parametrize(
    ("logged", "source", "message"),
    [
        (True, "loged", "this is not a source of propensities. Did you mean 'logged'?"),
        (True, "missing", "the row has a propensity, although its source is 'missing'"),
        (False, "estimated", "the row has no propensity"),
    ],
)
def test_a_source_that_contradicts_its_row_is_a_fault(logged, source, message):
    history, new = two_policies()
    decisions, events = tables(history)
    row = int(np.flatnonzero(new == logged)[0])
    names = np.full(len(decisions), None, dtype=object)
    names[row] = source
    with pytest.raises(InputError) as caught:
        read(decisions.assign(source_of_propensity=names), events)
    assert f"column 'source_of_propensity', row {row + 1}, value {source!r}: {message}" in str(caught.value)


def test_a_source_for_all_rows_must_fit_them():
    history, _ = two_policies()
    d = history.decisions
    with pytest.raises(ConfigError, match="but its source is 'missing'"):
        history.with_propensities(d.propensity, d.joint, "missing")
    with pytest.raises(ConfigError, match="Did you mean 'logged'"):
        source_codes(d.propensity, d.joint, "loged")


def test_only_missing_propensities_are_estimated_from_the_rows_that_lack_them():
    """The second policy sends 3.5 times as often: estimates that used its rows would be far off (seeds 0 to 2)."""
    for seed in range(3):
        history, new = two_policies(seed, users=400)
        estimated, report = estimate_propensities(history, SPEC, only_missing=True)
        d, e = history.decisions, estimated.decisions
        np.testing.assert_array_equal(e.propensity[new], d.propensity[new])
        np.testing.assert_array_equal(e.joint[new], d.joint[new])
        np.testing.assert_array_equal(e.propensity_source, np.where(new, LOGGED, ESTIMATED))
        assert report.rows == (~new).sum()
        sent = history.modules.sends(d.actions)
        assert abs(e.propensity[~new & ~sent, 0].mean() - (1 - OLD)) < 0.03
        assert abs(e.propensity[~new & sent, 0].mean() - OLD / 2) < 0.03
        # The rows with propensities say nothing about those without: other actions there, the same estimates.
        swapped = np.where(new[:, None] & (d.actions[:, :1] > 0), 3 - d.actions[:, :1], d.actions[:, :1])
        other = replace(history, decisions=replace(d, actions=np.concatenate([swapped, d.actions[:, 1:]], axis=1)))
        again, _ = estimate_propensities(other, SPEC, only_missing=True)
        np.testing.assert_allclose(again.decisions.joint[~new], e.joint[~new], rtol=0.2)
    with pytest.raises(ConfigError, match="none to estimate"):
        estimate_propensities(estimated, SPEC, only_missing=True)


def config(path) -> Config:
    return Config(
        history=HistoryConfig(source="folder", path=path),
        context=SPEC,
        reward=RewardConfig(goals=(Goal("order"),), pre="1d", post="1d", min_controls=2),
    )


def test_a_run_estimates_what_is_missing_and_keeps_the_rest(tmp_path):
    history, new = two_policies()
    write_history(history, tmp_path)
    built = prepare(config(tmp_path)).history
    np.testing.assert_array_equal(built.decisions.propensity[new], history.decisions.propensity[new])
    assert (built.decisions.propensity_source == np.where(new, LOGGED, ESTIMATED)).all()
    summary = built.summary()
    assert f"propensities logged for {new.sum():,} decisions, estimated for {(~new).sum():,}" in summary
    assert f"propensities of {(~new).sum():,} decisions were not logged and are estimated" in summary


def test_propensities_of_a_few_rows_that_cannot_be_estimated_remain_missing_and_are_named(tmp_path):
    history, _ = two_policies()
    propensity, joint = known(history)
    propensity[:3], joint[:3] = np.nan, np.nan
    write_history(history.with_propensities(propensity, joint, "logged"), tmp_path)
    built = prepare(config(tmp_path)).history
    assert (built.decisions.propensity_source[:3] == MISSING).all()
    assert "propensities of 3 decisions were not logged and remain missing" in built.summary()


def judged(log: History):
    n = len(log.decisions)
    rewards = np.random.default_rng(0).normal(size=n)
    share = [np.full((n, 3), 1 / 3), np.full((n, 2), 0.5)]
    return evaluate(LoggedDecisions.from_history(log), share, rewards, rng=np.random.default_rng(0))


def test_an_evaluation_counts_the_sources_that_its_values_rest_on():
    history, new = two_policies()
    estimated, _ = estimate_propensities(history, SPEC, only_missing=True)
    result = judged(estimated)
    counts = {"logged": int(new.sum()), "estimated": int((~new).sum())}
    assert result.propensity_counts == counts
    assert result.get("snips").identified
    text = text_table(result)
    assert f"propensities logged for {counts['logged']:,} decisions, estimated for {counts['estimated']:,}" in text
    assert f"estimated propensities for {counts['estimated']:,} of {len(new):,} decisions" in text
    assert from_dict(to_dict(result)).propensity_counts == counts


def test_a_row_without_a_propensity_identifies_no_weighted_value():
    history, new = two_policies()
    result = judged(history)
    for estimate in result.estimates:
        assert not estimate.identified
    assert result.get("snips").reason == f"the log has no propensity for {(~new).sum():,} decisions"
    assert f"propensities logged for {new.sum():,} decisions, missing for {(~new).sum():,}" in text_table(result)

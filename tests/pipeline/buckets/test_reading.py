"""What one reading of buckets keeps and counts does not depend on how the log is divided."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.histories.buckets import leaf_of
from crosschannel.histories.history import History
from crosschannel.histories.logs import NO_MESSAGE, take_rows
from crosschannel.histories.splits import split_users
from crosschannel.pipeline.buckets.columns import read_columns, write_columns
from crosschannel.pipeline.buckets.facts import Facts, add_facts
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import read_log
from crosschannel.pipeline.buckets.sampling import data_of_sample, sample_notes
from crosschannel.pipeline.building import measure_pace
from tests.pipeline.buckets.samples import configuration, market_log, write_log

HISTORY = market_log()


def assert_same(found: History, wanted: History, left_out: tuple[str, ...] = ()) -> None:
    for table in ("decisions", "events"):
        for f in fields(getattr(wanted, table)):
            mine, other = (getattr(getattr(each, table), f.name) for each in (found, wanted))
            if f.name not in left_out:
                assert (mine is None) == (other is None), f.name
                assert other is None or np.array_equal(mine, other, equal_nan=other.dtype.kind == "f"), f.name
    assert found.fingerprint() == wanted.fingerprint() or left_out


def test_columns_are_read_as_they_were_written(tmp_path: Path) -> None:
    arms = np.where(HISTORY.decisions.user % 3 == 0, "holdout", "agent").astype(object)
    arms[:7] = None
    numbered = replace(
        HISTORY,
        decisions=replace(HISTORY.decisions, arm=arms, policy=np.full(len(arms), "a", dtype=object)),
        user_ids=np.arange(HISTORY.n_users),
        users=pd.DataFrame({"age": np.arange(HISTORY.n_users), "city": ["Ulm", None] * (HISTORY.n_users // 2)}),
        ties="before",
        notes=("a note",),
    )
    for k, history in enumerate((HISTORY, numbered, replace(HISTORY, users=None))):
        write_columns(history, tmp_path / f"{k}", decides=True)
        found = read_columns(tmp_path / f"{k}")
        assert_same(found, history)
        assert (found.notes, found.name, found.span) == (history.notes, history.name, history.span)
        write_columns(history, tmp_path / f"{k}-few", decides=False)
        few = read_columns(tmp_path / f"{k}-few")
        assert_same(few, history, left_out=("id", "eligible"))
        assert len(few.decisions.id) == len(few.decisions)
        assert few.decisions.eligible is None


def test_columns_that_are_not_complete_are_refused(tmp_path: Path) -> None:
    write_columns(HISTORY, tmp_path / "columns", decides=False)
    (tmp_path / "columns" / "events.time.npy").unlink()
    with pytest.raises(ConfigError, match="does not hold the columns of a history as they were written"):
        read_columns(tmp_path / "columns")


def facts_of(n: int, history: History = HISTORY) -> Facts:
    config = configuration()
    bucket = leaf_of(history.user_ids) % n
    parts = [history.select_users(bucket == b) for b in range(n)]
    part = [split_users(each.user_keys, config.split.shares, config.seed) for each in parts]
    pairs = zip(parts, part, strict=True)
    return add_facts([Facts.of_bucket(each, each.select_users(p == "train"), config.reward) for each, p in pairs])


def test_facts_add_up() -> None:
    one = facts_of(1)
    assert one == facts_of(4) == facts_of(16)
    assert one == Facts.from_dict(one.to_dict())
    assert one.users == HISTORY.n_users
    assert one.decisions == len(HISTORY.decisions)
    assert one.sent == HISTORY.modules.sends(HISTORY.decisions.actions).sum()


def with_messages(rng: np.random.Generator) -> History:
    """The same log, in which some events name the first decision of their user."""
    d, e = HISTORY.decisions, HISTORY.events
    first = np.searchsorted(d.user, e.user)
    named = (rng.random(len(e)) < 0.01) & (d.user[np.minimum(first, len(d) - 1)] == e.user)
    return replace(HISTORY, events=replace(e, message=np.where(named, first, NO_MESSAGE)))


@pytest.mark.parametrize(
    "what", ["time", "value", "event", "message", "action", "propensity", "user", "attribute", "row"]
)
def test_every_change_of_a_log_changes_its_fingerprint(what: str) -> None:
    d, e, users = HISTORY.decisions, HISTORY.events, HISTORY.users
    assert users is not None

    def changed(column: np.ndarray, value: object) -> np.ndarray:
        out = column.copy()
        out[11] = value
        return out

    if what == "row":
        history = replace(HISTORY, events=take_rows(e, np.arange(len(e)) != 11))
    elif what == "attribute":
        history = replace(
            HISTORY,
            users=users.assign(**{users.columns[-1]: changed(users.iloc[:, -1].to_numpy(), users.iloc[11, -1] + 1)}),
        )
    elif what == "user":
        history = replace(HISTORY, user_ids=changed(HISTORY.user_ids, "somebody"))
    elif what in ("time", "value", "event"):
        value = {"time": e.time[11] + 1, "value": 7.5, "event": (e.event[11] + 1) % len(HISTORY.event_names)}[what]
        history = replace(HISTORY, events=replace(e, **{what: changed(getattr(e, what), value)}))
    elif what == "message":
        history = with_messages(np.random.default_rng(0))
        assert facts_of(1, history) == facts_of(4, history)
    elif what == "action":
        history = replace(HISTORY, decisions=replace(d, actions=changed(d.actions, (d.actions[11] + 1) % 2)))
    else:
        history = replace(HISTORY, decisions=replace(d, joint=changed(d.joint, 0.123)))
    plain, other = facts_of(2), facts_of(2, history)
    assert plain.fingerprint(HISTORY) != other.fingerprint(history)


@pytest.mark.parametrize("most", [40, 10_000])
def test_the_sample_is_the_same_for_every_division(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    found = []
    for n in (1, 8):
        monkeypatch.chdir(write_log(HISTORY, tmp_path / f"{n}", n))
        config = configuration(**{"evaluation.max_users": most})
        log = read_log(config, Path("scratch"), Passes(shows=False), learns=False)
        data = data_of_sample(config, log)
        notes = sample_notes(config, log, data)
        found.append((log.sample.fingerprint(), log.fingerprint, data.features.state_dict(), data.pace))
        sizes = {name: int((data.part == name).sum()) for name in ("train", "validation", "test")}
        assert sizes["test"] <= most
        assert sizes["train"] <= most // 2
        assert sizes["test"] == most or not notes
        assert bool(notes) == (most == 40)
    assert found[0] == found[1]


def test_rates_are_those_of_all_training_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_log(HISTORY, tmp_path, 4))
    config = configuration(**{"evaluation.max_users": 40})
    log = read_log(config, Path("scratch"), Passes(shows=False), learns=False)
    data = data_of_sample(config, log)
    part = split_users(HISTORY.user_keys, config.split.shares, config.seed)
    wanted = measure_pace(config, HISTORY.select_users(part == "train"))
    assert data.pace.rates["unsubscribed"] == pytest.approx(wanted.rates["unsubscribed"], rel=1e-12)
    assert data.pace.period == wanted.period

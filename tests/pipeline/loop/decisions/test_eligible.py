"""What may be sent now does not come from what guardrails left of it on earlier days."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.times import DAY, HOUR
from crosschannel.histories import Arms, Guardrails, History, read_history, write_history
from crosschannel.histories.logs import take_rows
from crosschannel.pipeline.loop.deciding import decide_day
from crosschannel.pipeline.loop.decisions.day_users import DayRequest
from crosschannel.pipeline.loop.decisions.eligible import eligible_before_guardrails, own_decisions
from crosschannel.pipeline.loop.writing import write_day
from crosschannel.pipeline.run_folder import Run
from tests.pipeline.loop.samples import START, daily_log

FIRST = START + 10 * DAY + 6 * HOUR


def days_of(trained: Path, log: Path, out: Path, days: int, guardrails: Guardrails, given=None, arms=None):
    """Decide day after day, each time with what was decided before; return the decisions of each day."""
    run = Run.open_ended(trained)
    run = replace(run, config=replace(run.config, arms=arms or Arms()))
    tables = []
    for k in range(days):
        at = FIRST + k * DAY
        history = read_history(log, out if out.exists() else None)
        eligible = eligible_before_guardrails(history, at, out if out.exists() else None)[0]
        if given is not None and k == 0:
            eligible = given(history)
        day = decide_day(run, history, DayRequest(at, guardrails), eligible)
        write_day(out, day)
        tables.append(day.decisions.set_index("user_id"))
    return tables


def history_of_two(eligible: bool) -> History:
    """The log until the policy begins: u000 and its like could get push only, where the log says what was eligible."""
    history = daily_log(60)
    d = history.decisions
    history = replace(history, decisions=take_rows(d, d.time < FIRST))
    if not eligible:
        return history
    d = history.decisions
    mask = np.ones((len(d), history.modules.total), dtype=bool)
    mask[(d.user % 2 == 0) & (d.actions[:, 0] != 1), 1] = False
    return replace(history, decisions=replace(d, eligible=mask))


@pytest.mark.parametrize("log_says", [False, True])
def test_a_user_within_the_gap_is_eligible_again_after_it(trained, tmp_path, log_says):
    write_history(history_of_two(log_says), tmp_path / "log")
    tables = days_of(trained, tmp_path / "log", tmp_path / "out", 5, Guardrails(min_gap="36h"))
    sent = np.stack([(table.channel != "none").to_numpy() for table in tables])
    nothing = np.stack([(table.eligible_channel == "none").to_numpy() for table in tables])
    assert sent[0].any()
    # A message blocks the next day (24 h later), and not the one after (48 h).
    np.testing.assert_array_equal(nothing[1:], sent[:-1])
    again = sent[0] & sent[2:].any(0)
    assert again.sum() >= 5


def test_the_log_itself_says_what_was_eligible(trained, tmp_path):
    history = history_of_two(True)
    write_history(history, tmp_path / "log")
    tables = days_of(trained, tmp_path / "log", tmp_path / "out", 3, Guardrails())
    last = history.decisions.eligible[history.decision_offsets[1:] - 1]
    for table in tables:
        assert ((table.eligible_channel == "none|push") == ~last[:, 1]).all()


def test_what_a_file_gave_is_remembered_before_guardrails(trained, tmp_path):
    """The first day knows that some users have no email; later days have no file, and these users still have none."""
    write_history(history_of_two(False), tmp_path / "log")

    def given(history: History) -> np.ndarray:
        mask = np.ones((history.n_users, history.modules.total), dtype=bool)
        mask[::3, 1] = False
        return mask

    tables = days_of(trained, tmp_path / "log", tmp_path / "out", 4, Guardrails(min_gap="36h"), given, Arms(0.2, 0.1))
    for table in tables:
        third = np.array([int(user[1:]) % 3 == 0 for user in table.index])
        assert ((table.unguarded_channel == "none|push").to_numpy() == third).all()
        assert not (table.channel[third] == "email").any()


def test_new_users_may_be_sent_what_the_log_does_not_limit(trained, tmp_path):
    """They have no slot at all, and the policy's own limits on others say nothing about them."""
    history = daily_log(60)
    d, new = history.decisions, 55
    history = replace(history, decisions=take_rows(d, (d.time < FIRST) & (d.user < new)))
    write_history(history, tmp_path / "log")
    tables = days_of(trained, tmp_path / "log", tmp_path / "out", 3, Guardrails(min_gap="36h"))
    for before, table in zip([None, *tables], tables, strict=False):
        free = table.index >= "u055" if before is None else (before.channel == "none") & (before.index >= "u055")
        assert (table.eligible_channel[free] == "none|email|push").all()


def test_own_decisions_are_known_by_the_version_of_the_policy():
    d = daily_log(3).decisions
    assert not own_decisions(d).any()
    ours, others = ["0123456789ab", "0123456789ab (waiting)"], ["spring campaign", None, "0123456789abc"]
    policy = np.array([*ours, *others], dtype=object)[np.arange(len(d)) % 5]
    assert (own_decisions(replace(d, policy=policy)) == np.isin(policy.astype(str), ours)).all()


def test_without_the_folder_the_last_slots_of_others_count(trained, tmp_path):
    write_history(history_of_two(True), tmp_path / "log")
    days_of(trained, tmp_path / "log", tmp_path / "out", 2, Guardrails(min_gap="36h"))
    whole = read_history(tmp_path / "log", tmp_path / "out")
    mask, what = eligible_before_guardrails(whole, FIRST + 2 * DAY, None)
    expected, _ = eligible_before_guardrails(read_history(tmp_path / "log"), FIRST, None)
    np.testing.assert_array_equal(mask, expected)
    assert str(what) == "what was eligible at each user's last slot"
    assert isinstance(whole.decisions_frame(), pd.DataFrame)

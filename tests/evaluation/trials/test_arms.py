"""Who is in which arm: tables, folders by date, the users' column, decisions; and when users enter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.core.times import DAY
from crosschannel.evaluation.trials import ArmTable, TrialConfig, read_arms
from crosschannel.evaluation.trials.arms import levels, trial_users
from crosschannel.histories.readers.decided.days import ARMS_FILE, DECISIONS_FILE, SUMMARY_FILE
from tests.evaluation.trials.worlds import BEGIN, DAYS, START, trial_history

SETTINGS = TrialConfig(start="2024-01-15", days=DAYS)
END = START + DAYS * DAY


def names_of(users):
    return np.array(users.arms, dtype=object)[users.arm]


def test_a_table_as_csv_and_parquet(tmp_path):
    frame = pd.DataFrame({"user_id": ["u1", "u2", "u2"], "arm": ["agent", "holdout", "holdout"]})
    frame.to_csv(tmp_path / "arms.csv", index=False)
    frame.to_parquet(tmp_path / "arms.parquet")
    for file in ("arms.csv", "arms.parquet"):
        table = read_arms(tmp_path / file)
        assert table.user_ids.tolist() == ["u1", "u2"]
        assert table.arms.tolist() == ["agent", "holdout"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user_id": ["u1"], "arms": ["agent"]}, "column is missing"),
        ({"user_id": ["u1", "u2"], "arm": ["agent", ""]}, "the arm is missing"),
        ({"user_id": ["u1", "u1"], "arm": ["agent", "holdout"]}, "another arm before"),
        ({"user_id": ["u1", ""], "arm": ["agent", "holdout"]}, "user id is missing"),
    ],
)
def test_faults_of_a_table_are_named(tmp_path, rows, message):
    pd.DataFrame(rows).to_csv(tmp_path / "arms.csv", index=False)
    with pytest.raises(InputError, match=message):
        read_arms(tmp_path / "arms.csv")


def write_days(folder, days):
    for day, arms in days.items():
        (folder / day).mkdir()
        pd.DataFrame({"user_id": list(arms), "arm": list(arms.values())}).to_parquet(folder / day / ARMS_FILE)
        for name in (DECISIONS_FILE, SUMMARY_FILE):
            (folder / day / name).touch()


def test_a_folder_of_days_names_the_arm_of_the_first_day_in_the_trial_and_the_entry(tmp_path):
    write_days(
        tmp_path,
        {
            "2024-01-10": {"u1": "holdout"},
            "2024-01-15": {"u1": "agent", "u2": "agent"},
            "2024-01-16T06-00": {"u1": "agent", "u2": "holdout", "u3": "holdout"},
        },
    )
    table = read_arms(tmp_path, START)
    assert dict(zip(table.user_ids, table.arms, strict=True)) == {"u1": "agent", "u2": "agent", "u3": "holdout"}
    assert table.since is not None
    assert ((table.since - BEGIN) / DAY).tolist() == [9, 14, 15.25]
    assert table.changed == 1


def test_a_folder_without_days_is_refused(tmp_path):
    with pytest.raises(InputError, match="the folder has no day of decisions"):
        read_arms(tmp_path)
    write_days(tmp_path, {"latest": {"u1": "agent"}})
    with pytest.raises(InputError, match="not a day of decisions"):
        read_arms(tmp_path)


def test_arms_are_found_in_the_users_and_in_the_decisions():
    by_users = trial_users(trial_history(), SETTINGS, END)
    assert by_users.counts.sum() == 600
    history = trial_history(arms_in="decisions")
    by_decisions = trial_users(history, SETTINGS, END)
    # Users of business_as_usual have no decision: their arm is not known.
    assert by_decisions.arms == ("agent", "holdout")
    assert any("have no arm" in note for note in by_decisions.notes)
    assert names_of(by_decisions).tolist() == names_of(by_users)[names_of(by_users) != "business_as_usual"].tolist()


def test_without_arms_or_start_the_remedy_is_named():
    history = trial_history(arms_in="nowhere")
    with pytest.raises(ConfigError, match="--arms FILE"):
        trial_users(history, SETTINGS, END)
    with pytest.raises(ConfigError, match=r"trial.start"):
        trial_users(history, TrialConfig(), END)
    with pytest.raises(ConfigError, match=r"starts at 2025-01-01 00:00 UTC, and what is looked at ends at 2024-"):
        trial_users(trial_history(), TrialConfig(start="2025-01-01"), END)


def test_a_log_that_begins_after_the_start_says_so():
    users = trial_users(trial_history(), TrialConfig(start="2023-12-31", days=40), END)
    assert any("the log begins after the start, at 2024-01-01" in note for note in users.notes)


def test_the_start_is_that_of_the_first_decision_with_an_arm():
    assert trial_users(trial_history(arms_in="decisions"), TrialConfig(), END).start == START + DAY // 4


def test_ids_of_another_kind_are_refused_and_numbers_match_text():
    history = trial_history(users=10)
    with pytest.raises(InputError, match="no user of the table is in the log"):
        trial_users(history, SETTINGS, END, ArmTable(np.array(["x"], dtype=object), np.array(["a"], dtype=object)))
    numbered = replace(history, user_ids=np.arange(10).astype(object))
    table = ArmTable(np.array(["3", "4", "99"], dtype=object), np.array(["a", "b", "b"], dtype=object))
    users = trial_users(numbered, SETTINGS, END, table)
    assert users.user.tolist() == [3, 4]
    assert users.entry.tolist() == [[1, 1], [0, 0], [0, 1]]
    table = ArmTable(np.array(["3", "04"], dtype=object), np.array(["a", "b"], dtype=object))
    with pytest.raises(InputError, match="value '04': the log writes this user '4'"):
        trial_users(numbered, SETTINGS, END, table)


def test_users_who_change_their_arm_count_in_the_first():
    history = trial_history(arms_in="decisions", users=60)
    arm = np.array(history.decisions.arm)
    rows = np.flatnonzero(history.decisions.user == history.decisions.user[0])
    first = arm[rows[0]]
    arm[rows[3:]] = "holdout" if first == "agent" else "agent"
    changed = replace(history, decisions=replace(history.decisions, arm=arm))
    users = trial_users(changed, SETTINGS, END)
    assert names_of(users)[0] == first
    assert any("several arms" in note for note in users.notes)


def test_a_column_of_users_with_other_names_than_those_of_decisions_changes_nobody():
    """Decisions of a user say `agent` or `holdout`, whatever the arm of the trial in the table of users."""
    history = trial_history(arms_in="decisions", users=300)
    own = np.array([None] * 300, dtype=object)
    own[history.decisions.user] = history.decisions.arm
    tables = {
        name: history.users.assign(arm=np.where(own == "agent", "agent", name)) for name in ("control", "holdout")
    }
    for users in tables.values():
        assert not trial_users(replace(history, users=users), SETTINGS, END).changed.any()
    # The same names: a user whose column says otherwise than the decisions did change.
    swapped = tables["holdout"]["arm"].map({"agent": "holdout", "holdout": "agent"})
    users = trial_users(replace(history, users=history.users.assign(arm=swapped)), SETTINGS, END)
    assert users.changed.sum() == len(np.unique(history.decisions.user))


def test_users_who_join_enter_later_and_those_that_were_never_seen_do_not():
    history = trial_history(joined=0.3)
    users = trial_users(history, SETTINGS, START + 7 * DAY)
    assert (users.enrolled[users.known_before] == START).all()
    late = ~users.known_before
    assert (users.enrolled[late] == history.observed_from[users.user[late]]).all()
    assert users.enrolled.max() < START + 7 * DAY
    assert users.entry.sum() == 600
    assert users.entry[2].sum() > 0


def test_a_folder_of_days_tells_when_users_enter():
    history = trial_history(users=10)
    table = ArmTable(history.user_ids, np.array(["a", "b"] * 5, dtype=object), since=np.full(10, START + 2 * DAY))
    users = trial_users(history, SETTINGS, END, table)
    assert (users.enrolled == START + 2 * DAY).all()
    assert users.known_before.all()


def test_levels_of_attributes():
    code, names = levels(pd.Series(["b", None, "a", "b"]))
    assert (code.tolist(), names) == ([2, 0, 1, 2], ("(missing)", "a", "b"))
    code, names = levels(pd.Series(np.arange(100.0)))
    assert len(names) == 4
    assert np.bincount(code).tolist() == [25, 25, 25, 25]
    assert levels(pd.Series([True, False, True]))[1] == ("False", "True")

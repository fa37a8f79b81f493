"""Rows of a replay log as what agents learn from."""

from __future__ import annotations

import numpy as np

from crosschannel.envs.replay import default_log
from crosschannel.envs.replay.transitions import TransitionIndex
from crosschannel.pipeline.batches import MAX_ODDS, batch_at, message_odds


def test_a_batch_of_rows_is_what_the_log_says_of_them() -> None:
    log = default_log()
    transitions = TransitionIndex.from_log(log)
    rows = np.random.default_rng(0).permutation(len(log))[:200]
    batch = batch_at(log, transitions, rows)
    np.testing.assert_array_equal(batch.keys, log.keys[rows])
    np.testing.assert_array_equal(batch.actions, log.actions[rows])
    np.testing.assert_array_equal(batch.observations.context, log.context[rows])
    assert batch.next_observations is not None
    assert batch.next_observations.users is not None
    followed = transitions.next_row[rows] >= 0
    following = transitions.next_row[rows][followed]
    np.testing.assert_array_equal(batch.next_observations.context[followed], log.context[following])
    np.testing.assert_array_equal(batch.next_observations.action_mask[followed], log.action_mask[following])
    np.testing.assert_array_equal(batch.next_observations.users[followed], log.user_keys[log.user[rows]][followed])


def test_odds_are_those_of_a_message_where_nothing_was_sent() -> None:
    sent = np.array([False, False, False, False, True])
    probability = np.array([0.25, 1.0, np.nan, 1e-6, 0.1])
    assert message_odds(sent, probability).tolist() == [3.0, 0.0, 1.0, MAX_ODDS, 1.0]

"""When messages are active, against a loop over decisions; and the effect of a running campaign on controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.times import DAY
from crosschannel.reward import Goal, RewardSpec, measure
from crosschannel.reward.measurement.messages import Messages, active_time
from tests.samples import random_history

SPEC = RewardSpec(goals=(Goal("order"),), pre="2d", post="1d", min_controls=2)
LABELS = {"small": {"duration": 1.5}, "large": {"duration": 4}}


def running_history(seed: int):
    """Messages with offers that run for 1.5 or 4 days."""
    history = random_history(seed, send=0.15)
    channel, offer = history.modules
    return replace(history, modules=ActionSpace([channel, Module("offer", offer.actions, labels=LABELS)]))


@pytest.mark.parametrize(("first", "last"), [(-2 * DAY, DAY), (-5 * DAY, -3 * DAY), (0, 2 * DAY), (DAY, 2 * DAY)])
@pytest.mark.parametrize("runs", [True, False])
def test_others_equal_a_loop_over_pairs(first, last, runs):
    history = running_history(1) if runs else random_history(1, send=0.15)
    d = history.decisions
    sent = history.modules.sends(d.actions)
    days = np.where(d.actions[:, 1] == 1, 4.0, 1.5) if runs else np.zeros(len(d))
    end = d.time + np.maximum((days * DAY).astype(np.int64), 1)
    found = Messages.from_history(history).others_active(history, first, last)
    for i in range(len(d)):
        others = sent & (d.user == d.user[i]) & (np.arange(len(d)) != i)
        assert found[i] == (others & (d.time < d.time[i] + last) & (end > d.time[i] + first)).any()
    assert 0 < found.mean() < 1


def test_a_message_that_still_runs_makes_neither_a_reward_nor_a_control():
    """A message begins before the windows and runs into them: without the label nothing shows it."""
    instant, running = random_history(2, send=0.15), running_history(2)
    spec = replace(SPEC, overlap="exclude", controls="untouched")
    before, after = measure(instant, spec), measure(running, spec)
    assert (after.overlap >= before.overlap).all()
    hidden = after.overlap & ~before.overlap
    assert hidden.any()
    assert not after.control[hidden].any()
    assert before.control[hidden].any()


def test_active_time_is_the_longest_label_of_what_was_sent():
    modules = running_history(0).modules
    actions = np.array([[0, 0], [1, 0], [2, 1]])
    assert active_time(modules, actions).tolist() == [0, round(1.5 * DAY), 4 * DAY]

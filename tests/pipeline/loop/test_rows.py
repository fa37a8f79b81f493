"""Which decisions without a message count in what is usual, and how much, in a log with arms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosschannel.histories import from_frames
from crosschannel.pipeline.batches import MAX_ODDS
from crosschannel.pipeline.loop.parts.rows import odds_with_arms

NOTHING_ELSE, EVERYTHING = "none", "none|push"


@pytest.mark.parametrize(
    ("has_holdout", "expected"),
    [(True, [1.0, 0.98, 1.0, 1.0, 0.75]), (False, [1.0, MAX_ODDS, 1.0, 1.0, 3.0])],
)
def test_a_holdout_stands_for_the_users_of_the_agent(has_holdout: bool, expected: list[float]) -> None:
    """The agent's own decisions without a message count less than its users, as much as a message was likely."""
    decisions = pd.DataFrame(
        {
            "decision_id": list("abcde"),
            "user_id": ["held", "agent 1", "agent 2", "before", "agent 3"],
            "time": ["2024-05-02T10:00Z"] * 5,
            "channel": ["none", "none", "push", "none", "none"],
            "propensity_channel": [1.0, 0.02, 0.98, 0.5, 0.25],
            "eligible_channel": [NOTHING_ELSE, *[EVERYTHING] * 4],
            "arm": ["holdout", "agent", "agent", None, "agent"],
        }
    )
    events = pd.DataFrame({"user_id": ["held"], "time": ["2024-05-02T12:00Z"], "event": ["order"]})
    history = from_frames(decisions, events, [{"name": "channel", "actions": ["none", "push"]}])
    d = history.decisions
    order = [list(d.id).index(one) for one in "abcde"]
    odds = odds_with_arms(d, history.modules, has_holdout=has_holdout)
    np.testing.assert_allclose(odds[order], expected)

"""A plot of a policy shows its table: shares, or what the agent expects, by module."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from crosschannel.agents import plot_policy
from crosschannel.core.errors import ConfigError

COLUMNS = ("segment", "decisions", "module", "given", "action", "share", "reward", "low", "high")
TABLE = pd.DataFrame(
    [
        ("all decisions", 30, "channel", "any", "none", 0.8, math.nan, math.nan, math.nan),
        ("all decisions", 30, "channel", "any", "email", 0.2, 0.5, 0.1, 0.9),
        ("all decisions", 30, "offer", "any", "$5 off", math.nan, 0.2, 0.1, 0.3),
        ("all decisions", 30, "offer", "email", "$5 off", 1.0, 0.2, 0.1, 0.3),
        ("ios", 10, "channel", "any", "none", 0.6, math.nan, math.nan, math.nan),
        ("ios", 10, "channel", "any", "email", 0.4, 0.6, 0.2, 1.0),
    ],
    columns=list(COLUMNS),
)


def test_shares_are_bars_in_percent_by_module():
    ax = plot_policy(TABLE)
    assert [bar.get_width() for bar in ax.patches] == [80.0, 20.0, 100.0]
    labels = [tick.get_text().replace(r"\$", "$") for tick in ax.get_yticklabels()]
    assert labels == ["channel", "none", "email", "offer", "$5 off", "offer given email", "$5 off"]
    assert "no message of the policy has this choice" in [text.get_text() for text in ax.texts]
    assert ax.get_title(loc="left") == "What the policy chooses: all decisions (30)"


def test_expectations_have_intervals_and_a_segment_can_be_chosen():
    ax = plot_policy(TABLE, show="reward", segment="ios")
    ((low, high),) = [segment[:, 0] for c in ax.collections for segment in c.get_segments()]
    assert (low, high) == (0.2, 1.0)
    assert "the agent has no estimate" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"segment": "io"}, "no segment 'io'. Did you mean 'ios'"), ({"show": "gain"}, "has no 'gain'. Available")],
)
def test_what_the_table_does_not_have_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        plot_policy(TABLE, **arguments)

"""Components on the simulated market, whose engagement, gains and hazards are known for every message."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.envs.market.dynamics.responses import responses
from crosschannel.pipeline.configuration import load_config
from crosschannel.reward import make_reward
from crosschannel.reward.funnel import FunnelEffects

pytestmark = pytest.mark.numerics

REWARD = load_config("market").reward
LOGS, USERS = 200, 1500
CHANNELS = ("email", "push", "sms", "in_app")


@dataclass(frozen=True)
class Cell:
    """A component of a channel's messages: its interval, and the mean truth of these messages."""

    low: float
    high: float
    truth: float


def cells(seed: int, users: int = USERS) -> dict[tuple[str, str], Cell]:
    """The components of one market's log, by channel and component."""
    market = Market(MarketConfig(users=users, seed=seed, goals=REWARD.goals))
    history, truth = simulate_history(market)
    fitted = FunnelEffects.fit(make_reward("did", REWARD), history)
    sent = np.flatnonzero(fitted.priced.outcomes.treated & np.isfinite(fitted.components.value))
    response = responses(truth.slots(sent), truth.actions[sent], market.dynamics, market.calendar)
    worth = response.visits * (0.1 + response.conversion)  # what a visit and an order count
    found = {}
    for name, rows in fitted.channels.items():
        of, mine = fitted.of(rows, name), truth.actions[sent, 0] == 1 + CHANNELS.index(name)
        opened = response.opened[mine]
        expected = {
            "engagement": opened.mean(),
            "gain": (opened * worth[mine]).sum() / opened.sum(),
            "direct": 0.0,
            "value": (opened * worth[mine]).mean(),
            "hazard of unsubscribed": response.unsubscribed[mine].mean(),
        }
        found |= {(name, part): Cell(of[part].low, of[part].high, true) for part, true in expected.items()}
    return found


@cache
def coverage(logs: int) -> dict[tuple[str, str], float]:
    """Share of the logs whose interval holds the mean over all users, by cell.

    Intervals are about users like those of the log, and not about these users alone: the truth is the mean over logs.
    """
    found = [cells(seed) for seed in range(1000, 1000 + logs)]
    out = {}
    for key in found[0]:
        truth = np.mean([each[key].truth for each in found])
        out[key] = float(np.mean([each[key].low <= truth <= each[key].high for each in found]))
    return out


def test_intervals_hold_the_truth_of_most_cells_of_one_market():
    """20 cells: with coverage .95, fewer than 16 hold in one log of a thousand."""
    found = cells(1000)
    assert len(found) == 20
    assert sum(cell.low <= cell.truth <= cell.high for cell in found.values()) >= 16


@pytest.mark.slow
def test_intervals_cover_on_200_markets():
    """Pooled .93 to .97; each cell within the 99 % band of a nominal interval with 200 logs."""
    found = coverage(LOGS)
    assert 0.93 <= np.mean(list(found.values())) <= 0.97
    for key, share in found.items():
        assert 0.905 <= share <= 0.985, key

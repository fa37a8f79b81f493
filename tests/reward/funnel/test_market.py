"""Components on the simulated market, whose engagement, gains and hazards are known for every message."""

from __future__ import annotations

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


def cells(seed: int, users: int = USERS) -> dict[tuple[str, str], tuple[bool, float]]:
    """By channel and component: whether the interval holds the truth of the log's messages, and the error in units."""
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
        for part, true in expected.items():
            effect = of[part]
            found[name, part] = effect.low <= true <= effect.high, (effect.value - true) / effect.se
    return found


@cache
def coverage(logs: int) -> dict[tuple[str, str], tuple[float, float, float]]:
    """By cell: share of intervals that hold the truth, and mean and deviation of the errors."""
    found = [cells(seed) for seed in range(1000, 1000 + logs)]
    return {
        key: (
            float(np.mean([each[key][0] for each in found])),
            float(np.mean([each[key][1] for each in found])),
            float(np.std([each[key][1] for each in found])),
        )
        for key in found[0]
    }


def test_intervals_hold_the_truth_of_most_cells_of_one_market():
    """20 cells: with coverage .95, fewer than 16 hold in one log of a thousand."""
    found = cells(1000)
    assert len(found) == 20
    assert sum(inside for inside, _ in found.values()) >= 16


@pytest.mark.slow
def test_intervals_cover_on_200_markets():
    """Pooled .93 to .97; each cell within the 99 % band of a nominal interval with 200 logs."""
    found = coverage(LOGS)
    shares = np.array([share for share, *_ in found.values()])
    assert 0.93 <= shares.mean() <= 0.97
    for key, (share, *_) in found.items():
        assert 0.905 <= share <= 0.985, key

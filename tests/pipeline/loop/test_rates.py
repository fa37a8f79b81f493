"""The rate that a limit rests on where few users have business as usual: by the hazards that all users taught."""

from __future__ import annotations

import numpy as np

from crosschannel.envs.market import Market, simulate_history
from crosschannel.pipeline.loop.learning import _batch, _known, expected_rates, fit
from crosschannel.pipeline.pricing import LogPace
from tests.pipeline.loop.updates import config

ARMS, SHARE = 60, 0.1


def test_the_expected_rate_of_a_small_arm_varies_less_than_the_counted_one() -> None:
    """Sixty random tenths of a log, which differ by chance only: about 7 events each, an error of 37 %.

    A third of the messages have no reward, so that the events after these count as they are: the error falls to about
    .6 of that. Its ratio has an error of .09 with sixty arms.
    """
    settings = config(**{"history.market.users": 2000, "history.market.days": 28})
    history = simulate_history(Market(settings.market()))[0]
    learned = fit(settings, history, history.span[1])
    past, recent, frame, known = _known(settings, history, history.span[1])
    batch = _batch(settings, past, recent, frame, learned.features, known)
    event = "unsubscribed"

    counted, expected = [], []
    for seed in range(ARMS):
        arm = recent.select_users(np.random.default_rng(seed).random(recent.n_users) < SHARE)
        rates = LogPace.measure(arm, (event,), learned.pace.period).rates
        counted.append(rates[event])
        expected.append(expected_rates(rates, arm, learned.agent, batch)[event])

    assert np.std(expected) < 0.8 * np.std(counted)
    error = np.std(expected) / np.sqrt(ARMS)
    assert abs(np.mean(expected) - np.mean(counted)) < 4 * error, "hazards have the level of the events"

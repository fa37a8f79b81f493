"""On the simulated market, whose truth is known: DiD finds the average effect, naive rewards do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.reward import Goal, RewardSpec, make_reward, measure
from crosschannel.reward.effects import average_effect

GOALS = (Goal("order:*", 1.0), Goal("visit:*", 0.1), Goal("unsubscribed", -3.0))
SPEC = RewardSpec(goals=GOALS, pre="2d", post="1d", overlap="exclude")


def errors(seed: int, users: int, scenario: str = "default") -> dict[str, float]:
    """Distances from the true average effect on the treated, in standard errors, by estimator."""
    history, truth = simulate_history(Market(MarketConfig(users=users, seed=seed, scenario=scenario, goals=GOALS)))
    outcomes = measure(history, SPEC)
    treated = outcomes.treated & outcomes.observed & ~outcomes.overlap
    true = float(truth.logged[treated].mean())
    did = average_effect(outcomes, SPEC, outcomes.treated, "all")
    means = average_effect(replace(outcomes, pre=np.zeros(len(outcomes))), SPEC, outcomes.treated, "all")
    raw = make_reward("raw", SPEC).fit(history).transform(history).reward[treated]
    return {
        "did": (did.value - true) / did.se,
        "difference in means": (means.value - true) / means.se,
        "raw": (raw.mean() - true) / (raw.std() / np.sqrt(len(raw))),
    }


@pytest.mark.parametrize("scenario", ["default", "null"])
def test_did_finds_the_truth_and_naive_rewards_do_not(scenario):
    """Four markets: the mean of z is within 3/sqrt(4) of 0 for DiD; one alone is beyond 2 in 5 % of all cases."""
    found = [errors(seed, 1500, scenario) for seed in range(4)]
    z = {name: np.mean([each[name] for each in found]) for name in found[0]}
    assert abs(z["did"]) < 3 / np.sqrt(4)
    assert z["raw"] > 10
    assert z["difference in means"] > 4  # who is active gets more messages: it looks like an effect


def test_did_is_within_two_errors_of_the_truth_where_raw_is_not():
    """One large market, that of seed 0."""
    z = errors(0, 6000)
    assert abs(z["did"]) < 2
    assert z["raw"] > 2


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["default", "null"])
def test_did_errors_are_standard_normal(scenario):
    """40 markets: the mean of z is within 3/sqrt(40) of 0 and its spread within 0.7 to 1.3, three binomial errors."""
    z = np.array([errors(seed, 1500, scenario)["did"] for seed in range(40)])
    assert abs(z.mean()) < 3 / np.sqrt(40)
    assert 0.7 < z.std() < 1.3

"""What is usual without a message is that of those who got one, whatever decided who did."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.funnel_worlds import batch_of, trained
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.rows import FunnelRows, Usual, fold_of
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import load_config
from tests.agents.funnel.samples import PLAIN, contexts

pytestmark = pytest.mark.numerics
N, WIDTH = 40_000, 3


def log_without_effects(seed: int, *, weighted: bool) -> FunnelRows:
    """Messages do nothing, and go to those who are more active than the context shows, with known probabilities."""
    rng = np.random.default_rng(seed)
    active = rng.standard_normal(N)
    p = 0.1 + 0.6 / (1.0 + np.exp(-2.0 * active))
    sent = rng.random(N) < p
    value = torch.from_numpy(0.5 * active + 0.2 * rng.standard_normal(N)).float()
    actions = np.zeros((N, len(PLAIN)), dtype=np.int64)
    actions[sent] = 1
    user = np.arange(N, dtype=np.uint64)
    odds = np.where(sent | (not weighted), 1.0, p / (1.0 - p))
    return FunnelRows(
        x=contexts(N, WIDTH, seed=seed),
        actions=actions,
        reward=value,
        engaged=torch.full((N,), float("nan")),
        value=value,
        cost=torch.zeros(N, 0),
        odds=torch.from_numpy(odds).float(),
        fold=fold_of(user),
        user=torch.from_numpy(user.astype(np.int64)),
        key=torch.from_numpy(user.astype(np.int64)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_messages_without_effect_are_worth_nothing_by_what_is_usual(seed: int) -> None:
    """Four standard errors of the difference of means; unweighted it is biased by more than ten of them."""
    found, design = {}, Design.build(PLAIN, WIDTH)
    for weighted in (True, False):
        rows = log_without_effects(seed, weighted=weighted)
        controls, sent, prices = rows.controls(PLAIN), rows.messages(PLAIN), torch.zeros(0)
        found[weighted] = float(Usual.fit(design, controls, sent, prices).less(design, sent, prices).value.mean())
    error = 0.54 * (1.0 / len(sent) + 2.0 / len(controls)) ** 0.5  # the weights' effective sample size is above a half
    assert abs(found[True]) < 4.0 * error
    assert found[False] > 10.0 * error


@pytest.mark.slow
def test_the_slope_is_about_0_in_the_market_without_effects() -> None:
    """Four markets: the mean within four of its standard errors."""
    blends = []
    for seed in range(100, 104):
        settings = {"seed": seed, "history.market.seed": seed, "history.market.scenario": "null"}
        config = load_config("market", settings)
        data = prepare(config)
        agent = trained(config, data, batch_of(data))
        blends.append(agent.funnel.heads.blend)
    mean = np.mean([blend.slope for blend in blends])
    error = np.sqrt(np.sum([blend.slope_se**2 for blend in blends])) / len(blends)
    assert abs(mean) < 4.0 * error

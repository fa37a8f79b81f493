"""Open Bandit data: the uniform policy's value from the Thompson sampler's log, against its own log."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.evaluation import IPS, SNIPS, Evaluation, EvaluationSettings, LoggedDecisions, evaluate
from tests import SHARED_DATA

FOLDER = SHARED_DATA / "open_bandit"
ITEMS = 80


def read(name: str) -> pd.DataFrame:
    path = FOLDER / f"{name}_all.csv.gz"
    if not path.exists():
        pytest.skip("the Open Bandit data are not beside the checkout")
    return pd.read_csv(path, usecols=["item_id", "click", "propensity_score"])


def test_uniform_policy_from_the_bernoulli_thompson_log():
    """There is no user id: every row is its own user. The items are 80, none is *send nothing*, which has mass 0."""
    bts, uniform = read("bts"), read("random")
    modules = ActionSpace([Module("item", ("none", *(f"item_{i}" for i in range(ITEMS))))])
    n = len(bts)
    propensity = bts["propensity_score"].to_numpy()
    actions = bts["item_id"].to_numpy(dtype=np.int64)[:, None] + 1
    log = LoggedDecisions(modules, actions, propensity[:, None], propensity, np.arange(n), name="open bandit, bts")
    p = [np.tile(np.append(0.0, np.full(ITEMS, 1 / ITEMS)), (n, 1))]

    def under(settings: EvaluationSettings) -> Evaluation:
        clicks = bts["click"].to_numpy(dtype=np.float64)
        return evaluate(log, p, clicks, rng=np.random.default_rng(0), settings=settings, estimators=[IPS(), SNIPS()])

    # An effective sample size of 340 is one or two clicks: not identified, unless the settings require less.
    reason = "ESS 340 < 15,740, the minimum for rewards this rare or uneven"
    assert [e.reason for e in under(EvaluationSettings(bootstrap_replicates=200)).estimates if e.module is None] == [
        reason
    ] * 2
    result = under(EvaluationSettings(bootstrap_replicates=200, min_ess=4, min_users=4))
    assert uniform["propensity_score"].to_numpy() == pytest.approx(1 / ITEMS)
    truth = uniform["click"].mean()
    error = uniform["click"].std() / np.sqrt(len(uniform))
    assert truth == pytest.approx(0.0038)
    assert result.logged.point == pytest.approx(0.0042)
    for name in ("ips", "snips"):
        e = result.get(name)
        assert e.identified, e.reason
        # 38 and 42 clicks: two standard errors of the difference are all the agreement that these data can show.
        assert abs(e.value.point - truth) < 2 * np.hypot(e.value.se, error)
    assert result.get("ips").support.ess == pytest.approx(340.4, abs=0.1)
    assert abs(result.get("ips").support.mean_weight - 1) < 3 * result.get("ips").support.mean_weight_se

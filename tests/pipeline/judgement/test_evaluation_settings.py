"""Settings of the evaluation that depend on the log, or name code, are refused before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.pipeline import load_config, prepare
from crosschannel.pipeline.judgement.judging import fit_outcomes

SMALL = {"history.market.users": 120, "history.market.days": 10, "history.market.warmup_days": 3}


class Mean:
    """A regressor that predicts the mean."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> None:
        self.mean = y.mean()

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), self.mean)


def prepared(settings: Mapping[str, Any]) -> Any:
    config = load_config("market", {**SMALL, **settings})
    return config, prepare(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation.factors": "offer+price"}, "names 'price', which is not a content module"),
        ({"evaluation.factors": "channel+offer"}, "names 'channel', which is not a content module"),
        ({"evaluation.outcome_model": "no_such_package:Forest"}, "outcome model 'no_such_package:Forest' cannot be"),
        ({"evaluation.outcome_model": "numpy:zeros"}, "outcome model 'numpy:zeros' is of type"),
        ({"history.propensity_model": "no_such_package:Trees"}, "propensity model 'no_such_package:Trees' cannot be"),
        ({"history.propensity_model": f"{__name__}:Mean"}, "Mean is not a classifier: it lacks predict_proba"),
    ],
)
def test_they_are_refused_before_training(settings, message):
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        prepared(settings)


def test_a_regressor_of_your_own_models_the_rewards_of_other_users():
    config, data = prepared({"evaluation.outcome_model": f"{__name__}:Mean", "evaluation.factors": "offer+tone"})
    outcomes = fit_outcomes(config, data.test)
    assert outcomes is not None
    rewards, identified = data.test.rewards.reward, data.test.rewards.identified
    for k, model in enumerate(outcomes.models):
        others = identified & (outcomes.fold != k)
        assert {r.mean for r in model.regressors} == {rewards[others].mean()}


def test_too_few_users_have_no_outcome_model():
    shares = {"split.train": 0.9, "split.validation": 0.08, "split.test": 0.02}
    config, data = prepared({**shares, "reward.funnel": None, "constraints.cost_events": []})
    assert len(np.unique(data.test.history.decisions.user)) < 5
    assert fit_outcomes(config, data.test) is None

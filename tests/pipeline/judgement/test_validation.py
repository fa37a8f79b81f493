"""Quick looks at a policy while it is trained: values by order against arithmetic by hand, and what is withheld."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from crosschannel.agents import Observations
from crosschannel.agents.votes import NoVotes
from crosschannel.core import ActionSpace, Module
from crosschannel.evaluation import EvaluationSettings, LoggedDecisions
from crosschannel.evaluation.ladder import find_factors
from crosschannel.evaluation.outcomes.outcome_model import QValues
from crosschannel.pipeline.judgement.validation import Validation, curve_layout

N = 400
FREE = EvaluationSettings(min_ess=1, min_users=2, max_unsupported_mass=1.0)


class NoOutcomes:
    """Modelled rewards of 0, so that values are those of inverse propensity weighting."""

    def q_values(self, context, actions, probabilities):
        return [QValues(np.zeros(len(actions)), np.zeros(len(actions)))] * (1 + len(probabilities))


def validation(modules: ActionSpace, policy: list[np.ndarray], settings: EvaluationSettings = FREE) -> Validation:
    """Decisions of a uniform log whose users have two each; rewards are 1 for a message and noise."""
    rng = np.random.default_rng(100)
    actions = modules.canonical(np.stack([rng.integers(size, size=N) for size in modules.sizes], axis=1))
    propensity = np.stack([np.full(N, 1 / size) for size in modules.sizes], axis=1)
    propensity[~modules.sends(actions), 1:] = 1.0
    log = LoggedDecisions(
        modules=modules,
        actions=actions,
        propensity=propensity,
        joint=propensity.prod(1),
        user=np.repeat(np.arange(N // 2), 2),
    )
    return Validation(
        log=log,
        policy=lambda agent: policy,
        observations=Observations(np.zeros((N, 1), dtype=np.float32), np.ones((N, modules.total), dtype=bool)),
        rewards=modules.sends(actions) + rng.normal(size=N),
        counts=np.where(np.arange(N) % 2, 1.0, 1.5),
        outcomes=NoOutcomes(),  # type: ignore[arg-type]
        settings=settings,
        factors=find_factors(log, "independent"),
    )


TWO = ActionSpace([Module("channel", ("none", "email")), Module("tone", ("plain", "warm"))])
THREE = ActionSpace([*TWO, Module("offer", ("nothing", "coffee"))])
CHANNEL, TONE, OFFER = (np.tile(p, (N, 1)) for p in ([0.3, 0.7], [0.2, 0.8], [0.6, 0.4]))


def test_values_of_all_orders_by_hand():
    v = validation(THREE, [CHANNEL, TONE, OFFER])
    scores = v.scores(SimpleNamespace())  # type: ignore[arg-type]
    sent = v.log.modules.sends(v.log.actions)
    channel = np.where(sent, 0.7, 0.3) / 0.5
    tone, offer = (
        np.where(sent, p[np.arange(N), v.log.actions[:, m]] / 0.5 - 1, 0.0) for m, p in ((1, TONE), (2, OFFER))
    )
    total = v.counts.sum()
    weights = [channel, channel * (1 + tone + offer), channel * (1 + tone) * (1 + offer)]
    for order, w in enumerate(weights):
        value = v.counts @ (w * v.rewards) / total
        by_user = (v.counts * (w * v.rewards - value)).reshape(-1, 2).sum(1) / total
        margin = 1.96 * np.sqrt(by_user @ by_user)
        found = [scores[f"validation/{bound}/order_{order}"] for bound in ("low", "value", "high")]
        assert found == pytest.approx([value - margin, value, value + margin], rel=1e-12)
        c = w * v.counts
        assert scores[f"validation/ess/order_{order}"] == pytest.approx(c.sum() ** 2 / (c @ c))
    logged = v.counts @ v.rewards / total
    assert scores["validation/value"] == scores["validation/value/order_1"]
    assert scores["validation/lift_over_logging"] == pytest.approx(scores["validation/value"] - logged)
    assert scores["validation/send_rate"] == pytest.approx(0.7)
    assert scores["validation/send_rate_logged"] == pytest.approx(v.counts @ sent / total)
    assert not any(name.startswith("validation/cost_rate") for name in scores)


def test_order_0_changes_the_channel_only():
    """An outcome model that is perfect must not add what the content earns: order 0 is the same as without a model.

    A message earns 0.1, and 0.5 more with the second tone, which the policy always takes: with the log's tones the
    policy's channel earns 0.35, with its own 0.6.
    """
    v = validation(TWO, [np.tile([0.0, 1.0], (N, 1)), np.tile([0.0, 1.0], (N, 1))])
    sent, warm = v.log.modules.sends(v.log.actions), v.log.actions[:, 1]
    whole = QValues(logged=sent * (0.1 + 0.5 * warm), policy=np.full(N, 0.6))
    channel = QValues(logged=sent * 0.35, policy=np.full(N, 0.35))
    perfect = SimpleNamespace(q_values=lambda *_: [whole, channel, whole])
    v = replace(v, rewards=whole.logged, outcomes=perfect, counts=np.ones(N))  # type: ignore[arg-type]
    scores = v.scores(SimpleNamespace())  # type: ignore[arg-type]
    # The share of warm messages is 1/2 with a standard error of 0.035 in 200 messages, times 0.5.
    assert scores["validation/value/order_0"] == pytest.approx(0.35, abs=5 * 0.5 * 0.5 / np.sqrt(N / 2))
    assert scores["validation/value/order_1"] == pytest.approx(0.6, abs=5 * 0.5 / np.sqrt(N / 2))


def test_the_order_of_the_headline_is_the_highest_that_there_is():
    assert (validation(TWO, [CHANNEL, TONE]).order, validation(TWO, [CHANNEL, TONE]).orders) == (1, 2)
    high = replace(FREE, order=5)
    v = validation(THREE, [CHANNEL, TONE, OFFER], high)
    assert v.order == 2
    scores = v.scores(SimpleNamespace())  # type: ignore[arg-type]
    assert scores["validation/value"] == scores["validation/value/order_2"]


def test_a_log_with_channels_only_has_one_order():
    v = validation(ActionSpace(TWO[:1]), [CHANNEL])
    scores = v.scores(SimpleNamespace())  # type: ignore[arg-type]
    assert (v.order, v.orders) == (0, 1)
    assert scores["validation/value"] == scores["validation/value/order_0"]
    assert "validation/ess/order_1" not in scores


def test_only_what_is_identified_has_a_value():
    ess = validation(THREE, [CHANNEL, TONE, OFFER]).scores(SimpleNamespace())["validation/ess/order_1"]  # type: ignore[arg-type]
    strict = replace(FREE, min_ess=ess + 1)
    scores = validation(THREE, [CHANNEL, TONE, OFFER], strict).scores(SimpleNamespace())  # type: ignore[arg-type]
    assert "validation/value" not in scores
    assert "validation/value/order_1" not in scores
    assert scores["validation/ess/order_1"] == ess
    assert scores["validation/ess_required"] >= ess + 1


def test_a_policy_outside_of_the_log_has_no_value():
    v = validation(TWO, [CHANNEL, TONE], replace(FREE, max_unsupported_mass=0.1))
    plain = v.log.actions[:, 1] == 0
    narrow = replace(
        v,
        log=v.log[plain],
        rewards=v.rewards[plain],
        counts=v.counts[plain],
        observations=v.observations[plain],
        policy=lambda agent: [CHANNEL[plain], TONE[plain]],
    )
    scores = narrow.scores(SimpleNamespace())  # type: ignore[arg-type]
    assert scores["validation/unsupported_mass/order_1"] == pytest.approx(0.7 * 0.8)
    assert "validation/value/order_1" not in scores


def test_there_is_nothing_to_show_before_a_policy_keeps_the_constraints():
    def refuse(agent):
        raise NoVotes("no funnel yet")

    assert replace(validation(TWO, [CHANNEL, TONE]), policy=refuse).scores(SimpleNamespace()) == {}  # type: ignore[arg-type]


def test_cost_events_are_expected_by_the_channels_that_the_policy_takes():
    class Agent:
        def components(self, observations):
            rates = np.tile([[0.0, 0.02]], (2, len(observations), 1))
            rates[1] *= 3
            return {"hazard_unsubscribed": [rates], "gain": [rates]}

    scores = validation(TWO, [CHANNEL, TONE]).scores(Agent())  # type: ignore[arg-type]
    # The members' mean rate of an email is .04, and the policy sends seven of ten times.
    assert scores["validation/cost_rate/unsubscribed"] == pytest.approx(0.7 * 0.04)
    assert "validation/cost_rate/gain" not in scores


def test_the_layout_shows_the_headline_first_and_the_floor_beside_the_sizes():
    layout = curve_layout(3, 1)
    assert list(layout["held-out value"]) == ["value, order 1", "value, order 0", "value, order 2"]
    assert layout["held-out value"]["value, order 1"] == [
        "Margin",
        ["validation/value/order_1", "validation/low/order_1", "validation/high/order_1"],
    ]
    assert layout["effective decisions"]["ESS by order"][1][0] == "validation/ess_required"  # type: ignore[index]

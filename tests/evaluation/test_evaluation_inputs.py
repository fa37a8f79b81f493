"""Inputs and settings that an evaluation refuses, by name, row and value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError, InputError
from crosschannel.evaluation import DM, DR, EvaluationSettings, LoggedDecisions, QValues, evaluate
from tests.evaluation.bandit_worlds import offers

QUICK = EvaluationSettings(bootstrap_replicates=100)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def bad(log: LoggedDecisions, name: str, row: int, value: float) -> dict[str, np.ndarray]:
    array = getattr(log, name).copy()
    array[row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: bad(g, "joint", 4, 0.0), r"column 'propensity', row 5, value 0.0: is not in \(0, 1\]"),
        (lambda g: bad(g, "joint", 4, 1.2), r"column 'propensity', row 5, value 1.2: is not in \(0, 1\]"),
        (lambda g: bad(g, "propensity", 2, -0.1), r"column 'propensity_type', row 3, value -0.1"),
        (lambda g: bad(g, "actions", 0, 9), r"column 'actions', row 1, .* is not an action of the modules"),
        (lambda g: {"joint": g.joint[:-1]}, r"column 'joint': the shape is \(59,\), not \(60,\)"),
        (lambda g: {"propensity": g.propensity[:, :2]}, r"column 'propensity': the shape is \(60, 2\), not \(60, 3\)"),
        (lambda g: {"user": g.user[:5]}, r"column 'user': the shape is \(5,\)"),
        (
            lambda g: {"eligible": np.ones((60, 3), dtype=bool)},
            r"column 'eligible': the shape is \(60, 3\), not \(60, 9\)",
        ),
        (lambda _: {"propensity_source": "guessed"}, r"value 'guessed': is unknown. Use one of logged, by design"),
        (
            lambda g: {n: getattr(g, n)[:0] for n in ("actions", "propensity", "joint", "user")},
            "there are no decisions",
        ),
    ],
)
def test_invalid_logs(change, message):
    _, log, _, _ = offers(users=30)
    with pytest.raises(InputError, match=message):
        replace(log, **change(log))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": lambda p: p[:2]}, "probabilities of 2 modules, not of 3"),
        ({"probabilities": lambda p: [p[0][:-1], *p[1:]]}, r"column 'type': the shape is \(59, 3\), not \(60, 3\)"),
        ({"probabilities": lambda p: [p[0] * 9, *p[1:]]}, r"column 'type', row 1, .* not a row of prob"),
        ({"probabilities": lambda p: [p[0] * 0.5, *p[1:]]}, r"column 'type', row 1, value 0.5.*: is not a sum of 1"),
        ({"probabilities": lambda p: [p[0], -p[1], p[2]]}, r"column 'variant', row 1, .* not a row of probabilities"),
        ({"probabilities": lambda p: [p[0], p[1] * np.nan, p[2]]}, r"column 'variant', row 1"),
        ({"rewards": lambda r: r[:-1]}, r"column 'rewards': the shape is \(59,\), not \(60,\)"),
        ({"rewards": lambda r: np.where(r > r.min(), r, np.inf)}, r"column 'rewards', row \d+, value inf: is infinite"),
        ({"q_values": lambda q: q[:3]}, "column 'q_values': there are 3 entries, not 4"),
        ({"q_values": lambda q: [QValues(q[0].logged[:5], q[0].policy), *q[1:]]}, r"an array of shape \(5,\) is not"),
        ({"q_values": lambda q: [QValues(q[0].logged * np.nan, q[0].policy), *q[1:]]}, "and finite"),
    ],
)
def test_invalid_inputs(change, message):
    world, log, cell, rewards = offers(users=30)
    given = {
        "probabilities": world.policy(cell),
        "rewards": rewards,
        "q_values": [QValues(np.zeros(60), np.zeros(60))] * 4,
    }
    ((name, function),) = change.items()
    with pytest.raises(InputError, match=message):
        evaluate(log, **{**given, name: function(given[name])}, rng=rng(), settings=QUICK)


def test_estimators_that_need_a_model_need_one():
    world, log, cell, rewards = offers(users=30)
    with pytest.raises(ConfigError, match="need an outcome model"):
        evaluate(log, world.policy(cell), rewards, rng=rng(), estimators=[DR(), DM()])


@pytest.mark.parametrize("change", [{"min_ess": 0.0}, {"min_users": 1.0}, {"max_unsupported_mass": 1.5}])
def test_invalid_settings(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        EvaluationSettings(**change)


@pytest.mark.parametrize("name", ["min_ess", "min_users"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_minimums_cannot_be_switched_off(name, value):
    with pytest.raises(ConfigError, match=name):
        EvaluationSettings(**{name: value})

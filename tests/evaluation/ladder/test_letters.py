"""Letters of three parts: order 1 needs a quarter of the sample, halves the error and covers what is true."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtrit

from crosschannel.core.arrays import FloatArray
from crosschannel.evaluation import EvaluationSettings, effective_sample_size, evaluate, headline
from crosschannel.evaluation.bootstrap import degrees_of_freedom
from crosschannel.evaluation.ladder import find_factors, ladder_values, ladder_weights
from tests import SHARED_DATA
from tests.evaluation.ladder.letters import CELLS, FACTORS, Experiment, additive_fit, letter_policy

pytestmark = pytest.mark.numerics

FILE = SHARED_DATA / "karlan_list" / "charitable.csv.gz"


@pytest.fixture(params=["simulated", "real"])
def experiment(request: pytest.FixtureRequest) -> Experiment:
    if request.param == "real":
        if not FILE.is_file():
            pytest.skip("the file of the experiment is not there: its terms do not allow to commit it")
        return Experiment.read(FILE)
    return Experiment.simulated(np.random.default_rng(0))


def test_order_one_has_four_times_the_sample_and_half_the_error(experiment):
    """36 letters: the effective sample size of a single letter is its 1/36, that of order 1 an eighth."""
    log = experiment.log()
    ess, error = [], []
    for letter in CELLS:
        weights = ladder_weights(log, letter_policy(letter, len(log)), FACTORS)
        w = weights.orders[[1, 3]]
        ess.append([effective_sample_size(each) for each in w])
        r = experiment.gave - experiment.gave.mean()
        error.append([np.std(each * r) / len(log) ** 0.5 for each in w])
    mean_ess, mean_error = np.mean(ess, axis=0), np.mean(error, axis=0)
    assert mean_ess[0] > 4_000
    assert mean_ess[1] == pytest.approx(33_396 / 36, rel=0.02)
    assert mean_error[0] < 0.5 * mean_error[1]


def test_parts_that_add_up_are_not_contradicted(experiment):
    """The headline of one letter: order 1, its factors found on the log, no interaction that is significant."""
    log = experiment.log()
    assert find_factors(log).members == FACTORS
    settings = EvaluationSettings(bootstrap_replicates=100, min_ess=200)
    found = evaluate(
        log, letter_policy(CELLS[17], len(log)), experiment.gave, rng=np.random.default_rng(0), settings=settings
    )
    ladder = found.ladder
    assert ladder is not None
    assert headline(found).estimator == "order 1"
    assert headline(found).identified
    assert all(pair.p_value > 0.05 for pair in ladder.pairs)
    steps = [step.value.point for step in ladder.waterfall]
    assert sum(steps[:-1]) == pytest.approx(steps[-1], abs=1e-12)


def test_with_all_rows_order_one_is_the_additive_fit():
    """In a crossed design of equal cells, order 1 by IPS with the share of each part is least squares on the parts."""
    experiment = Experiment(np.ones(36 * 20, dtype=np.int64), np.tile(CELLS, (20, 1)), np.zeros(720))
    rewards = np.random.default_rng(0).normal(size=720)
    fit = additive_fit(experiment.parts, rewards)
    log = experiment.log()
    for letter, expected in zip(CELLS, fit, strict=True):
        weights = ladder_weights(log, letter_policy(letter, len(log)), FACTORS)
        baseline = np.full(720, rewards.mean())
        found = ladder_values(weights, rewards, q_logged=baseline, q_policy=baseline)[1]
        # All rows have a letter, which the design gives to two thirds.
        assert rewards.mean() + (found - rewards.mean()) / 1.5 == pytest.approx(expected, abs=1e-12)


def covered(experiment: Experiment, rng: np.random.Generator) -> FloatArray:
    """Whether order 1's interval of each letter has the additive fit, from one thinned log with new outcomes (36,)."""
    rows, propensity = experiment.thinned(rng)
    sent = experiment.sent == 1
    truth = additive_fit(experiment.parts[sent], experiment.gave[sent])
    parts = experiment.parts[rows]
    chance = truth[parts[:, 0] * 12 + parts[:, 1] * 3 + parts[:, 2]]
    gave = (rng.random(len(rows)) < chance).astype(np.float64)
    log = Experiment(np.ones(len(rows), dtype=np.int64), parts, gave).log(propensity)
    out = []
    for letter, expected in zip(CELLS, truth, strict=True):
        # All of the thinned log has a letter: its weight is 1, not that of the design.
        w = ladder_weights(log, letter_policy(letter, len(log)), FACTORS).of_order(1) * (2 / 3)
        value = gave.mean() + float(w @ (gave - gave.mean())) / len(log)
        influence = (w * (gave - gave.mean()) + gave.mean() - value) / len(log)
        half = float(stdtrit(degrees_of_freedom(influence), 0.975)) * np.sqrt((influence**2).sum())
        out.append(abs(value - expected) <= half)
    return np.array(out, dtype=np.float64)


def test_intervals_of_thinned_logs_have_the_truth_mostly():
    """Twelve logs: 432 pairs, of which neighbours share rows; a right method is below .85 in less than 1 in 1,000."""
    experiment = Experiment.simulated(np.random.default_rng(1))
    rng = np.random.default_rng(2)
    assert np.mean([covered(experiment, rng) for _ in range(12)]) > 0.85


@pytest.mark.slow
def test_intervals_of_thinned_logs_cover(experiment):
    """200 thinnings to skewed propensities, outcomes redrawn from the additive fit: .93 to .97 of the 7,200 pairs."""
    rng = np.random.default_rng(3)
    share = float(np.mean([covered(experiment, rng) for _ in range(200)]))
    print(f"order 1 covers {share:.4f} of 7,200 pairs")
    assert 0.93 <= share <= 0.97

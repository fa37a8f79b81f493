"""On markets with known truth the interval covers the mean true value of K policies, with the error of all users."""

from __future__ import annotations

import math

import numpy as np
import pytest

from crosschannel import agents, pipeline
from crosschannel.evaluation import headline
from crosschannel.pipeline.judgement.judging import fit_outcomes, off_policy
from crosschannel.programs.train import learn_fold
from tests.pipeline.procedure.samples import small_config, valued

#: In `additive` order 1 is unbiased. Validation users would neither teach nor judge.
SETTINGS = {
    "train.num_envs": 1024,
    "history.market.scenario": "additive",
    "split.train": 0.7,
    "split.validation": 0.0,
    "split.test": 0.3,
    "evaluation.bootstrap_replicates": 100,
    "evaluation.procedure.folds": 5,
}


def both(folder, users, seed, **settings):
    """The headline on 30 % held-out users, that of the learning procedure on all, and the true mean of its policies."""
    seeds = {"history.market.seed": seed, "seed": seed, "history.market.users": users}
    config = small_config(**SETTINGS | seeds | settings)
    value, data = valued(folder, config)
    run = pipeline.Run(folder / "held_out", config)
    run.path.mkdir()
    learn_fold(run, data)
    agent, _ = agents.load_policy(run.policy)
    p = pipeline.explain_policy(config, data, agent).probabilities
    held_out = off_policy(config, data, p, fit_outcomes(config, data.test), "policy", "the test users")
    return headline(held_out), headline(value.evaluation), value.truth


def test_the_error_is_that_of_all_users(tmp_path):
    """The policy `logging` has weights of 1, so that only the number of users counts: the root of .3, which is .55.

    An error from 400 replicates has itself one of 3.5 %, and 450 users have rewards of a kurtosis of about 30 at most:
    another sqrt(30 / 450) / 2 = 13 %. Together with the share of users that happens to be held out (.3 +- .01), the
    ratio is within 4 such errors of .55 in practically all logs.
    """
    settings = {"agent.name": "logging", "evaluation.bootstrap_replicates": 400}
    settings |= {"evaluation.procedure.folds": 2}
    held_out, procedure, truth = both(tmp_path, 1500, 100, **settings)
    assert procedure.value.se / held_out.value.se == pytest.approx(math.sqrt(0.3), rel=0.55)
    assert abs(procedure.value.point - truth) < 4.5 * procedure.value.se


@pytest.mark.slow
def test_the_interval_covers_the_mean_true_value_of_the_policies(tmp_path):
    """40 markets: z has mean 0 and standard deviation 1, both within 3.5 standard errors, and so has the coverage.

    Agents differ by what they have learned; the median ratio of the errors is about that of the users, .55. Their
    policies are not the same: those that learned from 80 % of the users against one from 70 %.
    """
    logs, z, covered, ratio = 40, [], 0, []
    for seed in range(200, 200 + logs):
        folder = tmp_path / str(seed)
        folder.mkdir()
        held_out, procedure, truth = both(
            folder, 1500, seed, **{"agent.name": "epsilon_greedy", "agent.settings.floor": 0.8}
        )
        assert procedure.value.is_defined
        z.append((procedure.value.point - truth) / procedure.value.se)
        covered += procedure.value.contains(truth)
        ratio.append(procedure.value.se / held_out.value.se if held_out.value.is_defined else math.nan)
        print(f"seed {seed}: z {z[-1]:+.2f}, ratio {ratio[-1]:.3f}, covered {covered}", flush=True)
    print(f"mean z {np.mean(z):+.2f}, sd {np.std(z, ddof=1):.2f}, median ratio {np.nanmedian(ratio):.3f}")
    assert abs(np.mean(z)) < 3.5 / math.sqrt(logs)
    assert abs(np.std(z, ddof=1) - 1) < 3.5 / math.sqrt(2 * logs)
    assert covered / logs > 0.95 - 3.5 * math.sqrt(0.95 * 0.05 / logs)
    assert np.nanmedian(ratio) == pytest.approx(math.sqrt(0.3), rel=0.1)

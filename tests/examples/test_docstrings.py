"""The examples in the docstrings of the plots run as they stand, with the records that they name."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from crosschannel import agents, evaluation
from crosschannel.evaluation import trials
from crosschannel.reward import effects
from tests.agents.test_plot_policy import TABLE
from tests.evaluation.plots.samples import followed
from tests.evaluation.report.samples import identified
from tests.evaluation.trials.test_readout import SETTINGS
from tests.evaluation.trials.worlds import GOALS, trial_history
from tests.reward.simulated import SPEC, simulate

PLOTS = [
    (package, name)
    for package in (agents, evaluation, trials, effects)
    for name in package.__all__
    if name.startswith("plot_") and (package is not evaluation or name not in trials.__all__)
]


@pytest.fixture(scope="module")
def records():
    history = simulate(0, "random").history
    fitted = effects.TreatmentEffects.fit(effects_model(), history)
    rng = np.random.default_rng(100)
    first = np.repeat([2, 3, np.iinfo(np.int64).max], 40)
    outcome = rng.normal(size=(120, 5))
    panel = effects.Panel(outcome=outcome, first=first, period=np.arange(5))
    return {
        "evaluation": identified(),
        "followed": followed(),
        "comparison": evaluation.Comparison(
            "first minus second", "", 1, evaluation.Interval(0.2, 0.1, 0.3, 0.05), 100, 50, 80.0
        ),
        "trial": trials.read_trial(trial_history(1, users=4000, lift=0.6), SETTINGS, GOALS),
        "weights": np.linspace(0.1, 4.0, 50),
        "expected": outcome[:, 0],
        "rewards": outcome[:, 1],
        "counts": np.ones(120),
        "user": np.arange(120) // 2,
        "table": TABLE,
        "history": history,
        "spec": SPEC,
        "events": effects.event_study(fitted, history, effects.EventTimes("1d", leads=3, lags=2)),
        "effects": effects.group_time_effects(panel),
    }


def effects_model():
    from crosschannel.reward import DidReward

    return DidReward(SPEC)


@pytest.mark.parametrize(("package", "name"), PLOTS, ids=[name for _, name in PLOTS])
def test_the_example_of_a_plot(package, name, records):
    function = getattr(package, name)
    public = {each: getattr(package, each) for each in package.__all__}
    found = doctest.DocTestFinder(recurse=False).find(function, name, globs=public | records)
    assert found[0].examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    written: list[str] = []
    runner.run(found[0], out=written.append)
    assert runner.failures == 0, "".join(written)

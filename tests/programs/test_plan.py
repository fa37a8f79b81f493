"""`crosschannel plan` as a user runs it: trials without a log, and what a log would need."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import Market, simulate_history
from crosschannel.evaluation import users_per_arm_of_rates
from crosschannel.pipeline import load_config, prepare
from crosschannel.pipeline.command_line import UsageError
from crosschannel.pipeline.planning import ONE_ACTION, UNIFORM, log_size, logged_mean, plan
from crosschannel.programs.plan import main
from tests.programs.samples import SMALL


def test_a_trial_needs_no_log(capsys):
    assert main(["--base-rate", "0.05", "--lift", "0.1", "--power", "0.9", "--level", "0.99"]) == 0
    shown = capsys.readouterr().out
    users = math.ceil(users_per_arm_of_rates(0.05, 0.1, 0.9, 0.99))
    assert f"{users:,} users in each of two arms" in shown
    assert "Value of the whole action" not in shown


def test_a_plan_from_a_configuration_is_printed_and_written(tmp_path, capsys):
    out = tmp_path / "plan.json"
    arguments = [*SMALL, "--error", "0.05", "--sd", "2", "--difference", "0.1", "--out", str(out)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for words in (
        UNIFORM,
        ONE_ACTION,
        "(order 1), the log gives",
        "(joint weights), the log gives",
        "users in each of two arms",
        str(out),
    ):
        assert words in shown, words
    written = json.loads(out.read_text())
    assert list(written["needs"]) == [UNIFORM, ONE_ACTION]
    for needs in written["needs"].values():
        assert [need["way"] for need in needs] == ["order 1", "joint weights"]
        assert {need["error"] for need in needs} == {0.05}
        assert needs[0]["users"] <= needs[1]["users"]
    assert written["trials"][0]["users_per_arm"] > 6000
    with pytest.raises(UsageError, match="exists already"):
        main(arguments)
    assert main([*arguments, "--force"]) == 0


def test_a_plan_for_the_policy_of_a_run(small_run, capsys):
    run, _ = small_run
    assert main(["--run", str(run), "--error", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert "Value of the whole action of: ensemble_thompson" in shown
    assert ONE_ACTION not in shown
    with pytest.raises(UsageError, match="--run keeps"):
        main(["--run", str(run), "--history.market.users", "3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--base-rate", "0.1"], "go together"),
        (["--difference", "0.1"], "go together"),
        (["--base-rate", "2", "--lift", "0.1"], "a rate lies between 0 and 1"),
        (["--base-rate", "0.1", "--lift", "0.1", "--power", "1.2"], "power 1.2 is not between"),
        ([*SMALL, "--error", "-1"], "the error is -1"),
        (["--run", "nowhere"], "nowhere is not a run"),
    ],
)
def test_what_cannot_be_planned_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        main(arguments)


def small(**settings):
    config = load_config(SMALL[1], settings)
    return config, prepare(config)


def test_the_mean_of_the_log_is_that_of_the_rewards_and_its_error_covers_their_controls():
    config, data = small()
    found = logged_mean(config, data)
    frame = data.test.rewards
    kept = frame.identified
    assert found.point == pytest.approx(np.average(frame.reward[kept], weights=1 / frame.p_uncensored[kept]))
    assert found.low < found.point < found.high
    size = log_size(data, found)
    assert size.users == 400
    assert size.weeks == pytest.approx(8 / 7)
    assert size.decisions == kept.sum()


def test_four_times_the_users_halve_the_error_that_is_expected():
    """Of 300 and of 4,800 users: the expected errors of uniform choices have the ratio 4, within 30 %."""
    errors = []
    for users in (300, 4800):
        config, data = small(**{"history.market.users": users})
        errors.append(plan(config, data)[UNIFORM][0].expected_error)
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.3)


def test_a_log_that_explores_uniformly_needs_nothing_more_for_uniform_choices():
    """On the log of uniform choices the second moment is 1, so that the expected error is that of the log's mean."""
    config, data = small()
    history, truth = simulate_history(Market(config.market()), "uniform")
    uniform = replace(data, history=history, truth=truth)
    mean = logged_mean(config, uniform)
    for need in plan(config, uniform)[UNIFORM]:
        assert need.expected_error == pytest.approx((mean.high - mean.low) / 2)
        assert need.exploration is not None

"""The verdict of an evaluation on the command line, and what `decide` makes of it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from crosschannel.core import ConfigError
from crosschannel.pipeline.command_line import UsageError
from crosschannel.pipeline.run_files import read_json, write_json
from crosschannel.programs import decide, evaluate
from tests import ROOT

IDENTIFIED = ["--evaluation.min-ess=1", "--evaluation.min-users=2", "--evaluation.max-unsupported-mass=1"]
#: Settings that lead to each verdict on the small run, whatever its numbers: the least lift, and the least ESS.
VERDICTS = {
    "deploy": (0, [*IDENTIFIED, "--evaluation.gate.min-lift=-1e6"]),
    "hold": (3, [*IDENTIFIED, "--evaluation.gate.min-lift=1e6"]),
    "not identified": (4, ["--evaluation.min-ess=1e9"]),
}


@pytest.fixture
def run(small_run, tmp_path, monkeypatch) -> Path:
    """A copy of a finished run, which a test may change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])
    shutil.copytree(small_run[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_exit_code_is_that_of_the_verdict_where_it_is_asked_for(run, verdict, capsys):
    code, settings = VERDICTS[verdict]
    for flags, expected in ((["--gate"], code), (["--force"], 0)):
        assert evaluate.main([str(run), *settings, "--out", "judged", *flags]) == expected
        assert f"Verdict: {verdict}. " in capsys.readouterr().out
        stored = read_json(Path("judged/evaluation.json"), "", 99)
        assert (stored["gate"]["verdict"], stored["gate"]["exit_code"]) == (verdict, code)
        page = Path("judged/report.html").read_text()
        assert f'<p class="answer">{verdict.capitalize()}</p>' in page
        sentence = re.search(r'<p class="summary">(.*?)</p>', page)
        assert sentence is not None
        assert sentence[1].startswith("Use the policy" if verdict == "deploy" else "Keep what is sent now")
        assert "best constant tone" in page


def test_the_metrics_of_a_run_hold_verdict_and_comparators(run):
    metrics = read_json(run / "metrics.json", "", 99)
    assert metrics["gate"]["verdict"] in VERDICTS
    assert [row["policy"] for row in metrics["comparators"]][:3] == ["logged", "uniform", "no send"]
    assert isinstance(metrics["advice"], list)


def with_verdict(run, verdict):
    stored = read_json(run / "evaluation.json", "", 99)
    stored["gate"]["verdict"] = verdict
    write_json(stored, run / "evaluation.json")


@pytest.mark.parametrize("verdict", ["hold", "not identified"])
def test_a_required_gate_refuses_runs_that_are_not_to_be_deployed(run, verdict):
    with_verdict(run, verdict)
    with pytest.raises(ConfigError, match=f"the verdict on the policy of .* is `{verdict}`"):
        decide.main([str(run), "--out", "decisions.csv", "--require-gate"])
    assert not Path("decisions.csv").exists()


def test_a_required_gate_lets_runs_decide_that_are_to_be_deployed(run):
    with_verdict(run, "deploy")
    # The log of a market is simulated again, so that the run itself says what may be sent.
    assert decide.main([str(run), "--out", "decisions.csv", "--require-gate"]) == 0
    assert Path("decisions.csv").exists()


def test_without_an_evaluation_a_required_gate_is_closed(run):
    (run / "evaluation.json").unlink()
    with pytest.raises(ConfigError, match="has no evaluation of its policy with its settings"):
        decide.main([str(run), "--out", "decisions.csv", "--require-gate"])
    assert decide.main([str(run), "--out", "decisions.csv"]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--greedy"], "the verdict is on the exploring policy"),
        (["--constraints.messages-per-week=0.5"], "the verdict is on the policy under the run's own constraints"),
    ],
)
def test_a_required_gate_refuses_a_policy_that_the_verdict_is_not_on(run, flags, words):
    with_verdict(run, "deploy")
    with pytest.raises(UsageError, match=words):
        decide.main([str(run), "--out", "decisions.csv", "--require-gate", *flags])
    assert not Path("decisions.csv").exists()


def test_a_required_gate_accepts_the_runs_own_constraints(run):
    with_verdict(run, "deploy")
    own = ["--constraints.discount=0", "--constraints.cost-events", "[]"]
    assert decide.main([str(run), "--out", "decisions.csv", "--require-gate", *own]) == 0


def test_another_discount_than_that_of_the_training_is_refused(run):
    """The price of a message is learned in training, so that another discount would change nothing."""
    with pytest.raises(UsageError, match="the price of a message is learned in training: train again"):
        decide.main([str(run), "--out", "decisions.csv", "--constraints.discount", "0.9"])

"""The learned policy on the Starbucks rewards files, judged on users that it has not learned from."""

from __future__ import annotations

import json

import pytest

from tests import ROOT, SHARED_DATA
from tests.programs.samples import run_program

FOLDER = SHARED_DATA / "starbucks_rewards"


@pytest.mark.slow
def test_the_learned_policy_earns_more_than_the_logged_one_and_the_report_says_by_how_much(tmp_path):
    if not FOLDER.is_dir():
        pytest.skip("the Starbucks rewards files are not beside the checkout")
    config = str(ROOT / "configs" / "starbucks_rewards.yaml")
    run_program("train.py", "--config", config, f"--history.path={FOLDER.resolve()}", cwd=tmp_path)
    run = tmp_path / "runs" / "starbucks_rewards"
    done = run_program("evaluate.py", str(run), cwd=tmp_path)
    evaluation = json.loads((run / "evaluation.json").read_text())["evaluation"]
    found = next(e for e in evaluation["estimates"] if e["estimator"] == "dr" and e["module"] is None)
    assert found["difference"]["low"] > 0
    assert found["support"]["ess"] > 1000
    report = (run / "report.html").read_text()
    for text in (done.stdout, report):
        assert "The log shows that ensemble_thompson is better than the logging policy" in text
        assert found["estimand"] in text
        assert f"{found['support']['ess']:,.0f}" in text

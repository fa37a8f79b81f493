"""`evaluate` adds the value of the learning procedure, names its estimand everywhere, and keeps its agents."""

from __future__ import annotations

import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories import write_history
from crosschannel.pipeline.configuration import read_config, write_config
from crosschannel.pipeline.sections.evaluation import ProcedureSettings
from crosschannel.programs import evaluate
from crosschannel.programs.train import train
from tests import ROOT
from tests.browser import needs_chromium, render
from tests.docs.pages import command_lines, read_blocks
from tests.pipeline.buckets.samples import configuration, market_log, write_log
from tests.programs.samples import QUICK, run_here
from tests.programs.test_documented_results import METRICS, keys, named

FOLDS = ("--evaluation.procedure.folds", "2")
NAMED = "not the value of the policy in the run"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run of an agent that learns in no time, and what `evaluate` found of its learning procedure."""
    folder = tmp_path_factory.mktemp("procedure")
    run_here("train.py", *QUICK, "--history.market.users=160", "--out", "run", cwd=folder)
    run_here("evaluate.py", "run", *FOLDS, "--out", "found", cwd=folder)
    return folder


@pytest.fixture
def place(trained, tmp_path) -> Path:
    """A copy of it, which a test may change."""
    shutil.copytree(trained, tmp_path / "place")
    return tmp_path / "place"


def stored(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def test_the_value_is_shown_with_its_estimand_and_changes_no_other_number(trained):
    before, after = stored(trained / "run"), stored(trained / "found")
    assert before["procedure"] is None
    assert json.loads((trained / "run" / "metrics.json").read_text())["procedure"] is None
    assert {name for name in after if before[name] != after[name]} == {"procedure", "judged", "checksum"}
    assert NAMED in after["procedure"]["estimand"]
    assert after["procedure"]["evaluation"]["logged_decisions"] > 2 * after["evaluation"]["logged_decisions"]
    page = html.unescape((trained / "found" / "report.html").read_text())
    card = (trained / "found" / "MODEL_CARD.md").read_text()
    for text in (page, card):
        assert NAMED in text
        assert "not the value of this policy, and the verdict does not rest on it" in text
    assert "<h2>The learning procedure</h2>" in page
    assert 'download="procedure.csv"' in page
    own = (trained / "run" / "MODEL_CARD.md").read_text()
    assert "procedure" not in own
    # The card in another folder names the run's folder, and the command that values the procedure again.
    assert "crosschannel evaluate RUN --evaluation.procedure.folds 2 --out FOLDER" in card
    for text in (own, card):
        assert "RUN is the run's folder" in text
        assert "the folder that it lies in" not in text


def test_every_key_of_it_is_documented(trained):
    free = ("propensity_counts", "reward_counts", "settings", "support")
    assert not keys(stored(trained / "found")["procedure"], free) - named(METRICS)


def test_another_evaluation_learns_nothing_again(place):
    done = run_here("evaluate.py", "run", *FOLDS, "--evaluation.min-ess=7", "--out", "other", cwd=place)
    assert "replaying" not in done.stderr
    assert "The learning procedure, from all users" in done.stdout
    assert NAMED in done.stdout
    before, after = (stored(place / name)["procedure"]["by_fold"] for name in ("found", "other"))
    assert [each["truth"] for each in after] == [each["truth"] for each in before]


def test_a_run_that_asks_for_it_has_it_once_it_is_evaluated(place):
    config = read_config(place / "run" / "config.yaml")
    write_config(
        replace(config, evaluation=replace(config.evaluation, procedure=ProcedureSettings(2))),
        place / "run" / "config.yaml",
    )
    run_here("evaluate.py", "run", cwd=place)
    found = (place / "run" / "evaluation.json").read_bytes()
    assert stored(place / "run")["procedure"] == stored(place / "found")["procedure"]
    shutil.rmtree(place / "run" / "procedure")  # what is stored is read, and nothing learns
    done = run_here("evaluate.py", "run", cwd=place)
    assert "has an evaluation of this log" in done.stderr
    assert (place / "run" / "evaluation.json").read_bytes() == found
    assert not (place / "run" / "procedure").exists()


def test_the_verdict_does_not_rest_on_it(place):
    """The gate says the same, also where only the procedure is identified."""
    assert stored(place / "found")["gate"] == stored(place / "run")["gate"]
    card = (place / "found" / "MODEL_CARD.md").read_text()
    assert "so that the verdict does not rest on it. Its lower bound is one for the policy only if" in card


@pytest.mark.slow
def test_on_another_log_the_agents_learn_from_that_log(place):
    write_history(simulate_history(Market(MarketConfig(users=150, days=8, seed=3)))[0], place / "log")
    flags = ["run", "--history.path", "log", *FOLDS, "--out", "newer"]
    config = read_config(place / "run" / "config.yaml")
    history = replace(config.history, source="folder", path=Path("log"))
    write_config(replace(config, history=history), place / "run" / "config.yaml")
    before = sorted((place / "run" / "procedure").rglob("*"))
    run_here("evaluate.py", *flags, cwd=place)
    assert sorted((place / "run" / "procedure").rglob("*")) == before
    assert {path.name for path in (place / "newer" / "procedure").iterdir()} == {"fold_1_of_2", "fold_2_of_2"}
    assert stored(place / "newer")["procedure"]["folds"] == 2


def test_an_interruption_says_that_nothing_is_lost(place, monkeypatch):
    shutil.rmtree(place / "run" / "procedure" / "fold_2_of_2")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "learn_fold", interrupted)
    done = run_here("evaluate.py", "run", *FOLDS, "--out", "other", cwd=place, check=False)
    assert done.returncode == 130
    assert "run the same command again: the agents that have learned are kept in run/procedure" in done.stderr
    assert stored(place / "other")["procedure"] is None, "what was found before is kept"


def test_an_edited_agent_is_one_error_that_names_what_to_delete(place):
    policy = place / "run" / "procedure" / "fold_1_of_2" / "policy.pt"
    policy.write_bytes(policy.read_bytes()[:-9] + b"edited-it")
    done = run_here("evaluate.py", "run", *FOLDS, "--out", "other", cwd=place, check=False)
    assert done.returncode == 1
    assert re.search(r"Delete run/procedure/fold_1_of_2, and evaluate again", done.stderr)


def test_a_log_in_buckets_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(write_log(market_log(), tmp_path, 2))
    config = configuration()
    with pytest.raises(ConfigError, match="the learning procedure is valued on a log in memory, and this one is in b"):
        train(replace(config, evaluation=replace(config.evaluation, procedure=ProcedureSettings(2))), Path("run"))
    assert not Path("run").exists()


def test_the_command_of_the_page(place):
    """With the run of this test, and fewer folds."""
    pages = read_blocks(ROOT / "docs" / "evaluation.md")
    (command,) = [line for block in pages if "procedure.folds" in block.text for line in command_lines(block.text)
                  if line.startswith("crosschannel evaluate")]  # fmt: skip
    words = command.replace("runs/NAME", "run").replace("folds 5", "folds 2").split()
    assert run_here("evaluate.py", *words[2:], cwd=place).returncode == 0
    assert stored(place / "procedure")["procedure"] == stored(place / "found")["procedure"]


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), pytest.param(1200, True, marks=pytest.mark.slow)])
def test_the_report_in_a_browser(trained, tmp_path, width, dark):
    found = render((trained / "found" / "report.html").read_text(), tmp_path, width, dark=dark)
    assert found.console == []
    assert found.width <= found.viewport == width
    assert found.beyond == []
    assert found.smallest >= 11, found.smallest_text

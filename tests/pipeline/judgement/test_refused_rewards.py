"""A policy whose rewards fail their own tests is not valued and not deployed, by any program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import crosschannel
from crosschannel.core.errors import NotIdentified
from crosschannel.evaluation import headline, text_table
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.pipeline import Config, EvaluationResult, Run, compare_runs
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import override, read_config
from crosschannel.pipeline.judgement.validation import Validation
from crosschannel.pipeline.report.card import card_of
from tests.reward.effects.checks.logs import Rule, after_a_quiet_day, at_random, daily_log

SETTINGS = """
name: refused
context: {windows: [1d, 7d], events: [order]}
reward: {goals: [{event: order}], pre: 1d, post: 1d}
split: {train: 0.5, validation: 0.1, test: 0.4}
agent: {settings: {members: 4, hidden: [8], batch_size: 128}}
train: {num_envs: 64, updates_per_step: 1, offline_updates: 30, log_every: 10, checkpoint_every: 50}
evaluation: {bootstrap_replicates: 40}
"""


def configuration(folder: Path, history: History, name: str) -> Config:
    write_history(history, folder / "log")
    path = folder / "settings.yaml"
    path.write_text(SETTINGS + f"history: {{source: folder, path: {folder / 'log'}}}\n")
    return override(read_config(path), {"name": name})


def trained(
    folder: Path, rule: Rule, effect: float, late: float | None = None, **settings: object
) -> tuple[Run, EvaluationResult]:
    config = configuration(folder, daily_log(1, rule, users=400, effect=effect, late=late), "refused")
    config = override(config, settings)
    run = crosschannel.train(config, folder / "run")
    return run, crosschannel.evaluate(run)


def test_messages_that_harm_and_follow_a_quiet_day_are_not_deployed(tmp_path: Path) -> None:
    """Each message takes .1 orders; `did` mistakes the recovery after a quiet day for an effect of +.4."""
    run, result = trained(tmp_path, after_a_quiet_day, effect=-0.1)
    assert not result.evaluation.logged.is_defined  # .05 and more by these rewards
    best = headline(result.evaluation)
    assert not best.identified
    assert "rewards fail tests of what they assume: pre-trends" in best.reason
    assert result.gate is not None
    assert result.gate.verdict == "not identified"
    assert all(row.reason for row in result.comparators)
    assert re.search(r"\(logging policy\) +mean +not identified", text_table(result.evaluation))
    assert any("log's mean reward is not what its messages changed" in note for note in result.notes)
    assert result.advice[0].startswith("More data of this kind does not help")
    assert "`reward.kind: did_dr`" in result.advice[1]
    card = card_of(result, run.path)
    assert card is not None
    assert card.summary.startswith("Keep what is sent now")
    with pytest.raises(NotIdentified, match="rewards fail tests"):
        compare_runs(run.path, run.path)


@pytest.mark.parametrize(("rule", "is_shown"), [(after_a_quiet_day, False), (at_random, True)])
def test_values_are_shown_while_training_only_where_rewards_are_not_refused(
    tmp_path: Path, rule: Rule, is_shown: bool
) -> None:
    config = configuration(tmp_path, daily_log(1, rule, users=400), "looks")
    assert (Validation.build(config, prepare(config)) is not None) == is_shown


def test_random_messages_are_valued(tmp_path: Path) -> None:
    _, result = trained(tmp_path, at_random, effect=0.5)
    assert headline(result.evaluation).identified
    assert result.gate is not None
    assert result.gate.verdict == "deploy"
    assert not any("fail" in note for note in result.notes)


def test_messages_that_harm_by_the_end_of_the_log_are_not_deployed(tmp_path: Path) -> None:
    """A message adds an order in the first half and takes .5 in the second: on average it is worth sending."""
    blind = {"context.messages": False, "context.clock": False, "context.windows": ["1d"], "agent.settings.floor": 0.1}
    _, result = trained(tmp_path, at_random, effect=1.0, late=-0.5, **blind)
    assert headline(result.evaluation).difference.low > 0
    assert result.gate is not None
    assert result.gate.verdict == "hold"
    assert "in the last third of the log's time the difference is -" in result.gate.reason.lower()

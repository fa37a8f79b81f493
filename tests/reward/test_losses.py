"""Whoever learns or evaluates is told how many decisions have no reward, why, and which setting would help."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace

import numpy as np
import pytest

import crosschannel
from crosschannel.core.times import DAY
from crosschannel.evaluation import render_html, text_table, to_dict
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.readers.folder import write_history
from crosschannel.pipeline.judgement.records import TrueValue
from crosschannel.pipeline.judgement.results import summary_text
from crosschannel.pipeline.judgement.tables import truth_table
from crosschannel.reward import DidReward, LostRewards, Reason, RewardLosses, RewardSpec
from tests.samples import MODULES, random_history

SPEC = RewardSpec(goals=(Goal("order"),), pre="1d", post="1d", min_controls=20)


def losses_of(history: History, spec: RewardSpec = SPEC) -> RewardLosses:
    return RewardLosses.from_rewards(DidReward(spec).fit_transform(history), history.decisions.time, spec)


def that_sends_more(users: int = 100, days: int = 20, seed: int = 0) -> History:
    """A closed loop: from the middle on the policy sends to nearly everybody, so that few decisions are controls."""
    history = random_history(seed, users=users, days=days, send=0.0)
    d = history.decisions
    rng = np.random.default_rng(seed)
    late = d.time > np.median(d.time)
    chance = np.where(late, 0.95, 0.4)
    sent = rng.random(len(d)) < chance
    p = np.where(sent, chance, 1 - chance)
    actions = MODULES.canonical(np.stack([sent, np.zeros(len(d), dtype=np.int64)], axis=1))
    later = 19_000 * DAY
    return replace(
        history,
        decisions=replace(
            d, actions=actions, propensity=np.stack([p, np.ones(len(d))], 1), joint=p, time=d.time + later
        ),
        events=replace(history.events, time=history.events.time + later),
        span=(history.span[0] + later, history.span[1] + later),
        observed_from=history.observed_from + later,
        observed_until=history.observed_until + later,
    )


def test_every_reason_is_counted_with_its_share_and_a_remedy():
    history = random_history(0, users=60, days=12)
    spec = replace(SPEC, pre="3d", post="3d", overlap="exclude", min_controls=2)
    frame = DidReward(spec).fit_transform(history)
    found = losses_of(history, spec)
    counts = {text: n for text, n in frame.counts().items() if n and text != "identified"}
    assert {each.reason: each.decisions for each in found.lost} == counts
    assert len(counts) >= 2
    assert found.share == pytest.approx(1 - frame.identified.mean())
    assert found.decisions == len(history.decisions)
    assert [each.decisions for each in found.lost] == sorted(counts.values(), reverse=True)
    for each in found.lost:
        assert each.remedy
        assert f"{each.decisions:,} ({each.share:.1%}" in found.text("training")
        assert each.remedy in found.text("training")
    assert found.text("training").startswith(f"{sum(counts.values()):,} of {len(frame):,} training decisions have no")


def test_a_policy_that_sends_more_starves_its_own_rewards_and_the_warning_names_the_setting():
    found = losses_of(that_sends_more())
    few = next(each for each in found.lost if each.reason == Reason.FEW_CONTROLS.text)
    assert few.recent_share > 0.9 > few.share
    for words in (
        "lack controls",
        "of the last third",
        "`reward.min_controls` (20)",
        "holdout",
        "`reward.time_bucket` (1d)",
    ):
        assert words in found.warning, words
    for helped in (replace(SPEC, time_bucket="7d"), replace(SPEC, min_controls=2, time_bucket="2d")):
        assert "lack controls" not in losses_of(that_sends_more(), helped).warning


def test_a_starvation_of_the_last_days_only_is_noticed():
    """Of all decisions the share is below the limit, of the last third it is above."""
    few = LostRewards(Reason.FEW_CONTROLS.text, 40, 0.04, 0.12, "Do this.")
    assert RewardLosses(1000, (few,)).warning.startswith("4% of the decisions lack controls, 12% of the last third")
    assert RewardLosses(1000, (replace(few, recent_share=0.04),)).warning == ""


def test_few_losses_are_counted_without_a_warning():
    few = LostRewards(Reason.OVERLAPPING.text, 190, 0.19, 0.19, "Do this.")
    assert RewardLosses(1000, (few,)).warning == ""
    assert RewardLosses(1000, (replace(few, decisions=210, share=0.21),)).warning.startswith(
        "21% of the decisions have no"
    )
    assert RewardLosses(10, ()).text("test") == "0 of 10 test decisions have no reward (0.0%)"
    assert RewardLosses(0, ()).share == 0.0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on the starving log, and what it logged."""
    folder = tmp_path_factory.mktemp("losses")
    write_history(that_sends_more(), folder / "log")
    (folder / "c.yaml").write_text(
        f"""
name: starved
run_dir: {folder}
history: {{source: folder, path: {folder / "log"}}}
context: {{windows: [2d]}}
reward: {{goals: [{{event: order}}], pre: 1d, post: 1d, time_bucket: 1d}}
split: {{train: 0.5, validation: 0.1, test: 0.4}}
agent: {{settings: {{members: 3, hidden: [8], batch_size: 64}}}}
train: {{num_envs: 32, updates_per_step: 1, offline_updates: 5, log_every: 5, checkpoint_every: 10}}
evaluation: {{bootstrap_replicates: 40, min_ess: 5, min_users: 2}}
"""
    )
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(f"{record.levelname} {record.getMessage()}")  # type: ignore[method-assign]
    logger = logging.getLogger("crosschannel")
    logger.addHandler(handler)
    try:
        run = crosschannel.train(crosschannel.load_config(str(folder / "c.yaml")))
    finally:
        logger.removeHandler(handler)
    return run, records


def test_a_run_tells_everywhere_what_it_could_not_learn_from(trained):
    run, records = trained
    assert any(record.startswith("WARNING training decisions: ") and "min_controls" in record for record in records)
    result = run.stored_result()
    losses = result.losses["training"]
    assert losses.warning
    few = losses.lost[0]
    assert few.reason == Reason.FEW_CONTROLS.text
    metrics = json.loads(run.metrics.read_text())
    stored = metrics["rewards"]["training"]
    assert stored["lost_share"] == losses.share
    assert stored["warning"] == losses.warning
    assert stored["lost"][0] == asdict(few)
    assert set(metrics["rewards"]) == {"training", "test"}
    text = summary_text(result)
    assert f"Warning, training decisions: {losses.warning}" in text
    assert losses.text("training") in result.details()
    crosschannel.evaluate(run)
    page = (run.path / "report.html").read_text()
    assert "training decisions without a reward" in page
    assert "reward.min_controls" in page


def test_one_population_is_named_in_text_json_and_html(trained):
    """Values are per decision *with a reward*, and never claim to be per logged decision."""
    evaluation = trained[0].stored_result().evaluation
    assert evaluation.decisions < evaluation.logged_decisions
    population = f"{evaluation.decisions:,} decisions with a reward of {evaluation.logged_decisions:,} logged ones"
    assert evaluation.population == population
    assert population in text_table(evaluation)
    stored = to_dict(evaluation)
    assert stored["population"] == population
    assert stored["decisions"] == evaluation.decisions
    assert stored["logged_decisions"] == evaluation.logged_decisions
    assert population in render_html([evaluation])
    for estimate in evaluation.estimates:
        assert estimate.estimand.startswith("mean reward per decision with a reward if")


def test_the_true_values_footnote_names_the_same_population():
    value = TrueValue("oracle", 1.0, 1.0, 0.1, 0.1, 1.0, 0.0, 10)
    footnote = truth_table([value], "3 decisions with a reward of 5 logged ones").splitlines()[-2]
    assert footnote.startswith(
        "* mean true effect per decision with a reward: the test users' 3 decisions with a reward"
    )
    assert footnote.endswith("of 5 logged ones, as in the off-policy estimate")

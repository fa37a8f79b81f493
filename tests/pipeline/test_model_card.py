"""The model card: its values are those of `evaluation.json`, and no name of a user's changes its layout."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from crosschannel.agents import Budget, Constraints, CostLimit
from crosschannel.evaluation import headline
from crosschannel.evaluation.report.markdown import code, inline
from crosschannel.histories import Arms, Goal, Guardrails
from crosschannel.pipeline import Config
from crosschannel.pipeline.report.model_card import LearnedFrom, model_card
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.sections.history import HistoryConfig
from tests.evaluation.report.samples import identified, not_identified
from tests.pipeline.test_card import result

CONFIG = Config(history=HistoryConfig(source="folder", path=Path("log")))


class FakeRun(Run):
    """A run without files: its policy's version and the log's fingerprint are known."""

    @property
    def policy_version(self) -> str:
        return "0123456789ab" if self.version is None else self.version

    def trained_with(self, kind):
        return type("Learned", (), {"history": "f" * 32})()


def card(found, config=CONFIG, learned=None, **changes) -> str:
    return model_card(FakeRun(Path("runs/shop"), config, **changes), found, learned)


def section(text: str, title: str) -> str:
    return re.split(r"^## ", text.partition(f"## {title}\n")[2], flags=re.M)[0]


@pytest.mark.parametrize("evaluation", [identified(), not_identified()])
def test_the_value_has_its_interval_or_the_reason_why_not(evaluation):
    text = section(card(result("hold", evaluation)), "What the value is, and what it assumes")
    best = headline(evaluation)
    if best.identified:
        assert f"Value: {best.value.point:.6g} [{best.value.low:.6g}, {best.value.high:.6g}]" in text
    else:
        assert f"Value: not identified ({best.reason})" in text
        assert "[" not in text.partition("Value: not identified")[2].partition("\n")[0]
    assert "parallel trends" in text
    assert "Ladder: " in text


def test_a_run_without_an_evaluation_says_so():
    text = card(None)
    assert "No evaluation of this policy stands in the run" in text
    assert "Data\n\n- not known" in text
    for title in ("Limits", "Cost events"):
        assert "No evaluation of this policy stands in the run: none was looked" in section(text, title)


def test_who_must_not_be_messaged_is_listed():
    config = replace(
        CONFIG,
        arms=Arms(holdout=0.1, business_as_usual=0.25),
        guardrails=Guardrails(
            weekly_cap=3,
            weekly_caps={"push": 2},
            min_gap="24h",
            quiet_hours=("21:00", "08:00"),
            reachable={"email": ("consent", "confirmed"), "*": "active"},
            opted_out={"push": "muted"},
            ends={"offer": {"bonus": "2026-11-24"}},
        ),
        history=replace(CONFIG.history, churn_events=("left",)),
    )
    text = section(card(None, config), "Who must not be messaged")
    for words in (
        "Churn: users after `left`",
        "no `email` to users without `consent` and `confirmed`",
        "no message to users without `active`",
        "no `push` to users with `muted`",
        "at most 3 messages in 7 days; at most 2 of `push` in 7 days; at least 24h between two messages; nothing from "
        "21:00 to 08:00; `bonus` not after 2026-11-24",
        "Holdout: 10.0% of the users",
        "another system decides for 25.0% of the users",
    ):
        assert words in text
    plain = section(card(None), "Who must not be messaged")
    assert "no column of the users is mapped" in plain
    assert "Holdout: none is set" in plain


def test_constraints_have_their_limits_also_before_they_are_judged():
    constraints = Constraints(
        cost_events=(CostLimit("unsubscribed", 0.01, 0.2),),
        messages_per_week=1.5,
        budgets=(Budget("sms", 0.02, {"channel": {"sms": 0.07}}),),
    )
    text = section(card(None, replace(CONFIG, constraints=constraints)), "Constraints and prices")
    assert "| `unsubscribed` | at most 0.01 per user and week, of which 20% stays unused | - |" in text
    assert "1.5 messages per user and week" in text
    assert "| `sms` | 0.02 per week | - |" in text
    assert "None: the policy may send" in section(card(None), "Constraints and prices")


def test_the_card_of_an_update_says_that_its_values_are_of_another_policy():
    learned = LearnedFrom("policy abc: learned from 12 decisions", "shop: 3 users\nnote")
    text = card(result("hold", identified()), learned=learned, version="abcdefabcdef")
    assert "Version in use: `abcdefabcdef` (from an update)" in text
    assert "learned from 12 decisions" in text
    assert "All values in this card are those of the policy that training wrote, version `0123456789ab`" in text
    assert "- shop: 3 users\n- note\n" in text
    assert "All values" not in card(None, learned=learned, version="abcdefabcdef")


def test_names_do_not_change_the_layout():
    goal = Goal("order|x`<script>alert(1)</script>\n# head")
    text = card(None, replace(CONFIG, reward=replace(CONFIG.reward, goals=(goal,))))
    rows = [line for line in section(text, "Goals").splitlines() if line.startswith("| `")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 6
    assert "\n# head" not in text
    assert inline("a_b <b> 3 < 5 [x](y) *z* | `k_<i>`") == r"a_b \<b> 3 < 5 [x\](y) \*z\* \| `k_<i>`"
    assert code("a`b|c\nd") == r"`a'b\|c d`"


def test_the_card_names_the_classes_that_its_commands_need():
    evaluation = replace(CONFIG.evaluation, outcome_model="mine.models:Mine")
    text = card(None, replace(CONFIG, evaluation=evaluation))
    assert "crosschannel train --config RUN/config.yaml\n" in text  # whose own file names them
    assert "crosschannel evaluate RUN --allow-class mine.models:Mine\n" in text

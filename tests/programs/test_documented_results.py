"""docs/metrics.md and docs/report.md name every key and version of the files that a real run wrote."""

from __future__ import annotations

import json
import re

from crosschannel.evaluation.report.serialization import SCHEMA
from crosschannel.pipeline.judgement.comparing import COMPARISON_VERSION
from crosschannel.pipeline.judgement.results import RESULT_VERSION
from tests import ROOT

METRICS = (ROOT / "docs" / "metrics.md").read_text()
REPORT = (ROOT / "docs" / "report.md").read_text()


def named(page: str) -> set[str]:
    """The words between backquotes, and those that follow a point in one of them."""
    found = re.findall(r"`([^`\n]+)`", page)
    return {part for text in found for part in re.split(r"[.\[\] ,/]+", text) if part}


def keys(data: object, inside: tuple[str, ...]) -> set[str]:
    """The keys of nested values, without those of mappings whose keys are names from the log."""
    if isinstance(data, dict):
        return set(data) | {key for name, each in data.items() if name not in inside for key in keys(each, inside)}
    return {key for each in data for key in keys(each, inside)} if isinstance(data, list) else set()


def test_every_key_of_an_evaluation_is_documented(funnel_run):
    evaluation = json.loads((funnel_run / "evaluation.json").read_text())
    free = ("propensity_counts", "reward_counts", "judged", "settings", "support", "rule")
    missing = keys(evaluation, free) - named(METRICS) - named(REPORT)
    assert not missing


def test_the_versions_are_documented(funnel_run):
    evaluation = json.loads((funnel_run / "evaluation.json").read_text())
    assert (evaluation["version"], evaluation["evaluation"]["schema"]) == (RESULT_VERSION, SCHEMA)
    assert f"| `version` | {RESULT_VERSION} |" in REPORT
    assert f"| `evaluation.schema` | {SCHEMA} |" in REPORT
    assert f"`comparison.json` has `version` {COMPARISON_VERSION} " in REPORT

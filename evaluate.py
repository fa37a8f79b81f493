"""Judges the policy of a run on users that it has not learned from, and writes a report.

    python evaluate.py runs/market          prints the estimates; writes evaluation.json, report.html and policy.csv

Every value comes with its estimand, a 95 % interval over users and its effective sample size; what the log does not
identify is not a number. What the policy does, and what it expects, is told by module, action and segment of users.
Where the history was simulated, the market's truth stands beside the estimates.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from crosschannel.agents import ALL_DECISIONS, as_text, load_policy
from crosschannel.core.files import replacing
from crosschannel.evaluation import write_html
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.command_line import program, say
from crosschannel.pipeline.judging import assess, explained, fit_outcome_model
from crosschannel.pipeline.run_folder import Run, write_json
from crosschannel.pipeline.summary import about, metrics_of, summary_text

CHANGED = (
    "the history has changed since the run was trained: these are values on the log as it is now, for users who are in "
    "none of the parts that the policy learned from"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Opens a run, judges its policy, writes the report; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a folder that train.py wrote, such as runs/market")
    parser.add_argument("--device", default="cpu", help="where the agent computes: cpu, cuda, mps or auto")
    chosen = parser.parse_args(arguments)

    run = Run.open_ended(chosen.run)
    agent, features = load_policy(run.policy, chosen.device)
    say(f"preparing the history of {run.path}")
    prepared = prepare(run.config, ContextFeatures.from_state_dict(features))
    changed = not run.same_history(prepared.history.fingerprint())
    if changed:
        say(CHANGED)
    assessment = assess(run.config, prepared, agent, fit_outcome_model(prepared), say)
    write_json(metrics_of(assessment), run.path / "evaluation.json")
    facts = about(run, prepared, assessment) | ({"attention": CHANGED} if changed else {})
    write_html(run.path / "report.html", [assessment.evaluation], facts, run.path.name)
    table = explained(run.config, prepared, agent)
    with replacing(run.path / "policy.csv") as draft:
        table.to_csv(draft, index=False)
    print("\nWhat the policy does at the test users' slots (policy.csv has every segment)\n")
    print(as_text(table[table["segment"] == ALL_DECISIONS]))
    print(summary_text(assessment, run))
    return 0


if __name__ == "__main__":
    program(main)

"""Evaluate the policy of a run on users that it has not learned from, and write a report.

  crosschannel evaluate runs/NAME                                    on the log of the run
  crosschannel evaluate runs/NAME --history.path LOG --out FOLDER    on another log

Every value comes with its estimand, an interval over users and its effective sample size; a value
that the log does not identify is reported as such. The policy is explained by module, action and
segment of users. Where the history is simulated, the ground truth stands beside the estimates. The
files are evaluation.json, report.html and policy.csv.
"""

from __future__ import annotations

from collections.abc import Sequence

from crosschannel import agents, evaluation, pipeline
from crosschannel.core.files import replacing
from crosschannel.histories.fingerprint import fingerprint
from crosschannel.pipeline.command_line import Parser, logger, program, refuse_existing
from crosschannel.pipeline.run_folder import Run, write_json

# `agents.NAME` and the like are imported on first use, so that help and wrong flags do not wait for PyTorch.

FILES = ("evaluation.json", "report.html", "policy.csv")
CHANGED = (
    "the history has changed since the run was trained: these are values on the log as it is now, for users who are in "
    "none of the parts that the policy learned from"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Open a run, evaluate its policy, write the report; return the exit code."""
    parser = Parser("evaluate", __doc__)
    parser.add_shared(
        *("run", "--history.path", "--out", "--device", "--force"),
        out="folder of the three files (default: the run's)",
        force="overwrite files of an earlier evaluation in --out",
    )
    chosen = parser.parse(arguments)
    run = Run.open_ended(chosen.run, history=chosen.history_path)
    out = chosen.out or run.path
    for name in FILES if chosen.out else ():
        refuse_existing(out / name, chosen.force)

    agent = agents.load_agent(run.checkpoint, chosen.device)
    logger.info(f"preparing the history of {run.path}")
    prepared = pipeline.prepare(run.config, run.features())
    changed = not run.same_history(fingerprint(prepared.history))
    if changed:
        logger.info(CHANGED)
    result = pipeline.assess(run.config, prepared, agent, pipeline.fit_outcome_model(prepared), logger.info)
    out.mkdir(parents=True, exist_ok=True)
    write_json(pipeline.metrics_of(result), out / "evaluation.json")
    facts = pipeline.about(run, prepared, result) | ({"attention": CHANGED} if changed else {})
    evaluation.write_html(out / "report.html", [result.evaluation], facts, run.path.name)
    table = pipeline.explained(run.config, prepared, agent)
    with replacing(out / "policy.csv") as draft:
        table.to_csv(draft, index=False)
    print("\nWhat the policy does at the test users' slots (policy.csv has every segment)\n")
    print(agents.as_text(table[table["segment"] == agents.ALL_DECISIONS]))
    print(f"{pipeline.summary_text(result)}\n\n{', '.join(str(out / name) for name in FILES)}")
    return 0


if __name__ == "__main__":
    program(main)

"""Evaluate the policy of a run on users that it has not learned from, and write a report.

  crosschannel evaluate runs/NAME                                         on the log of the run
  crosschannel evaluate runs/NAME --history.path LOG --out FOLDER         on another log
  crosschannel evaluate runs/NAME --evaluation.min-ess 500 --out FOLDER   with other settings
  crosschannel evaluate runs/NAME --evaluation.procedure.folds 5 --out FOLDER   the learning procedure
  crosschannel evaluate runs/TODAY --compare runs/YESTERDAY               one policy against another

Every value comes with its estimand, an interval over users and its effective sample size; a value
that the log does not identify is reported as such. The policy is explained by module, action and
segment of users. Where the history is simulated, the ground truth stands beside the estimates. The
files are evaluation.json, report.html, policy.csv and MODEL_CARD.md. What the training found for the same log,
policy and settings is read and not computed again. An evaluation ends with a verdict by the rule of
--evaluation.gate: deploy, hold or not identified; with --gate the exit code is 0, 3 or 4.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from crosschannel import agents, pipeline
from crosschannel.core import ConfigError
from crosschannel.core.wording import counted
from crosschannel.engines import Engine, make_engine, run_locally
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.command_line import (
    Parser,
    UsageError,
    check_output,
    invocation,
    logger,
    one_thread,
    program,
    resumable,
)
from crosschannel.pipeline.configuration import Config, EvaluationConfig
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.run_files import PROCEDURE, RunLock, make_folder, write_json
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs.train import learn_fold

# `agents.NAME` and the like are imported on first use, so that help and wrong flags do not wait for PyTorch.

FILES = ("evaluation.json", "report.html", "policy.csv", "MODEL_CARD.md")
COMPARISON = "comparison.json"
OTHER_LOG = (
    "the history has changed since the run was trained: these are values on the log as it is now, for users who are in "
    "none of the parts that the policy learned from"
)


@one_thread()
def evaluate(
    run: Run | str | Path,
    history: Path | None = None,
    settings: EvaluationConfig | None = None,
    *,
    device: str = "cpu",
    out: Path | None = None,
    allow_classes: Collection[str] = (),
    decided: Path | None = None,
    engine: Engine = run_locally,
) -> pipeline.EvaluationResult:
    """Evaluate the policy of a finished run on users that it has not learned from, and write the report.

    Args:
        run: The run, or its folder.
        history: Another log of the same layout, in place of the run's own.
        settings: Settings of the evaluation, in place of the run's own.
        device: Where the agent computes.
        out: Folder of the files; by default that of the run. Another log and other settings need one of their own.
        allow_classes: Classes of your own that may be imported if the run names them, as `package.module:Class`.
        decided: Folder of decisions by date, which join the log.
        engine: What reads a log in buckets.

    Raises:
        ConfigError: If the run is not finished, damaged or edited, the log does not fit it, or `out` is missing.
        InputError: If the log cannot be read.
        OutputError: If the files cannot be written.
    """
    run = Run.open_ended(run.path if isinstance(run, Run) else Path(run), history, allow_classes)
    if decided is not None:
        run = replace(run, config=replace(run.config, history=replace(run.config.history, decided=decided)))
    other_log = history is not None or decided is not None
    pipeline.check_procedure(run.config if settings is None else replace(run.config, evaluation=settings))
    if out is None and (other_log or settings not in (None, run.config.evaluation)):
        raise ConfigError("another log and other settings need a folder of their own: add --out FOLDER")
    if settings is not None:
        run = replace(run, config=replace(run.config, evaluation=settings))
    trained_with = run.trained_with("policy")
    # The card in another folder is of the policy that is judged; the run's own is of the one that decides.
    current = Policies(run.path).current
    in_use = None if out else current
    if current is not None:
        logger.info(
            f"{run.path} decides with policy {current}, but policy {run.policy_version} of its training is judged: an "
            f"update learns from all users, and none is left to judge its policy by. A trial shows what that is worth: "
            f"{invocation('trial')}"
        )
    with nullcontext() if out else RunLock(run.path):
        data = None
        result = None if other_log else run.stored_result()
        passes = pipeline.Passes(engine)
        if result is not None and _log_is_unchanged(run, trained_with.history, out or run.path, passes):
            logger.info(f"{run.path} has an evaluation of this log, policy and settings")
            if out:
                run.write_result(result, trained_with.history, out)
        else:
            logger.info(f"preparing the history of {run.path}")
            agent, _ = agents.load_policy(run.policy, device, allow_classes=allow_classes)
            # The constraints are those that the policy would be deployed with: also on another log, by the run's pace.
            data, notes = _read(run, trained_with.features, out or run.path, passes)
            data = replace(data, pace=trained_with.pace)
            notes = notes if data.fingerprint == trained_with.history else (OTHER_LOG, *notes)
            for note in notes:
                logger.warning(note)
            policy = pipeline.explain_policy(run.config, data, agent)
            result = pipeline.judge(run.config, data, agent, policy, notes)
            run.write_result(result, data.fingerprint, out)
        if run.config.evaluation.procedure.folds is not None and result.procedure is None:
            data = data or _read(run, trained_with.features, out or run.path, passes)[0]
            result = replace(result, procedure=_value_procedure(run, data, out, other_log, device))
            run.write_result(result, data.fingerprint, out)
        pipeline.write_report(run, result, (out or run.path) / "report.html")
        pipeline.write_model_card(replace(run, version=in_use), result, out)
    return result


def _value_procedure(
    run: Run, data: pipeline.TrainingData, out: Path | None, other_log: bool, device: str
) -> pipeline.ProcedureValue:
    """Value the learning procedure; its agents are kept with the run, or where they are of another log, in `out`."""
    folder = out if out is not None and other_log else run.path
    make_folder(folder)
    remedy = f"run the same command again: the agents that have learned are kept in {folder / PROCEDURE}"
    # Without `out` the run's folder is locked already.
    with nullcontext() if out is None else RunLock(folder), resumable(folder, remedy=remedy):
        return pipeline.value_procedure(run, data, learn_fold, folder, device)


def _read(
    run: Run, features: ContextFeatures, folder: Path, passes: pipeline.Passes
) -> tuple[pipeline.TrainingData, tuple[str, ...]]:
    """Return what a policy is judged on, and notes: of a log in buckets a sample of its users."""
    if pipeline.reads_buckets(run.config):
        return pipeline.read_to_judge(run.config, features, folder, passes)
    return pipeline.prepare(run.config, features), ()


def _log_is_unchanged(run: Run, fingerprint: str, folder: Path, passes: pipeline.Passes) -> bool:
    """Return whether the log of a run still has the fingerprint of the training; a simulated one always has."""
    if pipeline.reads_buckets(run.config):
        return pipeline.fingerprint_of_buckets(run.config, folder, passes) == fingerprint
    return run.config.history.source == "market" or pipeline.load_history(run.config).fingerprint() == fingerprint


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, EvaluationConfig]:
    """Return what the command line asks for, and the settings of the evaluation.

    Raises:
        ConfigError: If there is no such run.
        UsageError: If a flag or its value is wrong, or a file exists.
    """
    parser = Parser("evaluate", __doc__, "RUN [--history.path PATH] [--evaluation.SETTING VALUE ...]")
    parser.add_shared(
        *("run", "--history.path", "--history.decided", "--allow-class", "--out", "--device", "--force"),
        *("--engine", "--engine-address", "--workers"),
        out="folder of the four files (default: the run's)",
        force="overwrite files of an earlier evaluation in --out",
    )
    gate = "end with the exit code of the verdict: 0 deploy, 3 hold, 4 not identified (default: 0 in any case)"
    parser.add_argument("--gate", action="store_true", help=gate)
    other = "only print the value of RUN minus that of this other run, on the same log, for users that trained neither"
    parser.add_argument("--compare", metavar="RUN", type=Path, help=other)
    folder = parser.first_positional(arguments)
    base = Run.read_config(folder) if folder and Run.is_at(folder) else Config()
    line = parse_settings(parser, arguments, sections=("evaluation",), base=base)
    out = line.options.out
    if line.options.compare and line.options.gate:
        raise UsageError("--gate is the verdict on one policy: leave out --compare")
    if line.options.compare and line.options.history_decided:
        raise UsageError("--compare reads the log of the runs: leave out --history.decided")
    for name in (COMPARISON,) if line.options.compare else FILES:
        check_output((out or line.options.run) / name, force=line.options.force or not out)
    return line.options, line.config.evaluation


def compare(chosen: argparse.Namespace, settings: EvaluationConfig) -> None:
    """Print how much more the policy of a run is worth than that of another one, and write it where `--out` says.

    Raises:
        ConfigError: If a run is not finished, damaged or edited, or the two cannot be compared.
        NotIdentified: If no user of the log tells.
        OutputError: If the file cannot be written.
    """
    found = pipeline.compare_runs(
        *(chosen.run, chosen.compare, chosen.history_path, settings),
        device=chosen.device,
        allow_classes=chosen.allow_class,
        folder=chosen.out,
        passes=pipeline.Passes(make_engine(chosen.engine, chosen.workers, chosen.engine_address)),
    )
    size = f"{found.ess:,.0f}" if math.isfinite(found.ess) else "-"
    print(
        f"{found}\n{found.decisions:,} decisions with a reward of {counted(found.users, 'user')}, "
        f"ESS of the difference {size}"
    )
    if found.sample:
        print(f"on {found.sample}")
    if chosen.out:
        write_json(pipeline.comparison_to_dict(found), chosen.out / COMPARISON)
        print(chosen.out / COMPARISON)


def main(arguments: Sequence[str] | None = None) -> int:
    """Open a run, evaluate its policy, write and print the report; return the exit code."""
    chosen, settings = parse(arguments)
    if chosen.compare:
        one_thread()(compare)(chosen, settings)
        return 0
    result = evaluate(
        *(chosen.run, chosen.history_path, settings),
        device=chosen.device,
        out=chosen.out,
        allow_classes=chosen.allow_class,
        decided=chosen.history_decided,
        engine=make_engine(chosen.engine, chosen.workers, chosen.engine_address),
    )
    table = result.policy_table
    print("\nWhat the policy does at the test users' slots (policy.csv has every segment)\n")
    print(agents.as_text(table[table["segment"] == agents.ALL_DECISIONS]))
    print(f"\n{result.details()}\n\n{result}\n\n{', '.join(str((chosen.out or chosen.run) / name) for name in FILES)}")
    return result.gate.exit_code if chosen.gate and result.gate is not None else 0


if __name__ == "__main__":
    program(main)

"""Choose for every user what to send now, and write the decisions with their exact propensities.

  crosschannel decide runs/NAME --history.path LOG --at 2026-11-24T10:00 --out decisions
  crosschannel decide runs/NAME --history.path LOG --out decisions --dry-run
  crosschannel decide runs/NAME --history.path LOG --eligible FILE --out decisions.csv
  crosschannel decide runs/NAME --guardrails.opted-out '{email: email_opt_out}' --out decisions.csv

The policy sees what the log holds of each user strictly before the time of the decisions. Arms are a permanent hash of
the user: the policy decides for `agent`, `holdout` gets nothing, and users of `business_as_usual`, for whom another
system decides, have no row. What may be sent comes from --eligible, a file with the columns user_id and
eligible_<module> (action names joined by |); without one it is what was eligible at each user's last slot. Guardrails
hold in any case, and users who churned get nothing. Columns of users that look like consent must be mapped by
guardrails. The run's constraints are kept over all users of the agent together, at prices that the columns
price_<constraint> hold. The decisions have the columns of a native log, so that the next log can begin with them.

--out FOLDER writes a folder for the date below it, as a whole or not at all, with everybody's arm (arms.parquet) and a
summary (decide.json); --at is rounded down to the slots of the log, and earlier days in the folder count as decided.
--out FILE writes decisions alone, at the time that --at says.

A log in buckets (`crosschannel bucket`) is read bucket by bucket. The decisions are the same. Under constraints what is
known of each user is on disk below --out, or beside the file, until the end.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from crosschannel.core import (
    DAY,
    BoolArray,
    ConfigError,
    duration,
    parse_moment,
    replacing,
    timestamps,
    write_csv,
)
from crosschannel.core.wording import counted
from crosschannel.engines import Engine, make_engine, shard
from crosschannel.histories import Buckets, Guardrails, History, open_buckets, read_eligible, read_user_list
from crosschannel.histories.readers.decided.days import day_name, is_by_date
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import reads_buckets
from crosschannel.pipeline.command_line import Parser, UsageError, logger, output_file, program
from crosschannel.pipeline.configuration import WITH_DECISIONS, Config, HistoryConfig
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.loop.day_summaries import (
    check_arms_of_users,
    check_same_arms,
    compare_counts,
    previous_day,
    read_summary,
)
from crosschannel.pipeline.loop.deciding import DecidedDay, decide_day, rolled_out, unreached_text
from crosschannel.pipeline.loop.decisions.bucket_lists import ListedBucket, list_buckets
from crosschannel.pipeline.loop.decisions.buckets import (
    BucketRequest,
    DecidedUsers,
    decide_buckets,
    merge_days,
    slots_of,
)
from crosschannel.pipeline.loop.decisions.consent import check_consent, refuse_open
from crosschannel.pipeline.loop.decisions.day_users import DayRequest
from crosschannel.pipeline.loop.decisions.eligible import Unsaid, eligible_before_guardrails, note_eligible
from crosschannel.pipeline.loop.decisions.priced_buckets import look_at_buckets
from crosschannel.pipeline.loop.decisions.refusals import check_against_run, check_gate
from crosschannel.pipeline.loop.decisions.slot_times import (
    asked_moment,
    check_covered,
    declared_grid,
    last_slot,
    moment_to_decide,
    note_time_of_day,
    shows_slots,
)
from crosschannel.pipeline.loop.recent import DAYS_FOLDER, recent_log
from crosschannel.pipeline.loop.writing import refuse_decided, restore_days, write_day
from crosschannel.pipeline.reading import build_history
from crosschannel.pipeline.run_files import remove_left_scratch, scratch_folder
from crosschannel.pipeline.run_folder import Run

FILES = (".parquet", ".csv")


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Return what the command line asks for, and a configuration with what may be sent and what limits it.

    Raises:
        ConfigError: If there is no such run.
        UsageError: If a flag or its value is wrong, or the file exists or cannot be written.
    """
    usage = "RUN --out PATH [--history.path PATH] [--guardrails.SETTING VALUE ...] [--constraints.SETTING VALUE ...]"
    parser = Parser("decide", __doc__, usage)
    parser.add_shared(
        *("run", "--history.path", "--history.decided", "--at", "--out"),
        history_path="the newest log, in the layout of the run's own (default: the log that the run learned from)",
        history_decided="earlier decisions by date, which count as decided (default: the run's, or those in --out)",
        out="folder of decisions by date, or a file that ends in .parquet or .csv (required)",
    )
    parser.add_argument("--eligible", metavar="FILE", type=Path, help="what may be sent to whom: .csv or .parquet")
    ignored = "columns of users that look like consent but do not limit what may be sent"
    parser.add_argument("--ignore-columns", metavar="TEXT", nargs="+", default=(), help=ignored)
    parser.add_argument(
        "--max-log-age", metavar="TIME", default="2d", help="largest time from the log's end to --at (default: 2d)"
    )
    parser.add_argument("--only-users", metavar="FILE", type=Path, help="users who may get messages: .csv or .parquet")
    share = "share of the agent's users who may get messages, for a gradual start; a larger one only adds (default: 1)"
    parser.add_argument("--ramp", metavar="SHARE", type=_share, default=1.0, help=share)
    dry = "write nothing: print the counts beside those of the day before in --out"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    parser.add_argument("--change-arms", action="store_true", help="allow other arms than the day before in --out had")
    parser.add_argument("--greedy", action="store_true", help="take the best action on the mean, without exploration")
    gate = (
        "decide only if the run's own evaluation ended with the verdict to deploy its policy, which explores and keeps "
        "the run's constraints"
    )
    parser.add_argument("--require-gate", action="store_true", help=gate)
    clear = "write users' ids into decision ids (default: a keyed hash of them)"
    parser.add_argument("--clear-ids", action="store_true", help=clear)
    parser.add_shared("--engine", "--engine-address", "--workers")
    part = (
        "decide for the buckets of task i of n only (i/n, from 1), into a file; the files together are the decisions, "
        "and one of a task without a bucket has no row"
    )
    parser.add_argument("--shard", metavar="I/N", help=part)
    parser.add_shared(
        *("--seed", "--device", "--allow-class", "--force"),
        seed="seed of the draws, together with the time (default: 0)",
        force="overwrite the file, or decide again for a day that --out has",
    )
    folder = parser.first_positional(arguments)
    stored = Run.read_config(folder) if folder and Run.is_at(folder) else Config()
    # Guardrails limit any log that is read, that of a market included.
    base = Config(
        history=HistoryConfig("folder"),
        guardrails=stored.guardrails,
        arms=stored.arms,
        reward=stored.reward,
        constraints=stored.constraints,
    )
    line = parse_settings(parser, arguments, sections=("guardrails", "arms", "constraints"), base=base)
    chosen = line.options
    if folder and Run.is_at(folder):
        asked = line.config.constraints
        check_against_run(asked, stored.constraints, greedy=chosen.greedy, require_gate=chosen.require_gate)
    if chosen.out is None:
        raise UsageError("--out is missing: a folder of decisions by date, or a file that ends in .parquet or .csv")
    if chosen.shard is not None:
        shard((), chosen.shard)
        if not _is_file(chosen.out):
            raise UsageError("--shard decides for some of the users: give a file as --out, one for each task")
    if _is_file(chosen.out):
        if chosen.dry_run:
            raise UsageError("--dry-run compares with the day before in a folder: give the folder as --out")
        chosen.out = output_file(chosen.out, chosen.force)
    elif chosen.out.suffix and not chosen.out.is_dir():
        raise UsageError(f"--out {chosen.out}: decisions are written as .parquet or .csv, or into a folder by date")
    elif chosen.out.exists() and not chosen.out.is_dir():
        raise UsageError(f"--out {chosen.out} is a file: name a folder, or a file that ends in .parquet or .csv")
    return chosen, line.config


def _is_file(path: Path) -> bool:
    return path.suffix in FILES


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Open a run, read the newest log, decide, write; return the exit code."""
    chosen, settings = parse(arguments)
    guardrails = settings.guardrails
    run = Run.open_in_use(chosen.run, chosen.history_path, chosen.allow_class)
    if chosen.require_gate:
        check_gate(chosen.run, chosen.allow_class)
    if not (_is_file(chosen.out) or chosen.dry_run):
        restore_days(chosen.out)
    source, decided = _with_decided(run.config.history, chosen)
    run = replace(run, config=replace(run.config, history=source, arms=settings.arms, constraints=settings.constraints))
    if reads_buckets(run.config):
        _decide_by_bucket(run, settings, chosen)
        return 0
    if chosen.shard is not None:
        raise UsageError("--shard divides a log in buckets: bucket the log (`crosschannel bucket`), or leave it out")
    history = _read(run, chosen, guardrails)
    logger.info(history.summary())
    at = _time_to_decide(run, history, chosen)
    if chosen.eligible is not None:
        eligible = read_eligible(chosen.eligible, history)
    else:
        eligible, what = eligible_before_guardrails(history, at, decided)
        note_eligible(what, Unsaid.of_users(history, eligible))
    check_consent(history, eligible, guardrails, chosen.ignore_columns)
    may_receive = _may_receive(run, history, chosen.ramp, chosen.only_users)
    day = decide_day(run, history, _day_request(at, guardrails, chosen), eligible, may_receive)
    _write(day, chosen, at)
    return 0


def _day_request(at: int, guardrails: Guardrails, chosen: argparse.Namespace) -> DayRequest:
    return DayRequest(
        at=at,
        guardrails=guardrails,
        explore=not chosen.greedy,
        device=chosen.device,
        seed=chosen.seed,
        clear_ids=chosen.clear_ids,
    )


def _decide_by_bucket(run: Run, settings: Config, chosen: argparse.Namespace) -> None:
    """Decide for the users of a bucketed log, or of a shard of its buckets, and write the decisions."""
    path = run.config.history.path
    assert path is not None  # a bucketed folder was found there
    buckets, engine = open_buckets(path), make_engine(chosen.engine, chosen.workers, chosen.engine_address)
    if _is_file(chosen.out):  # at a time that needs no look at the log's slots
        at = asked_moment(chosen.at, buckets.span)
        check_covered(chosen.at, at, buckets.span, None, duration(chosen.max_log_age))
    else:
        at = _time_to_decide(run, slots_of(buckets, run, engine), chosen)
    day = _day_request(at, settings.guardrails, chosen)
    request = BucketRequest(run, day, ignored=tuple(chosen.ignore_columns), ramp=chosen.ramp)
    listed = list_buckets(buckets, chosen.eligible, chosen.only_users)
    if run.constraints.names:
        decided = _decide_at_prices(buckets, listed, request, Passes(engine), chosen)
    else:
        decided = _decide_each(buckets, listed, request, engine, chosen)
    _write(decided, chosen, at)


def _decide_each(
    buckets: Buckets, listed: Sequence[ListedBucket], request: BucketRequest, engine: Engine, chosen: argparse.Namespace
) -> DecidedDay:
    """Decide for each user alone."""
    found = decide_buckets(listed, request, engine, chosen.shard)
    _check_shown(found, buckets, request.day.at, chosen)
    return merge_days(found.days, by_value=buckets.manifest.numbered)


def _decide_at_prices(
    buckets: Buckets, listed: Sequence[ListedBucket], request: BucketRequest, passes: Passes, chosen: argparse.Namespace
) -> DecidedDay:
    """Decide at the prices of all users together, with what is found of each user below or beside --out meanwhile."""
    if chosen.shard is not None:
        raise UsageError(
            f"--shard: the prices of constraints ({', '.join(request.run.constraints.names)}) rest on the users of all "
            "buckets: leave it out, and let an engine run the buckets side by side (--engine)"
        )
    folder = (chosen.out.parent if _is_file(chosen.out) else chosen.out).absolute()
    remove_left_scratch(folder)
    with scratch_folder(folder) as scratch:
        found = look_at_buckets(buckets, listed, request, scratch, passes)
        _check_shown(found.shown, buckets, request.day.at, chosen)
        return merge_days(found.decide(), by_value=buckets.manifest.numbered)


def _check_shown(found: DecidedUsers, buckets: Buckets, at: int, chosen: argparse.Namespace) -> None:
    """Refuse what the buckets together show to be wrong, and print what a reader has to know.

    Raises:
        ConfigError: If the log has not begun, or columns look like consent and nothing limits what may be sent.
    """
    if _is_file(chosen.out):
        check_covered(chosen.at, at, buckets.span, found.first, duration(chosen.max_log_age))
        note_time_of_day(found.times_of_day, at)
    if chosen.eligible is None:
        note_eligible(found.source, found.unsaid)
    if found.everything:
        refuse_open(found.open_columns, buckets.modules)


def _time_to_decide(run: Run, history: History, chosen: argparse.Namespace) -> int:
    """Return the time of the decisions: into a folder by date that of a slot, whose day is not decided yet."""
    at = moment_to_decide(chosen.at, history, duration(chosen.max_log_age))
    if _is_file(chosen.out):
        note_time_of_day(history.decisions.time % DAY, at)
        return at
    period = run.trained_with("policy").pace.period
    at = last_slot(history, at, period, declared_grid(run.config.history))
    name = day_name(at, period)
    refuse_decided(chosen.out / name, chosen.force or chosen.dry_run)
    if not chosen.change_arms:
        check_same_arms(chosen.out, name, run.config.arms)
    return at


def _read(run: Run, chosen: argparse.Namespace, guardrails: Guardrails) -> History:
    """Read the log; its recent days alone where it is one by day, a file says what is eligible, and a day is written.

    The slot that is decided for lies up to a period before --at, and is found from the log's last week.
    """
    source = run.config.history
    whole = _is_file(chosen.out) or chosen.dry_run or chosen.eligible is None
    changed = source.churn_events is not None or source.observed_from is not None
    if whole or changed or source.source != "folder" or source.path is None:
        return build_history(run.config)[0]
    trained_with = run.trained_with("policy")
    recent = recent_log(run.path / DAYS_FOLDER, source.path, source.decided, trained_with.features.layout, guardrails)
    try:
        moment = None if chosen.at is None else parse_moment(chosen.at)
    except ConfigError:
        recent = None
    if recent is None or (moment is not None and moment > recent.log.end + duration(chosen.max_log_age)):
        return build_history(run.config)[0]  # a time that the log does not cover is refused beside the log's own times
    moment, period = recent.log.end if moment is None else moment, trained_with.pace.period
    found = recent.read(moment - duration(chosen.max_log_age) - 2 * period)
    return found.with_ties(source.ties) if shows_slots(found, moment, period) else build_history(run.config)[0]


def _with_decided(history: HistoryConfig, chosen: argparse.Namespace) -> tuple[HistoryConfig, Path | None]:
    """Return where the log is, with the earlier decisions that join it, and their folder by date if there is one.

    Raises:
        ConfigError: If the source is not one that decisions join.
    """
    if chosen.history_decided is not None:
        history = replace(history, decided=chosen.history_decided)
    elif history.decided is None and not _is_file(chosen.out) and is_by_date(chosen.out):
        mapping = {"tables": history.tables, "stream": history.stream}.get(history.source)
        joins = history.source in WITH_DECISIONS and (mapping is None or mapping.slots != "sends_only")
        if joins and (mapping is None or mapping.decided is None):
            history = replace(history, decided=chosen.out)
            logger.info(f"the decisions in {chosen.out} join the log (--history.decided)")
    return history, history.decided


def _may_receive(run: Run, history: History, ramp: float, only_users: Path | None) -> BoolArray | None:
    """Return which users may get messages yet (U,); None for all."""
    if ramp == 1.0 and only_users is None:
        return None
    listed = None if only_users is None else read_user_list(only_users, history)
    found = rolled_out(history, run.config.arms, ramp, listed)
    logger.info(f"{int(found.sum()):,} of {history.n_users:,} users may get messages yet")
    return found


def _write(day: DecidedDay, chosen: argparse.Namespace, at: int) -> None:
    """Write the decisions where they are wanted, unless they change users' arms, and print what they are."""
    if not (_is_file(chosen.out) or chosen.change_arms):
        check_arms_of_users(chosen.out, day.name, day.arms)
    counts = day.summary["counts"]
    first = sorted(next(iter(counts.values())).items(), key=lambda item: -item[1])
    total = max(sum(n for _, n in first), 1)
    shares = ", ".join(f"{name} {n / total:.1%}" for name, n in first)
    arms = f" ({text})" if (text := _arms_text(day)) else ""
    line = f"{counted(len(day.decisions), 'decision')} for {timestamps(np.array([at]))[0]:%Y-%m-%d %H:%M} UTC"
    line += f"{arms}: {shares}{unreached_text(day)}"
    if chosen.dry_run:
        before = previous_day(chosen.out, day.name)
        print(compare_counts(counts, None if before is None else read_summary(before)["counts"]))
        print(f"nothing is written; {line}")
        return
    target = chosen.out
    if not _is_file(chosen.out):
        target = write_day(chosen.out, day, force=chosen.force)
    elif chosen.out.suffix == ".csv":
        write_csv(day.decisions, chosen.out)
    else:
        with replacing(chosen.out) as draft:
            day.decisions.to_parquet(draft, index=False)
    print(f"{target}: {line}")


def _arms_text(day: DecidedDay) -> str:
    """Return the numbers of users by arm and of those who wait; empty where the agent decides for everybody."""
    users, waiting = day.summary["users"], day.summary["waiting"]
    parts = [f"{name} {n:,}" for name, n in users.items() if n] if users["agent"] < len(day.arms) else []
    return ", ".join([*parts, *([f"waiting {waiting:,}"] if waiting else [])])


if __name__ == "__main__":
    program(main)

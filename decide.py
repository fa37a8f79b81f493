"""Choose for every user what to send now, and write the decisions with their exact propensities.

  crosschannel decide runs/NAME --history.path LOG --out decisions.parquet
  crosschannel decide runs/NAME --history.path LOG --eligible FILE --out decisions.csv
  crosschannel decide runs/NAME --guardrails.opted-out '{email: email_opt_out}' --out decisions.csv

The policy sees what the log holds of each user strictly before the time of the decisions. What may
be sent comes from --eligible, a file with the columns user_id and eligible_<module> (action names
joined by |); without one it is what was eligible at each user's last slot. Guardrails hold in any
case, and users who churned get nothing. Columns of users that look like consent must be mapped by
guardrails. The run's constraints are kept over all users together, at prices that the columns
price_<constraint> hold. The output has the columns of a native log's decisions, so that the next
log can begin with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel import agents
from crosschannel.core import (
    DAY,
    SECOND,
    BoolArray,
    ConfigError,
    ObjectArray,
    duration,
    keys,
    parse_moment,
    pseudonyms,
    replacing,
    timestamps,
    write_csv,
)
from crosschannel.evaluation.gate import DEPLOY
from crosschannel.histories import (
    DecisionLog,
    Guardrails,
    History,
    allowed_actions,
    consent_columns,
    last_eligible,
    read_eligible,
    without_churned,
)
from crosschannel.pipeline.building import build_history
from crosschannel.pipeline.command_line import (
    Parser,
    UsageError,
    invocation,
    logger,
    one_thread,
    output_file,
    program,
)
from crosschannel.pipeline.configuration import Config, HistoryConfig
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.pricing import priced_policy
from crosschannel.pipeline.run_folder import Run

#: The times of day of a daily or six-hourly grid of slots, in UTC where clocks change.
MOST_TIMES_OF_DAY = 8


@one_thread()
def decide(
    run: Run,
    history: History,
    at: int,
    eligible: BoolArray,
    guardrails: Guardrails,
    *,
    explore: bool = True,
    device: str = "cpu",
    seed: int = 0,
    clear_ids: bool = False,
) -> pd.DataFrame:
    """Choose for each user of a history at a time, under the run's constraints.

    Prices are found for all users who have not churned, before anything is drawn. Without exploration they are those of
    the best estimate's votes, of which a share next to the price is drawn where that is needed to keep a budget.

    Returns:
        The decisions as a table in the native columns, with a column `price_<constraint>` for each constraint.

    Raises:
        ConfigError: If the constraints do not fit the history or the agent, or cannot be kept (`InfeasibleBudget`).
    """
    agent, _ = agents.load_policy(run.policy, device, history.modules, run.allowed_classes)
    trained_with = run.trained_with("policy")
    users = np.arange(history.n_users)
    time = np.full(history.n_users, at, dtype=np.int64)
    mask = without_churned(eligible, history, at)
    # A microsecond later, so that a message of this very moment counts towards caps and gaps as well.
    mask &= allowed_actions(guardrails, history, users, time + 1)
    observations = agents.Observations(trained_with.features.at(history, users, time), mask, history.user_keys)
    constraints, pace = run.config.constraints, trained_with.pace
    agents.check_constraints(constraints, history.modules, pace.rates)
    prices: pd.DataFrame | None = None
    if explore or constraints.price_messages:
        has_slot = history.churned_at >= at
        together = np.zeros(history.n_users, dtype=np.int64)
        policy = priced_policy(agent, observations, together, constraints, pace, has_slot, explore=explore)
        agents.check_probabilities(agent.modules, policy.probabilities, mask)
        rng = np.random.default_rng([seed, at // SECOND])
        chosen, prices = agents.sample_actions(agent.modules, policy.probabilities, rng), policy.table
    else:
        chosen = agent.act(observations, explore=False)
    agents.check_decisions(agent.modules, chosen, mask)
    ids = _decision_ids(history, at, None if clear_ids else trained_with.history)
    log = DecisionLog(
        id=ids,
        key=keys(ids),
        user=users,
        time=time,
        actions=chosen.actions,
        propensity=chosen.probabilities,
        joint=chosen.joint,
        policy=np.full(history.n_users, run.path.resolve().name, dtype=object),
        eligible=mask,
    )
    table = replace(history, decisions=log).decisions_frame()
    return table if prices is None else _with_prices(table, prices)


def _with_prices(table: pd.DataFrame, prices: pd.DataFrame) -> pd.DataFrame:
    """Add a column with the price of each constraint to decisions; log those that bind.

    Raises:
        ConfigError: If the log has a column of that name.
    """
    for row in prices.to_dict("records"):
        name, price = row["constraint"], float(row["price"])
        column = f"price_{name}"
        if column in table:
            raise ConfigError(f"the constraint {name!r} needs the column {column!r}, which the log has already")
        table[column] = price
        if row["binding"]:
            logger.info(
                f"the constraint {name} binds: price {price:.4g} in reward units, expected use {row['use']:.4g} of a "
                f"budget of {row['budget']:.4g}"
            )
    return table


def _decision_ids(history: History, at: int, secret: str | None) -> ObjectArray:
    """Return ids of the time and the user: of a keyed hash of the user's id, or with no secret of the id itself.

    The secret is the fingerprint of the log that the run has learned from, which only the run folder holds. Deciding
    again for the same time gives the same ids.
    """
    users = history.user_ids.astype(str) if secret is None else pseudonyms(history.user_ids, secret)
    moment = pd.Timestamp(at, unit="us", tz="UTC").strftime("%Y%m%dT%H%M%S" + ("%f" if at % SECOND else ""))
    return np.array([f"{moment}-{user}" for user in users], dtype=object)


def note_time_of_day(history: History, at: int) -> None:
    """Say so if a log's slots are always at the same few times of day, and the decision is for another one."""
    of_day = np.unique(history.decisions.time % DAY)
    if len(of_day) > MOST_TIMES_OF_DAY or at % DAY in of_day:
        return
    slots = ", ".join(f"{pd.Timestamp(time, unit='us'):%H:%M}" for time in of_day.tolist())
    logger.info(
        f"deciding for {pd.Timestamp(at, unit='us'):%H:%M} UTC, while the log's slots are at {slots} UTC: what was "
        "learned holds at a slot; give its time by --at"
    )


def check_consent(history: History, eligible: BoolArray, guardrails: Guardrails, ignored: Collection[str]) -> None:
    """Refuse to send anything to anybody where the users' table seems to know better.

    Raises:
        ConfigError: If every channel is eligible for every user, although there are columns of consent or reachability
            that neither the guardrails nor the user has mentioned; or if an ignored column does not exist.
    """
    known = () if history.users is None else tuple(map(str, history.users.columns))
    if absent := [name for name in ignored if name not in known]:
        raise ConfigError(
            f"--ignore-columns {absent[0]}: the users have no such column, only {', '.join(known) or 'none'}"
        )
    channels = history.modules[0].actions[1:]
    settled = {*guardrails.consent_attributes, *ignored}
    open_columns = [name for name in consent_columns(history.users, channels) if name not in settled]
    if open_columns and history.modules.split(eligible)[0].all():
        example = f"{{{channels[0]}: {open_columns[0]}}}"
        raise ConfigError(
            "everything would be eligible for everybody, but columns of the users look like consent or reachability: "
            f"{', '.join(open_columns)}. Write what they mean: --guardrails.reachable '{example}' if true means that "
            f"the channel may be used, --guardrails.opted-out '{example}' if true means that it must not "
            f"be; or give --eligible FILE; or, if they limit nothing, --ignore-columns {' '.join(open_columns)}"
        )


def check_gate(folder: Path, allow_classes: Collection[str] = ()) -> None:
    """Refuse a run whose stored evaluation did not end with the verdict to deploy its policy.

    Raises:
        ConfigError: If it did not, or if the folder has no evaluation of the run's policy with the run's settings.
    """
    result = Run.open_ended(folder, allow_classes=allow_classes).stored_result()
    if result is None or result.gate is None:
        raise ConfigError(
            f"--require-gate: {folder} has no evaluation of its policy with its settings: run "
            f"`{invocation('evaluate', folder)}`"
        )
    if result.gate.verdict != DEPLOY:
        raise ConfigError(
            f"--require-gate: the verdict on the policy of {folder} is `{result.gate.verdict}`: {result.gate.reason} "
            "Nothing was decided"
        )


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Return what the command line asks for, and a configuration with what may be sent and what limits it.

    Raises:
        ConfigError: If there is no such run.
        UsageError: If a flag or its value is wrong, or the file exists or cannot be written.
    """
    usage = "RUN --out PATH [--history.path PATH] [--guardrails.SETTING VALUE ...] [--constraints.SETTING VALUE ...]"
    parser = Parser("decide", __doc__, usage)
    parser.add_shared(
        *("run", "--history.path", "--at", "--out"),
        history_path="the newest log, in the layout of the run's own (default: the log that the run learned from)",
        out="file to write: .parquet or .csv (required)",
    )
    parser.add_argument("--eligible", metavar="FILE", type=Path, help="what may be sent to whom: .csv or .parquet")
    ignored = "columns of users that look like consent but do not limit what may be sent"
    parser.add_argument("--ignore-columns", metavar="TEXT", nargs="+", default=(), help=ignored)
    parser.add_argument(
        "--max-log-age", metavar="TIME", default="2d", help="largest time from the log's end to --at (default: 2d)"
    )
    parser.add_argument("--greedy", action="store_true", help="take the best action on the mean, without exploration")
    gate = (
        "decide only if the run's own evaluation ended with the verdict to deploy its policy, which explores and keeps "
        "the run's constraints"
    )
    parser.add_argument("--require-gate", action="store_true", help=gate)
    clear = "write users' ids into decision ids (default: a keyed hash of them)"
    parser.add_argument("--clear-ids", action="store_true", help=clear)
    parser.add_shared(
        *("--seed", "--device", "--allow-class", "--force"),
        seed="seed of the draws, together with the time (default: 0)",
        force="overwrite the file",
    )
    folder = parser.first_positional(arguments)
    stored = Run.read_config(folder) if folder and Run.is_at(folder) else Config()
    # Guardrails limit any log that is read, that of a market included.
    base = Config(
        history=HistoryConfig("folder"),
        guardrails=stored.guardrails,
        reward=stored.reward,
        constraints=stored.constraints,
    )
    line = parse_settings(parser, arguments, sections=("guardrails", "constraints"), base=base)
    chosen = line.options
    if folder and Run.is_at(folder):
        _check_judged(chosen, line.config.constraints, stored.constraints)
    if chosen.out is None:
        raise UsageError("--out is missing: decisions are written as .parquet or .csv")
    if chosen.out.suffix not in (".parquet", ".csv"):
        raise UsageError(f"--out {chosen.out}: decisions are written as .parquet or .csv")
    chosen.out = output_file(chosen.out, chosen.force)
    return chosen, line.config


def _check_judged(chosen: argparse.Namespace, asked: agents.Constraints, trained: agents.Constraints) -> None:
    """Refuse what the training has not priced, and with --require-gate a policy that the verdict is not on.

    Raises:
        UsageError: If so.
    """
    if asked.discount != trained.discount:
        raise UsageError(
            f"--constraints.discount {asked.discount:g}: the run has {trained.discount:g}, and the price of a message "
            "is learned in training: train again with the other discount"
        )
    if not chosen.require_gate:
        return
    if chosen.greedy:
        raise UsageError(
            "--require-gate with --greedy: the verdict is on the exploring policy and holds for no other one: leave "
            "one of the two out"
        )
    if asked != trained:
        raise UsageError(
            "--require-gate with other --constraints: the verdict is on the policy under the run's own constraints: "
            "leave them out, or train a run with them and evaluate it"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Open a run, read the newest log, decide, write; return the exit code."""
    chosen, settings = parse(arguments)
    guardrails = settings.guardrails
    run = Run.open_ended(chosen.run, chosen.history_path, chosen.allow_class)
    if chosen.require_gate:
        check_gate(chosen.run, chosen.allow_class)
    run = replace(run, config=replace(run.config, constraints=settings.constraints))
    history = build_history(run.config)[0]
    logger.info(history.summary())
    at = _moment(chosen.at, history, duration(chosen.max_log_age))
    note_time_of_day(history, at)
    if chosen.eligible is not None:
        eligible = read_eligible(chosen.eligible, history)
    else:
        eligible = last_eligible(history, at)
        said = history.decisions.eligible is not None
        what = "what was eligible at each user's last slot before" if said else "everything: the log does not say"
        logger.info(f"eligible is {what}; a file of what is eligible now is better: --eligible FILE")
    check_consent(history, eligible, guardrails, chosen.ignore_columns)
    table = decide(
        *(run, history, at, eligible, guardrails),
        explore=not chosen.greedy,
        device=chosen.device,
        seed=chosen.seed,
        clear_ids=chosen.clear_ids,
    )
    if chosen.out.suffix == ".csv":
        write_csv(table, chosen.out)
    else:
        with replacing(chosen.out) as draft:
            table.to_parquet(draft, index=False)
    first = table[history.modules.names[0]]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in first.value_counts(normalize=True).items())
    print(f"{chosen.out}: {len(table):,} decisions for {timestamps(np.array([at]))[0]:%Y-%m-%d %H:%M} UTC: {shares}")
    return 0


def _moment(text: str | None, history: History, max_log_age: int) -> int:
    """Return the time of the decisions, which the log must reach."""
    start, end = history.span
    if text is None:
        return end
    try:
        at = parse_moment(text)
    except ConfigError as error:
        raise ConfigError(f"--at {error}") from None
    begin = int(history.decisions.time.min())
    if not max(start, begin) < at <= end + max_log_age:
        first, last, decided = timestamps(np.array([start, end, begin]))
        raise ConfigError(
            f"--at {text} is not covered by the log, which runs from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} "
            f"UTC and whose first decision is at {decided:%Y-%m-%d %H:%M}: read a newer log (--history.path), "
            "or allow an older one (--max-log-age)"
        )
    return at


if __name__ == "__main__":
    program(main)

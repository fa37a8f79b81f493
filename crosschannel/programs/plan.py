"""Plan how much data or exploration a value needs, and how many users a randomised trial needs.

  crosschannel plan --config FILE --history.path FOLDER          before training, from a log
  crosschannel plan --config FILE --error 0.01                   to know a value to +- 0.01
  crosschannel plan --run runs/NAME                              for the policy of a run
  crosschannel plan --base-rate 0.05 --lift 0.1                  users per arm of a trial, no log
  crosschannel plan --sd 12 --difference 0.5 --power 0.9         the same for the mean of a value

From a log, the spread of its rewards and its propensities say how wide an interval would be, and
how many users, weeks or which share of uniform choices in each module would make it narrow enough.
A trial compares two arms of equal size, two-sided.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosschannel import agents, pipeline
from crosschannel.core import replacing
from crosschannel.pipeline.command_line import Parser, UsageError, one_thread, output_file, program
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.run_folder import Run

#: Version of the file that `--out` names.
PLAN_VERSION = 1
SECTIONS = ("history", "guardrails", "context", "reward", "split", "evaluation")


@dataclass(frozen=True)
class Trial:
    """A randomised trial with two arms of equal size.

    Attributes:
        what: What is compared, in words.
        users_per_arm: Users in each arm.
        power: Probability of finding the difference.
        level: Confidence level of the two-sided test.
    """

    what: str
    users_per_arm: int
    power: float
    level: float

    def __str__(self) -> str:
        return (
            f"A trial that finds {self.what} with a power of {self.power:.0%} (two-sided, level {self.level:.0%}) "
            f"needs {self.users_per_arm:,} users in each of two arms."
        )


def plan_trials(chosen: argparse.Namespace) -> tuple[Trial, ...]:
    """Return the trials that the flags ask for.

    Raises:
        UsageError: If a flag is given without the other one that it needs.
        ConfigError: If no trial of this kind exists.
    """
    # SciPy's solvers are imported here, so that help and wrong flags do not wait for them.
    from crosschannel.evaluation.planning import users_per_arm_of_means, users_per_arm_of_rates

    pairs = (("base_rate", "lift"), ("sd", "difference"))
    for one, two in pairs:
        if (getattr(chosen, one) is None) != (getattr(chosen, two) is None):
            raise UsageError(f"--{one.replace('_', '-')} and --{two} go together: give both")
    found, power, level = [], chosen.power, chosen.level
    if chosen.base_rate is not None:
        users = users_per_arm_of_rates(chosen.base_rate, chosen.lift, power, level)
        what = f"a change of a rate of {chosen.base_rate:g} by {chosen.lift:+.1%}"
        found.append(Trial(what, math.ceil(users), power, level))
    if chosen.sd is not None:
        users = users_per_arm_of_means(chosen.difference, chosen.sd, power, level)
        what = f"a difference of {chosen.difference:g} in a mean of values with the standard deviation {chosen.sd:g}"
        found.append(Trial(what, math.ceil(users), power, level))
    return tuple(found)


@one_thread()
def plan_log(config: Config, error: float | None, run: Run | None = None, device: str = "cpu") -> dict[str, Any]:
    """Return what the log of a configuration needs, by policy: of a run's, or of those that have no need of one.

    Raises:
        ConfigError: If the settings do not fit the log, or a propensity is missing.
        InputError: If the log cannot be read.
        NotIdentified: If too few decisions have a reward.
    """
    if run is None:
        data = pipeline.prepare(config)
        return dict(pipeline.plan(config, data, error))
    trained_with = run.trained_with("policy")
    agent, _ = agents.load_policy(run.policy, device, allow_classes=run.allowed_classes)
    data = replace(pipeline.prepare(config, trained_with.features), pace=trained_with.pace)
    policy = pipeline.explain_policy(config, data, agent)
    return dict(pipeline.plan(config, data, error, policy.probabilities))


def parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Config, bool]:
    """Return what the command line asks for, the configuration, and whether its log is planned with.

    Raises:
        ConfigError: If the configuration is wrong, or there is no such run.
        UsageError: If a flag or its value is wrong, or a file exists.
    """
    parser = Parser("plan", __doc__, "[--config FILE | --run RUN] [--error NUM] [--base-rate NUM --lift NUM] [...]")
    parser.add_argument("--run", metavar="RUN", type=Path, help="folder of a finished run, whose policy is planned for")
    error = "half of the width of the interval that is asked for, in reward units (default: twice that of the log)"
    parser.add_argument("--error", metavar="NUM", type=float, help=error)
    trial = parser.add_argument_group("randomised trial (with these flags alone, no log is read)")
    trial.add_argument("--base-rate", metavar="NUM", type=float, help="share of the users of one arm with the event")
    trial.add_argument("--lift", metavar="NUM", type=float, help="relative change of this share: 0.1 is 10 %% more")
    trial.add_argument("--sd", metavar="NUM", type=float, help="standard deviation of one user's value")
    trial.add_argument("--difference", metavar="NUM", type=float, help="difference of the means of two arms")
    trial.add_argument("--power", metavar="NUM", type=float, default=0.8, help="chance to find it (default: 0.8)")
    trial.add_argument("--level", metavar="NUM", type=float, default=0.95, help="level of the test (default: 0.95)")
    parser.add_shared("--out", "--device", "--allow-class", "--force", out="JSON file of the plan")
    line = parse_settings(parser, arguments, sections=SECTIONS)
    chosen = line.options
    if chosen.run is not None and line.overrides:
        raise UsageError("--run keeps the run's own settings: leave out --config and all settings")
    if chosen.out is not None:
        chosen.out = output_file(chosen.out, chosen.force)
    only_trial = chosen.run is None and chosen.error is None and not line.overrides
    asks_for_trial = chosen.base_rate is not None or chosen.sd is not None
    return chosen, line.config, not (only_trial and (asks_for_trial or chosen.lift or chosen.difference))


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, print and write the plan; return the exit code."""
    chosen, config, reads_log = parse(arguments)
    trials = plan_trials(chosen)
    needs: dict[str, Any] = {}
    if reads_log:
        run = None if chosen.run is None else Run.open_ended(chosen.run, allow_classes=chosen.allow_class)
        needs = plan_log(config if run is None else run.config, chosen.error, run, chosen.device)
    for policy, found in needs.items():
        print(f"Value of the whole action of: {policy}")
        print("".join(f"  {need}\n" for need in found))
    for trial in trials:
        print(trial)
    if chosen.out is not None:
        plain = {
            "version": PLAN_VERSION,
            "needs": {policy: [need.to_dict() for need in found] for policy, found in needs.items()},
            "trials": [vars(trial) for trial in trials],
        }
        with replacing(chosen.out) as draft:
            draft.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        print(f"\n{chosen.out}")
    return 0


if __name__ == "__main__":
    program(main)

"""The verdict of an evaluation by a declared rule, and the choice of one of several policies on a fold of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from crosschannel.core.arrays import BoolArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.serialization import finite_values, from_dict, number_values
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval

DEPLOY, HOLD, NOT_IDENTIFIED = "deploy", "hold", "not identified"
#: Exit codes of `crosschannel evaluate --gate`; 1 and 2 are those of errors.
EXIT_CODES = {DEPLOY: 0, HOLD: 3, NOT_IDENTIFIED: 4}


@dataclass(frozen=True)
class GateRule:
    """The rule by which an evaluation ends with the verdict to deploy a policy, or not to.

    Attributes:
        min_lift: What the lower bound of the difference to the log must exceed, in reward units per decision.
        max_cost_increase: Largest share by which the rate of each cost event may exceed the log's: the upper bound of
            its rate under the policy is compared. None: only the run's constraints on cost events bound them, by the
            agent's own estimates.
    """

    min_lift: float = 0.0
    max_cost_increase: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.min_lift):
            raise ConfigError(f"gate: min_lift {self.min_lift} is not a number")
        if self.max_cost_increase is not None and not 0 <= self.max_cost_increase < math.inf:
            raise ConfigError(f"gate: max_cost_increase {self.max_cost_increase} is not a share of 0 or more")


@dataclass(frozen=True)
class CostEvent:
    """How often a cost event follows decisions, in the log and under the policy.

    Attributes:
        event: The event's name.
        logged: Its rate per decision in the log.
        policy: Its rate per decision under the policy, with an interval; NaN where not identified.
        reason: Why the rate under the policy is not identified; empty where it is.
    """

    event: str
    logged: float
    policy: Interval
    reason: str = ""


@dataclass(frozen=True)
class ExpectedUse:
    """What a policy is expected to use of a limit, by the agent's own estimates.

    Attributes:
        name: The constraint's name.
        use: Expected use.
        limit: What may be used.
    """

    name: str
    use: float
    limit: float


@dataclass(frozen=True)
class GateVerdict:
    """What the rule says of a policy.

    Attributes:
        verdict: `deploy`, `hold` or `not identified`.
        reason: Why, in plain words.
        rule: The rule.
        costs: The cost events that were looked at.
    """

    verdict: str
    reason: str
    rule: GateRule = field(default_factory=GateRule)
    costs: tuple[CostEvent, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in EXIT_CODES:
            raise ConfigError(f"the verdict {self.verdict!r} is none of {', '.join(EXIT_CODES)}")

    @property
    def exit_code(self) -> int:
        """Exit code of `crosschannel evaluate --gate`."""
        return EXIT_CODES[self.verdict]

    def __str__(self) -> str:
        return f"Verdict: {self.verdict}. {self.reason}"

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain values; what is not a finite number is None."""
        costs = [asdict(cost) | {"policy": finite_values(asdict(cost.policy))} for cost in self.costs]
        return asdict(self) | {"exit_code": self.exit_code, "costs": [finite_values(cost) for cost in costs]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GateVerdict:
        """Return the verdict that `to_dict` turned into plain values; what is None becomes NaN.

        Raises:
            ConfigError: If a value is of another type.
        """
        costs = [number_values(cost) | {"policy": number_values(cost["policy"])} for cost in data["costs"]]
        return from_dict(cls, {name: data[name] for name in ("verdict", "reason", "rule")} | {"costs": costs}, "gate")


def gate_verdict(
    difference: Interval,
    rule: GateRule,
    *,
    not_identified: str = "",
    assumption: str = "",
    costs: Sequence[CostEvent] = (),
    constraints: Sequence[ExpectedUse] = (),
    recent: Interval = UNDEFINED,
) -> GateVerdict:
    """Apply the rule to an evaluation.

    1. *Not identified*: the log does not identify the policy's value, or a rate that the rule bounds.
    2. *Hold*: the lower bound of the difference is not above `min_lift`; or the upper bound of the difference at the
       log's last decisions is below it, as where messages no longer do what they did; or the policy is expected to
       use more than a constraint allows; or the upper bound of a cost event's rate is above the bound.
    3. *Deploy*: otherwise. The reason names apart what the log measured and what only the agent estimates.

    Reasons to hold come before a cost that is not identified: they do not depend on it.

    Args:
        difference: Value of the policy minus that of the log, with its interval.
        rule: The rule.
        not_identified: Why the value is not identified; empty where it is.
        assumption: What the value assumes, in words; empty where nothing.
        costs: Rates of the cost events, measured on the log.
        constraints: What the policy is expected to use of each constraint, by the agent's own estimates: the solver of
            the prices makes these hold, so that they are no evidence.
        recent: The difference over the last part of the log's time; undefined where that is not identified.
    """

    def verdict(word: str, reason: str) -> GateVerdict:
        return GateVerdict(verdict=word, reason=reason, rule=rule, costs=tuple(costs))

    if not_identified or not difference.is_defined:
        why = not_identified or "its interval is undefined"
        return verdict(NOT_IDENTIFIED, f"The log does not identify the value of the policy: {why}.")
    reasons = []
    bounds = f"the interval of the difference to the log is [{difference.low:.4g}, {difference.high:.4g}]"
    if assumption:
        bounds += f" {assumption}"
    if not difference.low > rule.min_lift:
        reasons.append(f"the log does not show a gain of more than {rule.min_lift:g} per decision: {bounds}")
    if recent.is_defined and recent.high < rule.min_lift:
        reasons.append(
            f"in the last third of the log's time the difference is {recent.point:.4g}, interval [{recent.low:.4g}, "
            f"{recent.high:.4g}]: what messages change has changed, and a policy is for the time to come"
        )
    for each in constraints:
        if each.use > each.limit * (1 + 1e-9):
            reasons.append(
                f"by the agent's own estimates the policy would use {each.use:.4g} of `{each.name}`, of which it may "
                f"{each.limit:.4g}"
            )
    unknown = ""
    for cost in costs if rule.max_cost_increase is not None else ():
        assert rule.max_cost_increase is not None
        limit = cost.logged * (1 + rule.max_cost_increase)
        if cost.reason:
            unknown = (
                unknown or f"The log does not identify the rate of `{cost.event}` under the policy: {cost.reason}."
            )
        elif not cost.policy.high <= limit:
            reasons.append(
                f"`{cost.event}` may follow up to {cost.policy.high:.3%} of decisions, more than the {limit:.3%} "
                f"allowed ({cost.logged:.3%} in the log)"
            )
    if reasons:
        text = "; ".join(reasons)
        return verdict(HOLD, f"{text[0].upper()}{text[1:]}.")
    if unknown:
        return verdict(NOT_IDENTIFIED, unknown)
    text = f"{bounds[0].upper()}{bounds[1:]}, above {rule.min_lift:g}"
    if costs and rule.max_cost_increase is not None:
        text += f"; cost events within their bounds on the log: {', '.join(f'`{cost.event}`' for cost in costs)}"
    if constraints:
        names = ", ".join(f"`{each.name}`" for each in constraints)
        text += f"; by the agent's own estimates, which the log did not check, within the limits on {names}"
    return verdict(DEPLOY, f"{text}.")


@dataclass(frozen=True)
class Selection:
    """The best of several policies, chosen on some users and valued on others.

    Attributes:
        name: The policy that was chosen.
        value: Its value on the users that did not take part in the choice.
        candidates: Value of each policy on the users of the choice; NaN where it was not identified. They must not be
            reported as the values of what was chosen: the largest of several estimates is too large.
    """

    name: str
    value: Interval
    candidates: Mapping[str, float]


def select_best(
    user: IntArray,
    names: Sequence[str],
    value: Callable[[str, BoolArray], Interval],
    rng: np.random.Generator,
    share: float = 0.5,
) -> Selection:
    """Choose the policy with the largest estimate on a fold of users, and estimate its value on the other users.

    The estimate of the winner on the users who made it win is biased upwards (the winner's curse), the more so the more
    policies there are; on other users it has no bias, because the choice does not depend on them.

    Args:
        user: Integer codes of the decisions' users (n,).
        names: The policies.
        value: Function from a policy and the rows that count (n,) to its estimated value; undefined where the rows do
            not identify it.
        rng: Random generator of the split of users.
        share: Share of the users who choose.

    Raises:
        ConfigError: If there is no policy, or `share` is not between 0 and 1.
        NotIdentified: If the users who choose identify the value of no policy, or a part of the split has no user.
    """
    if not names:
        raise ConfigError("there is no policy to choose from")
    if not 0 < share < 1:
        raise ConfigError(f"the share {share:g} of the users who choose is not between 0 and 1")
    users, code = np.unique(user, return_inverse=True)
    chooses = np.zeros(len(users), dtype=bool)
    chooses[rng.permutation(len(users))[: round(share * len(users))]] = True
    if chooses.all() or not chooses.any():
        raise NotIdentified(f"{len(users)} users cannot be split into those who choose a policy and others")
    rows = chooses[code]
    candidates = {name: value(name, rows).point for name in names}
    known = {name: point for name, point in candidates.items() if math.isfinite(point)}
    if not known:
        raise NotIdentified("the users who choose do not identify the value of any policy")
    best = max(known, key=lambda name: known[name])
    return Selection(name=best, value=value(best, ~rows), candidates=candidates)

"""What the readout of a trial holds, and as plain values for `trial.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import to_dict
from crosschannel.core.times import parse_moment
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.report.plain_values import finite_or_none, interval_to_dict
from crosschannel.evaluation.trials.settings import TrialConfig

FORMAT, VERSION = "crosschannel trial", 1
BETTER, WORSE, NOT_SHOWN, NOT_YET, NOT_VALID = "better", "worse", "not shown", "not yet", "not valid"


@dataclass(frozen=True)
class TrialCheck:
    """One check of a trial.

    Attributes:
        name: What was checked.
        p_value: Its p-value; NaN where it could not be checked.
        passed: Whether nothing is wrong; None where it could not be checked.
        finding: What was found, in a sentence.
        remedy: What to do about it; empty where nothing is to be done.
        invalidates: Whether no lift may be read where it fails.
    """

    name: str
    p_value: float
    passed: bool | None
    finding: str
    remedy: str = ""
    invalidates: bool = False


@dataclass(frozen=True)
class CoursePoint:
    """What an outcome showed at one look.

    Attributes:
        at: Time of the look, microseconds.
        share: Share of the declared length.
        users: Users of both arms.
        difference: Difference per user since the start, with the interval of this look alone.
        z: Standardised difference.
        critical: What its absolute value had to reach at the level of one outcome; infinite where the look cannot stop.
    """

    at: int
    share: float
    users: tuple[int, int]
    difference: Interval
    z: float
    critical: float


@dataclass(frozen=True)
class OutcomeLift:
    """The difference of two arms in one outcome.

    Attributes:
        name: The event, or `value`.
        measure: `count`, `value` or `weighted`.
        service: The service that the event's name tells; empty for none.
        sign: 1 if more is better, -1 if less is.
        means: Adjusted means per user of both arms.
        lift: Difference per user, with an interval that holds at all looks.
        relative: The same as a share of the second arm's mean.
        alone: Difference with the interval that would hold if this were the only look.
        p_value: Of this look alone.
        significant: Whether it is significant over all looks and all outcomes.
        since: Time of the first look at which it was, microseconds; None for none.
        variance_reduction: Share of the variance that the period before and the strata took away.
        course: What it showed at each look.
        criticals: Boundaries of all looks by the number that divides alpha.
    """

    name: str
    measure: str
    service: str
    sign: int
    means: tuple[float, float]
    lift: Interval
    relative: Interval
    alone: Interval
    p_value: float
    significant: bool
    since: int | None
    variance_reduction: float
    course: tuple[CoursePoint, ...]
    criticals: Mapping[int, tuple[float, ...]]

    @property
    def direction(self) -> str:
        """`better`, `worse` or, where it is not significant, `not shown`."""
        if not self.significant:
            return NOT_SHOWN
        crossed = next(point for point in self.course if point.at == self.since)
        return BETTER if crossed.z * self.sign > 0 else WORSE


@dataclass(frozen=True)
class Segment:
    """The lift of the value among users with one level of an attribute; exploratory.

    Attributes:
        attribute: The attribute.
        level: Its level.
        users: Users of both arms.
        lift: Difference per user, with the interval of one look at one segment.
        p_of_differences: P-value of the hypothesis that the lift is the same at all levels.
    """

    attribute: str
    level: str
    users: tuple[int, int]
    lift: Interval
    p_of_differences: float


@dataclass(frozen=True)
class ArmComparison:
    """Two arms of a trial.

    Attributes:
        treated: The arm of interest.
        control: The arm that it is compared with.
        outcomes: Its outcomes, the weighted value first.
        segments: The value's lift by segment.
    """

    treated: str
    control: str
    outcomes: tuple[OutcomeLift, ...]
    segments: tuple[Segment, ...] = ()

    @property
    def name(self) -> str:
        """Both arms in words."""
        return f"{self.treated} against {self.control}"

    @property
    def value(self) -> OutcomeLift:
        """The weighted sum of all goals."""
        return self.outcomes[0]


@dataclass(frozen=True)
class ArmAmounts:
    """What an arm's users got and did, per user; means are not adjusted.

    Attributes:
        arm: The arm.
        users: Its users.
        days: Mean number of days for which they were observed in the trial.
        logged: Whether the log has decisions of it; otherwise its messages are not known.
        messages: Messages per user, with intervals, by action of the first module; `all` first.
        costs: Cost events per user, with intervals.
    """

    arm: str
    users: int
    days: float
    logged: bool
    messages: Mapping[str, Interval]
    costs: Mapping[str, Interval]


@dataclass(frozen=True)
class Trial:
    """The readout of a randomised trial.

    Attributes:
        settings: Its declaration.
        log: Name of the log.
        start: Start, microseconds.
        at: Time of this look, microseconds.
        share: Share of the declared length.
        comparisons: Pairs of arms; the first one is primary.
        arms: What each arm got and did.
        checks: Whether the arms were drawn at random.
        notes: What was decided about users and outcomes, in sentences.
        planned_users: Number of users at which a confidence sequence is narrowest.
    """

    settings: TrialConfig
    log: str
    start: int
    at: int
    share: float
    comparisons: tuple[ArmComparison, ...]
    arms: tuple[ArmAmounts, ...]
    checks: tuple[TrialCheck, ...]
    notes: tuple[str, ...]
    planned_users: int

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `not shown`, `not yet` (the trial is not over) or `not valid` (by a check)."""
        if any(check.passed is False and check.invalidates for check in self.checks):
            return NOT_VALID
        direction = self.comparisons[0].value.direction
        if direction == NOT_SHOWN and (self.share < 1 or self.settings.looks == "confidence_sequence"):
            return NOT_YET
        return direction

    def to_dict(self) -> dict[str, Any]:
        """Return the readout as plain values; what is not a finite number is None."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "verdict": self.verdict,
            "settings": to_dict(self.settings),
            "log": self.log,
            "start": _moment(self.start),
            "at": _moment(self.at),
            "share": self.share,
            "planned_users": self.planned_users,
            "comparisons": [_comparison_to_dict(one) for one in self.comparisons],
            "arms": [
                {
                    "arm": arm.arm,
                    "users": arm.users,
                    "days": arm.days,
                    "logged": arm.logged,
                    "messages": {name: interval_to_dict(value) for name, value in arm.messages.items()},
                    "costs": {name: interval_to_dict(value) for name, value in arm.costs.items()},
                }
                for arm in self.arms
            ],
            "checks": [asdict(check) | {"p_value": finite_or_none(check.p_value)} for check in self.checks],
            "notes": list(self.notes),
        }


def _moment(microseconds: int) -> str:
    return f"{np.datetime64(microseconds, 'us')}Z"


def _comparison_to_dict(comparison: ArmComparison) -> dict[str, Any]:
    return {
        "treated": comparison.treated,
        "control": comparison.control,
        "outcomes": [_lift_to_dict(one) for one in comparison.outcomes],
        "segments": [
            {
                "attribute": one.attribute,
                "level": one.level,
                "users": list(one.users),
                "lift": interval_to_dict(one.lift),
                "p_of_differences": finite_or_none(one.p_of_differences),
            }
            for one in comparison.segments
        ],
    }


def _lift_to_dict(one: OutcomeLift) -> dict[str, Any]:
    return {
        "outcome": one.name,
        "measure": one.measure,
        "service": one.service,
        "sign": one.sign,
        "means": list(one.means),
        "lift": interval_to_dict(one.lift),
        "relative": interval_to_dict(one.relative),
        "alone": interval_to_dict(one.alone),
        "p_value": one.p_value,
        "significant": one.significant,
        "direction": one.direction,
        "since": None if one.since is None else _moment(one.since),
        "variance_reduction": finite_or_none(one.variance_reduction),
        "looks": [
            {
                "at": _moment(point.at),
                "share": point.share,
                "users": list(point.users),
                "difference": interval_to_dict(point.difference),
                "z": point.z,
                "critical": finite_or_none(point.critical),
            }
            for point in one.course
        ],
        "boundaries": {
            str(divisor): [finite_or_none(value) for value in values]
            for divisor, values in sorted(one.criticals.items())
        },
    }


@dataclass(frozen=True)
class PastLooks:
    """The looks that an earlier readout took, with what they found and had to reach.

    Attributes:
        times: Times of the looks, microseconds (P,).
        planned_users: Number of users at which a confidence sequence is narrowest.
        z: Standardised differences (P,) by treated arm, control arm, outcome and measure.
        criticals: Boundaries (P,) by divisor of alpha, by the same.
    """

    times: IntArray
    planned_users: int
    z: Mapping[tuple[str, str, str, str], FloatArray]
    criticals: Mapping[tuple[str, str, str, str], Mapping[int, FloatArray]]


#: What must not change between two looks: otherwise boundaries of past looks are those of another trial.
_DECLARED = ("days", "alpha", "compare", "goals", "looks", "follow_up", "enrolment", "pre", "strata", "cluster")


def read_past_looks(content: Mapping[str, Any], settings: TrialConfig, start: int, place: str) -> PastLooks:
    """Return the looks of an earlier `trial.json`.

    Args:
        content: What the file holds.
        settings: The declaration of the trial now.
        start: Start of the trial, microseconds.
        place: The file, for messages.

    Raises:
        ConfigError: If it is not a readout of this version, or of a trial that was declared otherwise.
    """
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise ConfigError(
            f"{place} is not a readout of a trial in version {VERSION}: name the trial.json of the last look"
        )
    try:
        now, then = to_dict(settings), content["settings"]
        differing = [name for name in _DECLARED if now[name] != then[name]]
        if parse_moment(content["start"]) != start:
            differing.insert(0, "start")
        if differing:
            raise ConfigError(
                f"{place}: the trial was declared with another {', '.join(differing)}: boundaries of past looks hold "
                "for one declaration only. Restore it, or read the trial as a new one without --previous"
            )
        z, criticals = {}, {}
        times: list[int] = []
        for pair in content["comparisons"]:
            for one in pair["outcomes"]:
                key = (pair["treated"], pair["control"], one["outcome"], one["measure"])
                times = [parse_moment(look["at"]) for look in one["looks"]]
                z[key] = np.array([look["z"] for look in one["looks"]], dtype=np.float64)
                criticals[key] = {int(k): _numbers(values) for k, values in one["boundaries"].items()}
        return PastLooks(np.array(times, dtype=np.int64), int(content["planned_users"]), z, criticals)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{place} is damaged ({error}): name the trial.json of the last look") from None


def _numbers(values: Sequence[float | None]) -> FloatArray:
    return np.array([math.inf if value is None else value for value in values], dtype=np.float64)

"""Read a trial from a log with arms: lifts at every look, checks, messages and cost events, segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import chi2

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.times import DAY
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval
from crosschannel.evaluation.trials.arms import ArmTable, attribute, levels
from crosschannel.evaluation.trials.checks import check_trial
from crosschannel.evaluation.trials.design import TrialDesign, before, trial_design
from crosschannel.evaluation.trials.looks import Course, Decision, Looks, critical_of, decide_over_goals, least_critical
from crosschannel.evaluation.trials.outcomes import Amounts, Outcome, Part, UserAmounts, outcomes_of_goals
from crosschannel.evaluation.trials.results import (
    ArmAmounts,
    ArmComparison,
    CoursePoint,
    OutcomeLift,
    PastLooks,
    Segment,
    Trial,
)
from crosschannel.evaluation.trials.settings import TrialConfig
from crosschannel.histories.arms import HOLDOUT
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History
from crosschannel.histories.observation.goal_events import goal_notes


def read_trial(
    history: History,
    settings: TrialConfig,
    goals: Sequence[Goal],
    *,
    arms: ArmTable | None = None,
    costs: Sequence[str] = (),
    at: int | None = None,
    past: Callable[[int], PastLooks] | None = None,
    rng: np.random.Generator | None = None,
    sums: UserAmounts | None = None,
) -> Trial:
    """Read a trial of arms from a log.

    Args:
        history: The log.
        settings: The declaration of the trial.
        goals: What is compared, where the declaration names no goals of its own.
        arms: Arms of the users; by default those of the log.
        costs: Events that are shown as cost events, beside the churn events of the log.
        at: Time of this look, microseconds; by default the end of the log, or that of the trial.
        past: Function from the start to the looks of an earlier readout, which keep what they found; None for none.
        rng: Generator of the lattice over which boundaries are integrated; by default always the same.
        sums: Adds up what the users did, where the history does not hold it all; by default from the history.

    Raises:
        ConfigError: If the declaration does not fit the log.
        InputError: If no user of the table of arms is in the log.
        NotIdentified: If an arm has fewer than two users.
    """
    design, pairs = trial_design(history, settings, arms, at, past)
    looks, users = design.looks, design.users
    earlier = None if past is None else past(users.start)
    rng = np.random.default_rng(0) if rng is None else rng
    chosen = settings.goals or tuple(goals)
    outcomes = outcomes_of_goals(history, chosen)
    sums = Amounts(history) if sums is None else sums
    pre_amounts = before(design, outcomes, sums)
    by_look = sums(outcomes, users.user, design.begin(), design.edges())
    courses = [_courses(design, pairs, *each, earlier) for each in zip(outcomes, pre_amounts, by_look, strict=True)]
    last_look = design.inside(len(looks) - 1)
    everybody = design.population(last_look, adjusted=False)
    totals = [amount[:, -1] for amount in by_look]
    plain = [design.contrasts(everybody, total, None, pairs) for total in totals]
    comparisons = []
    for p, (treated, control) in enumerate(pairs):
        unadjusted = [row[p][0].se for row in plain if row is not None]
        lifts = _lifts(outcomes, [row[p] for row in courses], unadjusted, looks, settings, rng)
        segments = _segments(design, totals[0], pre_amounts[0], pairs[p]) if p == 0 else ()
        comparisons.append(ArmComparison(design.arms[treated], design.arms[control], lifts, segments))
    arms_of_trial = _arm_amounts(design, costs, sums)
    return Trial(
        settings=settings,
        log=history.name,
        start=users.start,
        at=int(looks.times[-1]),
        share=float(looks.shares[-1]),
        comparisons=tuple(comparisons),
        arms=arms_of_trial,
        checks=check_trial(design, outcomes, pre_amounts, pairs, sums),
        notes=(
            *users.notes,
            *_notes(design, chosen, earlier),
            *_notes_on_holdout(arms_of_trial),
            *history.with_notes(goal_notes(history, chosen)).cautions,
        ),
        planned_users=looks.planned_users,
    )


def significant_outcomes(
    history: History,
    settings: TrialConfig,
    goals: Sequence[Goal],
    tables: Iterable[ArmTable | None],
) -> list[frozenset[tuple[str, str, str]]]:
    """Return which outcomes are significant when the same log is read with several tables of arms.

    It decides as `read_trial` does, but finds boundaries only where an outcome may cross one, and adds up events once:
    for simulations of many trials.

    Args:
        history: The log.
        settings: The declaration of the trial.
        goals: What is compared, where the declaration names no goals of its own.
        tables: Arms of the users, one table for each trial; None for those of the log.

    Returns:
        For each table the significant (treated arm, control arm, outcome).

    Raises:
        ConfigError: If the declaration does not fit the log.
        InputError: If no user of a table is in the log.
        NotIdentified: If an arm has fewer than two users.
    """
    outcomes = outcomes_of_goals(history, settings.goals or tuple(goals))
    sums, rng = Amounts(history), np.random.default_rng(0)
    results = []
    for table in tables:
        design, pairs = trial_design(history, settings, table, None, None)
        by_look = sums(outcomes, design.users.user, design.begin(), design.edges())
        each = zip(outcomes, before(design, outcomes, sums), by_look, strict=True)
        courses = [_courses(design, pairs, *one, None) for one in each]
        found: set[tuple[str, str, str]] = set()
        for p, pair in enumerate(pairs):
            decisions = _decide([row[p] for row in courses], design.looks, settings, rng, in_full=False)
            treated, control = (design.arms[arm] for arm in pair)
            for outcome, decision in zip(outcomes, decisions, strict=True):
                if decision.look is not None:
                    found.add((treated, control, outcome.name))
        results.append(frozenset(found))
    return results


def _courses(
    design: TrialDesign,
    pairs: Sequence[tuple[int, int]],
    outcome: Outcome,
    covariate: FloatArray | None,
    amount: FloatArray,
    earlier: PastLooks | None,
) -> list[Course]:
    """Return what one outcome, whose amounts at each look are (n, K), showed for each pair of arms.

    Past looks keep what they found.

    Raises:
        NotIdentified: If an arm has fewer than two users at this look.
    """
    looks = design.looks
    by_look = [
        design.contrasts(population, amount[:, min(k, amount.shape[1] - 1)], covariate, pairs)
        for k, population in enumerate(design.populations)
    ]
    if by_look[-1] is None:
        raise NotIdentified(
            f"an arm of {', '.join(design.arms)} has fewer than two users (or clusters) whose outcome can be read at "
            "this look: wait, or leave the arm out of trial.compare"
        )
    courses = []
    for p, (treated, control) in enumerate(pairs):
        nothing = np.zeros(design.n_units)
        influence = np.stack([nothing if row is None else row[p][1] for row in by_look])
        contrasts = tuple(None if row is None else row[p][0] for row in by_look)
        z = np.array([0.0 if one is None else one.z for one in contrasts])
        known: dict[int, FloatArray] = {}
        if earlier is not None:
            key = (design.arms[treated], design.arms[control], outcome.name, outcome.measure)
            if key not in earlier.z:
                raise ConfigError(f"the earlier readout has no outcome {key[2]!r} of {key[0]} against {key[1]}")
            z[: looks.past] = earlier.z[key][: looks.past]
            known = {divisor: values[: looks.past] for divisor, values in earlier.criticals[key].items()}
        courses.append(Course(contrasts, influence @ influence.T, z, known))
    return courses


def _decide(
    courses: Sequence[Course], looks: Looks, settings: TrialConfig, rng: np.random.Generator, *, in_full: bool
) -> tuple[Decision, ...]:
    """Decide which outcomes of one comparison are significant; without all boundaries unless `in_full`."""
    return decide_over_goals(
        [course.z for course in courses],
        lambda k, divisor: critical_of(courses[k], looks, settings, divisor, rng),
        None if in_full else lambda divisor: least_critical(looks, settings, divisor),
    )


def _lifts(
    outcomes: Sequence[Outcome],
    courses: Sequence[Course],
    unadjusted: Sequence[float],
    looks: Looks,
    settings: TrialConfig,
    rng: np.random.Generator,
) -> tuple[OutcomeLift, ...]:
    """Return the lifts of one comparison; `unadjusted` are the errors without the period before and strata."""
    decisions = _decide(courses, looks, settings, rng, in_full=True)
    alone = float(-ndtri(settings.alpha / 2))
    lifts = []
    for outcome, course, plain_se, decision in zip(outcomes, courses, unadjusted, decisions, strict=True):
        last, critical = course.last, decision.criticals[1]
        points = tuple(
            CoursePoint(
                at=int(at),
                share=float(share),
                users=one.users,
                difference=one.interval(alone),
                z=float(z),
                critical=float(bound),
            )
            if one is not None
            else CoursePoint(at=int(at), share=float(share), users=(0, 0), difference=UNDEFINED, z=0.0, critical=np.inf)
            for one, at, share, z, bound in zip(
                course.contrasts, looks.times, looks.shares, course.z, critical, strict=True
            )
        )
        lifts.append(
            OutcomeLift(
                name=outcome.name,
                measure=outcome.measure,
                service=outcome.service,
                sign=outcome.sign,
                means=(last.control + last.difference, last.control),
                lift=last.interval(float(critical[-1])),
                relative=last.relative_interval(float(critical[-1])),
                alone=last.interval(alone),
                p_value=last.p_value,
                significant=decision.look is not None,
                since=None if decision.look is None else int(looks.times[decision.look]),
                variance_reduction=1.0 - (last.se / plain_se) ** 2 if plain_se > 0 else np.nan,
                course=points,
                criticals={divisor: tuple(map(float, found)) for divisor, found in decision.criticals.items()},
            )
        )
    return tuple(lifts)


def _segments(
    design: TrialDesign, outcome: FloatArray, covariate: FloatArray | None, pair: tuple[int, int]
) -> tuple[Segment, ...]:
    """Return the lift of an outcome (n,) at each level of the declared attributes."""
    found: list[Segment] = []
    inside = design.inside(len(design.looks) - 1)
    for name in design.settings.segments:
        code, names = levels(attribute(design.history, name, "segments").iloc[design.users.user])
        parts = [
            (level, design.contrasts(design.population(inside & (code == k)), outcome, covariate, [pair]))
            for k, level in enumerate(names)
        ]
        known = [(level, row[0][0]) for level, row in parts if row is not None and row[0][0].se > 0]
        lifts = np.array([one.difference for _, one in known])
        weights = np.array([1 / one.se**2 for _, one in known])
        p = np.nan
        if len(known) > 1:
            spread = float(weights @ (lifts - weights @ lifts / weights.sum()) ** 2)
            p = float(chi2.sf(spread, len(known) - 1))
        alone = float(-ndtri(design.settings.alpha / 2))
        found += [
            Segment(attribute=name, level=level, users=one.users, lift=one.interval(alone), p_of_differences=p)
            for level, one in known
        ]
    return tuple(found)


def _arm_amounts(design: TrialDesign, costs: Sequence[str], sums: UserAmounts) -> tuple[ArmAmounts, ...]:
    """Return messages and cost events of each arm, per user."""
    history, users, end = design.history, design.users, int(design.looks.times[-1])
    names = sorted({history.event_names[int(code)] for code in history.churn_codes} | set(costs))
    codes = {name: history.event_codes([name], "reward.funnel.costs") for name in names}
    outcomes = [
        Outcome(name, "count", -1, tuple(Part(int(code), 1.0, False) for code in codes[name])) for name in names
    ]
    actions = dict.fromkeys(["all"]) | {name: k for k, name in enumerate(history.modules[0].actions) if k > 0}
    sent = dict(zip(actions, sums.sends([*actions.values()], users.user, design.begin(), end), strict=True))
    by_event = sums(outcomes, users.user, design.begin(), np.array([end]))
    happened = {one.name: amount[:, 0] for one, amount in zip(outcomes, by_event, strict=True)}
    decided = np.zeros(history.n_users, dtype=bool)
    decided[history.decisions.user[history.decisions.time >= users.start]] = True
    until = np.minimum(history.observed_until[users.user], end)
    days = (until - users.enrolled) / DAY
    out = []
    for a, name in enumerate(design.arms):
        mine = design.arm == a
        out.append(
            ArmAmounts(
                arm=name,
                users=int(mine.sum()),
                days=float(days[mine].mean()) if mine.any() else 0.0,
                logged=bool(decided[users.user[mine]].any()),
                messages={action: _mean(design, values, mine) for action, values in sent.items()},
                costs={event: _mean(design, values, mine) for event, values in happened.items()},
            )
        )
    return tuple(out)


def _mean(design: TrialDesign, values: FloatArray, mine: BoolArray) -> Interval:
    """Return the mean of some users' values with its interval, by cluster where there are clusters."""
    n = int(mine.sum())
    mean = float(values[mine].mean()) if n else 0.0
    rest: FloatArray = (values[mine] - mean) / max(n, 1)
    if design.users.cluster is not None:
        rest = np.asarray(np.bincount(design.users.cluster[mine], rest), dtype=np.float64)
    se = float(np.sqrt(rest @ rest * n / max(n - 1, 1)))
    half = float(-ndtri(design.settings.alpha / 2)) * se
    return Interval(mean, mean - half, mean + half, se)


def _notes_on_holdout(arms: Sequence[ArmAmounts]) -> list[str]:
    """Return a note where users who are to get nothing got messages."""
    return [
        f"users of `{HOLDOUT}` got {one.messages['all'].point:.2g} messages each since the start, where none should be "
        "sent: a lift over them is less than what messages are worth. Look who sent them"
        for one in arms
        if one.arm == HOLDOUT and one.messages["all"].point > 0
    ]


def _notes(design: TrialDesign, goals: Sequence[Goal], earlier: PastLooks | None) -> list[str]:
    notes = []
    if any(goal.clip is not None or goal.winsor is not None or goal.credit != "uniform" for goal in goals):
        notes.append("limits and fading of goals do not apply: a user's total is compared, as it is")
    if design.pre is None and design.settings.pre is not None:
        notes.append("nobody was observed before the trial: nothing adjusts for what users are like")
    if design.settings.looks == "group_sequential" and earlier is None and len(design.looks) > 1:
        notes.append(
            f"looks count as taken every {design.settings.every} from the start on ({len(design.looks)}); with "
            "--previous, those count that were taken"
        )
    if design.settings.cluster is not None and design.users.cluster is not None:
        pairs = pd.DataFrame({"cluster": design.users.cluster, "arm": design.arm})
        mixed = int((pairs.groupby("cluster")["arm"].nunique() > 1).sum())
        if mixed:
            notes.append(f"{mixed:,} clusters have users of several arms: effects of one arm may reach the other")
    return notes

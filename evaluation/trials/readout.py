"""Read a trial from a log with arms: lifts at every look, checks, messages and cost events, segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
from crosschannel.evaluation.trials.effects import Contrast
from crosschannel.evaluation.trials.looks import Course, Looks, critical_of, decide_over_goals
from crosschannel.evaluation.trials.outcomes import Outcome, Part, amounts, outcomes_of_goals, sends
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
from crosschannel.histories.goals import Goal
from crosschannel.histories.history import History


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
    pre_amounts = [before(design, outcome) for outcome in outcomes]
    courses: list[list[Course]] = [[] for _ in pairs]
    plain: list[list[Contrast]] = [[] for _ in pairs]
    data = []
    for outcome, covariate in zip(outcomes, pre_amounts, strict=True):
        amount = amounts(history, outcome, users.user, design.begin(), design.edges())
        data.append(amount[:, -1])
        by_look = [
            design.contrasts(amount[:, min(k, amount.shape[1] - 1)], covariate, design.inside(k), pairs)
            for k in range(len(looks))
        ]
        unadjusted = design.contrasts(amount[:, -1], None, design.inside(len(looks) - 1), pairs, adjusted=False)
        for p, (treated, control) in enumerate(pairs):
            key = (design.arms[treated], design.arms[control], outcome.name, outcome.measure)
            courses[p].append(_course([row[p] for row in by_look], looks, earlier, key))
            found = unadjusted[p]
            assert found is not None  # `_course` has refused arms without users
            plain[p].append(found)
    comparisons = []
    for p, (treated, control) in enumerate(pairs):
        lifts = _lifts(outcomes, courses[p], plain[p], looks, settings, rng)
        segments = _segments(design, data[0], pre_amounts[0], pairs[p]) if p == 0 else ()
        comparisons.append(ArmComparison(design.arms[treated], design.arms[control], lifts, segments))
    return Trial(
        settings=settings,
        log=history.name,
        start=users.start,
        at=int(looks.times[-1]),
        share=float(looks.shares[-1]),
        comparisons=tuple(comparisons),
        arms=_arm_amounts(design, costs),
        checks=check_trial(design, outcomes, pre_amounts, pairs),
        notes=(*users.notes, *_notes(design, chosen, earlier)),
        planned_users=looks.planned_users,
    )


def _course(
    contrasts: Sequence[Contrast | None], looks: Looks, earlier: PastLooks | None, key: tuple[str, str, str, str]
) -> Course:
    """Put the looks at one outcome together; those that took place keep what they found.

    Raises:
        NotIdentified: If an arm has fewer than two users at this look.
    """
    last = contrasts[-1]
    if last is None:
        raise NotIdentified(
            f"{key[0]} against {key[1]}: an arm has fewer than two users (or clusters) whose outcome can be read at "
            "this look. Wait, or look whether arms are named as the log has them"
        )
    influence = np.stack([np.zeros(len(last.influence)) if one is None else one.influence for one in contrasts])
    z = np.array([0.0 if one is None else one.z for one in contrasts])
    known: dict[int, FloatArray] = {}
    if earlier is not None:
        if key not in earlier.z:
            raise ConfigError(f"the earlier readout has no outcome {key[2]!r} of {key[0]} against {key[1]}")
        z[: looks.past] = earlier.z[key][: looks.past]
        known = {divisor: values[: looks.past] for divisor, values in earlier.criticals[key].items()}
    return Course(tuple(contrasts), influence @ influence.T, z, known)


def _lifts(
    outcomes: Sequence[Outcome],
    courses: Sequence[Course],
    plain: Sequence[Contrast],
    looks: Looks,
    settings: TrialConfig,
    rng: np.random.Generator,
) -> tuple[OutcomeLift, ...]:
    """Return the lifts of one comparison with what all looks and Holm's method say of them."""
    decisions = decide_over_goals(
        [course.z for course in courses],
        lambda k, divisor: critical_of(courses[k], looks, settings, divisor, rng),
    )
    alone = float(-ndtri(settings.alpha / 2))
    lifts = []
    for outcome, course, simple, decision in zip(outcomes, courses, plain, decisions, strict=True):
        last, critical = course.last, decision.criticals[1]
        points = tuple(
            CoursePoint(int(at), float(share), one.users, one.interval(alone), float(z), float(bound))
            if one is not None
            else CoursePoint(int(at), float(share), (0, 0), UNDEFINED, 0.0, np.inf)
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
                variance_reduction=1.0 - (last.se / simple.se) ** 2 if simple.se > 0 else np.nan,
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
            (level, design.contrasts(outcome, covariate, inside & (code == k), [pair])[0])
            for k, level in enumerate(names)
        ]
        known = [(level, one) for level, one in parts if one is not None and one.se > 0]
        lifts = np.array([one.difference for _, one in known])
        weights = np.array([1 / one.se**2 for _, one in known])
        p = np.nan
        if len(known) > 1:
            spread = float(weights @ (lifts - weights @ lifts / weights.sum()) ** 2)
            p = float(chi2.sf(spread, len(known) - 1))
        alone = float(-ndtri(design.settings.alpha / 2))
        found += [Segment(name, level, one.users, one.interval(alone), p) for level, one in known]
    return tuple(found)


def _arm_amounts(design: TrialDesign, costs: Sequence[str]) -> tuple[ArmAmounts, ...]:
    """Return messages and cost events of each arm, per user."""
    history, users, end = design.history, design.users, int(design.looks.times[-1])
    names = sorted({history.event_names[int(code)] for code in history.churn_codes} | set(costs))
    outcomes = [
        Outcome(name, "count", -1, tuple(Part(int(code), 1.0, False) for code in history.event_codes([name])))
        for name in names
    ]
    sent = {"all": sends(history, None, users.user, design.begin(), end)} | {
        action: sends(history, k, users.user, design.begin(), end)
        for k, action in enumerate(history.modules[0].actions)
        if k > 0
    }
    happened = {one.name: amounts(history, one, users.user, design.begin(), np.array([end]))[:, 0] for one in outcomes}
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

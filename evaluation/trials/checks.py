"""Checks that the arms of a trial were drawn at random: shares of users, balance before the start, a placebo."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import gammaln
from scipy.stats import chi2, chi2_contingency

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.multiple_tests import holm_adjusted
from crosschannel.evaluation.trials.arms import ARM_COLUMN, attribute, levels
from crosschannel.evaluation.trials.design import Population, TrialDesign
from crosschannel.evaluation.trials.outcomes import Outcome, UserAmounts
from crosschannel.evaluation.trials.results import TrialCheck

#: Below this p-value a difference that random arms do not have invalidates the trial: a routine alarm must be rare.
MAX_P_NOT_VALID = 0.001
#: Below this p-value (by Holm's method) users of the arms differed before the trial.
MAX_P_OF_BALANCE = 0.01
#: From this share of users on who have decisions of several arms, arms were not drawn by user.
MAX_SHARE_CHANGED = 0.5
#: With a smaller expected number of users in an arm, the test of shares is exact.
MIN_EXPECTED = 10.0
#: An attribute with more levels than this is not compared between arms: it is a kind of id.
MAX_LEVELS = 20
_MOST_OUTCOMES = 2_000_000

NOT_ALIKE = (
    "Users of the arms differed before the trial. Look whether arms are those that were drawn (not those that were "
    "treated), and whether the start is right."
)
NOT_ALIKE_TODAY = (
    "Look whether the attribute is one that treatment changes, such as whether a user still receives e-mail: the "
    "table of users holds what is so today, and a difference is then an outcome. If it was fixed before the trial, "
    f"{NOT_ALIKE[0].lower()}{NOT_ALIKE[1:]}"
)

#: A difference between pairs of arms in words, and its p-value.
Difference = tuple[str, float]


def sample_ratio_p_value(counts: IntArray, shares: FloatArray) -> float:
    r"""Return the p-value of the hypothesis that arms have the shares they were meant to have.

    .. math:: X^2 = \sum_a (n_a - n q_a)^2 / (n q_a) \sim \chi^2_{A - 1}

    With few users, where an arm is expected to have less than `MIN_EXPECTED`, it is exact: the probability of all
    counts that are at most as probable as the observed ones. Fabijan et al. (2019), "Diagnosing sample ratio mismatch
    in online controlled experiments", KDD. Assumption: each unit was assigned on its own.

    Args:
        counts: Independent units of each arm (A,).
        shares: Intended shares (A,).
    """
    n = int(counts.sum())
    expected = n * shares
    if n == 0:
        return math.nan
    arms = len(counts)
    if expected.min() < MIN_EXPECTED and math.comb(n + arms - 1, arms - 1) <= _MOST_OUTCOMES:
        every = _compositions(n, arms)
        log_p = gammaln(n + 1) - gammaln(every + 1).sum(axis=1) + every @ np.log(shares)
        observed = gammaln(n + 1) - gammaln(counts + 1).sum() + counts @ np.log(shares)
        return float(min(np.exp(log_p[log_p <= observed + 1e-9]).sum(), 1.0))
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), arms - 1))


def clustered_ratio_p_value(members: IntArray, shares: FloatArray) -> float:
    r"""Return the p-value of the same hypothesis about the users of clusters that were drawn as a whole.

    .. math:: X^2 = \sum_a (n_a - n q_a)^2 \Big/ \Big( q_a \sum_c n_c^2 \Big) \sim \chi^2_{A - 1}

    with :math:`n_c` users in cluster c, so that it is that of `sample_ratio_p_value` where each cluster is one user.
    Single users who are missing from one arm hardly change how many clusters it has, and make them smaller. NaN with
    less than `MIN_EXPECTED` clusters expected in an arm, whose sizes say too little.

    Args:
        members: Users of each cluster by arm (C, A).
        shares: Intended shares (A,).
    """
    if len(members) * shares.min() < MIN_EXPECTED or len(shares) < 2:
        return math.nan
    squares = (members.sum(axis=1) ** 2).sum()
    of_arm = members.sum(axis=0)
    surplus = of_arm - of_arm.sum() * shares
    return float(chi2.sf((surplus**2 / shares).sum() / squares, len(shares) - 1))


def _compositions(n: int, parts: int) -> IntArray:
    """Return all ways to divide n units among parts, (C, parts)."""
    rows = np.arange(n + 1)[:, None]
    for _ in range(parts - 2):
        left = n - rows.sum(axis=1)
        repeated = np.repeat(rows, left + 1, axis=0)
        offsets = np.arange(len(repeated)) - np.repeat(np.cumsum(left + 1) - (left + 1), left + 1)
        rows = np.concatenate([repeated, offsets[:, None]], axis=1)
    return np.asarray(np.concatenate([rows, n - rows.sum(axis=1, keepdims=True)], axis=1))


def check_shares(
    arms: Sequence[str], counts: IntArray, shares: Mapping[str, float], unit: str, members: IntArray | None = None
) -> TrialCheck:
    """Check that arms have the shares of units (users or clusters) that they were meant to have.

    Args:
        arms: Names of the arms.
        counts: Units of each arm (A,).
        shares: The declared shares.
        unit: What the units are.
        members: Users of each cluster by arm (C, A), where units are clusters: both are tested, at one level together.
    """
    name = "sample ratio"
    found = _by_arm(arms, counts)
    if members is not None:
        found += f" (users: {_by_arm(arms, members.sum(axis=0))})"
    if not shares:
        return TrialCheck(
            name=name,
            p_value=math.nan,
            passed=None,
            finding=f"{unit}: {found}; no shares are declared.",
            remedy="Declare the arms' shares: trial.shares.",
        )
    if absent := sorted(set(arms) - set(shares)):
        remedy = f"Declare a share of every arm that the log has, also of {absent[0]!r}."
        return TrialCheck(
            name=name,
            p_value=math.nan,
            passed=None,
            finding=f"{unit}: {found}; {absent} have no declared share.",
            remedy=remedy,
        )
    intended = np.array([shares[arm] for arm in arms])
    p = sample_ratio_p_value(counts, intended / intended.sum())
    if members is not None:
        of_users = clustered_ratio_p_value(members, intended / intended.sum())
        p = p if math.isnan(of_users) else min(2.0 * min(p, of_users), 1.0)
    shown = ", ".join(f"{arm} {share:.2%}" for arm, share in zip(arms, intended, strict=True))
    passed = not p < MAX_P_NOT_VALID
    remedy = (
        ""
        if passed
        else "Do not read the lifts: users are missing from one arm, or counted twice. Compare who was assigned with "
        "who is in the log, and look whether joining, filters or joins of tables depend on the arm."
    )
    return TrialCheck(
        name=name,
        p_value=p,
        passed=passed,
        finding=f"{unit}: {found}; declared: {shown}.",
        remedy=remedy,
        invalidates=True,
    )


def _by_arm(arms: Sequence[str], counts: IntArray) -> str:
    return ", ".join(f"{arm} {count:,}" for arm, count in zip(arms, counts, strict=True))


def check_entry(arms: Sequence[str], entry: IntArray) -> TrialCheck | None:
    """Check that when and whether users enter the trial does not depend on the arm; None where all enter at the start.

    Assumption: users are independent; Pearson's chi-square test.

    Args:
        arms: Names of the arms.
        entry: Users, one of each cluster, by when they entered and by arm (3, A): from the start on, later, never.
    """
    rows = entry[entry.sum(axis=1) > 0]
    if len(rows) < 2 or len(arms) < 2:
        return None
    p = float(chi2_contingency(rows, correction=False).pvalue)
    found = "; ".join(
        f"{arm} {first:,} from the start on, {later:,} later, {never:,} never"
        for arm, first, later, never in zip(arms, *entry, strict=True)
    )
    passed = not p < MAX_P_NOT_VALID
    remedy = (
        ""
        if passed
        else "Do not read the lifts: whether or when a user is observed depends on the arm, as where only one arm has "
        "rows of decisions. Give the log all users, also those who did nothing, and declare when they joined "
        "(`observed_from` of the users), or that all existed from the start on (history.observed_from: log)."
    )
    return TrialCheck(
        name="entry into the trial", p_value=p, passed=passed, finding=f"{found}.", remedy=remedy, invalidates=True
    )


def check_arms_stay(changed: BoolArray) -> TrialCheck | None:
    """Check that most users stay in their arm; None where they do: of the others each counts in one arm.

    Args:
        changed: Which users have decisions of another arm since the start (n,).
    """
    if changed.sum() <= MAX_SHARE_CHANGED * len(changed):
        return None
    remedy = (
        "Do not read the lifts: most users got what two arms get. Either arms were drawn by day or by decision, not by "
        "user: draw them from the user's id alone (`arms`), or read what messages do with `crosschannel effects`. Or "
        "arms were widened in the middle of the trial: let it end, or start, at that time."
    )
    finding = f"{changed.sum():,} of {len(changed):,} users have decisions of several arms since the start."
    return TrialCheck(
        name="stability of arms", p_value=0.0, passed=False, finding=finding, remedy=remedy, invalidates=True
    )


def check_differences(name: str, what: Sequence[str], p_values: Sequence[float], remedy: str) -> TrialCheck:
    """Check several differences that should not be there, by Holm's method.

    Where they cannot be chance, arms were not drawn at random, and no lift may be read.
    """
    known = [(p, one) for p, one in zip(p_values, what, strict=True) if math.isfinite(p)]
    if not known:
        return TrialCheck(name=name, p_value=math.nan, passed=None, finding="There is nothing to compare.", remedy="")
    adjusted = holm_adjusted(np.array([p for p, _ in known]))
    worst = int(np.argmin(adjusted))
    p = float(adjusted[worst])
    passed = not p < MAX_P_OF_BALANCE
    finding = f"{len(known)} differences; the least likely one is {known[worst][1]} (p = {p:.3g} by Holm's method)."
    return TrialCheck(
        name=name,
        p_value=p,
        passed=passed,
        finding=finding,
        remedy="" if passed else remedy,
        invalidates=p < MAX_P_NOT_VALID,
    )


def check_trial(
    design: TrialDesign,
    outcomes: Sequence[Outcome],
    before: Sequence[FloatArray | None],
    pairs: Sequence[tuple[int, int]],
    sums: UserAmounts,
) -> tuple[TrialCheck, ...]:
    """Return the checks of the randomisation; those of shares come first.

    Args:
        design: The users and how they are compared.
        outcomes: What is compared.
        before: Each outcome in the period before (n,), or None.
        pairs: The arms that are compared.
        sums: Adds up what users did.
    """
    balance = check_differences(
        "balance of the period before", *_columns(_differences_before(design, outcomes, before, pairs)), NOT_ALIKE
    )
    # The table of users is one of today: what treatment itself changes in it says nothing about how arms were drawn.
    of_attributes = _columns(_differences_of_attributes(design, pairs))
    attributes = replace(check_differences("balance of attributes", *of_attributes, NOT_ALIKE_TODAY), invalidates=False)
    placebo = check_differences(
        "placebo: the same lifts in the second half of the period before",
        *_columns(_placebos(design, outcomes, pairs, sums)),
        "Arms differ where no treatment was. One sound trial in a hundred does so by chance: look for a reason "
        "(arms that are not those that were drawn, a start that is too late) before the lifts are read.",
    )
    users = design.users
    checks = (_shares(design), check_entry(design.arms, users.entry), check_arms_stay(users.changed))
    return tuple(check for check in (*checks, balance, attributes, placebo) if check is not None)


def _shares(design: TrialDesign) -> TrialCheck:
    """Check the shares of users, or of clusters and of the users in them."""
    cluster, shares, members = design.users.cluster, design.settings.shares, None
    if cluster is None:
        counts, unit = np.bincount(design.arm, minlength=len(design.arms)), "users"
    else:
        _, first = np.unique(cluster, return_index=True)
        counts, unit = np.bincount(design.arm[first], minlength=len(design.arms)), "clusters"
        members = np.zeros((len(first), len(design.arms)), dtype=np.int64)
        np.add.at(members, (cluster, design.arm), 1)
    declared = {name: shares[name] for name in design.arms if name in shares}
    return check_shares(design.arms, counts, declared, unit, members)


def _differences_before(
    design: TrialDesign,
    outcomes: Sequence[Outcome],
    before: Sequence[FloatArray | None],
    pairs: Sequence[tuple[int, int]],
) -> list[Difference]:
    """Return how the users of the arms differ in each outcome in the period before (n,)."""
    known, found = design.population(design.users.known_before, adjusted=False), list[Difference]()
    for outcome, amount in zip(outcomes, before, strict=True):
        if amount is not None:
            found += _differences(design, pairs, known, amount, None, f"`{outcome.name}` ({outcome.measure})")
    return found


def _differences_of_attributes(design: TrialDesign, pairs: Sequence[tuple[int, int]]) -> list[Difference]:
    """Return how the users of the arms differ in the share of each value of each attribute."""
    everybody, found = design.population(np.ones(len(design.arm), dtype=bool), adjusted=False), list[Difference]()
    for column in [] if design.history.users is None else design.history.users.columns:
        if str(column) in (ARM_COLUMN, design.settings.cluster):
            continue
        code, levels_of = levels(attribute(design.history, str(column), "strata").iloc[design.users.user])
        if len(levels_of) > MAX_LEVELS:
            continue
        for k, level in enumerate(levels_of if len(levels_of) > 2 else levels_of[:1]):
            share = (code == k).astype(np.float64)
            if min(share.sum(), len(share) - share.sum()) >= MAX_LEVELS:
                found += _differences(design, pairs, everybody, share, None, f"share of {column} {level}")
    return found


def _placebos(
    design: TrialDesign, outcomes: Sequence[Outcome], pairs: Sequence[tuple[int, int]], sums: UserAmounts
) -> list[Difference]:
    """Return the lifts in the second half of the period before, given the first; none without such a period."""
    if design.pre is None:
        return []
    users, found = design.users, list[Difference]()
    known = design.population(users.known_before, adjusted=False)
    edges = np.stack([users.enrolled - design.pre // 2, users.enrolled], axis=1)
    halves = sums(outcomes, users.user, users.enrolled - design.pre, edges)
    for outcome, both in zip(outcomes, halves, strict=True):
        change, what = both[:, 1] - both[:, 0], f"`{outcome.name}` ({outcome.measure})"
        found += _differences(design, pairs, known, change, both[:, 0], what)
    return found


def _differences(
    design: TrialDesign,
    pairs: Sequence[tuple[int, int]],
    who: Population | None,
    values: FloatArray,
    covariate: FloatArray | None,
    what: str,
) -> list[Difference]:
    """Return how each pair of arms differs in values (n,) of a population, given a covariate (n,) or None."""
    contrasts = design.contrasts(who, values, covariate, pairs)
    if contrasts is None:  # the population has too few users
        return []
    return [
        (f"{what}, {design.arms[a]} against {design.arms[b]}", one.p_value)
        for (a, b), (one, _) in zip(pairs, contrasts, strict=True)
        if one.se > 0
    ]


def _columns(rows: Sequence[Difference]) -> tuple[list[str], list[float]]:
    return [row[0] for row in rows], [row[1] for row in rows]

"""Off-policy evaluation: the value of a policy on logged decisions, jointly and per module, with what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, Fault, InputError, NotIdentified
from crosschannel.evaluation.bootstrap import UNKNOWN, Interval, t_interval, user_bootstrap
from crosschannel.evaluation.estimators import ESTIMATORS, Estimator, Sample, SwitchDR, Terms
from crosschannel.evaluation.outcome_model import QValues
from crosschannel.evaluation.results import Estimate, Evaluation, EvaluationSettings
from crosschannel.evaluation.support import (
    LoggedDecisions,
    Support,
    applies,
    check_policy,
    describe_weights,
    importance_weights,
    unsupported_mass,
)

Refit = Callable[[FloatArray], FloatArray]


def evaluate(
    log: LoggedDecisions,
    probabilities: Sequence[FloatArray],
    rewards: FloatArray | Refit,
    *,
    rng: np.random.Generator,
    q_values: Sequence[QValues] | None = None,
    settings: EvaluationSettings | None = None,
    estimators: Sequence[Estimator] = ESTIMATORS,
    policy: str = "policy",
    reward_counts: Mapping[str, int] | None = None,
    kept: FloatArray | None = None,
) -> Evaluation:
    """Estimates a policy's value from a log of another policy's decisions.

    Estimands, all of them means over the decisions whose reward the log identifies, at the contexts of the log (what
    an earlier decision would have changed for later ones is not in them):

    - the whole action: the policy chooses every module;
    - each module: the policy chooses this one, every other module is chosen as the log does given the earlier choices.

    Args:
        log: Decisions of users whom neither the policy nor the outcome model has seen, n rows.
        probabilities: The policy's probabilities at the same slots, one array (n, A_m) a module, each conditional on
            the parent's choice (`Agent.action_probabilities`).
        rewards: Rewards (n,), NaN where not identified; or a function from how often each decision counts (n,) to
            such rewards, which is then called anew in every replicate (`reward.refit`).
        rng: Where the bootstrap's draws come from.
        q_values: Modelled rewards, one entry for the whole action and one for each module
            (`OutcomeModel.q_values`); without them, the estimators that need a model are left out.
        settings: Floors, limits, replicates.
        estimators: Which estimators, in the order of the report.
        policy: The policy's name.
        reward_counts: Decisions by what became of their reward (`RewardFrame.counts`).
        kept: Probability that each decision kept its reward, where a later message can take it away
            (`RewardFrame.kept`, (n,)): decisions then count 1/kept times, so that values are about all of them and
            not about those who happened to be left alone. NaN where unknown; by default 1.

    Raises:
        InputError: If shapes differ, a probability is out of range, or a reward is infinite.
        ConfigError: If there is no estimator that can do without `q_values`, and there are none.
        NotIdentified: If no decision has a reward.
    """
    settings = settings or EvaluationSettings()
    n = len(log)
    check_policy(log.modules, probabilities, n)
    refit: Refit = rewards if callable(rewards) else (lambda _: rewards)
    base = np.asarray(refit(np.ones(n)), dtype=np.float64)
    _check_rewards(base, n)
    _check_q(q_values, 1 + len(log.modules), n)
    keep = ~np.isnan(base)
    if not keep.any():
        raise NotIdentified("no evaluated decision has a reward: see the reward model's reasons")

    part, p = log[keep], [array[keep] for array in probabilities]
    users, code = np.unique(part.user, return_inverse=True)
    chance = np.ones(int(keep.sum())) if kept is None else _check_kept(kept, n)[keep]
    unsure = int(np.isnan(chance).sum())
    share = 1.0 / np.where(np.isnan(chance), 1.0, chance)
    targets = [
        _Target.of(
            part, p, m, base[keep], share, None if q_values is None else q_values[0 if m is None else 1 + m], keep
        )
        for m in (None, *range(len(log.modules)))
    ]
    usable = [e for e in estimators if q_values is not None or not e.modelled]
    if not usable:
        raise ConfigError("every estimator that was asked for needs an outcome model: hand in `q_values`")
    lost = f"the log has no propensity of the slots after {unsure:,} decisions that could have taken their reward away"
    asked = [
        (target, e, lost if unsure else _why_not(target, e, len(users), settings)) for target in targets for e in usable
    ]

    values = _Values.of([None if why else e.terms(target.sample) for target, e, why in asked], len(part))

    def statistics(times: FloatArray) -> FloatArray:
        """The logged mean, the share of rewards that this replicate lost, and every value that was asked for."""
        r = np.asarray(refit(times), dtype=np.float64)[keep]
        gone = np.isnan(r)
        times, r = np.where(gone, 0.0, times[keep] * share), np.where(gone, 0.0, r)
        logged = times @ r / times.sum() if times.any() else np.nan
        return np.array([logged, gone.mean(), *values.at(times, r)])

    points = statistics(np.ones(n))
    draws = user_bootstrap(statistics, log.user, settings.replicates, rng)
    logged_influence = share * (base[keep] - points[0]) / share.sum()

    def interval(point: float, drawn: FloatArray, influence: FloatArray) -> Interval:
        return t_interval(point, drawn, np.bincount(code, weights=influence).astype(np.float64), settings.level)

    def estimate(k: int) -> Estimate:
        target, e, reason = asked[k]
        point, drawn = points[2 + k], draws[:, 2 + k]
        influence = values.influence(k, share, base[keep], point)
        value = interval(point, drawn, influence)
        difference = interval(point - points[0], drawn - draws[:, 0], influence - logged_influence)
        if not reason and not (value.known and difference.known):
            reason = f"undefined in {int((~np.isfinite(drawn - draws[:, 0])).sum())} of {len(draws)} replicates"
            value = difference = UNKNOWN
        words = _in_words(log, target.module, policy)
        return Estimate(words, target.name, e.name, value, difference, len(part), len(users), target.support, reason)

    return Evaluation(
        policy=policy,
        log=log.name,
        logged=interval(points[0], draws[:, 0], logged_influence),
        estimates=tuple(estimate(k) for k in range(len(asked))),
        decisions=len(part),
        users=len(users),
        propensity_source=log.propensity_source,
        reward_counts=dict(reward_counts or {"identified": len(part), "not identified": n - len(part)}),
        refitted=callable(rewards),
        lost=float(draws[:, 1].mean()),
        least_kept=float(1.0 / share.max()),
        settings=settings,
    )


@dataclass(frozen=True)
class _Target:
    """One estimand on the decisions with a reward: which module, its weights and how well they are supported."""

    module: int | None
    name: str | None
    unknown: int
    sample: Sample
    support: Support

    @classmethod
    def of(
        cls,
        log: LoggedDecisions,
        probabilities: Sequence[FloatArray],
        m: int | None,
        rewards: FloatArray,
        share: FloatArray,
        q: QValues | None,
        keep: BoolArray,
    ) -> _Target:
        weights = importance_weights(log, probabilities, m)
        unknown = np.isnan(weights)
        support = describe_weights(
            weights * share / share.mean(), rewards, log.user, applies(log, m), unsupported_mass(log, probabilities, m)
        )
        sample = Sample(
            rewards=rewards,
            weights=np.where(unknown, 0.0, weights),
            counts=share,
            q_logged=None if q is None else q.logged[keep],
            q_policy=None if q is None else q.policy[keep],
        )
        return cls(m, None if m is None else log.modules.names[m], int(unknown.sum()), sample, support)


@dataclass(frozen=True)
class _Values:
    """The terms of all estimates at hand for the bootstrap: constants, slopes and masses of each."""

    constant: _Shared
    slope: _Shared
    mass: _Shared

    @classmethod
    def of(cls, terms: Sequence[Terms | None], n: int) -> _Values:
        """Estimates without terms get a mass of 0, so that they have no value."""
        nothing = np.zeros(n)
        filled = [Terms(nothing, nothing, nothing) if t is None else t for t in terms]
        return cls(*(_Shared.of([getattr(t, name) for t in filled]) for name in ("constant", "slope", "mass")))

    def at(self, counts: FloatArray, rewards: FloatArray) -> FloatArray:
        """Values (K,) for counts (n,) and rewards (n,); NaN where no decision has any mass."""
        mass = self.mass.sums(counts)
        total = self.constant.sums(counts) + self.slope.sums(counts * rewards)
        return np.asarray(total / np.where(mass > 0, mass, np.nan))

    def influence(self, k: int, counts: FloatArray, rewards: FloatArray, value: float) -> FloatArray:
        r"""Influences of the decisions (n,) on value k, the rewards held fixed; NaN where no decision has any mass.

        .. math:: \psi_i = c_i (\text{constant}_i + \text{slope}_i r_i - \hat V \, \text{mass}_i) /
            \textstyle\sum_j c_j \, \text{mass}_j
        """
        mass = counts * self.mass.of_one(k)
        error = counts * (self.constant.of_one(k) + self.slope.of_one(k) * rewards) - value * mass
        return np.asarray(error / np.where(mass.any(), mass.sum(), np.nan))


@dataclass(frozen=True)
class _Shared:
    """K arrays (n,), many of them one and the same: a row for each distinct one, and which row is whose."""

    rows: FloatArray
    place: IntArray

    @classmethod
    def of(cls, arrays: Sequence[FloatArray]) -> _Shared:
        distinct = {id(array): array for array in arrays}
        place = {key: row for row, key in enumerate(distinct)}
        return cls(np.stack(list(distinct.values())), np.array([place[id(array)] for array in arrays], dtype=np.int64))

    def of_one(self, k: int) -> FloatArray:
        """Array k (n,)."""
        return np.asarray(self.rows[self.place[k]])

    def sums(self, counts: FloatArray) -> FloatArray:
        """Sums of the arrays with decisions counted `counts` (n,) times, (K,)."""
        return np.asarray((self.rows @ counts)[self.place])


def _why_not(target: _Target, estimator: Estimator, users: int, settings: EvaluationSettings) -> str:
    """Why the log does not identify an estimate, or an empty string."""
    s = target.support
    if s.decisions == 0:
        return "the log never makes this choice"
    if users < settings.users_floor:
        return f"{users} users < {settings.users_floor:g}"
    if s.unsupported > settings.unsupported_limit:
        return (
            f"{s.unsupported:.0%} of the policy's mass is on actions that the log never takes or that are ineligible, "
            f"more than {settings.unsupported_limit:.0%}"
        )
    if not estimator.weighted:
        return ""
    if target.unknown:
        return f"the log has no propensity of {target.unknown:,} decisions"
    if s.ess < settings.ess_floor:
        return f"ESS {s.ess:.0f} < {settings.ess_floor:g}"
    if s.ess_users < settings.users_floor:
        return f"ESS of users {s.ess_users:.0f} < {settings.users_floor:g}"
    for of, ess, raised in settings.floors(s):
        if ess < raised:
            return f"ESS{of} {ess:,.0f} < {raised:,.0f}, the floor for rewards as rare or uneven as these"
    if isinstance(estimator, SwitchDR):
        share = estimator.left_to_model(target.sample)
        if share > settings.unsupported_limit:
            return f"{share:.0%} of the weight is above {estimator.threshold:g}: the value would be the outcome model's"
    # Three standard errors: the mean of skewed weights wanders, and chance alone must not withhold a value.
    if s.mean_weight + 3 * s.mean_weight_se < 1 - settings.unsupported_limit:
        return f"mean weight {s.mean_weight:.2f}: the log lacks support for about {1 - s.mean_weight:.0%} of the policy"
    if s.mean_weight - 3 * s.mean_weight_se > 1 + settings.unsupported_limit:
        return f"mean weight {s.mean_weight:.2f} instead of 1: the propensities are not those of this log"
    return ""


def _in_words(log: LoggedDecisions, m: int | None, policy: str) -> str:
    if m is None:
        return f"mean reward per decision if {policy} chose the whole action"
    module = log.modules.names[m]
    return f"mean reward per decision if {policy} chose {module}, and every other module were chosen as logged"


def _check_rewards(rewards: FloatArray, n: int) -> None:
    if rewards.shape != (n,):
        problem = f"the shape is {rewards.shape}, not ({n},)"
        raise InputError([Fault("evaluation", problem, "Give one reward for each decision.", "rewards")])
    wrong = np.isinf(rewards)
    if wrong.any():
        row = int(wrong.argmax())
        remedy = "Use NaN where a reward is not identified."
        fault = Fault("evaluation", "is infinite", remedy, "rewards", row + 1, float(rewards[row]), int(wrong.sum()))
        raise InputError([fault])


def _check_kept(kept: FloatArray, n: int) -> FloatArray:
    wrong = np.array([kept.shape != (n,)]) if kept.shape != (n,) else ~np.isnan(kept) & ~((kept > 0) & (kept <= 1))
    if wrong.any():
        problem = f"an array of shape {kept.shape} is not ({n},) with entries in (0, 1]"
        raise InputError([Fault("evaluation", problem, "Give each decision's chance to keep its reward.", "kept")])
    return kept


def _check_q(q_values: Sequence[QValues] | None, count: int, n: int) -> None:
    if q_values is None:
        return
    if len(q_values) != count:
        problem = f"there are {len(q_values)} entries, not {count}"
        raise InputError([Fault("evaluation", problem, "Give one for the whole action and one a module.", "q_values")])
    for q in q_values:
        for array in (q.logged, q.policy):
            if array.shape != (n,) or not np.isfinite(array).all():
                problem = f"an array of shape {array.shape} is not ({n},) and finite"
                raise InputError(
                    [Fault("evaluation", problem, "Give a modelled reward for each decision.", "q_values")]
                )

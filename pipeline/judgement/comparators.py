"""What a policy is compared with: the log, uniform choices, no messages, constant actions, its own greedy choices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from crosschannel.agents import uniform_shares
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.evaluation import (
    Evaluation,
    Interval,
    LoggedDecisions,
    Support,
    headline,
    t_interval,
    user_bootstrap,
)
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.estimates import reason_not_identified, reason_of_weights
from crosschannel.evaluation.estimators import Terms, optimal_baseline
from crosschannel.evaluation.stacked_terms import StackedTerms
from crosschannel.pipeline.building import TrainingData
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.constants import (
    BestConstants,
    constant_actions,
    constant_weights,
    constants_of,
    one_hot,
)
from crosschannel.pipeline.judgement.headline_order import HeadlineOrder, lacks_propensities
from crosschannel.pipeline.judgement.records import Comparator

#: Names of the log's own policy, and of the evaluated one by the estimator of the comparators.
LOGGED, EVALUATED = "logged", "evaluated policy"
#: Name of the policy that sends nothing.
NO_SEND = "no send"
#: Stream of random numbers, beside the run's seed.
COMPARING = 6
#: Most replicates of the bootstrap: a standard error then has a relative error of 7 %, and takes a quarter of the time.
MAX_REPLICATES = 100
#: Training decisions by whose true effects the best constant action is found, and joint actions above which it is not.
TRUTH_ROWS, MAX_JOINT_ACTIONS = 400, 20_000
#: Constant actions of different folds that are named.
MAX_NAMED = 3


@dataclass(frozen=True)
class Candidate:
    """One policy to compare with, on the n test decisions with a reward.

    Attributes:
        name: The policy.
        detail: Its actions in words, where it always chooses the same.
        weights: Weights of the decisions (n,).
        unsupported: Share of its mass on actions that the log never takes.
        truth: Its mean true effect per decision; NaN where unknown.
    """

    name: str
    detail: str
    weights: FloatArray
    unsupported: float
    truth: float = math.nan


def compare(
    config: Config,
    data: TrainingData,
    probabilities: Sequence[FloatArray],
    greedy: Sequence[FloatArray],
    evaluation: Evaluation,
    constants: Sequence[BestConstants | None] | None = None,
    fold: IntArray | None = None,
) -> tuple[Comparator, ...]:
    """Estimate the values of the comparators on the test users, as that of the policy, and its lead over each.

    All are estimated at the order of the evaluation's headline, with the factors that it found, by importance weights
    with a constant baseline, and from the same replicates, so that leads are paired; the log's own value is that of the
    evaluation. Best constants are chosen on the
    training users, so that their estimates on the test users have no winner's curse.

    Args:
        config: The configuration.
        data: The history and its splits.
        probabilities: The policy's probabilities at the test users' decisions.
        greedy: Those of the same agent without exploration.
        evaluation: The evaluation of this policy.
        constants: The best constant actions by the training users, of each fold where there are several; by default
            those of `data.train`.
        fold: Which of these belong to each of the test users' decisions (n,); the first to all by default.
    """
    test = data.test
    kept = test.rewards.identified
    log = LoggedDecisions.from_history(test.history)[kept]
    if lacks_propensities(log):
        return ()  # without propensities there are no weights; the evaluation says so
    blocked = data.not_identified or (
        "the log has no propensities for the slots after some decisions"
        if np.isnan(test.rewards.p_uncensored[kept]).any()
        else ""
    )
    constants = [constants_of(config, data.train)] if constants is None else constants
    judge = _Judge(
        config=config,
        data=data,
        log=log,
        kept=kept,
        counts=test.rewards.ipc_weight[kept],
        order=HeadlineOrder.from_evaluation(config, log, evaluation),
        constants=tuple(each for each in constants if each is not None) if None not in constants else (),
        fold=np.zeros(len(log), dtype=np.int64) if fold is None else fold[kept],
    )
    policy = judge.policy([p[kept] for p in probabilities])
    candidates = [policy, *judge.candidates([p[kept] for p in greedy])]
    return judge.estimate(candidates, blocked, headline(evaluation).reason, evaluation.logged)


@dataclass(frozen=True)
class _Judge:
    """The test users' decisions with a reward, and how policies are valued on them."""

    config: Config
    data: TrainingData
    log: LoggedDecisions
    kept: BoolArray
    counts: FloatArray
    order: HeadlineOrder
    constants: tuple[BestConstants, ...]
    fold: IntArray
    rows: IntArray = field(init=False)
    mask: BoolArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", np.flatnonzero(self.data.rows("test"))[self.kept])
        object.__setattr__(self, "mask", self.data.test.observations.action_mask[self.kept])

    @property
    def modules(self) -> ActionSpace:
        return self.log.modules

    def whole(
        self, name: str, probabilities: Sequence[FloatArray], truth: float = math.nan, detail: str = ""
    ) -> Candidate:
        """Return the candidate that chooses the whole action with the given probabilities."""
        return Candidate(
            name=name,
            detail=detail,
            weights=self.order.weights(self.log, probabilities),
            unsupported=self.order.unsupported_mass(self.log, probabilities),
            truth=truth,
        )

    def policy(self, probabilities: Sequence[FloatArray]) -> Candidate:
        """Return the evaluated policy."""
        return self.whole(EVALUATED, probabilities, self._expected(probabilities))

    def constant(self, name: str, action: Sequence[int] | IntArray) -> Candidate:
        """Return the candidate that chooses one action (M,), or one of each fold (K, M), wherever it is eligible."""
        by_fold = np.atleast_2d(np.asarray(action, dtype=np.int64))
        actions = constant_actions(self.modules, self.mask, by_fold[self.fold] if len(by_fold) > 1 else by_fold[0])
        detail = _either(", ".join(part for part in names if part) for names in self.modules.names_of(by_fold))
        return self.whole(name, one_hot(self.modules, actions), self.truth_of(actions), detail)

    def truth_of(self, actions: IntArray) -> float:
        """Return the mean true effect of actions (n, M); NaN where the history is not simulated."""
        truth = self.data.truth
        if truth is None:
            return math.nan
        return float(np.average(truth.effect(self.rows, actions), weights=self.counts))

    def candidates(self, greedy: Sequence[FloatArray]) -> Iterator[Candidate]:
        """Yield the comparators."""
        modules, nothing = self.modules, np.zeros_like(self.log.actions)
        ones = np.ones(len(self.log))
        truth = self.truth_of(self.log.actions)
        yield Candidate(name=LOGGED, detail="", weights=ones, unsupported=0.0, truth=truth)
        uniform = uniform_shares(modules, self.mask)
        yield self.whole("uniform", uniform, self._expected(uniform))
        yield self.whole(NO_SEND, one_hot(modules, nothing), self.truth_of(nothing))
        yield self.whole("greedy", greedy, self._expected(greedy))
        if self.constants:
            yield self.constant("best constant", np.array([best.whole for best in self.constants]))
            if len(modules) > 1:
                chosen = np.array([best.modules for best in self.constants])
                yield from (self._constant_module(m, chosen[:, m]) for m in range(len(modules)))
        if (true_best := self._best_by_true_effect()) is not None:
            yield self.constant("best constant by true effect", true_best)

    def _constant_module(self, m: int, by_fold: IntArray) -> Candidate:
        module, code = self.modules[m], by_fold[self.fold]
        truth = math.nan
        if m > 0:
            possible = self.modules.conditional_mask(m, self.modules.feasible_mask(self.mask), self.log.actions)
            actions = self.log.actions.copy()
            changed = possible[np.arange(len(code)), code] & self.modules.sends(actions)
            actions[changed, m] = code[changed]
            if all((self.modules.parent(j) or (None,))[0] != m for j in range(len(self.modules))):
                truth = self.truth_of(actions)
        weights = constant_weights(self.log, self.mask, m, code)
        name = f"best constant {module.name}"
        detail = _either(module.actions[each] for each in by_fold)
        return Candidate(name=name, detail=detail, weights=weights, unsupported=0.0, truth=truth)

    def _expected(self, shares: Sequence[FloatArray]) -> float:
        if self.data.truth is None:
            return math.nan
        given = [self.modules.condition(m) for m in range(len(self.modules))]
        return float(np.average(self.data.truth.expected_effect(self.rows, shares, given), weights=self.counts))

    def _best_by_true_effect(self) -> IntArray | None:
        """Return the joint action with the largest mean true effect at decisions of the training users, if apart."""
        truth, modules = self.data.truth, self.modules
        if truth is None or math.prod(float(size) for size in modules.sizes) > MAX_JOINT_ACTIONS:
            return None
        rows = np.flatnonzero(self.data.rows("train"))
        rows = rows if len(rows) else self.rows
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, TRUTH_ROWS).astype(np.int64))]
        eligible = np.ones((len(rows), modules.total), dtype=bool)
        if self.data.history.decisions.eligible is not None:
            eligible = self.data.history.decisions.eligible[rows]
        every = modules.joint_actions
        effects = truth.effect(rows, np.broadcast_to(every, (len(rows), *every.shape)))
        return np.asarray(every[np.where(modules.joint_mask(eligible), effects, 0.0).mean(0).argmax()])

    def estimate(
        self, candidates: Sequence[Candidate], blocked: str, policy_reason: str, logged: Interval
    ) -> tuple[Comparator, ...]:
        """Return the estimates of all candidates; the first is the policy, which comes last and leads nobody.

        The log's own value is that of the evaluation, so that it has one interval wherever it stands.
        """
        settings, log, counts = self.config.evaluation, self.log, self.counts
        reward = self.data.test.rewards.reward[self.kept]
        baselines = [optimal_baseline(c.weights, reward, counts) for c in candidates]
        ones = np.ones(len(log))
        terms = StackedTerms.build(
            [
                Terms(constant=b * (1.0 - c.weights), slope=c.weights, denominator=ones)
                for b, c in zip(baselines, candidates, strict=True)
            ],
            len(log),
        )
        fitted = self.data.test.refit()

        def statistics(drawn: FloatArray) -> FloatArray:
            """Return the logged mean and the value of every candidate."""
            r = np.asarray(fitted(drawn), dtype=np.float64)[self.kept]
            dropped = np.isnan(r)
            c, r = np.where(dropped, 0.0, drawn[self.kept] * counts), np.where(dropped, 0.0, r)
            return np.array([c @ r / c.sum() if c.any() else np.nan, *terms.values(c, r)])

        test = self.data.test.history.decisions
        points = statistics(np.ones(len(test)))
        rng = np.random.default_rng([self.config.seed, COMPARING])
        draws = user_bootstrap(statistics, test.user, min(settings.bootstrap_replicates, MAX_REPLICATES), rng)
        users, code = np.unique(log.user, return_inverse=True)
        influence = [counts * (reward - points[0]) / counts.sum()]
        influence += [terms.influence(k, counts, reward, points[1 + k]) for k in range(len(candidates))]
        by_user = np.stack([np.bincount(code, weights=each, minlength=len(users)) for each in influence])

        def interval(coefficients: FloatArray) -> Interval:
            return t_interval(
                float(points @ coefficients), draws @ coefficients, coefficients @ by_user, settings.confidence_level
            )

        unit = np.eye(1 + len(candidates))
        found = []
        for k, candidate in [*enumerate(candidates[1:], start=2), (1, candidates[0])]:
            support = Support.overall(candidate.weights, counts, reward, log.user, candidate.unsupported)
            reason = self.data.refused if candidate.name == LOGGED else blocked or (policy_reason if k == 1 else "")
            reason = (
                reason or reason_not_identified(support, len(users), settings) or reason_of_weights(support, settings)
            )
            found.append(
                Comparator(
                    policy=candidate.name,
                    detail=candidate.detail,
                    value=UNDEFINED if reason else logged if candidate.name == LOGGED else interval(unit[k]),
                    difference=UNDEFINED if reason or candidate.name == LOGGED else interval(unit[k] - unit[0]),
                    lead=UNDEFINED if reason or policy_reason or k == 1 else interval(unit[1] - unit[k]),
                    ess=support.ess,
                    reason=reason,
                    truth=candidate.truth,
                )
            )
        return tuple(found)


def _either(names: Iterable[str]) -> str:
    """Return what folds chose, in words: the names without repetitions, or how many they are."""
    different = list(dict.fromkeys(names))
    return " or ".join(different) if len(different) <= MAX_NAMED else f"{len(different)} different ones by fold"

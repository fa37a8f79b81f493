"""The decisions of a log that have a reward, with what a policy does at them: what off-policy estimates rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import Fault, InputError, NotIdentified
from crosschannel.evaluation.estimates import EvaluationSettings
from crosschannel.evaluation.estimators import Sample
from crosschannel.evaluation.ladder.design import LadderDesign
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.outcomes.outcome_model import QValues
from crosschannel.evaluation.support import Support, unsupported_mass
from crosschannel.evaluation.weights import has_choice, importance_weights

Refit = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class ObservedDecisions:
    """The n decisions with a reward, and what the policy does at them.

    Attributes:
        log: The decisions.
        probabilities: The policy's probabilities there.
        rewards: Their rewards (n,).
        q: Modelled rewards there; None without a model.
        ipc_weight: How often each counts: inverse probabilities of censoring, 1 where unknown (n,).
        unknown: Number of decisions whose probability of censoring is unknown.
        rows: Which of all decisions they are (all,).
        code: Users as codes from 0 on (n,).
    """

    log: LoggedDecisions
    probabilities: list[FloatArray]
    rewards: FloatArray
    q: list[QValues] | None
    ipc_weight: FloatArray
    unknown: int
    rows: BoolArray
    code: IntArray

    @classmethod
    def build(
        cls,
        log: LoggedDecisions,
        probabilities: Sequence[FloatArray],
        refit: Refit,
        q_values: Sequence[QValues] | None,
        p_uncensored: FloatArray | None,
    ) -> ObservedDecisions:
        """Check what `evaluate` was given, and take the decisions with a reward."""
        n = len(log)
        check_probabilities(log.modules, probabilities, n)
        rewards = np.asarray(refit(np.ones(n)), dtype=np.float64)
        _check_rewards(rewards, n)
        _check_q_values(q_values, 1 + len(log.modules), n)
        rows = ~np.isnan(rewards)
        if not rows.any():
            raise NotIdentified("no evaluated decision has a reward: see the reward model's reasons")
        part = log[rows]
        p = np.ones(len(part)) if p_uncensored is None else _check_p_uncensored(p_uncensored, n)[rows]
        return cls(
            log=part,
            probabilities=[each[rows] for each in probabilities],
            rewards=rewards[rows],
            q=None if q_values is None else [QValues(q.logged[rows], q.policy[rows]) for q in q_values],
            ipc_weight=1.0 / np.where(np.isnan(p), 1.0, p),
            unknown=int(np.isnan(p).sum()),
            rows=rows,
            code=np.unique(part.user, return_inverse=True)[1],
        )

    @property
    def users(self) -> int:
        """Number of users."""
        return int(self.code.max()) + 1

    @property
    def reward_counts(self) -> dict[str, int]:
        """Number of decisions with a reward, and without."""
        return {"identified": len(self.log), "not identified": len(self.rows) - len(self.log)}

    @property
    def why_unknown(self) -> str:
        """Why nothing is identified where probabilities of censoring are unknown; empty where all are known."""
        if not self.unknown:
            return ""
        return (
            f"p_uncensored is unknown for {self.unknown:,} decisions: the log has no propensities for the slots after "
            "them"
        )

    def estimands(self) -> list[Estimand]:
        """Return the whole action, and then each module."""
        return [
            Estimand.build(
                self.log, self.probabilities, m, self.rewards, self.ipc_weight, None if self.q is None else self.q[k]
            )
            for k, m in enumerate((None, *range(len(self.log.modules))))
        ]

    def ladder_design(self, settings: EvaluationSettings, blocked: str) -> tuple[LadderDesign | None, str]:
        """Return the design of the interaction ladder, or why there is none."""
        of_channel = None if self.q is None else self.q[1]
        try:
            return LadderDesign.build(
                self.log, self.probabilities, self.rewards, self.ipc_weight, of_channel, settings, blocked
            ), ""
        except NotIdentified as error:
            return None, str(error)


@dataclass(frozen=True)
class Estimand:
    """One estimand on the decisions with a reward: which module, its sample and how well the log supports it."""

    module: int | None
    name: str | None
    unknown: int
    sample: Sample
    support: Support

    @classmethod
    def build(
        cls,
        log: LoggedDecisions,
        probabilities: Sequence[FloatArray],
        m: int | None,
        rewards: FloatArray,
        ipc_weight: FloatArray,
        q: QValues | None,
    ) -> Estimand:
        """Weigh the decisions for module m, or for the whole action (None); other arguments are those of `Sample`."""
        weights = importance_weights(log, probabilities, m)
        unknown = np.isnan(weights)
        support = Support.from_weights(
            weights * ipc_weight / ipc_weight.mean(),
            rewards,
            log.user,
            has_choice(log, m),
            unsupported_mass(log, probabilities, m),
        )
        sample = Sample(
            rewards=rewards,
            weights=np.where(unknown, 0.0, weights),
            counts=ipc_weight,
            q_logged=None if q is None else q.logged,
            q_policy=None if q is None else q.policy,
        )
        name = None if m is None else log.modules.names[m]
        return cls(module=m, name=name, unknown=int(unknown.sum()), sample=sample, support=support)


def _check_rewards(rewards: FloatArray, n: int) -> None:
    if rewards.shape != (n,):
        problem = f"the shape is {rewards.shape}, not ({n},)"
        raise InputError([_fault(problem, "Pass one reward for each decision.", "rewards")])
    wrong = np.isinf(rewards)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            [
                Fault(
                    file="evaluation",
                    problem="is infinite",
                    remedy="Use NaN where a reward is not identified.",
                    column="rewards",
                    row=row + 1,
                    value=float(rewards[row]),
                    count=int(wrong.sum()),
                )
            ]
        )


def _check_p_uncensored(p: FloatArray, n: int) -> FloatArray:
    if p.shape != (n,) or (~np.isnan(p) & ~((p > 0) & (p <= 1))).any():
        problem = f"an array of shape {p.shape} is not ({n},) with entries in (0, 1]"
        remedy = "Pass each decision's probability that its reward is not censored."
        raise InputError([_fault(problem, remedy, "p_uncensored")])
    return p


def _check_q_values(q_values: Sequence[QValues] | None, count: int, n: int) -> None:
    if q_values is None:
        return
    if len(q_values) != count:
        problem = f"there are {len(q_values)} entries, not {count}"
        raise InputError([_fault(problem, "Pass one for the whole action and one for each module.", "q_values")])
    for q in q_values:
        for array in (q.logged, q.policy):
            if array.shape != (n,) or not np.isfinite(array).all():
                problem = f"an array of shape {array.shape} is not ({n},) and finite"
                raise InputError([_fault(problem, "Pass a modelled reward for each decision.", "q_values")])


def _fault(problem: str, remedy: str, column: str) -> Fault:
    return Fault(file="evaluation", problem=problem, remedy=remedy, column=column)

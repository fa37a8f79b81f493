"""How many users, weeks or how much exploration would identify the value of a policy to a given error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.estimates import reason_not_identified
from crosschannel.evaluation.ladder.factors import TESTED, Factors, find_factors
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.report.sentences import headline
from crosschannel.evaluation.results import Evaluation
from crosschannel.evaluation.weights import has_choice

#: Ways to value the whole action: by the joint weight, or by the sum of the factors' own weights given the channel.
JOINT, ORDER_1 = "joint weights", "order 1"
#: What each way to estimate a value assumes, as the beginning of a sentence.
IN_WORDS = {
    JOINT: "Without an assumption on the parts of a message (joint weights)",
    ORDER_1: "If what the parts of a message earn adds up (order 1)",
}
#: Shares of uniform exploration that are compared.
EXPLORATION_GRID = np.linspace(0.0, 1.0, 51)


@dataclass(frozen=True)
class WeightMoments:
    r"""Second moments of the importance weights that a policy would have on a log, by factor of the content.

    With the second moment of the channel, :math:`\kappa = E_\mu[w_c^2]`, split into messages and slots at which nothing
    is sent, and that of a factor, :math:`S_f`, to which a message counts as the square of its channel's weight:

    .. math::
        S_f = \frac{E_\mu[1[sent] \, w_c^2 \prod_{m \in f} w_m^2]}{\kappa_{sent}}, \qquad
        D_{joint} = \kappa_{none} + \kappa_{sent} \prod_f S_f, \qquad
        D_1 = \kappa_{none} + \kappa_{sent} \Big( 1 + \sum_f (S_f - 1) \Big)

    Factors are those of the interaction ladder (`find_factors`): modules that are drawn together, or a single one.
    Where all are one factor, D_1 is D_joint, as order 1 is then the weight of the whole action. n decisions are worth
    n / D equally weighted ones. Assumption: a factor's weights depend neither on the context nor on the other factors'
    choices, so that second moments multiply.

    Attributes:
        nothing: Second moment of the channel's weight over slots at which nothing is sent, as a share of all.
        sent: The same over messages.
        factors: Second moment of each factor's weight.
    """

    nothing: float
    sent: float
    factors: dict[str, float]

    @property
    def joint(self) -> float:
        """Second moment of the whole action's weight."""
        return self.nothing + self.sent * math.prod(self.factors.values())

    @property
    def order_1(self) -> float:
        """Second moment of the weight that adds up the factors' own weights, given the channel."""
        return self.nothing + self.sent * (1.0 + sum(each - 1.0 for each in self.factors.values()))

    def of(self, way: str) -> float:
        """Return the second moment for `JOINT` or `ORDER_1`."""
        return self.joint if way == JOINT else self.order_1


@dataclass(frozen=True)
class ChosenWeights:
    """The chances of the logged actions, by module: under the log, under a policy, and if all were chosen uniformly.

    Attributes:
        factors: Which content modules were drawn together.
        sends: Where something was sent (n,).
        logged: Logged propensity of each module's choice (n, M); 1 where it made none. Where all content modules are
            one factor, the last one's is such that they multiply to the logged probability of the whole action.
        policy: The policy's probability of the same choice (n, M); 1 where it made none.
        uniform: One by the number of eligible actions, given the earlier choices (n, M).
    """

    factors: Factors
    sends: BoolArray
    logged: FloatArray
    policy: FloatArray
    uniform: FloatArray

    @classmethod
    def from_log(
        cls, log: LoggedDecisions, probabilities: Sequence[FloatArray], factors: Factors | str = TESTED
    ) -> ChosenWeights:
        """Look up the chances of a log's actions.

        Args:
            log: Decisions with a propensity for every module, n rows.
            probabilities: The policy's probabilities, one array (n, *modules.shape(m)) per module.
            factors: The factors of the content, or how to find them (`find_factors`).

        Raises:
            InputError: If shapes differ.
            ConfigError: If a propensity is missing, or the declared factors do not fit the modules.
        """
        modules, n = log.modules, len(log)
        check_probabilities(modules, probabilities, n)
        chosen = np.stack([has_choice(log, m) for m in range(len(modules))], axis=1)
        logged = np.where(chosen, log.propensity, 1.0)
        for m, name in enumerate(modules.names):
            if np.isnan(logged[:, m]).any():
                raise ConfigError(f"the log has no propensity of {name} for some decisions: log or estimate them")
        found = find_factors(log, factors) if isinstance(factors, str) else factors
        if len(found.members) == 1:
            product, sends = logged.prod(1), modules.sends(log.actions)
            logged[:, -1] *= np.where(sends & ~np.isnan(log.joint), log.joint / product, 1.0)
        mask = np.ones((n, modules.total), dtype=bool) if log.eligible is None else log.eligible
        feasible = modules.feasible_mask(mask)
        counts = [modules.conditional_mask(m, feasible, log.actions).sum(1) for m in range(len(modules))]
        return cls(
            factors=found,
            sends=modules.sends(log.actions),
            logged=logged,
            policy=modules.chosen_probabilities(probabilities, log.actions),
            uniform=1.0 / np.maximum(np.stack(counts, axis=1), 1),
        )

    @classmethod
    def of_constant_actions(cls, log: LoggedDecisions, factors: Factors | str = TESTED) -> ChosenWeights:
        r"""Return chances whose moments are means over all policies that always choose one action of each module.

        A policy that always chooses action a has the second moment :math:`1 / \mu(a)`; its mean over the :math:`A_m`
        eligible actions is :math:`E_\mu[1 / (A_m \mu_m^2)]`, that of a policy with :math:`\pi_m^2 = 1 / A_m`.

        Args:
            log: Decisions with a propensity for every module, n rows.
            factors: The factors of the content, or how to find them (`find_factors`).

        Raises:
            ConfigError: If a propensity is missing, or the declared factors do not fit the modules.
        """
        n, modules = len(log), log.modules
        anything = [np.zeros((n, *modules.shape(m))) for m in range(len(modules))]
        anything[0][:, 0] = 1.0
        found = cls.from_log(log, anything, factors)
        made = np.column_stack([has_choice(log, m) for m in range(len(modules))])
        return replace(found, policy=np.where(made, np.sqrt(found.uniform), 1.0))

    def moments(self, exploration: FloatArray | float = 0.0) -> WeightMoments:
        r"""Return the second moments that the policy's weights would have if the log had explored more.

        .. math::
            \mu'_m = (1 - \epsilon_m) \mu_m + \epsilon_m / A_m, \qquad
            E_{\mu'}\left[ (\pi_m / \mu'_m)^2 \right] = E_\mu\left[ \frac{\pi_m}{\mu_m} \frac{\pi_m}{\mu'_m} \right]

        with the number :math:`A_m` of actions that were eligible at the slot given the earlier choices. So the moment
        under a logging policy that was never used is a mean over the log that there is.

        Args:
            exploration: Share of uniform choices :math:`\epsilon_m`, for all modules or for each (M,).

        Raises:
            ConfigError: If a share is not in [0, 1].
        """
        shares = np.broadcast_to(np.asarray(exploration, dtype=np.float64), (self.logged.shape[1],))
        if not ((shares >= 0) & (shares <= 1)).all():
            raise ConfigError(f"the share of exploration {exploration} is not in [0, 1]")
        n, sends = len(self.sends), self.sends
        explored = (1.0 - shares) * self.logged + shares * self.uniform
        squared = self.policy**2 / (self.logged * explored)
        mass = float(squared[sends, 0].sum())
        return WeightMoments(
            nothing=float(squared[~sends, 0].sum()) / n,
            sent=float(squared[sends, 0].sum()) / n,
            factors={
                name: float(squared[sends, 0] @ squared[sends][:, members].prod(1)) / mass if mass > 0 else 1.0
                for name, members in zip(self.factors.names, self.factors.members, strict=True)
            },
        )


@dataclass(frozen=True)
class LogSize:
    """How much a log holds, and how precisely it measures its own policy.

    Attributes:
        users: Number of users in all: of those that are not evaluated (training users) as many more are needed.
        decisions: Number of decisions with a reward, of the evaluated users.
        weeks: Time from the first to the last decision, and one more step between decisions, in weeks.
        logged: Mean reward per decision of the logging policy, with its interval over users.
    """

    users: int
    decisions: int
    weeks: float
    logged: Interval

    def __post_init__(self) -> None:
        if self.users < 1 or self.decisions < 1 or not self.weeks > 0 or not self.logged.is_defined:
            raise ConfigError("a plan needs a log with users, decisions, a length and an interval of its mean reward")


@dataclass(frozen=True)
class DataNeed:
    """What a log would need for the value of the whole action to be known to a given error.

    Attributes:
        way: How the value is estimated: `JOINT` or `ORDER_1`.
        error: Half of the width of the interval that is asked for.
        expected_error: The same that the log as it is would give, if its weights were as their second moments say.
        ess: Effective sample size that the second moment leaves of the log's decisions.
        min_ess: Effective sample size below which no value is identified.
        factor: How many times as many decisions are needed; at most 1 if the log suffices.
        users: Number of users in all, those that are not evaluated included, observed for as long as the log.
        weeks: Number of weeks with the log's users: more if a user's rewards are correlated.
        exploration: Smallest share of uniform choices in each module with which as much data as in the log would do;
            None where even 1 is not enough.
    """

    way: str
    error: float
    expected_error: float
    ess: float
    min_ess: float
    factor: float
    users: float
    weeks: float
    exploration: float | None

    def __str__(self) -> str:
        return self.describe()

    def describe(self, reason: str = "") -> str:
        """Return the need as a sentence.

        Args:
            reason: Why an evaluation did not identify the value; empty where there is none.
        """
        start = (
            f"{IN_WORDS[self.way]}, the log gives an interval of about +- {self.expected_error:.3g} "
            f"(ESS {self.ess:,.0f})"
        )
        if self.factor <= 1 and reason:
            return (
                f"{start}, which is narrow enough for +- {self.error:.3g}, but the value is not identified: {reason}."
            )
        if self.factor <= 1:
            return f"{start}, which is enough for +- {self.error:.3g}."
        explored = (
            f"or the same users and weeks with a share of {self.exploration:.0%} of uniform choices in each module"
            if self.exploration is not None
            else "and no share of uniform choices gives it with the same users and weeks"
        )
        return (
            f"{start}; one of +- {self.error:.3g} needs about {_count(self.users)} users in all, or {self.weeks:,.0f} "
            f"weeks with these users, {explored}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the need as plain values."""
        return asdict(self)


def data_needs(
    weights: ChosenWeights,
    size: LogSize,
    error: float,
    min_ess: float = 200.0,
    ways: Sequence[str] = (ORDER_1, JOINT),
) -> tuple[DataNeed, ...]:
    r"""Return what would identify the value of a policy's whole action to a given error, for each way to estimate it.

    The half-width of the log's own mean, h, is that of a policy with weights of 1. With a second moment D of the
    weights and k times as many decisions of independent users it is about

    .. math:: h_\pi = h \sqrt{D / k}, \qquad \text{ESS} = k n / D

    so that :math:`k = D \max(h^2 / \text{error}^2, \text{min ESS} / n)`. Assumption: that of `WeightMoments`, and
    rewards that vary under the policy as in the log.

    Args:
        weights: The chances of the log's decisions with a reward.
        size: How much the log holds.
        error: Half of the width of the interval that is asked for, in reward units.
        min_ess: Effective sample size below which no value is identified.
        ways: `ORDER_1`, `JOINT`, or both.

    Raises:
        ConfigError: If the error is not positive.
    """
    if not 0 < error < math.inf:
        raise ConfigError(f"the error is {error:g}: it must be a number above 0")
    half = (size.logged.high - size.logged.low) / 2
    moments = [weights.moments(share) for share in EXPLORATION_GRID.tolist()]
    per_moment = max((half / error) ** 2, min_ess / size.decisions)
    needs = []
    for way in ways:
        d = np.array([each.of(way) for each in moments])
        factor = float(d[0] * per_moment)
        enough = np.flatnonzero(d * per_moment <= 1)
        needs.append(
            DataNeed(
                way=way,
                error=error,
                expected_error=half * math.sqrt(d[0]),
                ess=size.decisions / float(d[0]) if d[0] else 0.0,
                min_ess=min_ess,
                factor=factor,
                users=factor * size.users,
                weeks=factor * size.weeks,
                exploration=float(EXPLORATION_GRID[enough[0]]) if len(enough) else None,
            )
        )
    return tuple(needs)


def advice(evaluation: Evaluation, needs: Sequence[DataNeed] = (), weeks: float | None = None) -> list[str]:
    """Return what would identify the value of the whole action, in sentences; nothing where it is identified.

    What an evaluation itself says: the effective sample sizes grow with the number of users, so that users are scaled
    by the largest ratio of what is required to what there is. Large weights that no logged decision happened to have
    are missing in both, so that this is a lower bound. Where something else than a size is the reason, as a mean weight
    that is not 1 although the effective sample sizes suffice, more data of this kind does not help, and the sentence
    says so.

    Args:
        evaluation: The evaluation.
        needs: What the weights of the log say in addition: see `data_needs`.
        weeks: Length of the log.
    """
    best = headline(evaluation)
    if best.identified:
        return []
    s, settings = best.support, evaluation.settings
    if s.decisions == 0 or s.unsupported_mass > settings.max_unsupported_mass:
        return [
            f"{s.unsupported_mass:.0%} of the policy's choices are actions that the log never takes: no number of "
            "users identifies their value. Log each of them with some probability, or evaluate a policy that does not "
            "take them."
        ]
    if not np.isfinite(s.ess):
        return ["Log the probability of each choice (`propensity_<module>`), or let the program estimate all of them."]
    if best.reason.startswith("undefined"):
        return [f"How much more data would help is not known: the value is {best.reason}."]
    if best.reason != reason_not_identified(s, best.users, settings):
        return [f"More data of this kind does not help: {best.reason}."]
    required = [(need, have) for _, have, need in settings.ess_requirements(s)]
    required += [(settings.min_users, evaluation.users), (settings.min_users, s.ess_users)]
    factor = max(need / have if have > 0 else math.inf for need, have in required)
    found = []
    if 1 < factor < math.inf:
        longer = "" if weeks is None else f" (or {factor * weeks:,.0f} weeks instead of {weeks:,.1f})"
        found.append(
            f"The value of the whole action would be identified with at least {_count(factor * evaluation.users)} "
            f"evaluated users like these, instead of {evaluation.users:,}{longer}."
        )
    return [*found, *(need.describe(best.reason) for need in needs)]


def _count(users: float) -> str:
    """Return a number of users as text, rounded up to three digits."""
    digits = max(math.floor(math.log10(max(users, 1.0))) - 2, 0)
    return f"{math.ceil(users / 10**digits) * 10**digits:,}"

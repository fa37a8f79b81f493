"""From settings to arrays: what each constraint allows at a decision time, and what each action is expected to use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from crosschannel.agents.constraints.settings import Budget, Constraints
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.times import WEEK


def check_constraints(constraints: Constraints, modules: ActionSpace, events: Collection[str]) -> None:
    """Check the names in constraints against a log.

    Args:
        constraints: The settings.
        modules: The log's action space.
        events: The cost events of the rewards' funnel, whose hazards are learned.

    Raises:
        ConfigError: With a line for each event, module or action that is not known, and each cost of sending nothing.
    """
    faults = [
        f"constraints.cost_events: {limit.event!r} is not a cost event of `reward.funnel.costs`. "
        f"{nearest(limit.event, sorted(events))}"
        for limit in constraints.cost_events
        if limit.event not in events
    ]
    for budget in constraints.budgets:
        faults += [f"constraints.budgets, {budget.name!r}: {fault}" for fault in _unknown_costs(budget, modules)]
    if faults:
        raise ConfigError("\n".join(faults))


def _unknown_costs(budget: Budget, modules: ActionSpace) -> list[str]:
    faults = []
    for name, costs in budget.costs.items():
        if name not in modules.names:
            faults.append(f"there is no module {name!r}. {nearest(name, modules.names)}")
            continue
        actions = modules[name].actions
        faults += [
            f"module {name!r} has no action {action!r}. {nearest(action, actions)}"
            for action in costs
            if action not in actions
        ]
        nothing = modules[0].actions[0]
        if name == modules.names[0] and costs.get(nothing, 0.0) > 0.0:
            faults.append(f"{name}.{nothing} sends nothing and cannot cost {costs[nothing]:g}: leave it out")
    return faults


def rate_per_week(events: int, observed: IntArray) -> float:
    """Return a log's events per user and week, over all users' observed time, those without messages included.

    Args:
        events: Number of events within the observed time.
        observed: Observed time of each user (N,), in microseconds; for a user who churned it ends there.

    Raises:
        ConfigError: If no time was observed.
    """
    weeks = float(np.sum(observed, dtype=np.float64)) / WEEK
    if weeks <= 0.0:
        raise ConfigError("the log observes no time, so that it has no rate per week: give `at_most` as a number")
    return events / weeks


def budgets_at(
    constraints: Constraints,
    users: int,
    period: int,
    log_rates: Mapping[str, float] | None = None,
) -> FloatArray:
    """Return what each constraint allows (C,) at one decision time, for all its users together.

    A limit per user and week allows `limit x users x period / week`: the users are those with a slot at this time, and
    the period lasts until the next decision time. A limit that was not used up is not carried over.

    Args:
        constraints: The settings.
        users: Number of users who have a slot at this time, eligible for messages or not.
        period: Time until the next decision time, in microseconds.
        log_rates: Events per user and week in the log, by name, for limits `at_most: log`; see `rate_per_week`.

    Raises:
        ConfigError: If the period is not above 0, or a rate or an expectation that a limit needs is not given.
    """
    if period <= 0:
        raise ConfigError(f"the time until the next decision time is {period} microseconds: it must be above 0")
    user_weeks = users * period / WEEK
    allowed = []
    for limit in constraints.cost_events:
        rate = _given(log_rates, limit.event) if limit.at_most == "log" else limit.at_most
        allowed.append((1.0 - limit.margin) * rate * user_weeks)
    if constraints.messages_per_week is not None:
        allowed.append(constraints.messages_per_week * user_weeks)
    allowed += [one.amount * (user_weeks if one.per == "week" else 1.0) for one in constraints.budgets]
    return np.array(allowed, dtype=np.float64)


def _given(amounts: Mapping[str, float] | None, event: str) -> float:
    if amounts is None or event not in amounts:
        raise ConfigError(
            f"the limit on {event!r} needs the log's rate, which is not known: give `at_most` as a number"
        )
    return float(amounts[event])


def expected_use(
    constraints: Constraints,
    modules: ActionSpace,
    hazards: Mapping[str, FloatArray],
    probabilities: Sequence[FloatArray],
) -> FloatArray:
    """Return what each action of the first module is expected to use of each constraint (C, N, A).

    A message that is estimated to make a cost event less likely than sending nothing counts as if it did not: a limit
    is never widened by an estimate.

    Args:
        constraints: The settings.
        modules: The action space.
        hazards: Expected number (N, A) of each cost event until the next decision time, by name and by the first
            module's action, over the policy of the other modules. Action 0 has what happens without a message.
        probabilities: The policy's probabilities (N, *shape(m)) per module; those of the first are not read.
    """
    users, actions = len(probabilities[0]), modules.sizes[0]
    found = []
    for limit in constraints.cost_events:
        organic = np.maximum(hazards[limit.event][:, :1], 0.0)
        found.append(np.maximum(hazards[limit.event], organic))
    if constraints.messages_per_week is not None:
        found.append(np.broadcast_to(np.arange(actions) > 0, (users, actions)).astype(np.float64))
    if constraints.budgets:
        found += list(_expected_costs(constraints.budgets, modules, probabilities))
    return np.stack(found) if found else np.zeros((0, users, actions))


def _expected_costs(budgets: Sequence[Budget], modules: ActionSpace, probabilities: Sequence[FloatArray]) -> FloatArray:
    """Return each budget's expected cost (C, N, A) of the first module's actions, over the later modules' policy."""
    costs = np.array([_flat_costs(budget, modules) for budget in budgets])
    out = np.zeros((len(budgets), len(probabilities[0]), modules.sizes[0]))
    for code in range(1, modules.sizes[0]):
        taken = np.zeros((len(probabilities[0]), modules.sizes[0]))
        taken[:, code] = 1.0
        marginals = np.concatenate(modules.marginals([taken, *probabilities[1:]]), axis=1)
        out[:, :, code] = costs @ marginals.T
    return out


def prices_later_modules(constraints: Constraints, modules: ActionSpace) -> bool:
    """Return whether a budget charges for an action of a module after the first."""
    return any(any(_flat_costs(budget, modules)[modules.sizes[0] :]) for budget in constraints.budgets)


def action_prices(constraints: Constraints, modules: ActionSpace, prices: FloatArray) -> FloatArray:
    """Return what budgets charge for each action of all modules (sum of actions,) at the constraints' prices (C,)."""
    out = np.zeros(modules.total)
    for budget, price in zip(constraints.budgets, prices[len(prices) - len(constraints.budgets) :], strict=True):
        out += price * np.array(_flat_costs(budget, modules))
    return out


def _flat_costs(budget: Budget, modules: ActionSpace) -> list[float]:
    """Return the costs of all modules' actions (sum of actions,)."""
    return [budget.costs.get(module.name, {}).get(action, 0.0) for module in modules for action in module.actions]

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


def rate_per_week(events: int, observed: IntArray | int) -> float:
    """Return a log's events per user and week, over all users' observed time, those without messages included.

    Half an event is added, as in the hazards' prior: a log without any event does not say that there can be none, and a
    limit of 0 could not be kept by a policy that explores.

    Args:
        events: Number of events within the observed time.
        observed: Observed time of each user (N,), in microseconds, or of all together; for a user who churned it ends
            there.

    Raises:
        ConfigError: If no time was observed.
    """
    weeks = float(np.sum(observed, dtype=np.float64)) / WEEK
    if weeks <= 0.0:
        raise ConfigError("the log observes no time, so that it has no rate per week: give `at_most` as a number")
    return (events + 0.5) / weeks


def budgets_at(
    constraints: Constraints,
    users: int,
    period: int,
    log_rates: Mapping[str, float] | None = None,
    organic: Mapping[str, float] | None = None,
) -> FloatArray:
    """Return what each constraint allows (C,) at one decision time, for all its users together.

    A limit per user and week allows `limit x users x period / week`: the users are those with a slot at this time, and
    the period lasts until the next decision time. A limit that was not used up is not carried over. A limit on a cost
    event is one on all of these events; messages may cause what happens without them leaves, less the margin.

    Args:
        constraints: The settings.
        users: Number of users who have a slot at this time, eligible for messages or not.
        period: Time until the next decision time, in microseconds.
        log_rates: Events per user and week in the log, by name, for limits `at_most: log`; see `rate_per_week`.
        organic: Events per user and week without a message, by name; none by default.

    Raises:
        ConfigError: If the period is not above 0, or a rate or an expectation that a limit needs is not given.
    """
    if period <= 0:
        raise ConfigError(f"the time until the next decision time is {period} microseconds: it must be above 0")
    user_weeks = users * period / WEEK
    allowed = []
    for limit in constraints.cost_events:
        rate = _given(log_rates, limit.event) if limit.at_most == "log" else limit.at_most
        left = max(rate - (organic or {}).get(limit.event, 0.0), 0.0)
        allowed.append((1.0 - limit.margin) * left * user_weeks)
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


def action_costs(constraints: Constraints, modules: ActionSpace) -> FloatArray:
    """Return what each action of each module uses of each constraint by itself (C, sum of actions).

    A message is one action of the first module other than action 0. Cost events have no known costs: their hazards are
    learned.
    """
    rows = [np.zeros(modules.total) for _ in constraints.cost_events]
    if constraints.messages_per_week is not None:
        codes = np.arange(modules.total)
        rows.append(((codes > 0) & (codes < modules.sizes[0])).astype(np.float64))
    for budget in constraints.budgets:
        by_module = [(budget.costs.get(module.name, {}), module.actions) for module in modules]
        rows.append(np.array([costs.get(action, 0.0) for costs, actions in by_module for action in actions]))
    return np.stack(rows) if rows else np.zeros((0, modules.total))


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
    costs, users = action_costs(constraints, modules), len(probabilities[0])
    use = np.zeros((len(costs), users, modules.sizes[0]))
    for code in range(1, modules.sizes[0]):
        taken = np.zeros((users, modules.sizes[0]))
        taken[:, code] = 1.0
        use[:, :, code] = costs @ np.concatenate(modules.marginals([taken, *probabilities[1:]]), axis=1).T
    for c, limit in enumerate(constraints.cost_events):
        organic = np.maximum(hazards[limit.event][:, :1], 0.0)
        use[c] = np.maximum(hazards[limit.event], organic)
    return use


def prices_later_modules(constraints: Constraints, modules: ActionSpace) -> bool:
    """Return whether a budget charges for an action of a module after the first."""
    return bool(action_costs(constraints, modules)[:, modules.sizes[0] :].any())


def action_prices(constraints: Constraints, modules: ActionSpace, prices: FloatArray) -> FloatArray:
    """Return what budgets charge for each action of all modules (sum of actions,) at the constraints' prices (C,)."""
    others = len(prices) - len(constraints.budgets)
    return np.asarray(prices[others:] @ action_costs(constraints, modules)[others:])

"""The settings of a funnel: which events tell that a message was seen, which ones cost, which ones foretell a goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.times import duration
from crosschannel.histories.goals import Goal


@dataclass(frozen=True)
class FunnelSpec:
    """Which events are the steps between a message and the goals.

    Attributes:
        engagement: The event that tells that a message was seen (opened, viewed, clicked), by channel (an action of the
            first module), or one for all channels; `name*` stands for all events whose name begins so. Channels that
            are not named cannot be tested: their messages have an unknown engagement.
        window: How long after the decision the message's own event may come. None: as long as the reward's `post`.
        costs: Goals with a negative weight, by event, that are modelled as cost events: whether one occurs at all,
            instead of as a part of the value, so that they count once.
        surrogates: Frequent earlier events through which a rare or late goal is valued, by the goal's event. The price
            of each is learned from time without messages. None are declared by default.
    """

    engagement: str | Mapping[str, str] = field(default_factory=dict)
    window: str | None = None
    costs: tuple[str, ...] = ()
    surrogates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        patterns = [self.engagement] if isinstance(self.engagement, str) else list(self.engagement.values())
        named = [("engagement", patterns), ("costs", self.costs)]
        named += [(f"surrogates of {goal!r}", events) for goal, events in self.surrogates.items()]
        for place, events in named:
            if any(not event.strip() for event in events):
                raise ConfigError(f"{place}: the name of an event is empty")
        for place, events in named[1:]:
            if len(set(events)) < len(events):
                raise ConfigError(f"{place}: {list(events)} names an event twice")
        if empty := [goal for goal, events in self.surrogates.items() if not events]:
            raise ConfigError(f"surrogates: {empty[0]!r} has none: name at least one event, or leave the goal out")
        if self.window is not None:
            duration(self.window)

    def channels(self, names: Sequence[str]) -> dict[str, str]:
        """Return the event of each channel that has one, for the channels of a history.

        Raises:
            ConfigError: If the history has no such channel.
        """
        if isinstance(self.engagement, str):
            return dict.fromkeys(names, self.engagement)
        for name in self.engagement:
            if name not in names:
                raise ConfigError(f"funnel.engagement: there is no channel {name!r}. {nearest(name, names)}")
        return dict(self.engagement)

    def check_goals(self, goals: Sequence[Goal]) -> None:
        """Refuse costs and surrogates that do not fit a reward's goals.

        Raises:
            ConfigError: With the first that does not.
        """
        names = [goal.event for goal in goals]
        for place, events in (("costs", self.costs), ("surrogates", tuple(self.surrogates))):
            for event in events:
                if event not in names:
                    raise ConfigError(f"funnel.{place}: {event!r} is not a goal's event. {nearest(event, names)}")
        if both := sorted(set(self.costs) & set(self.surrogates)):
            raise ConfigError(f"funnel: {both[0]!r} has surrogates and is a cost event: choose one")
        for event in self.costs:
            if fault := _fault_of_cost(event, goals):
                raise ConfigError(f"funnel.costs: {fault}")
        if set(names) <= set(self.costs):
            raise ConfigError("funnel.costs: all goals are cost events: no goal is left that a message could raise")

    def restricted_to(self, goals: Sequence[Goal]) -> FunnelSpec:
        """Return the funnel without the costs and surrogates that other goals leave no place for."""
        names = [goal.event for goal in goals]
        costs = tuple(event for event in self.costs if event in names and not _fault_of_cost(event, goals))
        return replace(
            self,
            costs=() if set(names) <= set(costs) else costs,
            surrogates={goal: events for goal, events in self.surrogates.items() if goal in names},
        )

    def value_goals(self, goals: Sequence[Goal]) -> tuple[Goal, ...]:
        """Return the goals that are not cost events."""
        return tuple(goal for goal in goals if goal.event not in self.costs)


def _fault_of_cost(event: str, goals: Sequence[Goal]) -> str:
    """Return why an event of one of the goals is not a cost event, or nothing."""
    mine = [goal for goal in goals if goal.event == event]
    if len(mine) > 1:
        return f"{event!r} is the event of {len(mine)} goals: name it in one goal"
    if mine[0].weight > 0:
        return f"the goal {event!r} has the weight {mine[0].weight}: costs are below 0"
    if mine[0] != Goal(event, mine[0].weight):
        return (
            f"{event!r} counts once within the post window, whatever its value or its distance: leave out the goal's "
            "measure, clip, winsor, credit and half_life"
        )
    return ""

"""Settings of the alerts: one bound for each rule, and what the rules look at."""

from __future__ import annotations

from dataclasses import dataclass

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import duration

#: Bounds that are shares, or probabilities.
_SHARES = ("max_drop", "max_action_share", "weights_alpha", "placebo_alpha", "max_closed_drop", "min_delivered_share")


@dataclass(frozen=True)
class AlertsConfig:
    """What is watched after each day: `crosschannel alerts`. None as a bound switches its rule off.

    Attributes:
        max_drop: Largest drop of the number of decisions, as a share of those of the day before. A day without any
            decision always gives an alert, and so does one without any message after a day with some.
        max_action_share: Largest share of one whole action (an action of each module) among the newest messages that
            could have been another.
        weights_alpha: Level of the test that the mean importance weight of each action is 1, for each policy version.
            Where it is not, logged propensities are not those of the draws.
        cost_alpha: Probability of an alert, over all days of the trial, although no cost event is more frequent in the
            arm agent than in business_as_usual.
        cost_events: Events that must not be more frequent. None are named: those of `reward.funnel.costs`, or else the
            churn events of the log.
        placebo_alpha: Level of the checks that users of the arms did not differ before the start, and that arms have
            their shares; without two arms, of the placebo in time of the reward.
        max_closed_drop: Largest drop of the share of closed messages that have a reward, against the window before.
        lag: How long after they happen events may reach the log. A reward counts as closed `reward.post` and this time
            after its decision.
        delivered: Events that tell that a message was delivered. None are named: what has not failed was.
        failed: Events that tell that a message was not delivered, such as bounces.
        delivered_within: Time after a decision within which these events tell of it.
        min_delivered_share: Smallest share of the messages that must be delivered, by channel. It needs `delivered` or
            `failed`.
        max_log_age: Largest time since the end of the log.
        window: How far back decisions and rewards are looked at.
    """

    max_drop: float | None = 0.5
    max_action_share: float | None = 0.95
    weights_alpha: float | None = 0.001
    cost_alpha: float | None = 0.05
    cost_events: tuple[str, ...] = ()
    placebo_alpha: float | None = 0.001
    max_closed_drop: float | None = 0.5
    lag: str = "1d"
    delivered: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    delivered_within: str = "1d"
    min_delivered_share: float | None = 0.8
    max_log_age: str | None = "2d"
    window: str = "28d"

    def __post_init__(self) -> None:
        for name in _SHARES:
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ConfigError(f"{name} is {value}: it lies between 0 and 1, or is none")
        if self.cost_alpha is not None and not 0 < self.cost_alpha < 0.25:
            raise ConfigError(f"cost_alpha is {self.cost_alpha}: it lies between 0 and 0.25, or is none")
        for name in ("lag", "delivered_within", "window", *(["max_log_age"] if self.max_log_age is not None else [])):
            duration(getattr(self, name))

"""Notes on an evaluation: what a reader has to know before its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from crosschannel.agents.constraints.settings import Constraints
from crosschannel.core.wording import counted
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.pipeline.building import TrainingData
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.comparators import NO_SEND
from crosschannel.pipeline.judgement.following import INCREMENTAL
from crosschannel.pipeline.judgement.records import Comparator
from crosschannel.pipeline.pricing import LogPace
from crosschannel.reward.effects.checks.check import SIGNIFICANCE_LEVEL
from crosschannel.reward.effects.checks.rewards import REFUSAL_LEVEL
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS

#: Cost events below which a limit on them was exceeded in the simulated market with the default margin, and the margin
#: that such a limit needs (docs/constraints.md).
FEW_EVENTS, SAFE_MARGIN = 200, 0.4


def notes_on(config: Config, data: TrainingData, comparators: Sequence[Comparator]) -> tuple[str, ...]:
    """Return what a reader has to know before the values of a policy, in sentences.

    Args:
        config: The configuration.
        data: The history and its splits.
        comparators: What the policy is compared with.
    """
    return (
        *map(_sentence, data.history.cautions),
        *_reward_notes(data),
        *nothing_notes(config.reward.kind, comparators),
        *_price_note(config, data),
        *limit_notes(config.constraints, data.pace),
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _reward_notes(data: TrainingData) -> list[str]:
    """Return what the tests of the rewards say of every value below, in sentences."""
    tests = data.reward_tests
    if tests is None or tests.diagnostics.kind in WITHOUT_CONTROLS or not tests.sentences:
        return []
    if tests.refusal:
        head = (
            f"No value is identified, the log's own included: {tests.refusal}. So the log's mean reward is not what "
            "its messages changed."
        )
    elif tests.fails_only_before:
        head = (
            "Sent decisions and controls differ before the pre window, and not clearly within it, nor do controls that "
            "are weighted by their propensities, so that rewards may be right."
        )
    else:
        head = (
            f"Rewards fail tests at {SIGNIFICANCE_LEVEL:.0%}, all tests together, and none that refuses values at "
            f"{REFUSAL_LEVEL:.0%}: read values with care."
        )
    return [" ".join([head, *tests.sentences])]


def nothing_notes(kind: str, comparators: Sequence[Comparator]) -> list[str]:
    """Return what values contain that no message earned, in a sentence; nothing where that may be 0.

    Sending nothing changes nothing. Where the log values it otherwise, what is expected without a message is wrong by
    as much on average over all decisions: `did_dr` corrects its regression for those at which something was sent.

    Args:
        kind: Kind of the rewards.
        comparators: What the policy is compared with.
    """
    value = next((row.value for row in comparators if row.policy == NO_SEND), UNDEFINED)
    if kind not in INCREMENTAL or not value.is_defined or value.low <= 0.0 <= value.high:
        return []
    return [
        f"Each value contains {value.point:+.3g} [{value.low:.3g}, {value.high:.3g}] that no message earned: sending "
        "nothing changes nothing, but this is what rewards make of it, as what they expect without a message is not "
        f"right for all decisions alike. Differences between policies are free of it, also that to `{NO_SEND}`, which "
        "is what a policy's messages earn."
    ]


def _price_note(config: Config, data: TrainingData) -> list[str]:
    price = data.pace.message_price
    if not config.constraints.discount:
        return []
    return [
        f"a message is charged {price:.3g} reward units for what it costs at the user's later slots "
        f"(discount {config.constraints.discount:g} a slot)"
    ]


def limit_notes(constraints: Constraints, pace: LogPace) -> list[str]:
    """Return a caution for each limit on a cost event that rests on few of these events, in sentences."""
    return [
        f"The limit on {limit.event} rests on {counted(pace.events[limit.event], 'such event')} of the training users. "
        "Hazards that are learned from so few understate what the policy causes: in the simulated market it exceeded "
        f"such limits by a third with 65 events, and by 5 % with 162. Give it a margin of {SAFE_MARGIN} or more "
        "(docs/constraints.md)."
        for limit in constraints.cost_events
        if pace.events.get(limit.event, FEW_EVENTS) < FEW_EVENTS and limit.margin < SAFE_MARGIN
    ]

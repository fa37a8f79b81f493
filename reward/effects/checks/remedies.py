"""What would identify what messages change, where tests of the rewards fail."""

from __future__ import annotations

from collections.abc import Sequence

from crosschannel.reward.effects.checks.after_window import NAME as AFTER
from crosschannel.reward.effects.checks.alike_controls import BY_ACTIVITY
from crosschannel.reward.effects.checks.earlier_messages import NAME as EARLIER
from crosschannel.reward.effects.checks.hours_before import NAME as HOURS_BEFORE

BY_PROPENSITIES = (
    "This log has propensities: rewards by `reward.kind: did_dr` (`--reward.kind did_dr`) use them and do not need "
    "parallel trends. Else, what made the log send, as a covariate of that kind."
)
DRAWN_AT_RANDOM = (
    "Messages that are drawn at random with logged probabilities, and `reward.kind: did_dr`; or what made the log "
    "send, as a covariate of that kind."
)
WEIGHTED_ALREADY = (
    "`did_dr` rests on the probabilities of sending, or on its covariates. Log for each decision the probability with "
    "which it was drawn, not rounded, or take what made the log send as a covariate. Some test of a right log "
    "fails by chance once in twenty logs: see whether it fails in another part of the log, too."
)
REMEDIES = {
    EARLIER: "Rewards whose windows hold no other message (`reward.overlap: exclude`, a shorter `reward.pre`), or a "
    "trial in which users are drawn into arms.",
    HOURS_BEFORE: "Times of messages and of events on one clock (`time_zone`); or, where messages follow what users "
    "do, the probabilities with which they were sent, and `reward.kind: did_dr`.",
    AFTER: "Rewards with a longer `reward.post`, which hold what messages do later.",
    BY_ACTIVITY: "Comparisons within past activity (`reward.matching.strata`), or without the usual level of the week "
    "(`reward.seasonality`).",
}


def causes(failed: Sequence[str]) -> tuple[str, ...]:
    """Return the tests that fail, without `after the window` where others fail: users who differ fail it as well."""
    return tuple(name for name in failed if name != AFTER) or tuple(failed)


def remedies(failed: Sequence[str], unused_propensities: bool, kind: str) -> tuple[str, ...]:
    """Return what would help for each cause, each text once.

    Args:
        failed: The tests that fail.
        unused_propensities: Whether the log has propensities that the rewards do not use.
        kind: Kind of the rewards.
    """
    general = BY_PROPENSITIES if unused_propensities else WEIGHTED_ALREADY if kind == "did_dr" else DRAWN_AT_RANDOM
    return tuple(dict.fromkeys(REMEDIES.get(name, general) for name in causes(failed)))

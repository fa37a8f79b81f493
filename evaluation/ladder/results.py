"""What the interaction ladder found: orders, tests of interactions, the waterfall and the breakdown point."""

from __future__ import annotations

from dataclasses import dataclass

from crosschannel.evaluation.bootstrap import Interval
from crosschannel.evaluation.estimates import Estimate


@dataclass(frozen=True)
class Interaction:
    """What interactions add to a policy's value, given the policy's channel.

    Attributes:
        order: How many factors interact.
        factors: Names of the two factors; empty for all interactions of the order together.
        value: What they add, per decision with a reward; all NaN where not tested.
        p_value: Two-sided, of the hypothesis that they add nothing; of pairs adjusted by Holm's method. NaN where not
            tested.
        reason: Why they are not tested; empty where they are.
    """

    order: int
    factors: tuple[str, ...]
    value: Interval
    p_value: float
    reason: str = ""

    @property
    def label(self) -> str:
        """The pair, or the order, in words."""
        return " x ".join(self.factors) or f"all of order {self.order}"


@dataclass(frozen=True)
class WaterfallStep:
    """One step from the logged value to the policy's.

    Attributes:
        name: `logged`, the channel's module, a factor, `interactions` or `policy`.
        kind: `logged`, `channel`, `factor`, `interactions` or `policy`; the first and the last are values, the others
            what they add.
        value: The value, or what the step adds, per decision with a reward; all NaN where not identified.
        reason: Why it is not identified; empty where it is.
    """

    name: str
    kind: str
    value: Interval
    reason: str = ""


@dataclass(frozen=True)
class Ladder:
    """The value of the whole action by how many parts of a message may interact.

    Attributes:
        factors: Names of the factors, which log and policy draw independently given context and channel.
        independence: How the factors were found, as a sentence.
        order: The order of the headline.
        why: Why it is not the one that was set; empty where it is.
        orders: The estimates of order 0 (only the channel changes) to the highest (no assumption).
        totals: The interactions of each order from 2 on.
        pairs: The interactions of each pair of factors.
        waterfall: Steps from the logged value to that of the headline, which add up exactly where all are identified. A
            factor's step needs support for the channel and this factor together only, so that it may be identified
            where the headline is not.
        breakdown: How large interactions would have to be, as a share of the size of what content changes, before the
            conclusion of the headline falls: they would have to take it away from a policy that is better than the log,
            and to add it to one that is worse. None where there is no conclusion, where it assumes nothing on
            interactions, and where what content changes is not known: order 0 is not identified, or the headline.
    """

    factors: tuple[str, ...]
    independence: str
    order: int
    why: str
    orders: tuple[Estimate, ...]
    totals: tuple[Interaction, ...] = ()
    pairs: tuple[Interaction, ...] = ()
    waterfall: tuple[WaterfallStep, ...] = ()
    breakdown: float | None = None

    @property
    def headline(self) -> Estimate:
        """The estimate of the headline's order."""
        return self.orders[self.order]

"""Build the results of a ladder from its design and the joint bootstrap of its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.multiple_tests import holm_adjusted
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.evaluation.estimates import Estimate, EvaluationSettings
from crosschannel.evaluation.ladder.breakdown import breakdown_point
from crosschannel.evaluation.ladder.design import LadderDesign
from crosschannel.evaluation.ladder.factors import first_module_in_words
from crosschannel.evaluation.ladder.joint import JointReplicates
from crosschannel.evaluation.ladder.results import Interaction, Ladder, WaterfallStep

#: The statistic of the joint bootstrap that is the logged mean; those of `LadderDesign.terms` follow it.
LOGGED = 0


def assumption_of(order: int, factors: int, channel: str) -> str:
    """Return what a value of an order assumes, in words; empty where nothing on the parts of a message.

    Args:
        order: The order.
        factors: The number of factors.
        channel: Name of the first module.
    """
    given = first_module_in_words(channel)
    if order == factors:
        return ""
    if order == 0:
        return f"if the content of a message changes nothing, given {given}"
    if order == 1:
        return f"if what the parts of a message earn adds up given {given}"
    return f"if at most {order} parts of a message interact given {given}"


def build_ladder(
    design: LadderDesign,
    joint: JointReplicates,
    estimand: str,
    users: int,
    channel: str,
    settings: EvaluationSettings,
    refused: str = "",
) -> Ladder:
    """Build the ladder.

    Args:
        design: What was computed.
        joint: Its bootstrap: the logged mean, then `design.terms`.
        estimand: What the values are, in plain words.
        users: Number of users with a reward.
        channel: Name of the first module.
        settings: The minimum sample sizes.
        refused: Why not even the logged value is identified; empty where it is.
    """
    count = len(design.factors.names)
    orders = tuple(_order(design, joint, k, estimand, users, channel) for k in range(count + 1))
    order, why = choose_order(orders, design.order)
    totals = tuple(
        _interaction(design, joint, k, (), joint.pick(1 + k, minus=k), design.sizes[k], settings)
        for k in range(2, count + 1)
    )
    start = 1 + (count + 1) + count
    pairs = _with_holm(
        [
            _interaction(
                design,
                joint,
                order=2,
                factors=(design.factors.names[f], design.factors.names[g]),
                coefficients=joint.pick(start + p),
                size=design.sizes[count + 1 + p],
                settings=settings,
            )
            for p, (f, g) in enumerate(design.pairs)
        ]
    )
    known = orders[order].identified and orders[0].identified
    return Ladder(
        factors=design.factors.names,
        independence=design.factors.source,
        order=order,
        why=why,
        orders=orders,
        totals=totals,
        pairs=pairs,
        waterfall=_waterfall(design, joint, orders, order, channel, refused),
        breakdown=breakdown_point(joint, 1 + order, 1, LOGGED) if order < count and known else None,
    )


def choose_order(orders: Sequence[Estimate], order: int) -> tuple[int, str]:
    """Return the order of the headline and why it is not the one that was set, if it is not.

    Lepski's rule, upwards only: while the interval of a higher order that is identified does not meet that of the
    present one, go to the lowest such order. Su, Srinath & Krishnamurthy (2020), "Adaptive estimator selection for
    off-policy evaluation", ICML, choose in both directions; downwards would report what assumes more because it is
    narrower.
    """
    found, reasons = order, list[str]()
    while orders[found].identified:
        low, high = orders[found].value.low, orders[found].value.high
        apart = [
            k
            for k in range(found + 1, len(orders))
            if orders[k].identified and (orders[k].value.low > high or orders[k].value.high < low)
        ]
        if not apart:
            break
        before, found = found, apart[0]
        reasons.append(
            f"the interval of order {found} does not meet that of order {before}, whose assumption is contradicted"
        )
    return found, "; ".join(reasons)


def _order(design: LadderDesign, joint: JointReplicates, k: int, estimand: str, users: int, channel: str) -> Estimate:
    reason = design.reasons[k]
    value = difference = UNDEFINED
    if not reason:
        value, difference = joint.interval(joint.pick(1 + k)), joint.interval(joint.pick(1 + k, minus=LOGGED))
        if not (value.is_defined and difference.is_defined):
            undefined = int((~np.isfinite(joint.draws[:, [LOGGED, 1 + k]]).all(1)).sum())
            reason = f"undefined in {undefined} of {len(joint.draws)} replicates"
            value = difference = UNDEFINED
    assumption = assumption_of(k, len(design.factors.names), channel)
    return Estimate(
        estimand=f"{estimand}, {assumption}" if assumption else estimand,
        module=None,
        estimator=f"order {k}",
        value=value,
        difference=difference,
        decisions=design.supports[k].decisions,
        users=users,
        support=design.supports[k],
        reason=reason,
        assumption=assumption,
    )


def _interaction(
    design: LadderDesign,
    joint: JointReplicates,
    order: int,
    factors: tuple[str, ...],
    coefficients: FloatArray,
    size: float,
    settings: EvaluationSettings,
) -> Interaction:
    """Return one interaction, or why it is not tested."""
    reason = design.blocked
    if not reason and size < settings.min_ess:
        reason = f"effective number of decisions {size:.0f} < {settings.min_ess:g}"
    value = UNDEFINED if reason else joint.interval(coefficients)
    if not reason and not value.is_defined:
        reason = "undefined in some replicates"
    p_value = np.nan if reason else joint.p_value(coefficients)
    return Interaction(order=order, factors=factors, value=value, p_value=p_value, reason=reason)


def _with_holm(pairs: Sequence[Interaction]) -> tuple[Interaction, ...]:
    """Return the pairs with p-values adjusted by Holm's method over those that are tested."""
    tested = [pair for pair in pairs if not pair.reason]
    adjusted = iter(holm_adjusted(np.array([pair.p_value for pair in tested])))
    return tuple(pair if pair.reason else replace(pair, p_value=float(next(adjusted))) for pair in pairs)


def _waterfall(
    design: LadderDesign, joint: JointReplicates, orders: Sequence[Estimate], order: int, channel: str, refused: str
) -> tuple[WaterfallStep, ...]:
    """Return the steps from the logged value to that of an order, each with its interval or its reason."""
    count = len(design.factors.names)

    def step(name: str, kind: str, coefficients: FloatArray, reason: str = "") -> WaterfallStep:
        value = UNDEFINED if reason else joint.interval(coefficients)
        return WaterfallStep(name, kind, value, reason or ("" if value.is_defined else "undefined in some replicates"))

    steps = [
        step("logged", "logged", joint.pick(LOGGED), refused),
        step(channel, "channel", joint.pick(1, minus=LOGGED), orders[0].reason),
        *(
            step(name, "factor", joint.pick(2 + count + f), design.part_reasons[f])
            for f, name in enumerate(design.factors.names)
        ),
    ]
    if order > 1:
        steps.append(step("interactions", "interactions", joint.pick(1 + order, minus=2), orders[order].reason))
    return (*steps, step("policy", "policy", joint.pick(1 + order), orders[order].reason))

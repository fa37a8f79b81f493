"""Test the exclusion assumption, channel by channel: a message that was not seen does nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray
from crosschannel.core.multiple_tests import holm_adjusted
from crosschannel.histories.propensities.sources import KNOWN_SOURCES
from crosschannel.reward.effects.estimates import Effect
from crosschannel.reward.effects.inference import JointTest, joint_test
from crosschannel.reward.funnel.effects import FunnelEffects, PricedEffects, share_of
from crosschannel.reward.funnel.inference import (
    MIN_USERS,
    SIGNIFICANCE_LEVEL,
    detectable_effect,
    is_testable,
    p_value,
    shares_of_level,
)
from crosschannel.reward.funnel.strata import (
    ACTIVITY_GROUPS,
    earlier_rates,
    groups_by_quantile,
    predict_through_engagement,
    total_activity,
    with_activity_strata,
)
from crosschannel.reward.funnel.surrogacy import HOLDS, NOT_TESTED, REJECTED

#: Groups by the predicted effect through engagement, and messages per group below which there are fewer.
PREDICTION_GROUPS, MIN_MESSAGES_PER_GROUP = 10, 100
BY_PREDICTION, BY_ACTION, BY_ACTIVITY = "by predicted engagement x gain", "by action", "by earlier activity"


@dataclass(frozen=True)
class ChannelExclusion:
    """The test of one channel.

    Attributes:
        channel: The channel.
        engagement: Share of its messages that were engaged with; without a value where no event tells it.
        direct: The effect on those that were not, in reward units per message.
        p_value: Of the test that it is 0.
        joint: Tests that it is 0 in every group of messages, by grouping.
        adjusted: The p-values of `direct`, then of `joint`, adjusted by Holm for all tests of all channels; those of
            means and those by group have half of the level each.
        detectable: The smallest direct effect that the first test finds in 80 % of logs.
    """

    channel: str
    engagement: Effect
    direct: Effect
    p_value: float
    joint: dict[str, JointTest]
    adjusted: tuple[float, ...]
    detectable: float

    @property
    def verdict(self) -> str:
        """`holds so far`, `rejected` or `cannot be tested`."""
        if math.isnan(self.p_value):
            return NOT_TESTED
        return REJECTED if np.nanmin(self.adjusted) < SIGNIFICANCE_LEVEL else HOLDS

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.verdict == NOT_TESTED:
            why = (
                "no event tells whether its messages were seen"
                if math.isnan(self.engagement.value)
                else f"fewer than {MIN_USERS} users did not engage"
            )
            return f"{self.channel}: cannot be tested, since {why}: its direct effect is estimated, not assumed away"
        e = self.direct
        found = (
            f"messages that were not engaged with have an effect of {e.value:.4g} ({e.low:.4g} to {e.high:.4g}), "
            f"p = {self.p_value:.2g}"
        )
        power = f"the test finds an effect of {self.detectable:.4g} in 80 % of logs"
        if self.verdict == HOLDS:
            return f"{self.channel}: nothing contradicts exclusion; {found}; {power}"
        names = ("on average", *self.joint)
        where = [name for name, p in zip(names, self.adjusted, strict=True) if p < SIGNIFICANCE_LEVEL]
        return (
            f"{self.channel}: exclusion is rejected ({', '.join(where)}); {found}; {power}. Unseen messages act, or "
            "those who engage are those who would have done more anyway: the direct effect belongs into the value"
        )


@dataclass(frozen=True)
class ExclusionTest:
    """The tests of all channels on which something was sent.

    Attributes:
        channels: One for each channel.
        by_module: Tests that messages that were not engaged with have no effect for every action of a module.
        randomised: Whether the log says with what probability messages were sent.
    """

    channels: tuple[ChannelExclusion, ...]
    by_module: dict[str, JointTest]
    randomised: bool

    @property
    def verdicts(self) -> dict[str, str]:
        """The verdict by channel."""
        return {one.channel: one.verdict for one in self.channels}

    @property
    def sentences(self) -> tuple[str, ...]:
        """One sentence for each channel, and one on what the tests rest on."""
        basis = (
            "the log's own propensities say how sending was drawn"
            if self.randomised
            else "nothing in the log says how sending was drawn, so that this is an assumption"
        )
        return (
            *(one.sentence for one in self.channels),
            "These tests compare messages that nobody engaged with and the reward's controls: who gets a message is "
            f"compared as the reward does it ({basis}), who engages is the users' own choice. A passed test says that "
            "the two agree, on average and by group; a rejected one does not tell a direct effect from selection.",
        )

    def table(self) -> pd.DataFrame:
        """Return one row for each channel."""
        rows = [
            (
                one.channel,
                one.engagement.value,
                *(one.direct.value, one.direct.se, one.direct.low, one.direct.high, one.direct.n_treated),
                one.p_value,
                one.adjusted[0],
                one.detectable,
                one.verdict,
            )
            for one in self.channels
        ]
        columns = ["channel", "engagement", "direct", "se", "low", "high", "n", "p", "p adjusted", "found in 80 %"]
        return pd.DataFrame(rows, columns=[*columns, "verdict"])

    def groups_table(self) -> pd.DataFrame:
        """Return one row for each joint test: of each channel by each grouping, then of each module."""
        rows = [
            (one.channel, name, test.statistic, test.freedom, test.p_value, adjusted)
            for one in self.channels
            for (name, test), adjusted in zip(one.joint.items(), one.adjusted[1:], strict=True)
        ]
        rows += [("all", f"by {name}", t.statistic, t.freedom, t.p_value, np.nan) for name, t in self.by_module.items()]
        return pd.DataFrame(rows, columns=["channel", "groups", "chi2", "freedom", "p", "p adjusted"])


def exclusion_test(effects: FunnelEffects) -> ExclusionTest:
    """Test on each channel that messages that were not engaged with have no effect.

    The mean is compared with the reward's own controls. By group, controls share the user's stratum of earlier activity
    as well, so that groups do not differ from their controls in level. Joint tests are Wald tests with user-clustered
    errors (`joint_test`).
    """
    history, k = effects.history, effects.components
    rates = earlier_rates(effects.priced, history)
    stratified = PricedEffects.fit(
        with_activity_strata(effects.priced, rates),
        history.n_users,
        effects.priced.value_weights(),
        *effects.priced.values(),
        through=(),  # where exclusion holds, the prices of surrogates do not matter
    )
    unengaged = effects.priced.outcomes.treated & (k.engaged == 0)
    product = k.engaged * k.value
    rows = np.flatnonzero(~np.isnan(product))
    predicted = np.full(len(product), np.nan)
    if len(rows):
        predicted[rows] = predict_through_engagement(effects.priced, rates, product, rows)
    activity = total_activity(rates)

    drafts = []
    for name, sent in effects.channels.items():
        group = unengaged & sent
        direct = effects.value.effect(group, name)
        engagement = share_of(k.engaged, history.decisions.user, sent, name)
        joint = {}
        if is_testable(direct):
            size = max(2, min(PREDICTION_GROUPS, direct.n_treated // MIN_MESSAGES_PER_GROUP))
            groups = {
                BY_PREDICTION: groups_by_quantile(predicted, group, size),
                BY_ACTION: _groups_by_action(effects, group),
                BY_ACTIVITY: groups_by_quantile(activity, group, ACTIVITY_GROUPS),
            }
            joint = {by: _joint(stratified, parts) for by, parts in groups.items() if len(parts) > 1}
        drafts.append((name, engagement, direct, p_value(direct), joint))
    p_values = np.array([p for *_, p, joint in drafts for p in (p, *(test.p_value for test in joint.values()))])
    # The tests of means and those by group have half of the level each.
    weights = np.array([w for *_, joint in drafts for w in (1.0, *[1.0 / max(len(joint), 1)] * len(joint))])
    adjusted = iter(holm_adjusted(p_values, weights).tolist())
    share = float(np.nanmax(shares_of_level(p_values, weights), initial=0.0))
    channels = tuple(
        ChannelExclusion(
            channel=name,
            engagement=engagement,
            direct=direct,
            p_value=p,
            joint=joint,
            adjusted=tuple(next(adjusted) for _ in range(1 + len(joint))),
            detectable=detectable_effect(direct, share),
        )
        for name, engagement, direct, p, joint in drafts
    )
    randomised = history.propensity_source in KNOWN_SOURCES
    return ExclusionTest(channels, _by_module(effects, unengaged), randomised)


def _joint(fitted: PricedEffects, groups: Sequence[BoolArray]) -> JointTest:
    """Test that the effect on each group of sent decisions is 0; a group too small is left out."""
    found = [fitted.effect_and_influence(group, str(g)) for g, group in enumerate(groups)]
    tested = [(effect.value, influence) for effect, influence in found if is_testable(effect)]
    if not tested:
        return joint_test(np.zeros(0), np.zeros((0, 0)))
    values, influence = (np.array(part) for part in zip(*tested, strict=True))
    return joint_test(values, influence.T)


def _groups_by_action(effects: FunnelEffects, group: BoolArray) -> list[BoolArray]:
    """Divide a group of sent decisions by the action of every module in which they differ."""
    actions, groups = effects.history.decisions.actions, list[BoolArray]()
    for m in range(actions.shape[1]):
        codes = np.unique(actions[group, m])
        if len(codes) > 1:
            # The groups of each module make up the whole: those of a second one have one less to test.
            groups += [group & (actions[:, m] == code) for code in codes[1 if groups else 0 :]]
    return groups


def _by_module(effects: FunnelEffects, unengaged: BoolArray) -> dict[str, JointTest]:
    """Test for each module that the direct effect of each of its actions is 0, with the reward's own controls."""
    actions = effects.history.decisions.actions
    at_prices = replace(effects.value, surrogates=())  # where exclusion holds, prices do not matter
    return {
        module.name: _joint(
            at_prices, [unengaged & (actions[:, m] == code) for code in np.unique(actions[unengaged, m])]
        )
        for m, module in enumerate(effects.history.modules)
    }

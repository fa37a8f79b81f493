"""The effect of each action on each goal, by several reward kinds side by side, with tests on the same decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.core.multiple_tests import holm_threshold
from crosschannel.core.times import HOUR, duration
from crosschannel.core.wording import counted
from crosschannel.histories.history import History
from crosschannel.reward.effects.checks.after_window import NAME as AFTER
from crosschannel.reward.effects.diagnostics import SIGNIFICANCE_LEVEL, Diagnostics, diagnose, time_placebo
from crosschannel.reward.effects.estimates import Effect, TreatmentEffects, fit_each_action
from crosschannel.reward.effects.event_study import EventTimes, event_study
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.kinds import make_reward
from crosschannel.reward.spec import RewardSpec

COMPARED_KINDS = ("did", "did_dr")
# With fewer users on the smaller side, the interval rests on too few to be relied on.
MIN_USERS = 10
#: The only caveat of an effect that the log does not identify.
NOT_IDENTIFIED = "not identified"


@dataclass(frozen=True)
class ActionEffect:
    """The effect of one action on one goal, with its tests and caveats.

    Attributes:
        action: The action.
        goal: The goal, in its own units: dollars, or events.
        kind: The reward kind.
        effect: Average effect on the treated, per sent decision.
        influence: Influence of every user code on it (U,).
        pre_trends: p-value of the joint test that nothing differed before; NaN where it could not be tested.
        placebo: p-value of the placebo in time; NaN where it could not be tested.
        kinds_differ: Smallest p-value of its difference to the alternative estimates, which rest on the same users.
        of_the_log: Tests of the whole log that rewards of its kind fail: `Diagnostics.failed`.
        level: p-value below which a test of its own fails: see `at_joint_level`.
        contradicted_by: Kinds whose estimate differs from it and fails no test, of its own or of the whole log; nor is
            any of its own unclear.
    """

    action: str
    goal: str
    kind: str
    effect: Effect
    influence: FloatArray
    pre_trends: float = np.nan
    placebo: float = np.nan
    kinds_differ: float = np.nan
    of_the_log: tuple[str, ...] = ()
    level: float = SIGNIFICANCE_LEVEL
    contradicted_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The action, the goal and the kind in words."""
        return f"{self.action} on {self.goal} by {self.kind}"

    @property
    def failed(self) -> tuple[str, ...]:
        """The tests of its own that it fails."""
        tests = {"pre-trends differ": self.pre_trends, "effect before the message": self.placebo}
        return tuple(words for words, p in tests.items() if p < self.level)

    @property
    def unclear(self) -> tuple[str, ...]:
        """The tests of its own that fail by themselves, and not at the level of all tests together."""
        tests = {"pre-trends": self.pre_trends, "placebo": self.placebo}
        return tuple(name for name, p in tests.items() if self.level <= p < SIGNIFICANCE_LEVEL)

    @property
    def caveats(self) -> tuple[str, ...]:
        """Reasons not to read the effect as causal, in words; empty where none was found."""
        if not self.effect.se > 0:
            return (NOT_IDENTIFIED,)
        few = [f"only {counted(self.effect.n_users, 'user')}"] if self.effect.n_users < MIN_USERS else []
        log = [f"fails on the whole log: {' and '.join(self.of_the_log)}"] if self.of_the_log else []
        return (*few, *self.failed, *log, *(f"{kind} differs and fails no test" for kind in self.contradicted_by))

    @property
    def only_later(self) -> bool:
        """Whether it may be causal within the window, and the time after the window is its only caveat."""
        return self.of_the_log == (AFTER,) and len(self.caveats) == 1

    @property
    def untested(self) -> tuple[str, ...]:
        """The tests for which the log is too short or too sparse."""
        names = {"pre-trends": self.pre_trends, "placebo": self.placebo}
        return tuple(name for name, p in names.items() if np.isnan(p))


def action_effects(
    history: History,
    spec: RewardSpec,
    module: str,
    times: EventTimes | None = None,
    kinds: Sequence[str] = COMPARED_KINDS,
    diagnostics: Sequence[Diagnostics] = (),
) -> list[ActionEffect]:
    """Estimate the effect of every sent action of a module on every goal, each goal with weight 1 and in its own units.

    The model is fitted to each action's sent decisions alone: see `fit_each_action`. What rewards of a
    kind fail on the whole log, all goals together, is a caveat of each of its effects.

    Args:
        history: The log.
        spec: What is measured.
        module: The module.
        times: Bins of the pre-trend tests; by default those that fit the windows.
        kinds: Reward kinds, side by side.
        diagnostics: Diagnostics of the whole log by some of these kinds, where they were computed already.
    """
    groups: list[tuple[ActionEffect, ...]] = []
    known = {each.kind: each.failed for each in diagnostics}
    failed = {kind: known[kind] if kind in known else _failed_on_log(history, spec, times, kind) for kind in kinds}
    for goal in spec.goals:
        alone = replace(spec, goals=(replace(goal, weight=1.0),), funnel=None)
        name, models = f"{goal.event} ({goal.measure})", {kind: make_reward(kind, alone) for kind in kinds}
        by_kind = [
            [
                _action_effect(fitted, history, times, action, name, kind)
                for action, _, fitted in fit_each_action(model, model.measure(history), history, module)
            ]
            for kind, model in models.items()
        ]
        for alternative_estimates in zip(*by_kind, strict=True):
            groups.append(tuple(replace(one, of_the_log=failed[one.kind]) for one in alternative_estimates))
    return [one for group in at_joint_level(groups) for one in compare_estimates(group)]


def at_joint_level(groups: Sequence[Sequence[ActionEffect]]) -> list[list[ActionEffect]]:
    """Return the effects with the level of their tests, which all tests of a kind have together, by Holm's method.

    These are pre-trends, the placebo and the differences to other kinds, of all actions and goals: a table of three
    actions has nine, of which one fails in a third of right logs if each has a level of 5 %.

    Args:
        groups: The estimates of the same effect by several kinds, for each action and goal.
    """
    p_values: dict[str, list[float]] = {}
    for group in groups:
        for one in group:
            others = [difference(one, other) for other in group if other.kind != one.kind]
            p_values.setdefault(one.kind, []).extend((one.pre_trends, one.placebo, *others))
    levels = {kind: holm_threshold(np.array(values), SIGNIFICANCE_LEVEL) for kind, values in p_values.items()}
    return [[replace(one, level=levels[one.kind]) for one in group] for group in groups]


def compare_estimates(alternative_estimates: Sequence[ActionEffect]) -> list[ActionEffect]:
    """Compare the estimates of several kinds: where two differ, their assumptions cannot both hold."""
    compared = []
    for one in alternative_estimates:
        others = [other for other in alternative_estimates if other.kind != one.kind]
        p_values = {other.kind: difference(one, other) for other in others}
        known = [p for p in p_values.values() if not np.isnan(p)]
        sound = [other.kind for other in others if not (other.failed or other.unclear or other.of_the_log)]
        clear = [kind for kind in sound if p_values[kind] < one.level]
        compared.append(replace(one, kinds_differ=min(known, default=np.nan), contradicted_by=tuple(clear)))
    return compared


def difference(one: ActionEffect, other: ActionEffect) -> float:
    """Return the p-value of the difference of two effects on the same decisions; NaN where there is none."""
    if not (one.effect.se > 0 and other.effect.se > 0) or one.effect.n_treated != other.effect.n_treated:
        return np.nan
    influence = one.influence - other.influence
    users = int((influence != 0).sum())
    if users < 2:
        return np.nan
    se = float(np.sqrt((influence**2).sum() * users / (users - 1)))
    freedom = min(one.effect.n_users, other.effect.n_users) - 1
    return two_sided_p_value((one.effect.value - other.effect.value) / se, freedom)


def _action_effect(
    fitted: TreatmentEffects | None, history: History, times: EventTimes | None, action: str, goal: str, kind: str
) -> ActionEffect:
    if fitted is None:
        effect, influence = Effect.not_identified(action), np.zeros(0)
    else:
        effect, influence = fitted.effect_and_influence(None, action)
    found = ActionEffect(action=action, goal=goal, kind=kind, effect=effect, influence=influence)
    if fitted is None or not effect.se > 0:
        return found
    return replace(
        found,
        pre_trends=_p_value_or_nan(lambda: _pre_trends(fitted, history, times)),
        placebo=_p_value_or_nan(lambda: _placebo(fitted, history)),
    )


def _failed_on_log(history: History, spec: RewardSpec, times: EventTimes | None, kind: str) -> tuple[str, ...]:
    """Return the tests of the whole log that rewards of a kind fail; none where the log allows no such rewards."""
    try:
        fitted = TreatmentEffects.fit(make_reward(kind, replace(spec, funnel=None)), history)
        return diagnose(fitted, history, event_study(fitted, history, times)).failed
    except NotIdentified:
        return ()


def _pre_trends(fitted: TreatmentEffects, history: History, times: EventTimes | None) -> float:
    leads = replace(times or EventTimes.default_for(fitted), lags=0)
    return event_study(fitted, history, leads).pre_trends().p_value


def _placebo(fitted: TreatmentEffects, history: History) -> float:
    back = time_placebo(fitted, history)
    return two_sided_p_value(back.value / back.se, back.n_users - 1) if back.se > 0 else np.nan


def _p_value_or_nan(p_value: Callable[[], float]) -> float:
    """Return a p-value; NaN where the model cannot be fitted to the few decisions that were observed so far back."""
    try:
        return p_value()
    except NotIdentified:
        return np.nan


def action_effects_by_window(
    history: History, spec: RewardSpec, module: str, windows: Sequence[str], kinds: Sequence[str] = COMPARED_KINDS
) -> dict[str, list[ActionEffect]]:
    """Estimate the effects with post windows of other lengths, the pre window in proportion; by the post window."""
    return {post: action_effects(history, _with_windows(spec, post), module, None, kinds) for post in windows}


def _with_windows(spec: RewardSpec, post: str) -> RewardSpec:
    pre = duration(spec.pre) * duration(post) / duration(spec.post)
    return replace(spec, pre=f"{pre / HOUR:g}h", post=post)


def action_effects_table(found: Sequence[ActionEffect]) -> pd.DataFrame:
    """Return one row per action, goal and kind, with its caveats."""
    return pd.DataFrame(
        {
            "action": f.action,
            "goal": f.goal,
            "kind": f.kind,
            "effect": f.effect.value,
            "low": f.effect.low,
            "high": f.effect.high,
            "n_treated": f.effect.n_treated,
            "n_users": f.effect.n_users,
            "pre_trends": f.pre_trends,
            "placebo": f.placebo,
            "kinds_differ": f.kinds_differ,
            "caveats": ", ".join(f.caveats),
        }
        for f in found
    )


def action_effects_text(found: Sequence[ActionEffect]) -> str:
    """Return the effects as a table for the terminal, and a list of those that are not to be read as causal."""
    table = action_effects_table(found)
    known = table["effect"].notna() & ~table["caveats"].str.contains(NOT_IDENTIFIED)
    for column in ("effect", "low", "high"):
        table[column] = [f"{v:.3g}" if ok else "-" for v, ok in zip(table[column], known, strict=True)]
    for column in ("pre_trends", "placebo", "kinds_differ"):
        table[column] = ["-" if np.isnan(p) else f"{p:.2g}" for p in table[column]]
    unidentified = [f.name for f in found if f.caveats == (NOT_IDENTIFIED,)]
    alike: dict[tuple[str, ...], list[str]] = {}
    for f in found:
        if f.caveats and f.caveats != (NOT_IDENTIFIED,) and not f.only_later:
            alike.setdefault(f.caveats, []).append(f.name)
    with_caveats = [f"{', '.join(names)} ({', '.join(caveats)})" for caveats, names in alike.items()]
    taken_back = [f.name for f in found if f.only_later]
    unclear = [f"{f.name} ({', '.join(f.unclear)})" for f in found if not f.caveats and f.unclear]
    sound = [f for f in found if not f.caveats and not f.unclear]
    untested = [f"{f.name} ({', '.join(f.untested)})" for f in sound if f.untested]
    passed = [f.name for f in sound if not f.untested]
    tests = sum(not np.isnan(p) for f in found for p in (f.pre_trends, f.placebo))
    levels = ", ".join(dict.fromkeys(f"{f.level:.2g} by {f.kind}" for f in found if f.level < SIGNIFICANCE_LEVEL))
    chance = (
        f"{tests} tests of pre-trends and placebos. The tests of a kind have {SIGNIFICANCE_LEVEL:.0%} together (Holm's "
        f"method): one fails below p = {levels or SIGNIFICANCE_LEVEL}."
    )
    lines = [
        table.to_string(index=False),
        chance if tests else "No pre-trend and no placebo could be tested.",
    ]
    for title, names in (
        ("Not identified", ["all of them"] if len(unidentified) == len(found) else unidentified),
        ("Do not read as causal", with_caveats),
        (f"Do not read as what a message is worth ({AFTER})", taken_back),
        ("Unclear, as a test fails by itself and not at the level of all tests together", unclear),
        ("No caveat found, but the log has too little earlier time or too few events for some tests", untested),
        ("No test fails, which does not prove the effect", passed),
    ):
        lines += [f"{title}: {'; '.join(names)}."] if names else []
    return "\n".join(lines)


def by_window_text(by_window: Mapping[str, Sequence[ActionEffect]]) -> str:
    """Return effects by window: the effect, half its 95 % interval, sent decisions, and `!` where there are caveats."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for window, found in by_window.items():
        for f in found:
            rows.setdefault((f.action, f.goal, f.kind), {})[window] = _short_text(f)
    table = pd.DataFrame([dict(zip(("action", "goal", "kind"), key, strict=True)) | row for key, row in rows.items()])
    return str(table.to_string(index=False))


def _short_text(f: ActionEffect) -> str:
    if not f.effect.se > 0:
        return f"- of {f.effect.n_treated:,}"
    mark = "!" if f.caveats else ""
    return f"{f.effect.value:.3g} +-{f.effect.high - f.effect.value:.2g} of {f.effect.n_treated:,}{mark}"

"""What each action did to each goal, by several reward kinds side by side, each with the tests of its own decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import NotIdentified
from crosschannel.core.times import HOUR, duration
from crosschannel.histories.history import History
from crosschannel.reward.effects.diagnostics import LEVEL, time_placebo
from crosschannel.reward.effects.estimates import Effect, Study
from crosschannel.reward.effects.event_study import EventTimes, event_study
from crosschannel.reward.effects.inference import two_sided_p_value
from crosschannel.reward.kinds import make_reward
from crosschannel.reward.spec import RewardSpec

KINDS = ("did", "did_dr")
# Fewer users on the smaller side than this: an interval stands for so few that it is not read as one.
FEWEST_USERS = 10


@dataclass(frozen=True)
class Finding:
    """The effect of one action on one goal, and what speaks against it.

    Attributes:
        action: The action.
        goal: The goal, in its own units: dollars, or events.
        kind: The reward kind.
        effect: Average effect on the treated, per sent decision.
        influence: Influence of every user code on it (U,).
        pre_trends: p-value of the joint test that nothing differed before; NaN where it could not be tested.
        placebo: p-value of the placebo in time; NaN where it could not be tested.
        kinds_differ: Smallest p-value of its difference to the other kinds, by what both owe to the same users.
        contradicted_by: Other kinds that differ from it and fail no test of their own.
    """

    action: str
    goal: str
    kind: str
    effect: Effect
    influence: FloatArray
    pre_trends: float = np.nan
    placebo: float = np.nan
    kinds_differ: float = np.nan
    contradicted_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of what on what, and by which kind."""
        return f"{self.action} on {self.goal} by {self.kind}"

    @property
    def failed(self) -> tuple[str, ...]:
        """The tests of its own that it fails."""
        found = ["pre-trends differ"] if self.pre_trends < LEVEL else []
        return (*found, *(["effect before the message"] if self.placebo < LEVEL else []))

    @property
    def against(self) -> tuple[str, ...]:
        """What speaks against reading the effect as causal, in words; empty where nothing was found."""
        if not self.effect.se > 0:
            return ("not identified",)
        few = [f"{self.effect.n_users} users only"] if self.effect.n_users < FEWEST_USERS else []
        return (*few, *self.failed, *(f"{kind} differs and passes" for kind in self.contradicted_by))

    @property
    def untested(self) -> tuple[str, ...]:
        """The tests for which the log is too short or too sparse."""
        names = {"pre-trends": self.pre_trends, "placebo": self.placebo}
        return tuple(name for name, p in names.items() if np.isnan(p))


def findings(
    history: History, spec: RewardSpec, module: str, times: EventTimes | None = None, kinds: Sequence[str] = KINDS
) -> list[Finding]:
    """The effect of every sent action of a module on every goal, each goal counted once and in its own units.

    Each action's sent decisions are in a study of their own: see `Study.each_action`.

    Args:
        history: The log.
        spec: What is measured.
        module: Whose actions.
        times: Bins of the pre-trend tests; by default those that fit each study.
        kinds: Reward kinds, side by side.
    """
    found: list[Finding] = []
    for goal in spec.goals:
        alone = replace(spec, goals=(replace(goal, weight=1.0),))
        by_kind = [
            [
                _finding(study, history, times, action, f"{goal.event} ({goal.measure})", kind)
                for action, _, study in Study.of(make_reward(kind, alone), history).each_action(history, module)
            ]
            for kind in kinds
        ]
        for rivals in zip(*by_kind, strict=True):
            found += against_rivals(rivals)
    return found


def against_rivals(rivals: Sequence[Finding]) -> list[Finding]:
    """Findings of several kinds with what the others say: where two differ, their assumptions cannot both hold."""
    told = []
    for one in rivals:
        differ = {rival.kind: difference(one, rival) for rival in rivals if rival.kind != one.kind}
        known = [p for p in differ.values() if not np.isnan(p)]
        clear = [rival.kind for rival in rivals if not rival.failed and differ.get(rival.kind, np.nan) < LEVEL]
        told.append(replace(one, kinds_differ=min(known, default=np.nan), contradicted_by=tuple(clear)))
    return told


def difference(one: Finding, other: Finding) -> float:
    """p-value of the difference of two effects on the same decisions; NaN where there is none."""
    if not (one.effect.se > 0 and other.effect.se > 0) or one.effect.n_treated != other.effect.n_treated:
        return np.nan
    influence = one.influence - other.influence
    users = int((influence != 0).sum())
    if users < 2:
        return np.nan
    se = float(np.sqrt((influence**2).sum() * users / (users - 1)))
    freedom = min(one.effect.n_users, other.effect.n_users) - 1
    return two_sided_p_value((one.effect.value - other.effect.value) / se, freedom)


def _finding(
    study: Study | None, history: History, times: EventTimes | None, action: str, goal: str, kind: str
) -> Finding:
    if study is None:
        return Finding(action, goal, kind, Effect(action, np.nan, np.nan, 0, 0), np.zeros(0))
    effect, influence = study.effect_and_influence(None, action)
    found = Finding(action, goal, kind, effect, influence)
    if not effect.se > 0:
        return found
    return replace(
        found,
        pre_trends=_or_nan(lambda: _pre_trends(study, history, times)),
        placebo=_or_nan(lambda: _placebo(study, history)),
    )


def _pre_trends(study: Study, history: History, times: EventTimes | None) -> float:
    leads = replace(times or EventTimes.fitting(study), lags=0)
    return event_study(study, history, leads).pre_trends().p_value


def _placebo(study: Study, history: History) -> float:
    back = time_placebo(study, history)
    return two_sided_p_value(back.value / back.se, back.n_users - 1) if back.se > 0 else np.nan


def _or_nan(p_value: Callable[[], float]) -> float:
    """A p-value; NaN where the model cannot be fitted to the few decisions that were seen so far back."""
    try:
        return p_value()
    except NotIdentified:
        return np.nan


def other_lengths(
    history: History, spec: RewardSpec, module: str, lengths: Sequence[str], kinds: Sequence[str] = KINDS
) -> dict[str, list[Finding]]:
    """The findings with post windows of other lengths, the pre window in proportion; by the post window's length."""
    return {length: findings(history, _stretched(spec, length), module, None, kinds) for length in lengths}


def _stretched(spec: RewardSpec, post: str) -> RewardSpec:
    pre = duration(spec.pre) * duration(post) / duration(spec.post)
    return replace(spec, pre=f"{pre / HOUR:g}h", post=post)


def findings_table(found: Sequence[Finding]) -> pd.DataFrame:
    """One row a finding, with what speaks against it."""
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
            "against": ", ".join(f.against),
        }
        for f in found
    )


def findings_text(found: Sequence[Finding]) -> str:
    """The findings as a table for the terminal, and in words which of them are not to be read as causal."""
    table = findings_table(found)
    known = table["effect"].notna() & ~table["against"].str.contains("not identified")
    for column in ("effect", "low", "high"):
        table[column] = [f"{v:.3g}" if ok else "-" for v, ok in zip(table[column], known, strict=True)]
    for column in ("pre_trends", "placebo", "kinds_differ"):
        table[column] = ["-" if np.isnan(p) else f"{p:.2g}" for p in table[column]]
    failed = [f"{f.action} on {f.goal} by {f.kind} ({', '.join(f.against)})" for f in found if f.against]
    clear = [f"{f.action} on {f.goal} by {f.kind}" for f in found if not f.against and not f.untested]
    unproved = [
        f"{f.action} on {f.goal} by {f.kind} ({', '.join(f.untested)})" for f in found if not f.against and f.untested
    ]
    tests = sum(not np.isnan(p) for f in found for p in (f.pre_trends, f.placebo))
    lines = [
        table.to_string(index=False),
        f"{tests} tests of pre-trends and placebos: by chance alone {tests * LEVEL:.1f} would fail.",
        f"Do not read as causal: {'; '.join(failed)}." if failed else "",
        f"Nothing speaks against, but for want of earlier time or events not tested: {'; '.join(unproved)}."
        if unproved
        else "",
        f"Nothing speaks against, and nothing proves: {'; '.join(clear)}." if clear else "",
    ]
    return "\n".join(line for line in lines if line)


def lengths_text(by_length: Mapping[str, Sequence[Finding]]) -> str:
    """Effects by length of the windows: half the 95 % interval, sent decisions, `!` where something speaks against."""
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for length, found in by_length.items():
        for f in found:
            rows.setdefault((f.action, f.goal, f.kind), {})[length] = _cell(f)
    table = pd.DataFrame([dict(zip(("action", "goal", "kind"), key, strict=True)) | row for key, row in rows.items()])
    return str(table.to_string(index=False))


def _cell(f: Finding) -> str:
    if not f.effect.se > 0:
        return f"- of {f.effect.n_treated:,}"
    mark = "!" if f.against else ""
    return f"{f.effect.value:.3g} +-{f.effect.high - f.effect.value:.2g} of {f.effect.n_treated:,}{mark}"

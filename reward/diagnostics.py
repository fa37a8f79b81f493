"""Can the effects be believed? Pre-trends, placebos, overlap and controls, with a verdict in plain words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from histories.hashing import derive
from histories.history import History
from histories.modules import IntArray
from histories.times import duration
from reward.effects import Effect, Study
from reward.event_time import EventStudy, event_study, moved_back
from reward.frame import IDENTIFIED, REASONS
from reward.inference import binomial_tail, two_sided
from reward.influence import WITHOUT_CONTROLS

LEVEL = 0.05
SPLITS = 20
# Two-sided test at 5 % with a power of 80 %: 1.96 + 0.84 standard errors.
DETECTABLE = 2.8
_SPLIT_SALT = 0x5EED
FAILURES = {
    "pre-trends": "pre-trends differ",
    "placebo in time": "there is an effect before the message",
    "placebo on controls": "there are too many effects among the controls, so the intervals are too short",
}

Status = Literal["passed", "failed", "not tested"]


@dataclass(frozen=True)
class Check:
    """One diagnostic.

    Attributes:
        name: Which.
        status: `passed` says no more than that nothing was found.
        p_value: Its p-value; NaN where it has none.
        words: What it found, for the reader.
    """

    name: str
    status: Status
    p_value: float
    words: str


@dataclass(frozen=True)
class Diagnostics:
    """All diagnostics of a study.

    Attributes:
        checks: The tests.
        facts: What is not a test: overlap, controls, decisions left out; one line each.
        kind: The reward kind.
    """

    checks: tuple[Check, ...]
    facts: tuple[str, ...]
    kind: str

    @property
    def verdict(self) -> str:
        """One sentence: whether the effect may be read as causal, and if not, why."""
        if self.kind in WITHOUT_CONTROLS:
            return f"`{self.kind}` compares with nobody: do not read the average as causal."
        failed = [FAILURES.get(check.name, check.name) for check in self.checks if check.status == "failed"]
        open_ = [check.name for check in self.checks if check.status == "not tested"]
        if failed:
            rest = f" Not tested: {', '.join(open_)}." if open_ else ""
            return f"{' and '.join(failed).capitalize()}: do not read the effect as causal.{rest}"
        if open_:
            return f"Not tested: {', '.join(open_)}. Nothing else speaks against the effect, and nothing proves it."
        return "Nothing speaks against the effect; no test can prove it."

    def to_pandas(self) -> pd.DataFrame:
        """One row a check."""
        rows = [(c.name, c.status, c.p_value, c.words) for c in self.checks]
        return pd.DataFrame(rows, columns=["check", "status", "p_value", "words"])


def diagnose(study: Study, history: History, events: EventStudy | None = None, splits: int = SPLITS) -> Diagnostics:
    """Runs every diagnostic. `events` is the study's event study, if there is one already."""
    events = event_study(study, history) if events is None else events
    checks = (pre_trend_check(events), placebo_in_time(study, history), placebo_on_controls(study, history, splits))
    return Diagnostics(checks, facts_of(study), study.model.name)


def pre_trend_check(events: EventStudy) -> Check:
    """Joint Wald test over the leads of an event study, with the smallest difference that it could have seen."""
    name, test = "pre-trends", events.pre_trends()
    if np.isnan(test.p_value):
        return Check(name, "not tested", np.nan, "no bin before the base is identified: the log begins too late")
    numbers = f"F test of {test.freedom} bins over {test.clusters:,} users, p = {test.p_value:.2g}"
    if test.p_value < LEVEL:
        worst = max(
            (e for e, lead in zip(events.effects, events.leads, strict=True) if lead), key=lambda e: abs(e.value / e.se)
        )
        return Check(
            name,
            "failed",
            test.p_value,
            f"treated and controls differ before the message ({numbers}; at {worst.label} by {worst.value:.3g})",
        )
    errors = [e.se for e, lead in zip(events.effects, events.leads, strict=True) if lead]
    seen = DETECTABLE * float(np.mean(errors))
    return Check(
        name, "passed", test.p_value, f"no difference found ({numbers}); one of {seen:.2g} a bin would have been"
    )


def placebo_in_time(study: Study, history: History) -> Check:
    """The whole design moved back by `pre + post`, to a time before the message: the effect there should be 0."""
    name, effect = "placebo in time", time_placebo(study, history)
    if not effect.se > 0:
        return Check(name, "not tested", np.nan, "too few decisions have observed windows that far back")
    return _zero_check(name, effect, "windows moved back by pre + post")


def time_placebo(study: Study, history: History) -> Effect:
    """The effect that the design finds where there is none: both windows end at least `pre` before the decision."""
    spec = study.model.spec
    moved = moved_back(study, history, duration(spec.pre) + duration(spec.post))
    return moved.effect(None, "placebo in time")


def _zero_check(name: str, effect: Effect, what: str) -> Check:
    p = two_sided(effect.value / effect.se, effect.n_users - 1)
    found = f"{what}: {effect.value:.3g}, 95 % from {effect.low:.3g} to {effect.high:.3g}, p = {p:.2g}"
    return Check(name, "failed" if p < LEVEL else "passed", p, found)


def placebo_on_controls(study: Study, history: History, splits: int = SPLITS) -> Check:
    """A random half of the controls' users declared treated, many times: about 5 % of the effects should be found.

    It tests the errors, not the trends: too many findings mean that the intervals are too short.
    """
    name = "placebo on controls"
    if study.model.name in WITHOUT_CONTROLS:
        return Check(name, "not tested", np.nan, "this kind has no controls")
    found = control_placebos(study, history, splits)
    usable = [e for e in found if e.se > 0]
    if len(usable) < splits:
        return Check(name, "not tested", np.nan, "half of the controls are too few for effects")
    hits = sum(not e.low <= 0 <= e.high for e in usable)
    p = binomial_tail(hits, splits, LEVEL)
    words = f"{hits} of {splits} random halves differ from the other half at 5 %, {splits * LEVEL:g} expected"
    return Check(name, "failed" if p < 0.01 else "passed", p, words)


def control_placebos(study: Study, history: History, splits: int = SPLITS) -> list[Effect]:
    """Effects of nothing: in each split a half of the controls' users, by a stable hash, counts as treated."""
    controls = study.restricted(study.outcomes.control)
    o = controls.outcomes
    found = []
    for split in range(splits):
        half = (derive(history.user_keys, _SPLIT_SALT + split) >> np.uint64(63)).astype(bool)[o.user]
        outcomes = replace(o, treated=half, control=~half, p_nothing=np.where(half, np.nan, 0.5))
        found.append(Study.of_outcomes(study.model, outcomes).effect(None, f"split {split}"))
    return found


def facts_of(study: Study) -> tuple[str, ...]:
    """Share of overlapping windows, controls behind a reward, and what was left out and why."""
    o, frame = study.outcomes, study.frame
    sent = o.treated
    ok = sent & frame.identified
    lines = [f"sent decisions: {int(sent.sum()):,}, with a reward {int(ok.sum()):,}"]
    lines += [
        f"  without: {int((o.treated & (frame.reason == code)).sum()):,} ({name})"
        for code, name in _reasons(frame.reason[sent])
    ]
    if o.observed.any():
        lines.append(f"overlap: {o.overlap[sent & o.observed].mean():.1%} of the sent decisions with observed windows")
    if ok.any() and study.model.name not in WITHOUT_CONTROLS:
        low, middle = np.quantile(frame.n_controls[ok], [0.0, 0.5])
        lines.append(
            f"controls: {int(o.control.sum()):,} in all; behind a reward at least {low:,.0f}, median {middle:,.0f}"
        )
    if study.model.name == "did_dr":
        estimated = bool(np.isnan(o.p_nothing[o.control]).any())
        lines.append(
            f"propensities: {'estimated by a logistic regression on the covariates' if estimated else 'logged'}"
        )
    return tuple(lines)


def _reasons(reason: IntArray) -> list[tuple[int, str]]:
    return [(code, REASONS[code]) for code in np.unique(reason).tolist() if code != IDENTIFIED]

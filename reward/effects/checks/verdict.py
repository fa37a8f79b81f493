"""All diagnostics of an estimate, with a verdict in plain words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from crosschannel.reward.effects.checks.after_window import NAME as AFTER
from crosschannel.reward.effects.checks.alike_controls import BY_ACTIVITY, BY_PROPENSITY
from crosschannel.reward.effects.checks.check import PRE_TRENDS, Check, at_joint_level
from crosschannel.reward.effects.checks.hours_before import NAME as HOURS_BEFORE
from crosschannel.reward.effects.checks.remedies import causes, remedies
from crosschannel.reward.effects.influence import WITHOUT_CONTROLS

FAILURES = {
    PRE_TRENDS: "pre-trends differ",
    "placebo in time": "there is an effect before the message",
    "earlier messages": "sent decisions and controls had unequally many messages before",
    BY_PROPENSITY: "controls that were as likely to get a message as the sent decisions change otherwise",
    BY_ACTIVITY: "controls that were as active as the sent decisions change otherwise",
    HOURS_BEFORE: "the goal differs in the hours just before the message",
    AFTER: "messages take back half of the effect or more after the window",
    "placebo on holdout": "decisions at which nothing was sent differ from those of the users held out",
}

UNLIKE_CONTROLS = (
    "But controls change differently by an attribute of users: where messages reach its groups unequally, the effect "
    "is biased, until it is matched within them (see the placebo on controls)."
)


def failures(checks: Iterable[Check | None]) -> tuple[str, ...]:
    """Return the names of the checks that fail."""
    return tuple(check.name for check in checks if check is not None and check.status == "failed")


@dataclass(frozen=True)
class Diagnostics:
    """All diagnostics of an estimate.

    All tests that the verdict may name have one level together, the placebo on controls among them (`at_joint_level`):
    of right logs at most one in twenty has a verdict that names any.

    Attributes:
        checks: The tests.
        facts: What is not a test: overlap, controls, decisions left out; one line each.
        kind: The reward kind.
        on_controls: The placebo on controls, which is among the facts as well; None where there is none.
        cautions: What else contradicts every effect of the log: `History.cautions`.
        unused_propensities: Whether the log has propensities that rewards of this kind do not use.
        unidentified: Why no sent decision has a reward, and what would help; empty where one has.
    """

    checks: tuple[Check, ...]
    facts: tuple[str, ...]
    kind: str
    on_controls: Check | None = None
    cautions: tuple[str, ...] = ()
    unused_propensities: bool = False
    unidentified: str = ""

    @classmethod
    def build(
        cls,
        checks: Iterable[Check | None],
        facts: tuple[str, ...],
        kind: str,
        on_controls: Check | None,
        cautions: tuple[str, ...] = (),
        unused_propensities: bool = False,
        unidentified: str = "",
    ) -> Diagnostics:
        """Gather the checks that could be made at one level, and state the placebo on controls among the facts."""
        lines = () if on_controls is None else (f"{on_controls.name}: {on_controls.text}",)
        made = tuple(check for check in checks if check is not None)
        if on_controls is None:
            made = at_joint_level(made)
        else:
            *rest, on_controls = at_joint_level([*made, on_controls])
            made = tuple(rest)
        return cls(
            checks=made,
            facts=(*facts, *lines),
            kind=kind,
            on_controls=on_controls,
            cautions=cautions,
            unused_propensities=unused_propensities,
            unidentified=unidentified,
        )

    @property
    def failed(self) -> tuple[str, ...]:
        """The tests that fail; without controls nothing is tested, and nothing passes either."""
        if self.kind in WITHOUT_CONTROLS:
            return ("no controls",)
        return failures(self.checks)

    @property
    def verdict(self) -> str:
        """Whether the effect may be read as causal, and if not, why, in a few sentences."""
        return " ".join([self._verdict, *(f"But {caution}." for caution in self.cautions)])

    @property
    def _verdict(self) -> str:
        if self.unidentified:
            return f"Not identified: {self.unidentified}"
        if self.kind in WITHOUT_CONTROLS:
            return f"`{self.kind}` has no controls: do not read the average as causal."
        failed = [FAILURES.get(name, name) for name in causes(self.failed)]
        untested = [check.name for check in self.checks if check.status == "not tested"]
        if failed:
            rest = f" Not tested: {', '.join(untested)}." if untested else ""
            what = "what a message is worth" if failed == [FAILURES[AFTER]] else "causal"
            return f"{' and '.join(failed).capitalize()}: do not read the effect as {what}.{rest}"
        unlike = self.on_controls is not None and self.on_controls.status == "failed"
        rest = self._unclear + (f" {UNLIKE_CONTROLS}" if unlike else "")
        if untested:
            return f"Not tested: {', '.join(untested)}. No other test fails, which does not prove the effect.{rest}"
        return f"No test fails, which does not prove the effect.{rest}"

    @property
    def _unclear(self) -> str:
        """What fails by itself only, in a sentence that begins with a space; empty where nothing does."""
        checks = (*self.checks, *(() if self.on_controls is None else (self.on_controls,)))
        names = [f"{check.name} (p = {check.p_value:.2g})" for check in checks if check.status == "unclear"]
        tests = sum(not np.isnan(check.p_value) for check in checks)
        return (
            f" Unclear: {', '.join(names)}, which {tests} tests of a right log together may show by chance."
            if names
            else ""
        )

    @property
    def remedies(self) -> tuple[str, ...]:
        """What would identify what messages change, for each test that fails, as sentences."""
        if self.unidentified or self.kind in WITHOUT_CONTROLS:
            return ()
        return remedies(self.failed, self.unused_propensities, self.kind)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per check."""
        rows = [(c.name, c.status, c.p_value, c.text) for c in self.checks]
        return pd.DataFrame(rows, columns=["check", "status", "p_value", "text"])

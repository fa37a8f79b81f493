"""Alerts: what was found, how severe it is, what to do; and which rules could not be checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from crosschannel.core.times import timestamps
from crosschannel.core.wording import counted

#: Version of `alerts.json`.
ALERTS_VERSION = 1
Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Alert:
    """One finding of one rule.

    Attributes:
        rule: Name of the rule.
        severity: `critical`: stop and look before the messages are sent; the exit code is 5. `warning`: look soon; the
            job goes on.
        finding: What was found, as a sentence with its figures.
        remedy: What to do about it.
    """

    rule: str
    severity: Severity
    finding: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}, {self.rule}: {self.finding} {self.remedy}"

    def to_dict(self) -> dict[str, str]:
        """Return it as plain values."""
        return {"rule": self.rule, "severity": self.severity, "finding": self.finding, "remedy": self.remedy}


class NotChecked(Exception):
    """A rule that cannot be checked yet, or on this log; its text is the reason."""


@dataclass(frozen=True)
class Alerts:
    """What all rules found at one time.

    Attributes:
        at: Time of the check, microseconds since 1970 UTC.
        alerts: The findings, critical ones first.
        checked: Rules that were checked.
        not_checked: Rules that could not be checked, with the reason; and those that are switched off.
    """

    at: int
    alerts: tuple[Alert, ...]
    checked: tuple[str, ...] = ()
    not_checked: Mapping[str, str] = field(default_factory=dict)

    @property
    def critical(self) -> bool:
        """Whether an alert is one that stops the day's messages."""
        return any(alert.severity == "critical" for alert in self.alerts)

    def __str__(self) -> str:
        lines = [str(alert) for alert in self.alerts]
        number = counted(len(self.alerts), "alert") if self.alerts else "no alerts"
        lines.append(f"{number}; checked: {', '.join(self.checked) or 'nothing'}")
        lines += [f"not checked, {rule}: {why}" for rule, why in self.not_checked.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return what `alerts.json` holds."""
        return {
            "version": ALERTS_VERSION,
            "at": timestamps(np.array([self.at]))[0].isoformat(),
            "alerts": [alert.to_dict() for alert in self.alerts],
            "checked": list(self.checked),
            "not_checked": dict(self.not_checked),
        }

"""All that is damaged."""

from __future__ import annotations

from tests.fuzz.logs import LOGS
from tests.fuzz.runs import RUNS

TARGETS = (*LOGS, *RUNS)

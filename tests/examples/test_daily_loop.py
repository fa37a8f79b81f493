"""The week in daily use runs as it stands: a policy that starts at random, learns, decides, and is compared."""

from __future__ import annotations

import json
from pathlib import Path

from tests.examples.test_examples import run


def test_a_week_in_short(tmp_path: Path) -> None:
    shown = run("daily_loop/week.py", "--folder", str(tmp_path / "week"), "--users", "400", "--days", "3", cwd=tmp_path)
    commands = [line.split()[2] for line in shown.splitlines() if line.startswith("$ crosschannel")]
    assert commands == ["start", "decide", "update", "decide", "update", "decide", "trial"]
    days = sorted(path.name for path in (tmp_path / "week" / "decisions").iterdir() if not path.name.startswith("."))
    assert days == ["2024-01-15", "2024-01-16", "2024-01-17"]
    versions = [
        json.loads((tmp_path / "week" / "decisions" / day / "decide.json").read_text())["policy_version"]
        for day in days
    ]
    assert versions[-1] != versions[0]
    assert "Verdict" in shown

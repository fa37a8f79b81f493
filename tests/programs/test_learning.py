"""What the default run is for: the policy that was learned from the log is truly better than the one that made it."""

from __future__ import annotations

import json
import math

import pytest
from conftest import run_program


def learned_minus_usual(seed: int, users: int, folder) -> tuple[float, float]:
    """True difference per user to business as usual, and its standard error, of one market's learned policy."""
    run_program(
        "train.py",
        f"--seed={seed}",
        f"--history.market.seed={seed}",
        f"--history.market.users={users}",
        "--train.final-steps=20",
        "--evaluation.replicates=40",
        "--evaluation.market-users=2000",
        cwd=folder,
    )
    truth = json.loads((folder / "runs" / "market" / "metrics.json").read_text())["truth"]
    values = {row["policy"]: row for row in truth}
    learned, usual = values["ensemble_thompson"], values["business as usual"]
    assert learned["per_user"] < values["oracle"]["per_user"]
    return learned["per_user"] - usual["per_user"], math.hypot(learned["per_user_se"], usual["per_user_se"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_learned_policy_beats_business_as_usual(seed, tmp_path):
    """Five markets with other users, calendars and seeds of learning; three standard errors in each."""
    difference, error = learned_minus_usual(seed, 12_000, tmp_path)
    assert difference > 3 * error

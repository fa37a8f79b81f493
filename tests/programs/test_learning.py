"""What the default run is for: the policy that was learned from the log is truly better than the one that made it."""

from __future__ import annotations

import json
import math

import pytest

from tests.programs.samples import run_program


def learned_minus_usual(seed: int, folder, *flags: str) -> tuple[float, float]:
    """True difference per user to business as usual, and its standard error, of one market's learned policy."""
    run_program("train.py", f"--seed={seed}", f"--history.market.seed={seed}", *flags, cwd=folder)
    truth = json.loads((folder / "runs" / "market" / "metrics.json").read_text())["truth"]
    values = {row["policy"]: row for row in truth}
    learned, usual = values["ensemble_thompson"], values["business as usual"]
    return learned["per_user"] - usual["per_user"], math.hypot(learned["per_user_se"], usual["per_user_se"])


def test_the_learned_policy_beats_business_as_usual_in_a_small_market(tmp_path):
    """One market of a tenth of the users and half of the days, in a few steps; three standard errors."""
    flags = (
        "--history.market.users=2000",
        "--history.market.days=14",
        "--train.offline-updates=5",
        "--evaluation.bootstrap-replicates=40",
    )
    difference, error = learned_minus_usual(0, tmp_path, *flags, "--evaluation.market-users=1000")
    assert difference > 3 * error


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_learned_policy_beats_business_as_usual(seed, tmp_path):
    """The default configuration on five markets with other users, calendars and seeds; three standard errors each."""
    difference, error = learned_minus_usual(seed, tmp_path)
    assert difference > 3 * error

"""`effects` over buckets gives the effects, intervals and tests of the whole log, however it is divided."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.engines import make_engine, run_locally
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.history import History
from crosschannel.pipeline.buckets.effects import effects_over_buckets
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.building import build_history, check_log
from crosschannel.pipeline.configuration import Config, override, read_config
from crosschannel.programs.effects import main
from crosschannel.reward import make_reward
from crosschannel.reward.effects import EffectsRequest, EventTimes, effects_report
from tests import ROOT
from tests.reward.simulated import simulate

MARKET = ROOT / "configs" / "market.yaml"


@dataclass(frozen=True)
class Told:
    """What a report tells: its table, and its text without the file's name."""

    table: pd.DataFrame
    text: str


def told(text: str, csv: Path) -> Told:
    return Told(pd.read_csv(csv), text.partition("\n\nReward ")[2].partition("\n\nWritten: ")[0])


def configuration(folder: Path, **settings: Any) -> Config:
    source = {"history.source": "folder", "history.path": str(folder), "reward.funnel": None}
    return override(read_config(MARKET), source | settings)


def over_buckets(config: Config, request: EffectsRequest, folder: Path, engine: Any = run_locally) -> Told:
    request = replace(request, csv=folder / "buckets.csv")
    return told(effects_over_buckets(config, request, Passes(engine, shows=False), folder), folder / "buckets.csv")


def in_memory(config: Config, request: EffectsRequest, folder: Path) -> Told:
    request = replace(request, csv=folder / "whole.csv")
    history, _ = check_log(build_history(config)[0], config.reward)
    return told(effects_report(history, make_reward("did", config.reward), request), folder / "whole.csv")


def assert_same(one: Told, other: Told) -> None:
    """Labels and counts are equal, numbers to rounding, and so the texts: they round what they print."""
    pd.testing.assert_frame_equal(one.table, other.table, rtol=1e-9, atol=1e-11)
    assert one.text == other.text


@pytest.fixture(scope="module")
def log() -> History:
    return simulate_history(Market(MarketConfig(users=300, days=14)))[0]


REQUEST = EffectsRequest(
    by=("all", "goal", "action", "period:3d", "time_bucket", "attribute:platform", "attribute:age"), effects_of="none"
)
SETTINGS: list[dict[str, Any]] = [
    {"reward.min_controls": 5},
    {"reward.overlap": "shared", "reward.post": "2d", "reward.pre": "2d", "reward.min_controls": 3},
    # Later messages within three days: decisions have weights.
    {"reward.overlap": "exclude", "reward.post": "3d", "reward.pre": "2d", "reward.min_controls": 2},
    {"reward.overlap": "truncate", "reward.post": "2d", "reward.min_post": "1d", "reward.min_controls": 3},
    {
        "reward.matching.strata": 2,
        "reward.matching.activity": "2d",
        "reward.matching.fallback": ["strata"],
        "reward.min_controls": 8,
    },
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["plain", "shared", "exclude", "truncate", "strata"])
def test_the_report_is_that_of_the_whole_log(log: History, settings: dict[str, Any], tmp_path: Path) -> None:
    whole = None
    for n in (1, 8):
        write_buckets(log, tmp_path / f"log{n}", n)
        config = configuration(tmp_path / f"log{n}", **settings)
        if whole is None:
            whole = in_memory(config, REQUEST, tmp_path)
            assert np.isfinite(whole.table.effect).sum() > 10
        assert_same(over_buckets(config, REQUEST, tmp_path), whole)

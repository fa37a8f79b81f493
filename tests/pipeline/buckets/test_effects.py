"""`effects` over buckets gives the effects, intervals and tests of the whole log, however it is divided."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY
from crosschannel.engines import make_engine, run_locally
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.history import History
from crosschannel.pipeline.buckets.effects import effects_over_buckets
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.building import check_log
from crosschannel.pipeline.configuration import Config, override, read_config
from crosschannel.pipeline.reading import build_history
from crosschannel.programs import effects
from crosschannel.programs.effects import main
from crosschannel.reward import make_reward
from crosschannel.reward.effects import EffectsRequest, EventTimes, effects_report
from crosschannel.reward.measurement.censoring import least_uncensored
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


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(settings, id=name, marks=[pytest.mark.slow] if name in ("plain", "shared", "truncate") else [])
        for name, settings in zip(("plain", "shared", "exclude", "truncate", "strata"), SETTINGS, strict=True)
    ],
)
def test_the_report_is_that_of_the_whole_log(log: History, settings: dict[str, Any], tmp_path: Path) -> None:
    write_buckets(log, tmp_path / "log", 8)
    config = configuration(tmp_path / "log", **settings)
    whole = in_memory(config, REQUEST, tmp_path)
    assert np.isfinite(whole.table.effect).sum() > 10
    assert_same(over_buckets(config, REQUEST, tmp_path), whole)
    assert not list(tmp_path.glob(".scratch-*"))


def test_weights_are_those_of_later_messages(log: History) -> None:
    """The test above has decisions with weights; otherwise it would not test them."""
    spec = override(read_config(MARKET), SETTINGS[2]).reward
    assert least_uncensored(log, spec) < 1.0


@pytest.mark.parametrize("n", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 16, 64))])
def test_the_number_of_buckets_does_not_matter(log: History, n: int, tmp_path: Path) -> None:
    request = replace(REQUEST, by=("all", "action", "attribute:age"), times=EventTimes("1d", leads=3, lags=1))
    found = []
    for buckets in (8, n):
        write_buckets(log, tmp_path / f"log{buckets}", buckets)
        config = configuration(tmp_path / f"log{buckets}", **SETTINGS[2])
        found.append(over_buckets(config, request, tmp_path))
    assert_same(*found)


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same(log: History, tmp_path: Path) -> None:
    write_buckets(log, tmp_path / "log", 4)
    config = configuration(tmp_path / "log")
    request = replace(REQUEST, by=("all",), times=EventTimes("1d", leads=2, lags=1))
    here, pool = (
        over_buckets(config, request, tmp_path, engine) for engine in (run_locally, make_engine("processes", 2))
    )
    pd.testing.assert_frame_equal(here.table, pool.table, check_exact=True)
    assert here.text == pool.text


def test_users_held_out_and_regions(tmp_path: Path) -> None:
    """Arms, attributes with few values and pre-trends that differ: every check has a text of its own."""
    history = _later(simulate(3, "dip", users=400, held_out=0.3, regions=4).history, 1_600 * 7 * DAY)
    write_buckets(history, tmp_path / "log", 8)
    settings = {"reward.goals": [{"event": "order"}], "reward.pre": "1d", "reward.post": "1d"}
    config = configuration(tmp_path / "log", **settings, **{"reward.min_controls": 5})
    request = replace(REQUEST, by=("all", "attribute:region"))
    whole = in_memory(config, request, tmp_path)
    for check in ("placebo on holdout: ", "placebo on controls: ", "pre-trends: failed"):
        assert check in whole.text
    assert_same(over_buckets(config, request, tmp_path), whole)


def _later(history: History, shift: int) -> History:
    """Move a history in time, to years that a bucketed folder may have."""
    return replace(
        history,
        decisions=replace(history.decisions, time=history.decisions.time + shift),
        events=replace(history.events, time=history.events.time + shift),
        observed_from=history.observed_from + shift,
        observed_until=history.observed_until + shift,
        span=(history.span[0] + shift, history.span[1] + shift),
    )


def test_nothing_but_a_sample_learns_and_the_report_says_so(log: History, tmp_path: Path) -> None:
    """Without anything to fit, a small sample changes nothing but the strata of past activity; those are its own."""
    write_buckets(log, tmp_path / "log", 8)
    plain = configuration(tmp_path / "log", **SETTINGS[0])
    few = override(plain, {"evaluation.max_users": 60})
    request = replace(REQUEST, by=("all", "goal"), times=EventTimes("1d", leads=2, lags=1))
    whole, sampled = (over_buckets(config, request, tmp_path) for config in (plain, few))
    own = re.compile("^- controls by past activity: .*$", re.MULTILINE)
    assert own.search(sampled.text)
    assert_same(*(replace(one, text=own.sub("", one.text)) for one in (sampled, whole)))
    text = effects_over_buckets(override(few, SETTINGS[4]), request, Passes(shows=False), tmp_path)
    learned = "strata, quantiles of past activity, checks of"
    assert f"by a sample of 60 users, chosen by a hash (evaluation.max_users): {learned}" in text


def test_what_needs_all_users_at_once_is_named(
    log: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_buckets(log, tmp_path / "log", 4)
    line = ["--config", str(MARKET), "--history.source", "folder", "--history.path", str(tmp_path / "log")]
    line += ["--scratch", str(tmp_path), "--by", "all", "--bin", "1d", "--leads", "2", "--lags", "1"]
    assert main([*line, "--effects-of", "channel", "--staggered", "channel=email"]) == 0
    text = capsys.readouterr().out
    left_out = text.partition("Left out, since the log is in buckets")[2].splitlines()[1:-2]
    assert [one.partition(":")[0] for one in left_out] == [
        "- the funnel's components and their tests",
        "- effects of each channel by did and did_dr",
        "- first messages of channel=email",
    ]
    assert "staggered adoption" not in text


@pytest.mark.parametrize("flags", [["--whole"], ["--reward.kind", "change"]])
def test_other_kinds_and_whole_read_the_whole_log(
    log: History, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_buckets(log, tmp_path / "log", 4)
    line = ["--config", str(MARKET), "--history.source", "folder", "--history.path", str(tmp_path / "log")]
    monkeypatch.setattr(effects, "effects_over_buckets", None)
    caplog.set_level("WARNING", logger="crosschannel")
    assert effects.main([*line, *flags, "--by", "all", "--bin", "1d", "--leads", "1", "--lags", "1"]) == 0
    assert ("reward.kind is 'change': only 'did' follows from sums" in caplog.text) == ("--whole" not in flags)


@pytest.mark.parametrize("grouping", ["channel", "module:no", "attribute:no"])
def test_a_grouping_that_is_not_known_is_refused(log: History, grouping: str, tmp_path: Path) -> None:
    write_buckets(log, tmp_path / "log", 2)
    with pytest.raises(ConfigError, match=r"there is no|no attribute 'no'"):
        effects_over_buckets(
            configuration(tmp_path / "log"), replace(REQUEST, by=(grouping,)), Passes(shows=False), tmp_path
        )
    assert not list(tmp_path.glob(".scratch-*"))

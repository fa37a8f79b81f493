"""Cost of a day in plain passes: deciding for 20,000 users, learning from a day, and how both grow with the log.

A plain pass is the ensemble's `act` on ready contexts, with K = 10 members that vote. Times are those of the processor
in one thread, the shortest of some calls, with the plain pass measured between them. Each part is printed.

    pytest benchmarks/test_days.py -s -m "benchmark and not slow"    20,000 users, after the market was simulated
    pytest benchmarks/test_days.py -s -m slow                        days 9 to 60 of 2,000 users, to 200 of 500
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from crosschannel.agents import Batch, Observations, load_policy, make_agent
from crosschannel.agents.votes import PriceableAgent
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.hashing import mix
from crosschannel.core.times import DAY
from crosschannel.histories.history import History
from crosschannel.histories.readers.daily import DailyLog
from crosschannel.histories.readers.folder import read_history
from crosschannel.pipeline.configuration import CONFIG_FOLDER, load_config
from crosschannel.pipeline.loop.deciding import DecidedDay, decide_day
from crosschannel.pipeline.loop.decisions.day_users import DayRequest
from crosschannel.pipeline.loop.kept.log import KeptLog
from crosschannel.pipeline.loop.learning import fit
from crosschannel.pipeline.loop.parts.log import LogParts
from crosschannel.pipeline.loop.recent import RecentLog
from crosschannel.pipeline.loop.updating import Updated, update, update_by_day
from crosschannel.pipeline.loop.writing import write_day
from crosschannel.pipeline.run_folder import Run
from crosschannel.pipeline.simulation.simulating import Loop, simulate

pytestmark = pytest.mark.benchmark

USERS, DAYS = 20_000, 28
FEW_USERS = 2_000
#: What `History` computes once, and a day's process computes again.
COMPUTED_ONCE = ("event_offsets", "decision_offsets", "churned_at", "user_keys")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let products run in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seconds(function: Callable[[], object], calls: int = 1) -> float:
    """Return the processor's time of the shortest of some calls, in seconds."""
    times = []
    for _ in range(calls):
        begin = process_time()
        function()
        times.append(process_time() - begin)
    return min(times)


def deployment(folder: Path, users: int, days: int) -> Loop:
    """Simulate a deployment whose policy draws at random: its log is as large as any, and its days cost little."""
    settings = {"history.market.users": users, "history.market.days": days, "loop.active_days": 1}
    for _ in simulate(load_config(CONFIG_FOLDER / "closed_loop.yaml", settings), folder):
        pass
    return Loop(folder)


def plain_pass(modules: ActionSpace, context: np.ndarray) -> Callable[[], object]:
    """Return the plain pass over contexts (N, D)."""
    rng = np.random.default_rng(0)
    agent = make_agent("ensemble_thompson", modules, context.shape[1], {"members": 10, "mixtures": 0})
    n = 5_000
    seen = Observations(
        rng.standard_normal((n, context.shape[1])).astype(np.float32), np.ones((n, modules.total), dtype=bool)
    )
    actions = modules.canonical(np.stack([rng.integers(0, size, n) for size in modules.sizes], 1))
    agent.observe(Batch(seen, actions, rng.standard_normal(n), np.ones(n), mix(np.arange(n, dtype=np.uint64))))
    agent.update(1)
    ready = Observations(context, np.ones((len(context), modules.total), dtype=bool))
    return lambda: agent.act(ready)


def as_read(history: History) -> History:
    """Return a history without what it has computed."""
    return replace(history)


def test_a_day_against_plain_passes(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """20,000 users and 28 days: `decide` with contexts from the log, an `update` that adds a day, and one that fits."""
    loop = deployment(tmp_path / "loop", USERS, DAYS)

    def read() -> History:
        return read_history(loop.log, loop.decided)

    history, first_read, later_read = read(), seconds(read), seconds(read, 2)
    run = Run.open_in_use(loop.path)
    # The schedule fits after day 27, and adds day 28.
    update(run, history)
    fitted = loop.path / "learning" / "fitted.pt"
    run = Run.open_in_use(loop.path)
    trained_with, modules, at = run.trained_with("policy"), history.modules, history.span[1]
    everybody = np.arange(history.n_users)
    now = np.full(len(everybody), at)
    context = trained_with.features.at(history, everybody, now)
    plain = plain_pass(modules, context)
    one = seconds(plain, 3)
    eligible = np.ones((history.n_users, modules.total), dtype=bool)

    def decide() -> DecidedDay:
        return decide_day(run, as_read(history), DayRequest(at, run.config.guardrails), eligible)

    day = benchmark.pedantic(decide, rounds=1)
    ratios, parts = list[float](), {"decide": np.inf}
    for _ in range(7):
        # Each call between two plain passes, so that what else the machine does weighs on both.
        before, took, after = seconds(plain), seconds(decide), seconds(plain)
        ratios.append(2 * took / (before + after))
        one, parts["decide"] = min(one, before, after), min(parts["decide"], took)
    agent, _ = load_policy(run.policy)
    assert isinstance(agent, PriceableAgent)
    agents_own = day.arms["arm"].to_numpy() == "agent"
    ready = Observations(context, np.ones((len(context), modules.total), dtype=bool), history.user_keys)[agents_own]
    parts["  of it contexts"] = seconds(lambda: trained_with.features.at(as_read(history), everybody, now), 3)
    parts["  of it votes"] = seconds(lambda: agent.votes(ready), 3)
    parts["  of it the policy's file"] = seconds(lambda: load_policy(run.policy), 3)
    parts["writing the day"] = seconds(lambda: write_day(tmp_path / "days", day, force=True), 2)
    parts["reading, first"], parts["reading, later"] = first_read, later_read
    one = min(one, seconds(plain, 3))

    last = loop.path / "learning" / "last.pt"

    def add() -> None:
        last.unlink(missing_ok=True)
        found = update(run, as_read(history))
        assert (found.fitted, found.added) == ((), (DAYS,))

    parts["update that adds a day"] = seconds(add, 2)
    update_by_day(run, loop.log, loop.decided)  # keeps rows

    def add_by_day() -> None:
        last.unlink()
        assert update_by_day(run, loop.log, loop.decided).added == (DAYS,)

    one = min(one, seconds(plain, 3))
    parts["update of a log by day"] = seconds(add_by_day, 3)
    one = min(one, seconds(plain, 3))
    parts["  of it reading"] = seconds(lambda: KeptLog.open(run.path, loop.log, loop.decided, run.config).read(), 3)
    kept = shutil.copy(fitted, tmp_path / "fitted.pt")

    def refresh() -> None:
        for file in (fitted, last):
            file.unlink(missing_ok=True)
        found = update(run, as_read(history))
        assert found.fitted == (27,)

    parts["update that fits and adds"] = seconds(refresh)
    assert Path(kept).read_bytes() == fitted.read_bytes()
    parts["a fit from the same rows"] = seconds(
        lambda: fit(run.config, LogParts.from_history(as_read(history)), at - DAY)
    )
    one = min(one, seconds(plain, 3))
    for name, time in parts.items():
        print(f"{name:<28}{time:8.2f} s{time / one:8.1f} plain passes of {one:.3f} s")
        benchmark.extra_info[name] = time / one
    print(f"decide, between plain passes: {', '.join(f'{ratio:.1f}' for ratio in sorted(ratios))}")
    assert np.median(ratios) <= 10


def shortened(loop: Loop, days: int, folder: Path) -> Loop:
    """Return a copy of a deployment as it was after some days."""
    copy = Loop(Path(shutil.copytree(loop.path, folder, ignore=shutil.ignore_patterns("days", "learning"))))
    for time in decided_times(copy)[days:]:
        shutil.rmtree(copy.decided / time)
        shutil.rmtree(copy.log / time)
    return copy


def decided_times(loop: Loop) -> list[str]:
    """Return the names of the decided days."""
    return sorted(day.name for day in loop.decided.iterdir() if day.is_dir())


def day_costs(loop: Loop, days: int, folder: Path) -> dict[str, float]:
    """Return seconds of the parts of one day, after some days of a deployment."""
    copy = shortened(loop, days, folder)
    run, last = Run.open_in_use(copy.path), decided_times(copy)[-1]
    hidden = [(place / last, place.parent / f"{place.name} {last}") for place in (copy.log, copy.decided)]
    for place, away in hidden:
        place.rename(away)
    update_by_day(run, copy.log, copy.decided)
    for place, away in hidden:
        away.rename(place)
    found, costs = list[Updated](), dict[str, float]()
    costs["update, reading included"] = seconds(lambda: found.append(update_by_day(run, copy.log, copy.decided)))
    assert found[0].added == (days,)
    run = Run.open_in_use(copy.path)
    read = KeptLog.open(run.path, copy.log, copy.decided, run.config).read
    history = read_history(copy.log, copy.decided)
    at, eligible = history.span[1], np.ones((history.n_users, history.modules.total), dtype=bool)
    layout = run.trained_with("policy").features.layout
    recent = RecentLog(copy.path / "days", DailyLog.open(copy.log), copy.decided, layout, run.config.guardrails)
    recent.read(at)

    def decide() -> None:
        decide_day(run, recent.read(at), DayRequest(at, run.config.guardrails), eligible)

    costs["of it reading"] = seconds(read, 3)
    costs["decide, reading included"] = seconds(decide, 3)
    costs["of it reading "] = seconds(lambda: recent.read(at), 3)
    costs["reading the whole log"] = seconds(lambda: read_history(copy.log, copy.decided), 3)
    return costs


def costs_by_day(folder: Path, users: int, days: tuple[int, ...]) -> pd.DataFrame:
    """Return the costs of some days, in seconds, and the milliseconds that a further day adds between two of them."""
    loop = deployment(folder / "loop", users, days[-1])
    table = pd.DataFrame({day: day_costs(loop, day, folder / str(day)) for day in days})
    for early, late in pairwise(days):
        table[f"ms a day, {early} to {late}"] = (table[late] - table[early]) / (late - early) * 1000
    print(f"\n{table.round(3).to_string()}")
    return table


@pytest.mark.slow
def test_a_day_early_and_late(tmp_path: Path) -> None:
    """2,000 users; seconds of days 9, 28 and 60 (7 is one of a fit), and how many milliseconds a further day adds."""
    table = costs_by_day(tmp_path, FEW_USERS, (9, 28, 60))
    assert table[60]["decide, reading included"] <= 1.5 * table[28]["decide, reading included"]


@pytest.mark.slow
def test_a_day_after_half_a_year(tmp_path: Path) -> None:
    """500 users; a day costs no more after 200 days than after 90: memory, revision and windows are full by then."""
    table = costs_by_day(tmp_path, 500, (9, 60, 90, 200))
    for name in ("update, reading included", "decide, reading included"):
        assert table[200][name] <= 1.25 * table[90][name]

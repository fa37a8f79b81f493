"""Training on a log in buckets: what it costs by size, and whether its policy is as good as that of one in memory.

    python -m benchmarks.bucketed_training cost --users 10000 50000 100000 --folder logs
    python -m benchmarks.bucketed_training value --seeds 100 101 --users 20000 --folder logs

Both use the default market and its configuration. `cost` trains and judges in a process of its own, and prints a row of
wall time, CPU time and peak of resident memory for each size; with --output it adds them to OUTPUT.csv. `value` prints
the true value per decision of both policies at the test users' slots, and their difference with its error over users.
Logs are written once, below --folder.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.tables import add_rows
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.pipeline.configuration import Config, load_config

GIB = 1 << 30


def configuration(users: int, seed: int, folder: Path | None = None) -> Config:
    """Return the default configuration of a market in memory, or of its log in buckets."""
    settings: dict[str, Any] = {"seed": seed, "history.market.users": users, "history.market.seed": seed}
    if folder is not None:
        settings |= {"history.source": "folder", "history.path": str(folder)}
    return load_config("market", settings)


def write_log(users: int, seed: int, buckets: int, folder: Path) -> Path:
    """Write the log of a market bucket by bucket, unless it stands there already; return its folder."""
    path = folder / f"market-{users}-{seed}-{buckets}"
    from crosschannel.histories.buckets import DEFAULT_LEAVES
    from crosschannel.histories.buckets.opening import is_bucketed
    from crosschannel.pipeline.simulation.market_log import write_market_log

    if not is_bucketed(path):
        write_market_log(configuration(users, seed).market(), path, buckets, DEFAULT_LEAVES)
    return path


@dataclass(frozen=True)
class TimedEngine:
    """An engine of this process that counts the CPU seconds of each function's calls."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __call__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """Yield the results in the items' order."""
        name = _name(function)
        for item in items:
            before = time.process_time()
            found = function(item)
            self.seconds[name] += time.process_time() - before
            yield found


def _name(function: Any) -> str:
    """Return the name of the innermost function or class."""
    inner = function.keywords.get("function", function.func) if hasattr(function, "keywords") else function
    return _name(inner) if hasattr(inner, "keywords") else getattr(inner, "__name__", type(inner).__name__)


def train_once(log: Path, seed: int, out: Path, *, judges: bool) -> None:
    """Train on a log in buckets, and print the seconds of each pass."""
    from crosschannel.pipeline.buckets import training
    from crosschannel.pipeline.buckets.passes import Passes

    if not judges:
        training._judge = lambda *_: None
    engine = TimedEngine()
    training.train_on_buckets(configuration(2, seed, log), out, force=True, passes=Passes(engine, shows=False))
    # That of this program alone: a child's `ru_maxrss` begins with the memory of the process that started it.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None  # on Linux
    print(peak[1])
    print(json.dumps({name: round(value, 1) for name, value in engine.seconds.items()}))


def measure(log: Path, seed: int, out: Path, *, judges: bool) -> dict[str, Any]:
    """Train in a process of its own; return its wall time, CPU time and peak of resident memory."""
    command = [sys.executable, "-m", "benchmarks.bucketed_training", "once", str(log), str(seed), str(out)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, *(["--judge"] if judges else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    assert process.stdout is not None  # it is a pipe
    text = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"training on {log} failed")
    peak, passes = text.strip().splitlines()[-2:]
    return {
        "wall": time.perf_counter() - begin,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_gib": int(peak) * 1024 / GIB,
        "passes": passes,
    }


def cost(users: Sequence[int], seed: int, buckets: int, folder: Path, *, judges: bool) -> pd.DataFrame:
    """Measure several sizes."""
    rows = []
    for size in users:
        log = write_log(size, seed, buckets, folder)
        out = folder / "run"
        found = measure(log, seed, out, judges=judges)
        shutil.rmtree(out, ignore_errors=True)
        rows.append({"users": size, "buckets": buckets, "judged": judges, **found})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def value(users: int, seed: int, buckets: int, folder: Path) -> dict[str, float]:
    """Return the true value of the policy from buckets and of that from all users in memory."""
    from crosschannel import agents, envs, pipeline
    from crosschannel.pipeline.building import TrainingData, agent_spec, prepare
    from crosschannel.pipeline.judgement.judging import policy_at
    from crosschannel.pipeline.run_files import TrainedWith

    log, out = write_log(users, seed, buckets, folder), folder / "run"
    measure(log, seed, out, judges=False)
    learned, extra = agents.load_policy(out / "policy.pt", "cpu")
    trained_with = TrainedWith.from_dict(extra["run"], out)
    config = configuration(users, seed)
    data = prepare(config)
    split = data.train
    rows = envs.replay.ReplayLog.build(
        split.history, split.rewards, split.features, observations=split.observations, min_steps=1
    )
    agent = agents.make_agent(modules=rows.modules, device="cpu", **agent_spec(config, data.features))
    agent.observe(pipeline.batch_at(rows, envs.replay.TransitionIndex.from_log(rows), np.arange(len(rows))))
    agent.update(1)

    def true_values(data: TrainingData, agent: agents.Agent) -> tuple[FloatArray, IntArray]:
        assert data.truth is not None  # the market is simulated
        identified = data.test.rewards.identified
        at = np.flatnonzero(data.rows("test"))[identified]
        shares = [p[identified] for p in policy_at(config, data, agent, data.test).probabilities]
        given = [data.history.modules.condition(m) for m in range(len(data.history.modules))]
        return data.truth.expected_effect(at, shares, given), data.history.decisions.user[at]

    in_memory, user = true_values(data, agent)
    from_buckets, _ = true_values(replace(data, features=trained_with.features, pace=trained_with.pace), learned)

    def error(terms: FloatArray) -> float:
        sums = np.bincount(user, terms - terms.mean())
        return float(np.sqrt(sums @ sums) / len(terms))

    difference = from_buckets - in_memory
    return {
        "seed": seed,
        "users": users,
        "in_memory": float(in_memory.mean()),
        "in_memory_se": error(in_memory),
        "from_buckets": float(from_buckets.mean()),
        "difference": float(difference.mean()),
        "difference_se": error(difference),
    }


def page(rows: pd.DataFrame) -> str:
    """Return the rows as a table in Markdown."""
    lines = [[*map(str, rows.columns)], ["---"] * rows.shape[1]]
    lines += [[f"{value:.4g}" if isinstance(value, float) else str(value) for value in row] for row in rows.values]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Parse the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "value", "once"))
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--users", nargs="+", type=int, default=[10_000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[100])
    parser.add_argument("--buckets", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("logs"))
    parser.add_argument("--judge", action="store_true", help="judge the policy as well")
    parser.add_argument("--output", type=Path, help="table without its ending")
    given = parser.parse_args()
    if given.what == "once":
        log, seed, out = given.arguments
        train_once(Path(log), int(seed), Path(out), judges=given.judge)
        return
    if given.what == "value":
        for seed in given.seeds:
            print(value(given.users[0], seed, given.buckets, given.folder), flush=True)
        return
    table = cost(given.users, given.seeds[0], given.buckets, given.folder, judges=given.judge)
    if given.output:
        add_rows(table, given.output, ("users", "buckets", "judged"), page)


if __name__ == "__main__":
    main()

"""The commands of a user with a large log, in buckets: wall time, CPU time and memory of each, by number of users.

    python -m benchmarks.bucketed_chain --users 10000 100000 1000000 --folder logs --output docs/market/scale

The log of the default market is simulated once, bucket by bucket. Then each step is a command of its own: `bucket`
divides the same rows again from a native folder, `train` learns with the default configuration, `evaluate` judges,
`update` learns from all users, `decide` decides for the end of the log. Memory is the largest sum over the process tree
of the proportional share of anonymous and shared pages (`Pss_Anon` and `Pss_Shmem` of Linux, no file pages), looked at
every --interval seconds.
Wall times are those of --workers processes, and of an idle machine only if it is one; the line through the sums is
that of CPU time. Writes OUTPUT.csv, a row for each size and step, and OUTPUT.md.
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
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.bucketed_training import write_log
from benchmarks.tables import add_rows
from crosschannel.core.files import write_yaml
from crosschannel.histories.buckets.opening import open_buckets
from crosschannel.histories.readers.folder import DESCRIPTION_FILE, FORMAT, FORMAT_VERSION

PRIVATE = re.compile(r"Pss_(?:Anon|Shmem):\s+(\d+) kB")
STEPS = ("bucket", "train", "evaluate", "update", "decide")


def tree(root: int) -> Iterator[int]:
    """Yield a process and all below it."""
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield process
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue


def private_memory(root: int) -> int:
    """Return the bytes that a process tree holds, file pages not counted."""
    total = 0
    for process in tree(root):
        try:
            total += sum(map(int, PRIVATE.findall(Path(f"/proc/{process}/smaps_rollup").read_text())))
        except OSError:
            continue
    return total * 1024


def measure(arguments: Sequence[str], interval: float) -> dict[str, float]:
    """Run a command of the package; return its wall and CPU seconds and its peak of memory in GiB.

    Raises:
        SystemExit: If it fails.
    """
    begin, peak = time.perf_counter(), 0
    before = os.times()
    process = subprocess.Popen(
        [sys.executable, "-m", "crosschannel", *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None:
        peak = max(peak, private_memory(process.pid))
        time.sleep(interval)
    if process.returncode:
        raise SystemExit(f"crosschannel {' '.join(arguments)} ended with exit code {process.returncode}")
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": time.perf_counter() - begin, "cpu": used, "peak_gib": peak / 2**30}


def native_folder(log: Path, folder: Path) -> None:
    """Write a bucketed log as a native folder: each table in one file, a bucket's rows at a time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    manifest = open_buckets(log).manifest
    rows = {}
    for table in ("users", "decisions", "events"):
        parts = [file for file in sorted(log.rglob("*.parquet")) if table in str(file.relative_to(log))]
        with pq.ParquetWriter(folder / f"{table}.parquet", pq.read_schema(parts[0])) as writer:
            for part in parts:
                writer.write_table(pq.read_table(part))
        rows[table] = sum(pq.read_metadata(part).num_rows for part in parts)
    stored = json.loads((log / "buckets.json").read_text())
    content = {name: stored[name] for name in ("name", "span", "event_names", "churn_events", "ties", "modules")}
    content |= {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "rows": rows,
        "attributes": list(manifest.attributes or ()),
    }
    write_yaml(content | {"propensity_source": manifest.propensity_source or "logged"}, folder / DESCRIPTION_FILE)


def commands(log: Path, folder: Path, buckets: int, workers: int) -> dict[str, list[str]]:
    """Return the arguments of each step."""
    engine = ["--engine", "processes", "--workers", str(workers)]
    run = folder / f"run-{log.name}"
    return {
        "bucket": ["bucket", str(folder / "native"), str(folder / "divided"), "--buckets", str(buckets)],
        "train": [
            *("train", "--config", "market", "--out", str(run), "--force"),
            *("--history.source", "folder", "--history.path", str(log), *engine),
        ],
        "evaluate": ["evaluate", str(run), *engine],
        "update": ["update", str(run), *engine],
        "decide": ["decide", str(run), "--out", str(folder / "decisions.parquet"), "--force", *engine],
    }


def chain(users: int, buckets: int, folder: Path, steps: Sequence[str], workers: int, interval: float) -> pd.DataFrame:
    """Measure the steps on the log of a number of users."""
    log = write_log(users, 0, buckets, folder)
    rows = []
    for name, arguments in commands(log, folder, buckets, workers).items():
        if name not in steps:
            continue
        if name == "bucket":
            native_folder(log, folder / "native")
            shutil.rmtree(folder / "divided", ignore_errors=True)
        rows.append({"users": users, "step": name, "buckets": buckets, **measure(arguments, interval)})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def page(rows: pd.DataFrame) -> str:
    """Return the rows in Markdown, with the sum of each size and a line through the sums."""
    lines = ["| users | step | wall | CPU | peak | wall per 1,000 users |", "|---|---|---|---|---|---|"]
    for users, part in rows.groupby("users"):
        total: dict[Hashable, Any] = {
            "step": "all",
            "wall": part["wall"].sum(),
            "cpu": part["cpu"].sum(),
            "peak_gib": part["peak_gib"].max(),
        }
        for row in [*part.to_dict("records"), total]:
            each = row["wall"] / int(str(users)) * 1000
            lines.append(
                f"| {users:,} | {row['step']} | {row['wall']:.0f} s | {row['cpu']:.0f} s | {row['peak_gib']:.2f} GiB "
                f"| {each:.2f} s |"
            )
    sums = rows.groupby("users")["cpu"].sum()
    if len(sums) > 2:
        slope, begin = np.polyfit(sums.index, sums, 1)
        residuals = ", ".join(f"{left:+.0f} s" for left in sums - (begin + slope * sums.index))
        lines.append(f"\nCPU: {begin:.0f} s, and {1000 * slope:.2f} s for 1,000 users; residuals {residuals}.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", nargs="+", type=int, default=[10_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--buckets", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds from one look at memory to the next")
    parser.add_argument("--folder", type=Path, default=Path("logs"), help="where logs and runs are written")
    parser.add_argument("--output", type=Path, help="table without its ending")
    given = parser.parse_args()
    for users in given.users:
        table = chain(users, given.buckets, given.folder, given.steps, given.workers, given.interval)
        if given.output:
            add_rows(table, given.output, ("users", "step"), page)


if __name__ == "__main__":
    main()

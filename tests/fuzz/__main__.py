"""Read many damaged inputs and print what happened: `python -m tests.fuzz --inputs 100000`."""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections import Counter
from pathlib import Path

from tests.fuzz.harness import fuzz


def main() -> int:
    """Fuzz, print counts and failures, and write a sample of what was accepted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="number of damaged inputs (default: 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default: 0)")
    parser.add_argument(
        "--sample", type=Path, help="CSV file for 200 of the inputs that were accepted, to look through"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = fuzz(Path(folder), chosen.inputs, chosen.seed)
    accepted = Counter(target for target, _, _ in out.accepted)
    print(f"{'target':<16}{'refused':>10}{'equal':>10}{'accepted':>10}")
    for name in sorted({*out.refused, *out.equal, *accepted}):
        print(f"{name:<16}{out.refused[name]:>10,}{out.equal[name]:>10,}{accepted[name]:>10,}")
    print(f"{out.total:,} inputs, {len(out.failures):,} failures")
    for what, count in Counter(f"{t}/{n}: {w}" for t, n, _, w in out.failures).most_common(40):
        print(f"{count:>6}  {what}")
    for failure in out.failures[:20]:
        print(*failure)
    if chosen.sample:
        rows = random.Random(0).sample(out.accepted, min(200, len(out.accepted)))
        with chosen.sample.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("target", "file", "seed"), *rows])
    return bool(out.failures)


if __name__ == "__main__":
    raise SystemExit(main())

"""Read many damaged inputs and print what happened: `python -m tests.fuzz --inputs 100000`."""

from __future__ import annotations

import argparse
import csv
import faulthandler
import random
import resource
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from tests.fuzz.harness import fuzz
from tests.fuzz.targets import TARGETS

MAX_MEMORY = 16 << 30


def main() -> int:
    """Fuzz, print counts and failures, and write a sample of what was accepted; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="number of damaged inputs (default: 100,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default: 0)")
    parser.add_argument("--sample", type=Path, help="CSV file for 200 of the inputs that were accepted")
    parser.add_argument("--targets", nargs="+", default=[], help="names of targets (default: all)")
    chosen = parser.parse_args()
    faulthandler.enable()  # a library that crashes says where
    # What would take all memory is a failure of this process, and not of the machine.
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    targets = [target for target in TARGETS if not chosen.targets or target.name in chosen.targets]
    with tempfile.TemporaryDirectory() as folder:
        out = fuzz(Path(folder), chosen.inputs, targets, chosen.seed)
    accepted = Counter(one.target for one in out.accepted)
    print(f"{'target':<18}{'refused':>10}{'no effect':>10}{'accepted':>10}")
    for name in (target.name for target in targets):
        print(f"{name:<18}{out.refused[name]:>10,}{out.equal[name]:>10,}{accepted[name]:>10,}")
    print(f"{out.total:,} inputs, {len(out.failures):,} failures")
    # Failures of one kind at one place in the code are alike: print one of them.
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for one, what in out.failures:
        alike[what.partition(": ")[0]].append(f"{one.target}, {one.file}, seed {one.seed}: {what}")
    for found in sorted(alike.values(), key=len, reverse=True):
        print(f"{len(found):>6}  {found[0]}")
    if chosen.sample:
        rows = random.Random(0).sample(out.accepted, min(200, len(out.accepted)))
        with chosen.sample.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([("target", "file", "seed"), *((one.target, one.file, one.seed) for one in rows)])
    return bool(out.failures)


if __name__ == "__main__":
    raise SystemExit(main())

"""How much of a reward is signal: its correlation with the true effect, for each way to measure it.

    python -m benchmarks.reward_signal --seeds 0 1 2 3 4 --output docs/reward_signal

On the simulated market's default log the true effect of every message is known. Each row of the table is one choice of
what stands for it; the share of its variance that the truth explains is the square of the correlation. Writes
OUTPUT.csv (a row per choice and seed), and prints the means over seeds as the table in docs/reward.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.pipeline.building import TrainingData, prepare
from crosschannel.pipeline.configuration import load_config

#: Share of the largest and smallest rewards that clipping moves.
CLIPPED = 0.005
#: Ridge of the regression of what happens without a message, in rows.
RIDGE = 1.0

#: Settings of each reward that is measured again, by what they are called in the table.
REWARDS: dict[str, dict[str, Any]] = {
    "raw: goals after the message": {"reward.kind": "raw"},
    "change: after less before": {"reward.kind": "change"},
    "did: the default reward": {},
    "did, pre window of one day": {"reward.pre": "1d"},
    "did by regression on the context": {
        "reward.kind": "did_regression",
        "reward.covariates.windows": ["2d", "28d"],
        "reward.covariates.events": ["visit:*", "order:*"],
    },
    "did, matched by activity": {"reward.matching.strata": 4, "reward.matching.activity": "14d"},
}


def market(seed: int, settings: dict[str, Any]) -> TrainingData:
    """Return the default market's data with some settings of the reward."""
    return prepare(load_config("market", {"seed": seed, "history.market.seed": seed, **settings}))


def truth_of(data: TrainingData) -> FloatArray:
    """Return the true effects of the training users' decisions."""
    assert data.truth is not None
    rows = np.flatnonzero(data.rows("train"))
    return data.truth.effect(rows, data.truth.actions[rows])


def row(name: str, signal: FloatArray, truth: FloatArray, chosen: BoolArray) -> dict[str, Any]:
    """Return one row of the table, from the chosen decisions."""
    r = float(np.corrcoef(signal[chosen], truth[chosen])[0, 1])
    return {"reward": name, "messages": int(chosen.sum()), "sd": float(signal[chosen].std()), "r": r, "share": r**2}


def less_usual(signal: FloatArray, context: FloatArray, controls: BoolArray) -> FloatArray:
    """Subtract what a regression on the context predicts without a message."""
    x = np.column_stack([np.ones(len(context)), context, np.abs(context)])
    inside = x[controls]
    gram = inside.T @ inside + RIDGE * np.eye(x.shape[1])
    return np.asarray(signal - x @ np.linalg.solve(gram, inside.T @ signal[controls]))


def rows_of(seed: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of one seed."""
    for name, settings in REWARDS.items():
        data = market(seed, settings)
        frame, decisions = data.train.rewards, data.train.history.decisions
        sent = data.train.history.modules.sends(decisions.actions)
        yield row(name, frame.reward, truth_of(data), sent & frame.identified)
    data = market(seed, {})
    frame, decisions = data.train.rewards, data.train.history.decisions
    truth, sent = truth_of(data), data.train.history.modules.sends(decisions.actions)
    reward = np.where(frame.identified, frame.reward, np.nan)
    low, high = np.nanquantile(reward[sent], [CLIPPED, 1.0 - CLIPPED])
    yield row("did, clipped at .5 % and 99.5 %", np.clip(reward, low, high), truth, sent & frame.identified)
    parts = frame.components
    assert parts is not None
    known = np.isfinite(parts.value)
    value = np.where(known, parts.value, 0.0)
    yield row("priced by surrogates, without cost events", value, truth, sent & known)
    adjusted = less_usual(value, data.train.observations.context.astype(float), known & ~sent)
    yield row("the same, less a regression of the controls", adjusted, truth, sent & known)
    engaged = parts.engaged == 1.0
    yield row("the same, of those who engaged", adjusted, truth, sent & known & engaged)
    through = np.where(engaged, adjusted, 0.0)
    yield row("the same, 0 where nobody engaged", through, truth, sent & known & np.isfinite(parts.engaged))


def page(table: pd.DataFrame) -> str:
    """Return the table of means over seeds as Markdown."""
    lines = [
        "| what is measured | seeds | messages | standard deviation | correlation with the truth | signal share |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in table.groupby("reward", sort=False):
        m = part.mean(numeric_only=True)
        lines.append(
            f"| {name} | {len(part)} | {m['messages']:,.0f} | {m['sd']:.3f} | {m['r']:.3f} | {m['share']:.2%} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the chosen seeds; the file is replaced after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, required=True, help="path of the file, without suffix")
    chosen = parser.parse_args()
    table = pd.DataFrame()
    for seed in chosen.seeds:
        table = pd.concat([table, pd.DataFrame(rows_of(seed)).assign(seed=seed)], ignore_index=True)
        table.to_csv(chosen.output.with_suffix(".csv"), index=False, float_format="%.5g")
        print(f"seed {seed} done", flush=True)
    print(page(table))


if __name__ == "__main__":
    main()

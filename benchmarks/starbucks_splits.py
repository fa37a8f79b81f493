"""The learned policy against the best constant offer on the public Starbucks files, over random splits of the users.

    python -m benchmarks.starbucks_splits --path FOLDER --seeds 0 1 2 3 4 5 6 7 8 9 --csv docs/starbucks_splits.csv

For each split, an agent learns from the training users, and the constant offer with the largest mean reward there is
chosen. Both are valued on the test users, doubly robust with an outcome model that is cross-fitted on them; the
difference is paired, and its standard error is clustered by user. Prints a row for each split, and the means.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.funnel_worlds import batch_of, trained
from crosschannel.core.arrays import FloatArray
from crosschannel.evaluation import LoggedDecisions, importance_weights
from crosschannel.pipeline.building import TrainingData, prepare
from crosschannel.pipeline.configuration import Config, load_config
from crosschannel.pipeline.judgement.constants import constant_actions, one_hot
from crosschannel.pipeline.judgement.judging import fit_outcomes, greedy_probabilities, policy_at

#: Messages that a constant offer must have among the training users.
MIN_MESSAGES = 100


def best_constant(data: TrainingData) -> tuple[int, ...]:
    """Return the whole action with the largest mean reward among the training users' decisions."""
    train = data.train
    rows = train.rewards.identified
    actions, reward = train.history.decisions.actions[rows], train.rewards.reward[rows]
    every, code = np.unique(actions, axis=0, return_inverse=True)
    count = np.bincount(code.ravel())
    mean = np.bincount(code.ravel(), weights=reward) / count
    return tuple(every[np.where(count >= MIN_MESSAGES, mean, -np.inf).argmax()].tolist())


def contributions(config: Config, data: TrainingData, policy: Sequence[FloatArray]) -> FloatArray:
    """Return the doubly robust contributions of the test users' decisions with a reward (k,)."""
    test = data.test
    rows = test.rewards.identified
    log = LoggedDecisions.from_history(test.history)[rows]
    model = fit_outcomes(config, test)
    assert model is not None
    shares = [p[rows] for p in policy]
    q = model.of_rows(rows).q_values(test.observations.context[rows], log.actions, shares)[0]
    assert q.policy is not None
    weights = importance_weights(log, shares, None)
    return np.asarray(q.policy + weights * (test.rewards.reward[rows] - q.logged))


def row_of(path: Path, seed: int) -> dict[str, Any]:
    """Return the row of one split."""
    config = load_config("starbucks_rewards", {"history.path": str(path), "seed": seed})
    data = prepare(config)
    agent = trained(config, data, batch_of(data))
    test = data.test
    constant = best_constant(data)
    mask = test.observations.action_mask
    policies = {
        "exploring": policy_at(config, data, agent, test).probabilities,
        "greedy": greedy_probabilities(config, data, agent),
        "constant": one_hot(data.history.modules, constant_actions(data.history.modules, mask, constant)),
    }
    found = {name: contributions(config, data, policy) for name, policy in policies.items()}
    users = test.history.decisions.user[test.rewards.identified]
    out: dict[str, Any] = {"seed": seed, "offer": " ".join(data.history.modules.names_of(np.array([constant]))[0])}
    for name, values in found.items():
        out[name] = float(values.mean())
    for name in ("exploring", "greedy"):
        difference = found[name] - found["constant"]
        by_user = np.bincount(users, weights=difference - difference.mean())
        out[f"{name}_lead"] = float(difference.mean())
        out[f"{name}_lead_se"] = float(np.sqrt(np.square(by_user).sum()) / len(difference))
    return out


def main() -> None:
    """Run the chosen splits; the file is replaced after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, required=True, help="folder of the Starbucks files")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--csv", type=Path, help="file to write the rows to")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in chosen.seeds:
        rows.append(row_of(chosen.path, seed))
        print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.3f"), flush=True)
        if chosen.csv is not None:
            pd.DataFrame(rows).to_csv(chosen.csv, index=False, float_format="%.5g")
    table = pd.DataFrame(rows)
    for name in ("exploring", "greedy"):
        lead = table[f"{name}_lead"]
        print(f"{name} less constant: {lead.mean():+.3f} over {len(lead)} splits (sd {lead.std():.3f})")


if __name__ == "__main__":
    main()

"""Whether the default run's headline contains the truth: one line for each seed of the market.

python -m benchmarks.headlines --seeds 0 1 2 3 4 5 6 7 8 9
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.funnel_worlds import batch_of, trained
from crosschannel.evaluation import headline
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import load_config
from crosschannel.pipeline.judgement.judging import explain_policy, judge


def line_of(seed: int) -> tuple[str, bool]:
    """Return the headline of one seed beside the truth, and whether its interval contains it."""
    config = load_config("market", {"seed": seed, "history.market.seed": seed, "evaluation.market_users": 100})
    data = prepare(config)
    agent = trained(config, data, batch_of(data))
    result = judge(config, data, agent, explain_policy(config, data, agent))
    best, truth = headline(result.evaluation), result.truth[0].per_decision
    value = best.value
    inside = value.low <= truth <= value.high
    text = f"{value.point:.4f} [{value.low:.4f}, {value.high:.4f}], truth {truth:.4f}, ESS {best.support.ess:,.0f}"
    return f"seed {seed}: {best.estimator} {text}{'' if inside else '  outside'}", inside


def main() -> None:
    """Print a line for each seed, and how many headlines contain the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    torch.set_num_threads(1)
    found = []
    for seed in parser.parse_args().seeds:
        text, inside = line_of(seed)
        found.append(inside)
        print(text, flush=True)
    print(f"{sum(found)} of {len(found)} contain the truth")


if __name__ == "__main__":
    main()

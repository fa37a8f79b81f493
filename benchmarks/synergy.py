"""How often the interaction of two parts of a message is found where there is one: logs of the scenario `synergy`.

    python -m benchmarks.synergy --seeds 100:110 --users 20000 --pooled 10

The policy is `always_pair`, whose lift order 1 misses by 30 % (`envs/market/scenarios.py`). Each log is judged alone;
then so many logs are pooled to one of as many times the users: users are independent, so that the estimate of the
interaction is the mean and its variance that of a mean. A log is flagged where Holm's p-value of the pair is below .05.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from scipy.special import ndtr

from benchmarks.ladder_truth import history_with_probabilities
from crosschannel.core.multiple_tests import holm_adjusted
from crosschannel.envs.market import Market
from crosschannel.envs.market.scenarios import SYNERGY_PAIR
from crosschannel.envs.market.vocabulary import MODULES, OFFERS, TONES
from crosschannel.evaluation import SNIPS, EvaluationSettings, LoggedDecisions, evaluate
from crosschannel.pipeline.configuration import load_config
from crosschannel.reward import make_reward, refit

PAIR = ("offer", "tone")
LEVEL = 0.05


def interactions(seed: int, users: int, replicates: int) -> dict[str, tuple[float, float]]:
    """Return the interaction of each pair of modules and its standard error, on one log."""
    settings = {"history.market.scenario": "synergy", "history.market.seed": seed, "history.market.users": users}
    config = load_config("market", {**settings, "reward.funnel": None, "constraints.cost_events": []})
    history, _, policy = history_with_probabilities(Market(config.market()))
    for module, names, action in (("offer", OFFERS, SYNERGY_PAIR[0]), ("tone", TONES, SYNERGY_PAIR[1])):
        m = MODULES.names.index(module)
        policy[m] = np.broadcast_to(np.arange(len(names)) == list(names).index(action), policy[m].shape).astype(float)
    model = make_reward(config.reward.kind, config.reward)
    outcomes = model.measure(history)
    frame = model.fit_outcomes(outcomes).transform_outcomes(outcomes)
    found = evaluate(
        LoggedDecisions.from_history(history),
        policy,
        refit(model, outcomes),
        rng=np.random.default_rng(seed),
        settings=EvaluationSettings(bootstrap_replicates=replicates),
        estimators=[SNIPS()],
        p_uncensored=frame.p_uncensored,
    )
    assert found.ladder is not None
    return {" x ".join(pair.factors): (pair.value.point, pair.value.se) for pair in found.ladder.pairs}


def p_values(found: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return the two-sided p-value of each pair that was tested, adjusted by Holm's method."""
    known = {name: point / se for name, (point, se) in found.items() if np.isfinite(point)}
    adjusted = holm_adjusted(np.array([2 * ndtr(-abs(z)) for z in known.values()]))
    return dict(zip(known, adjusted.tolist(), strict=True))


def pooled(logs: list[dict[str, tuple[float, float]]]) -> dict[str, tuple[float, float]]:
    """Return the interactions of several logs of as many users as one."""
    return {
        name: (
            float(np.mean([log[name][0] for log in logs])),
            float(np.sqrt(np.sum([log[name][1] ** 2 for log in logs])) / len(logs)),
        )
        for name in logs[0]
    }


def line_of(title: str, found: dict[str, tuple[float, float]]) -> tuple[str, bool]:
    """Return what one log says of the pair, and whether it is flagged."""
    name = " x ".join(PAIR)
    point, se = found[name]
    p = p_values(found)
    others = [other for other, value in p.items() if other != name and value < LEVEL]
    flagged = p.get(name, 1.0) < LEVEL
    return f"{title}: {point:+.4f} (z {point / se:+.1f}){'' if flagged else '  not found'}, others {others}", flagged


def main() -> None:
    """Judge the logs, pool them, and count those in which the pair is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="100:110", help="first:last+1")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--pooled", type=int, default=10, help="logs that are pooled to one")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, chosen.seeds.split(":"))
    logs, flags = [], []
    for seed in range(first, last):
        logs.append(interactions(seed, chosen.users, chosen.replicates))
        text, flagged = line_of(f"seed {seed}", logs[-1])
        flags.append(flagged)
        print(text, flush=True)
    print(f"found in {sum(flags)} of {len(flags)} logs of {chosen.users:,} users")
    for start in range(0, len(logs) - chosen.pooled + 1, chosen.pooled):
        part = logs[start : start + chosen.pooled]
        print(line_of(f"{chosen.pooled * chosen.users:,} users", pooled(part))[0], flush=True)


if __name__ == "__main__":
    main()

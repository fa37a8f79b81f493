"""Whether a limit on unsubscribes is kept, by the size of the log: what a policy expects, and what is true.

    python -m benchmarks.limits_kept --users 2000 5000 20000 --seeds 100 101 102 --output docs/market/limits

From each simulated log under business as usual the first update of the daily job learns with the default settings, and
its policy is deployed to new users. Unsubscribes are not counted, which would take many users: the market's own
probability of each message that is sent is summed, and beside it what the policy expected of the same message. Writes
OUTPUT.csv (a row per log, added to those that it has) and OUTPUT.md (means over seeds).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.tables import add_rows
from crosschannel.agents.constraints.settings import Constraints
from crosschannel.agents.funnel.hazards import predict
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.times import WEEK
from crosschannel.envs.market import FreshUsers, MarketState
from crosschannel.envs.market.dynamics.responses import Chosen, unsubscribe_probability
from crosschannel.envs.market.observables import attribute_features, build_context
from crosschannel.envs.market.policies import make_policy
from crosschannel.pipeline.building import prepare
from crosschannel.pipeline.configuration import load_config
from crosschannel.pipeline.judgement.judging import market_policy
from crosschannel.pipeline.loop.learning import Learned, fit
from crosschannel.pipeline.loop.parts.log import LogParts

#: What tells rows apart.
KEYS = ("users", "seed", "margin")
COLUMNS = {
    "events": "unsubscribes in the log",
    "weight": "weight of how hazards differ by context",
    "right_weight": "slope of the true log hazards of business as usual on the estimated differences, their median",
    "value": "value per user of the policy",
    "expected": "unsubscribes per user that the policy expects of its messages",
    "true": "those that are to be expected of the same messages by the market's probabilities",
    "limit": "the log's rate over the time that these users were subscribed",
    "usual": "true unsubscribes per user of business as usual",
    "true_to_limit": "true over limit; with its least and largest over seeds",
}


@dataclass(frozen=True)
class Sent:
    """The messages of a deployment to n users.

    Attributes:
        value: Value per user.
        weeks: Weeks per user in which they were subscribed.
        unsubscribe: True probability that the user unsubscribes after each message (K,).
        channel: Channel of each message (K,).
        context: Context of each message (K, D).
        actions: Codes of each message (K, M).
    """

    value: float
    weeks: float
    unsubscribe: FloatArray
    channel: IntArray
    context: npt.NDArray[np.float32]
    actions: IntArray


def deployed(fresh: FreshUsers, learned: Learned, constraints: Constraints | None, seed: int) -> Sent:
    """Deploy what was learned under constraints, or business as usual without any, and keep all messages."""
    market, state = fresh.market, fresh.start.copy()
    policy = (
        make_policy("business_as_usual", market)
        if constraints is None
        else market_policy("updated", learned.features, learned.agent, constraints, learned.pace, seed)
    )
    value, days, parts = 0.0, 0, []
    for _ in range(market.config.days):
        actions = policy.choose(market, state).actions
        sent = np.flatnonzero(actions[:, 0] != 0)
        parts.append((_true(fresh, state, sent, actions[sent]), _contexts(learned, state)[sent], actions[sent]))
        days += int(state.subscribed.sum())
        value += float(market.step(state, actions).true_effect.sum())
    true, context, messages = (np.concatenate(part) for part in zip(*parts, strict=True))
    per_week = learned.pace.period / WEEK / len(state)
    return Sent(value / len(state), days * per_week, true, messages[:, 0], context, messages)


def _true(fresh: FreshUsers, state: MarketState, rows: IntArray, messages: IntArray) -> FloatArray:
    slots = state.slots(rows)
    reached = slots.users.reachable[np.arange(len(rows)), messages[:, 0]]
    return np.asarray(unsubscribe_probability(slots, Chosen(messages), fresh.market.dynamics) * reached)


def _contexts(learned: Learned, state: MarketState) -> npt.NDArray[np.float32]:
    return build_context(learned.features, state, attribute_features(learned.features, state.users))


def expected(learned: Learned, sent: Sent) -> float:
    """Return the number of unsubscribes that the policy expects of the messages, by its best estimate."""
    funnel = learned.agent.funnel  # type: ignore[attr-defined]
    x, cells = torch.from_numpy(sent.context), funnel.design.cells_of(sent.actions)
    return float(predict(funnel.design, funnel.heads.hazard[0, 0], x, cells).double().exp().sum())


def right_weight(learned: Learned, usual: Sent) -> float:
    """Return the slope of true log hazards on the differences by context before their weight, by hazard.

    Each channel has an intercept of its own.
    """
    funnel = learned.agent.funnel  # type: ignore[attr-defined]
    design = funnel.fit.design(funnel.design)
    head = torch.where(design.contexts, funnel.fit.hazards[0].solve(design).mean, 0.0)
    found = predict(design, head, torch.from_numpy(usual.context), design.cells_of(usual.actions)).double().numpy()
    reached = usual.unsubscribe > 0.0
    rate, channel = usual.unsubscribe[reached], usual.channel[reached]
    both = np.stack([found[reached], np.log(rate)])
    for code in np.unique(channel):
        both[:, channel == code] -= np.average(both[:, channel == code], axis=1, weights=rate[channel == code])[:, None]
    return float((rate * both[0] * both[1]).sum() / (rate * both[0] ** 2).sum())


def result(users: int, seed: int, margin: float | None, fresh_users: int) -> dict[str, Any]:
    """Return the row of one log."""
    market = {"history.market.users": users, "history.market.seed": seed}
    config = load_config("market", {"seed": seed, **market})
    data = prepare(config)
    assert data.truth is not None
    learned = fit(config, LogParts.from_history(data.history), data.history.span[1])
    limits = config.constraints.cost_events
    margins = [limit.margin if margin is None else margin for limit in limits]
    limits = tuple(replace(limit, margin=each) for limit, each in zip(limits, margins, strict=True))
    fresh = FreshUsers.draw(data.truth.market, fresh_users)
    policy, usual = (
        deployed(fresh, learned, constraints, seed)
        for constraints in (replace(config.constraints, cost_events=limits), None)
    )
    hazard = learned.agent.funnel.fit.hazards[0]  # type: ignore[attr-defined]
    limit = learned.pace.rates[limits[0].event] * policy.weeks
    true = float(policy.unsubscribe.sum()) / fresh_users
    return {
        "users": users,
        "seed": seed,
        "margin": margins[0],
        "events": int(data.history.are_events([limits[0].event]).sum()),
        "weight": hazard.personal,
        "right_weight": right_weight(learned, usual),
        "value": policy.value,
        "expected": expected(learned, policy) / fresh_users,
        "true": true,
        "limit": limit,
        "usual": float(usual.unsubscribe.sum()) / fresh_users,
        "true_to_limit": true / limit,
    }


def page(rows: pd.DataFrame, command: str) -> str:
    """Return the table of means over seeds as Markdown."""
    lines = [
        "# Whether a limit on unsubscribes is kept",
        f"\n```\n{command}\n```\n",
        f"| users | margin | seeds | {' | '.join(COLUMNS)} |",
        "|---|---|---|" + "---|" * len(COLUMNS),
    ]
    for (users, margin), part in rows.groupby(["users", "margin"]):
        cells = [f"{part[name].mean():.3f}" for name in COLUMNS]
        cells[2] = f"{part.right_weight.median():.3f}"
        cells[0] = f"{part.events.mean():.0f}"
        cells[-1] += f" ({part.true_to_limit.min():.2f} to {part.true_to_limit.max():.2f})"
        lines.append(f"| {users:,} | {margin:g} | {len(part)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- `{name}`: {text}" for name, text in COLUMNS.items())]) + "\n"


def main() -> None:
    """Run all logs; the files are replaced after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", nargs="+", type=int, default=[20_000], help="users of the log")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100])
    parser.add_argument(
        "--margin", type=float, help="share of the limit that is left unused; the default one if left out"
    )
    parser.add_argument("--fresh-users", type=int, default=4000, help="new users to whom the policy is deployed")
    parser.add_argument("--output", type=Path, required=True, help="path of the two files, without suffix")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    command = "python -m benchmarks.limits_kept " + " ".join(sys.argv[1:])
    for users in chosen.users:
        for seed in chosen.seeds:
            row = result(users, seed, chosen.margin, chosen.fresh_users)
            add_rows(pd.DataFrame([row]), chosen.output, KEYS, partial(page, command=command))
            print(row, flush=True)


if __name__ == "__main__":
    main()

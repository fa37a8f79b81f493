"""What agents learn in a shop that is unlike the simulated market: one row for each world, seed and policy.

    python -m benchmarks.shop_worlds --users 3000 800 --seeds 0 1 2 --output docs/market/shop

In the world `by_channel` offers earn by one channel what they do not by another, in `alike` they do not differ by
it (`benchmarks/shop.py`). From the same log learn `ensemble_thompson` as a mapping declares modules by default, with
content given the channel; the same with `condition_on: null`; the same without a funnel; and two ridge regressions with
products of channel, content and context, on orders and on visits that are priced by tier. The value of a policy is the
true one, at the contexts of the log's last decisions. Writes OUTPUT.csv (rows are added) and OUTPUT.md (means over
seeds, as a share of the oracle's value).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.shop import CHANNELS, FIRST, OFFERS, TONES, WARMUP, Shop
from benchmarks.tables import add_rows
from crosschannel.agents import Observations
from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.histories.context.layout import ContextSpec
from crosschannel.pipeline.configuration import Config, HistoryConfig, RewardConfig
from crosschannel.pipeline.loop.learning import fit
from crosschannel.pipeline.loop.parts.log import LogParts
from crosschannel.reward import Goal
from crosschannel.reward.funnel.spec import FunnelSpec

DAYS = 42
MODULES: tuple[dict[str, Any], ...] = tuple(
    {"name": name, "actions": list(actions)}
    for name, actions in (("channel", CHANNELS), ("offer", OFFERS), ("tone", TONES))
)
FUNNEL = FunnelSpec(engagement={"email": "opened_email", "push": "opened_push"}, surrogates={"order": ("visit",)})
#: How modules are declared and what the agent learns from, by the name in the table.
AGENTS: dict[str, tuple[dict[str, Any], FunnelSpec | None]] = {
    "given the channel": ({}, FUNNEL),
    "alike for all channels": ({"condition_on": None}, FUNNEL),
    "without a funnel": ({}, None),
}
PENALTIES = [300.0, 1e3, 3e3, 1e4, 3e4]
EVERY = np.array([(0, 0, 0), *((c, o, t) for c in (1, 2, 3) for o in (0, 1, 2) for t in (0, 1))])


def configuration(funnel: FunnelSpec | None) -> Config:
    """Return the settings: orders are worth their value, in the day after a decision less the week before it."""
    reward = RewardConfig(
        kind="did_dr", goals=(Goal("order", measure="value"),), pre="7d", post="1d", time_bucket="1d", funnel=funnel
    )
    events = ("visit", "order", "opened_email", "opened_push")
    context = ContextSpec(windows=("7d", "28d"), events=events, attributes=("tier", "age", "region", "curiosity"))
    return Config(history=HistoryConfig("folder", path=Path("shop")), reward=reward, context=context)


def learned(shop: Shop, way: str) -> IntArray:
    """Return the greedy choices (n, 3) of an agent at the log's last decisions."""
    extra, funnel = AGENTS[way]
    history = shop.history([MODULES[0], *({**module, **extra} for module in MODULES[1:])])
    found = fit(configuration(funnel), LogParts.from_history(history), history.span[1])
    last = history.decisions.time == history.decisions.time.max()
    context = found.features.transform(history)[last]
    everything = np.ones((len(context), history.modules.total), dtype=bool)
    return found.agent.act(Observations(context, everything), explore=False).actions


def products(x: FloatArray, actions: IntArray) -> FloatArray:
    """Return the products of contexts (n, D) with indicators of channel, channel and offer, channel and tone."""
    channel, offer, tone = actions.T
    chosen = [channel == c for c in (1, 2, 3)]
    chosen += [(channel == c) & (offer == o) for c in (1, 2, 3) for o in (1, 2)]
    chosen += [(channel == c) & (tone == 1) for c in (1, 2, 3)]
    ones = np.column_stack([np.ones(len(x)), x])
    return (np.stack(chosen, 1)[:, :, None] * ones[:, None, :]).reshape(len(x), -1)


def ridge_choices(shop: Shop, outcome: FloatArray, x: FloatArray, now: FloatArray) -> IntArray:
    """Return the choices (n, 3) of a ridge regression on outcomes (days, n) less what is usual without a message.

    Args:
        shop: The shop.
        outcome: Amount in the day after each decision (days, n).
        x: Contexts of all decisions (days, n, D).
        now: Contexts of the last ones (n, D).
    """
    from sklearn.linear_model import Ridge, RidgeCV  # the extra `baselines`

    decisions = shop.log[0]
    actions = np.stack([codes(decisions[str(module["name"])], module["actions"]) for module in MODULES], 1)
    flat, y = x.reshape(-1, x.shape[-1]), outcome.reshape(-1)
    day = np.repeat(np.eye(len(x)), shop.users, axis=0)
    sent, usual = actions[:, 0] > 0, np.column_stack([flat, flat**2, day])
    rest = y - Ridge(10.0).fit(usual[~sent], y[~sent]).predict(usual)
    model = RidgeCV(alphas=PENALTIES, fit_intercept=False).fit(products(flat[sent], actions[sent]), rest[sent])
    values = [model.predict(products(now, np.tile(action, (len(now), 1)))) for action in EVERY]
    return np.asarray(EVERY[np.argmax(values, axis=0)])


def codes(column: pd.Series[Any], names: Sequence[str]) -> IntArray:
    """Return the codes of names (n,), 0 where there is none."""
    return np.asarray(column.map({name: code for code, name in enumerate(names)}).fillna(0), dtype=np.int64)


def amounts(shop: Shop) -> dict[str, FloatArray]:
    """Return what each user did in each of the days after a decision and before the first one (WARMUP + days, n)."""
    events = shop.log[1]
    day = ((events["time"] - FIRST) // pd.Timedelta(days=1)).to_numpy() + WARMUP
    user = events["user_id"].str[1:].astype(int).to_numpy()
    kept = (day >= 0) & (day < WARMUP + shop.days)
    out = {}
    for name, weight in (("visit", None), ("order", "value"), ("opened_email", None), ("opened_push", None)):
        which = kept & (events["event"] == name).to_numpy()
        amount = np.ones(which.sum()) if weight is None else events[weight].to_numpy()[which]
        table = np.zeros((WARMUP + shop.days, shop.users))
        np.add.at(table, (day[which], user[which]), amount)
        out[name] = table
    return out


def by_ridge(shop: Shop) -> Iterator[tuple[str, IntArray]]:
    """Yield the choices (n, 3) of the ridge regressions."""
    done, t = amounts(shop), shop.traits
    fixed = np.stack([t["tier"], t["age"] == 1, t["age"] == 2, t["curiosity"]], 1).astype(float)

    def before(name: str, day: int, days: int) -> FloatArray:
        return np.asarray(np.log1p(done[name][WARMUP + day - days : WARMUP + day].sum(0)))

    opened = done["opened_email"] + done["opened_push"]
    done["opened"] = opened
    recent = [("visit", 7), ("visit", WARMUP), ("order", WARMUP), ("opened", WARMUP)]
    x = np.stack([np.column_stack([fixed, *(before(name, day, n) for name, n in recent)]) for day in range(shop.days)])
    x = (x - x.mean((0, 1))) / x.std((0, 1))
    visits, orders = done["visit"][WARMUP:], done["order"][WARMUP:]
    price = np.zeros(shop.users)
    idle = (shop.log[0]["channel"] == "none").to_numpy().reshape(shop.days, -1)
    for tier in (0, 1):
        mine = idle & (t["tier"] == tier)
        price[t["tier"] == tier] = (visits * orders)[mine].sum() / np.square(visits)[mine].sum()
    yield "ridge on orders", ridge_choices(shop, orders, x, x[-1])
    yield "ridge on priced visits", ridge_choices(shop, visits * price, x, x[-1])


def values_of(shop: Shop) -> Iterator[tuple[str, float]]:
    """Yield each policy and its true value per decision."""
    every = np.stack([shop.value(np.tile(action, (shop.users, 1))) for action in EVERY], 1)
    yield "oracle", float(every.max(1).mean())
    yield "best constant", float(every.mean(0).max())
    for way in AGENTS:
        yield way, float(shop.value(learned(shop, way)).mean())
    for name, actions in by_ridge(shop):
        yield name, float(shop.value(actions).mean())


def page(command: str, rows: pd.DataFrame) -> str:
    """Return the table of means over seeds as Markdown: values as a share of the oracle's."""
    rows = rows.astype({"users": int})
    oracle = rows[rows["policy"] == "oracle"].set_index(["world", "users", "seed"])["value"]
    share = rows["value"] / oracle.reindex(pd.MultiIndex.from_frame(rows[["world", "users", "seed"]])).to_numpy()
    table = rows.assign(share=share).pivot_table(index="policy", columns=["world", "users"], values="share", sort=False)
    names = [f"`{column[0]}`, {column[1]:,} users" for column in table.columns.to_list()]
    lines = [f"```\n{command}\n```\n", f"| policy | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    lines += [
        f"| {policy} | {' | '.join(f'{value:.2f}' for value in line)} |"
        for policy, line in zip(table.index, table.to_numpy(), strict=True)
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the chosen worlds and seeds; the files are replaced after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=["by_channel", "alike"])
    parser.add_argument("--users", nargs="+", type=int, default=[3000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output", type=Path, required=True, help="path of the two files, without suffix")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    command = "python -m benchmarks.shop_worlds " + " ".join(sys.argv[1:])
    for world in chosen.worlds:
        for users in chosen.users:
            for seed in chosen.seeds:
                found = pd.DataFrame(values_of(Shop(world, users, DAYS, seed)), columns=["policy", "value"])
                rows = found.assign(world=world, users=users, seed=seed)
                add_rows(rows, chosen.output, ["world", "users", "seed", "policy"], partial(page, command))
                print(rows.to_string(index=False), flush=True)


if __name__ == "__main__":
    main()

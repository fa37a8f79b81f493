"""Draw the figure of docs/environments.md about the market, and print the numbers that it quotes.

python docs/pictures/market.py           figure and effects by channel, 20 seconds
python docs/pictures/market.py --table   true values of policies in every scenario, 4 minutes
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from crosschannel.envs.market import (  # noqa: E402
    SCENARIOS,
    Market,
    MarketConfig,
    evaluate_policy,
    make_policy,
    simulate_history,
)
from crosschannel.envs.market.dynamics.responses import Every, Slots, opening_probability, organic_rates  # noqa: E402
from crosschannel.envs.market.effects import best_content  # noqa: E402
from crosschannel.envs.market.vocabulary import BLOCKS, CHANNELS, MODULES, SERVICES  # noqa: E402
from crosschannel.reward import Goal  # noqa: E402
from crosschannel.reward.effects.plots import AFTER, BEFORE, DPI, INK  # noqa: E402

USERS = 4000
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
POLICIES = ("business_as_usual", "uniform", "oracle", "far_sighted")


def figure(width: float, height: float) -> Figure:
    """Return an empty figure."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(made)
    return made


def tidy(axes: Axes, title: str) -> None:
    """Set the title, and remove the box."""
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)


def slots_of(market: Market) -> Slots:
    """Return slots of many users on the market's first day."""
    return market.reset(market.keys(USERS, seed=1)).slots()


def seasonality(market: Market, axes: Axes) -> None:
    """Plot mean organic visits per user in the 35 blocks of a week, one line per service."""
    slots = slots_of(market)
    for service, name in enumerate(SERVICES):
        week = range(14, 21)
        mean = [organic_rates(slots.users, market.calendar.common[day][None])[:, service].mean(0) for day in week]
        axes.plot(np.concatenate(mean), lw=1.2, label=name)
    axes.set_xticks(np.arange(7) * len(BLOCKS), DAYS)
    axes.set_ylabel("visits per user", fontsize=8)
    axes.set_ylim(0.0, 0.09)
    axes.legend(frameon=False, fontsize=7, ncols=2)
    tidy(axes, "organic visits in the 35 slots of a week")


def opening(market: Market, axes: Axes) -> None:
    """Plot the mean probability of opening by block and channel."""
    every = opening_probability(slots_of(market), Every(), market.dynamics, market.calendar)
    opened = every.reshape(USERS, len(CHANNELS), len(BLOCKS)).mean(0)[1:]
    axes.imshow(opened, aspect="auto", cmap="Greens")
    for c in range(len(CHANNELS) - 1):
        for b in range(len(BLOCKS)):
            colour = "white" if opened[c, b] > 0.25 else "black"
            axes.text(b, c, f"{opened[c, b]:.0%}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(BLOCKS)), BLOCKS)
    axes.set_yticks(range(len(CHANNELS) - 1), CHANNELS[1:])
    tidy(axes, "share of messages opened")


def heterogeneity(market: Market, axes: Axes) -> None:
    """Plot the distribution over users of the effects of the best message, and of one and the same message."""
    slots = slots_of(market)
    mask = np.ones((USERS, MODULES.total), dtype=bool)
    mask[:, 0] = True
    best = market.best_action(slots, mask)[0]
    same = market.true_effect(slots, np.tile([1, 0, 0, 0, 0, 0], (USERS, 1)))[slots.users.reachable[:, 1]]
    bins = np.linspace(-0.15, 0.8, 60)
    axes.hist(same, bins, color=BEFORE, alpha=0.7, label="one e-mail for all", density=True)
    axes.hist(best, bins, color=AFTER, alpha=0.5, label="each user's best", density=True)
    axes.axvline(0.0, color=INK, lw=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("true effect at the first slot [goal value]", fontsize=8)
    axes.set_yticks([])
    axes.legend(frameon=False, fontsize=7)
    tidy(axes, "true effects over users")
    print(f"nothing is best for {(best <= 0).mean():.0%}; one e-mail for all harms {(same < 0).mean():.0%}")


def fatigue(axes: Axes) -> None:
    """Plot the mean effect of each user's best message by fatigue, in two scenarios."""
    for name, colour in (("default", BEFORE), ("fatigue", AFTER)):
        market = Market(MarketConfig(scenario=name))
        slots = slots_of(market)
        mask = np.repeat(market.scenario.offered(np.zeros(1, dtype=np.int64)), USERS, axis=0)
        content = best_content(market.content_value(slots), market.open_value(slots).acting, mask).value
        levels, effects = np.linspace(0, 5, 21), []
        for level in levels:
            values = market.open_value(replace(slots, fatigue=np.full(USERS, level))).effects(content)
            effects.append(np.maximum(values.reshape(USERS, -1).max(1), 0.0).mean())
        axes.plot(levels, effects, color=colour, lw=1.5, label=name)
    axes.set_xlabel("fatigue [messages not yet forgotten]", fontsize=8)
    axes.set_ylabel("mean effect of the best message", fontsize=8)
    axes.set_ylim(0)
    axes.legend(frameon=False, fontsize=7)
    tidy(axes, "fatigue")


def drift(axes: Axes) -> None:
    """Plot the true mean effect of the same message about each service, by day, in the scenario `drift`."""
    market = Market(MarketConfig(scenario="drift"))
    slots = slots_of(market)
    for service, name in enumerate(SERVICES):
        action = np.tile([2, 0, service, 0, 0, 0], (USERS, 1))
        effect = [
            market.true_effect(replace(slots, day=np.full(USERS, day)), action)[slots.users.reachable[:, 2]].mean()
            for day in range(14, 42)
        ]
        axes.plot(range(28), effect, lw=1.2, label=name)
    axes.axhline(0.0, color=INK, lw=0.8)
    axes.set_xlabel("slot", fontsize=8)
    axes.set_ylabel("mean effect of a push", fontsize=8)
    axes.legend(frameon=False, fontsize=7)
    tidy(axes, "drift: tastes move")


def sends(axes: Axes) -> None:
    """Plot messages per user of the myopic and the far-sighted optimum, in the scenario `fatigue`."""
    market = Market(MarketConfig(scenario="fatigue"))
    for name, colour in (("oracle", BEFORE), ("far_sighted", AFTER)):
        state, policy, sent = market.reset(market.keys(1000, seed=1)), make_policy(name, market), []
        for _ in range(market.config.days):
            sent.append((market.step(state, policy.choose(market, state).actions).executed[:, 0] > 0).sum())
        axes.plot(np.cumsum(sent) / len(state), color=colour, lw=1.5, label=name)
    axes.set_xlabel("slot", fontsize=8)
    axes.set_ylabel("messages per user so far", fontsize=8)
    axes.legend(frameon=False, fontsize=7)
    tidy(axes, "fatigue: sending less is worth more")


def by_channel() -> None:
    """Print effects of the logged messages on orders, relative to organic orders."""
    market = Market(MarketConfig(users=USERS, goals=(Goal("order:*"),)))
    _, truth = simulate_history(market)
    sent = np.flatnonzero(MODULES.sends(truth.actions))
    effect, organic = truth.logged[sent], truth.organic[sent]
    print(f"logged messages: {effect.mean() / organic.mean():+.1%} orders")
    for code, channel in enumerate(CHANNELS[1:], start=1):
        rows = truth.actions[sent, 0] == code
        print(f"  {channel:8} {rows.sum():6} messages, {effect[rows].mean() / organic[rows].mean():+.1%} orders")


def table() -> None:
    """Print true values of policies in every scenario."""
    for name in SCENARIOS:
        market = Market(MarketConfig(scenario=name))
        for policy in POLICIES:
            v = evaluate_policy(market, policy, 2000, seed=1)
            print(f"| {name} | {policy} | {v.mean:.2f} +- {1.96 * v.se:.2f} | {v.lift:+.1%} | {v.sends.mean():.1f} |")


def main() -> None:
    """Draw the figure."""
    if sys.argv[1:] == ["--table"]:
        return table()
    market = Market(MarketConfig())
    made = figure(9.6, 5.4)
    (a, b, c), (d, e, f) = made.subplots(2, 3)
    seasonality(market, a)
    opening(market, b)
    heterogeneity(market, c)
    fatigue(d)
    sends(e)
    drift(f)
    made.savefig(HERE / "market.png", dpi=DPI)
    by_channel()
    return None


if __name__ == "__main__":
    main()

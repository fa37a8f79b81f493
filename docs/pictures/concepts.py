"""Draw the pictures of docs/concepts/, and print the numbers that these pages quote.

python docs/pictures/concepts.py               all, half a minute
python docs/pictures/concepts.py looks         one of them

Every picture is made by the package's own functions on data whose truth is known.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from crosschannel.core import ActionSpace, FloatArray, IntArray, Module
from crosschannel.envs.market import Market, simulate_history
from crosschannel.evaluation import (
    SNIPS,
    EvaluationSettings,
    Interval,
    LoggedDecisions,
    Sample,
    evaluate,
    stopping_boundaries,
    user_bootstrap,
)
from crosschannel.pipeline import load_config
from crosschannel.reward import make_reward
from crosschannel.reward.funnel import FunnelEffects

HERE = Path(__file__).resolve().parent
INK, LEARNED, OTHER, WRONG = "#24292f", "#1f6feb", "#8b949e", "#d1242f"
DPI = 110
#: What a page quotes, by name.
Numbers = dict[str, float]


def figure(height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels beside each other."""
    made = Figure(figsize=(7.6, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(made)
    axes = [made.add_subplot(1, panels, k + 1) for k in range(panels)]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return made, axes


def interval(
    axes: Axes, y: float, low: float, point: float, high: float, colour: str, label: str | None = None
) -> None:
    """Draw an estimate with its interval."""
    axes.errorbar(point, y, xerr=[[point - low], [high - point]], fmt="o", ms=4, color=colour, capsize=3, label=label)


def funnel(users: int = 4_000) -> tuple[Figure, Numbers]:
    """What the messages of a market's log did, as one number and along the funnel."""
    config = load_config("market", {"history.market.users": users})
    history, _ = simulate_history(Market(config.history.market))
    effects = FunnelEffects.fit(make_reward("did", config.reward), history)
    made, (opened, worth, value) = figure(2.5, 3)
    ratios = []
    for y, (channel, rows) in enumerate(effects.channels.items()):
        found = effects.of(rows, channel)
        p, gain, direct, whole = (found[name] for name in ("engagement", "gain", "direct", "value"))
        opened.barh(y, 100 * p.value, color=LEARNED, height=0.6)
        first = y == 0
        interval(worth, y + 0.15, gain.low, gain.value, gain.high, LEARNED, "opened" if first else None)
        interval(worth, y - 0.15, direct.low, direct.value, direct.high, OTHER, "not opened" if first else None)
        product_se = float(np.hypot(p.value * gain.se, gain.value * p.se))
        point = p.value * gain.value
        low, high = point - 1.96 * product_se, point + 1.96 * product_se
        interval(value, y + 0.15, low, point, high, LEARNED, "P x gain" if first else None)
        interval(value, y - 0.15, whole.low, whole.value, whole.high, OTHER, "one number" if first else None)
        ratios.append(whole.se / product_se)
    for axes, title in ((opened, "opened [%]"), (worth, "effect of a message"), (value, "value of a channel")):
        axes.set_title(title, fontsize=9)
        axes.set_yticks(range(len(effects.channels)), effects.channels if axes is opened else [])
        axes.set_ylim(-0.5, len(effects.channels) + 0.3)
    for axes in (worth, value):
        axes.axvline(0, color=INK, lw=0.8)
        axes.legend(frameon=False, fontsize=7, loc="upper right", ncols=2)
    everything = effects.of(effects.priced.outcomes.treated, "all")
    return made, {
        "opened": everything["engagement"].value,
        "gain": everything["gain"].value,
        "direct": everything["direct"].value,
        "ratio of errors": float(np.mean(ratios)),
    }


def propensities(users: int = 20_000) -> tuple[Figure, Numbers]:
    """A log that messages the active more often: what comparing sent with not sent finds, and what weights find."""
    rng = np.random.default_rng(0)
    activity = rng.beta(2, 3, users)
    p = 0.1 + 0.8 * activity
    sent = rng.random(users) < p
    truth = 0.1
    orders = rng.poisson(0.1 + 0.8 * activity + truth * sent).astype(np.float64)

    def values(counts: FloatArray) -> FloatArray:
        plain = np.average(orders[sent], weights=counts[sent]) - np.average(orders[~sent], weights=counts[~sent])
        arms = [
            SNIPS().value(Sample(orders, chosen / chance, counts)) for chosen, chance in ((sent, p), (~sent, 1 - p))
        ]
        return np.array([plain, arms[0] - arms[1]])

    point, draws = values(np.ones(users)), user_bootstrap(values, np.arange(users), 200, rng)
    made, (left, right) = figure(2.3, 2)
    bins = np.linspace(0, 1, 31)
    left.hist(p[sent], bins=bins, color=LEARNED, alpha=0.6, label="sent")
    left.hist(p[~sent], bins=bins, color=OTHER, alpha=0.6, label="not sent")
    left.set(xlabel="probability of a message", ylabel="decisions")
    left.legend(frameon=False, fontsize=8)
    names = ("sent minus not sent", "weighted by 1 / probability")
    for y, (name, colour) in enumerate(zip(names, (WRONG, LEARNED), strict=True)):
        half = 1.96 * float(draws[:, y].std())
        interval(right, y, point[y] - half, point[y], point[y] + half, colour)
        right.annotate(name, (point[y], y + 0.15), fontsize=8, ha="center")
    right.axvline(truth, color=INK, lw=1, ls="--", label="truth")
    right.set(xlabel="additional orders per message", ylim=(-0.5, 1.7), xlim=(0, 0.4), yticks=[])
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return made, {"truth": truth, "sent minus not sent": float(point[0]), "weighted": float(point[1])}


def identification(decisions: int = 6_000) -> tuple[Figure, Numbers]:
    """The value of policies that are further and further from the log, until the log does not identify it."""
    rng = np.random.default_rng(2)
    modules = ActionSpace([Module("offer", ("none", "ten", "twenty"))])
    chances, means = np.array([0.6, 0.38, 0.02]), np.array([0.0, 0.1, 0.25])
    actions = rng.choice(3, decisions, p=chances)
    rewards = rng.normal(means[actions], 0.5)
    log = LoggedDecisions(
        modules=modules,
        actions=actions[:, None],
        propensity=chances[actions][:, None],
        joint=chances[actions],
        user=np.arange(decisions),
    )
    made, (axes,) = figure(2.7)
    shares = np.linspace(0, 1, 21)
    last, ess, reason = 0.0, 0.0, ""
    for share in shares:
        policy = np.tile((1 - share) * chances + share * np.eye(3)[2], (decisions, 1))
        found = evaluate(log, [policy], rewards, rng=rng, settings=EvaluationSettings(bootstrap_replicates=100))
        estimate = found.get("snips")
        axes.plot(share, policy[0] @ means, "_", color=INK, ms=9, label="truth" if share == 0 else None)
        if estimate.identified:
            v, last = estimate.value, float(share)
            axes.errorbar(share, v.point, yerr=[[v.point - v.low], [v.high - v.point]], fmt="o", ms=4, color=LEARNED)
        else:
            ess, reason = (ess, reason) if reason else (estimate.support.ess, estimate.reason)
    start = float(shares[shares > last][0])
    axes.axvspan(start - 0.025, 1.03, color=OTHER, alpha=0.25, lw=0)
    axes.text(start, 0.06, f"not identified:\n{reason}", fontsize=8)
    axes.set(xlabel="share of decisions in which the policy takes the action that the log hardly has", ylabel="value")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return made, {"last identified share": last, "effective sample size": ess, "decisions": decisions}


def _letters(
    rng: np.random.Generator, synergy: float, n: int
) -> tuple[LoggedDecisions, FloatArray, list[FloatArray], float]:
    """Messages of three crossed parts, the policy of the best one, and its true value."""
    sizes = (4, 4, 4)
    modules = ActionSpace(
        [Module("channel", ("none", "email"))]
        + [
            Module(name, tuple(f"{name} {k}" for k in range(size)))
            for name, size in zip(("offer", "tone", "greeting"), sizes, strict=True)
        ]
    )
    sent = rng.random(n) < 0.8
    parts = rng.integers(sizes, size=(n, 3)) * sent[:, None]
    best = (parts == 3) & sent[:, None]

    def mean(chosen: IntArray) -> FloatArray:
        return np.asarray(0.1 + 0.05 * chosen.sum(1) + synergy * chosen.all(1))

    rewards = rng.normal(np.where(sent, mean(best), 0.0), 1.0)
    propensity = np.column_stack([np.where(sent, 0.8, 0.2), np.where(sent[:, None], 0.25, 1.0) * np.ones((n, 3))])
    log = LoggedDecisions(
        modules=modules,
        actions=np.column_stack([sent, parts]).astype(np.int64),
        propensity=propensity,
        joint=propensity.prod(1),
        user=np.arange(n),
    )
    chosen = (np.arange(2) == 1, *(np.arange(size) == 3 for size in sizes))
    policy = [np.tile(row * 1.0, (n, 1)) for row in chosen]
    return log, rewards, policy, float(mean(np.ones((1, 3), dtype=np.int64))[0])


#: What the three best parts earn together beyond their sum.
WORLDS = (("parts add up", 0.0), ("all three together earn more", 0.7))


def ladder(n: int = 30_000) -> tuple[Figure, Numbers]:
    """The best message's value by order, where parts add up and where they do not."""
    rng = np.random.default_rng(1)
    made, panels = figure(2.5, 2)
    numbers: Numbers = {}
    settings = EvaluationSettings(bootstrap_replicates=200, factors="independent")
    for axes, (name, synergy) in zip(panels, WORLDS, strict=True):
        log, rewards, policy, truth = _letters(rng, synergy, n)
        found = evaluate(log, policy, rewards, rng=rng, settings=settings).ladder
        assert found is not None
        for order, estimate in enumerate(found.orders):
            v: Interval = estimate.value
            interval(axes, -order, v.low, v.point, v.high, LEARNED if order == found.order else OTHER)
            numbers[f"{name}, order {order}, half"] = (v.high - v.low) / 2
        axes.axvline(truth, color=INK, lw=1, ls="--", label="truth")
        axes.set_title(name, fontsize=9)
        axes.set(xlabel="value per decision")
        axes.set_yticks([-k for k in range(4)], [f"order {k}" for k in range(4)] if axes is panels[0] else [""] * 4)
        axes.legend(frameon=False, fontsize=8, loc="lower left")
        numbers[f"{name}, headline"] = found.order
    return made, numbers


def looks(trials: int = 4_000, days: int = 28) -> tuple[Figure, Numbers]:
    """Trials without any difference that are looked at every day: how many were ever called significant."""
    rng = np.random.default_rng(0)
    shares = np.arange(1, days + 1) / days
    paths = rng.normal(size=(trials, days)).cumsum(1) / np.sqrt(np.arange(1, days + 1))
    covariance = 1 / np.maximum.outer(shares, shares)  # the estimate at a share t has the variance 1 / t
    bounds = stopping_boundaries(covariance, shares, 0.05, rng)
    made, (left, right) = figure(2.6, 2)
    numbers: Numbers = {}
    for name, limit, colour in (
        ("a plain test every day", 1.96, WRONG),
        ("boundaries over all looks", bounds, LEARNED),
    ):
        ever = np.maximum.accumulate(np.abs(paths) >= limit, axis=1).mean(0)
        left.plot(np.arange(1, days + 1), 100 * ever, color=colour, label=name)
        numbers[name] = float(ever[-1])
    left.axhline(5, color=INK, lw=0.8, ls="--")
    left.set(xlabel="day", ylabel="called significant so far [%]", ylim=(0, None))
    left.legend(frameon=False, fontsize=8)
    shown = np.where(bounds < 6, bounds, np.nan)
    for sign in (-1, 1):
        right.plot(np.arange(1, days + 1), sign * shown, color=LEARNED)
        right.axhline(sign * 1.96, color=WRONG, lw=1, ls=":")
    for path in paths[:12]:
        right.plot(np.arange(1, days + 1), path, color=OTHER, lw=0.6)
    right.set(xlabel="day", ylabel="standard errors", title="twelve of them")
    right.title.set_fontsize(9)
    numbers["boundary at the end"] = float(bounds[-1])
    return made, numbers


PICTURES: dict[str, Callable[[], tuple[Figure, Numbers]]] = {
    "funnel": funnel,
    "propensities": propensities,
    "identification": identification,
    "ladder": ladder,
    "looks": looks,
}


def main(names: list[str], folder: Path = HERE) -> None:
    """Draw the pictures that are named, or all, and print their numbers."""
    for name in names or PICTURES:
        made, numbers = PICTURES[name]()
        made.savefig(folder / f"{name}.png", dpi=DPI)
        for what, number in numbers.items():
            print(f"{name}: {what} {number:.4g}")


if __name__ == "__main__":
    main(sys.argv[1:])

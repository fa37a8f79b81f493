"""Draw the pictures of docs/reward.md, and print the numbers that it quotes.

python docs/pictures/make.py               pictures and effects, 10 seconds
python docs/pictures/make.py --coverage    how often intervals cover and tests reject, 8 minutes
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import wrap

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# The histories with a known truth are those of the statistical tests.
sys.path.insert(0, str(ROOT))

from crosschannel.core.plotting import AFTER, BEFORE, INK  # noqa: E402
from crosschannel.reward import REWARDS, make_reward  # noqa: E402
from crosschannel.reward.effects import EventTimes, TreatmentEffects, diagnose, event_study  # noqa: E402
from crosschannel.reward.effects.plots import DPI, plot_event_study  # noqa: E402
from tests.reward.simulated import SPEC, Assignment, Simulated, simulate  # noqa: E402

USERS, SEED = 3000, 0
PANELS: tuple[tuple[Assignment, str], ...] = (
    ("random", "messages at random"),
    ("level", "messages to the active"),
    ("dip", "messages after a quiet day"),
)


def figure(width: float, height: float) -> Figure:
    """Return an empty figure."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(made)
    return made


def windows() -> Figure:
    """Draw the two windows around a decision, and those of a control in the same time bucket."""
    made = figure(7.2, 2.3)
    axes = made.subplots()
    rows = ((1.0, 0.0, "sent: decision at t", AFTER), (0.0, 0.25, "control: nothing sent", INK))
    for y, t, name, colour in rows:
        axes.barh(y, 2.0, left=t - 2.0, height=0.45, color=BEFORE, alpha=0.45)
        axes.barh(y, 1.0, left=t, height=0.45, color=AFTER, alpha=0.35)
        axes.plot([t, t], [y - 0.33, y + 0.33], color=colour, lw=2.5)
        axes.text(t - 1.0, y, "before  (t - pre, t]", ha="center", va="center", fontsize=8)
        axes.text(t + 0.5, y, "after  (t, t + post]", ha="center", va="center", fontsize=8)
        axes.text(t + 1.1, y, name, va="center", fontsize=8)
    axes.axvspan(-0.35, 0.65, color=INK, alpha=0.10, lw=0)
    axes.text(0.15, 1.55, "same time bucket", ha="center", fontsize=8)
    axes.set(xlim=(-2.2, 2.9), ylim=(-0.5, 1.8), yticks=[], xlabel="time since the sent decision [days]")
    axes.spines[["left", "top", "right"]].set_visible(False)
    return made


def kinds(logs: dict[str, Simulated]) -> Figure:
    """Draw each kind's average over the sent decisions, beside the truth."""
    made = figure(8.0, 2.9)
    for axes, (name, title) in zip(made.subplots(1, len(PANELS), sharex=True), PANELS, strict=True):
        axes.axvline(logs[name].att, color=INK, lw=1, ls="--", label="truth")
        print(f"{title}: truth {logs[name].att:.3f}")
        for y, kind in enumerate(reversed(REWARDS)):
            effect = TreatmentEffects.fit(make_reward(kind, SPEC), logs[name].history).effect()
            right = effect.low <= logs[name].att <= effect.high
            axes.errorbar(
                effect.value,
                y,
                xerr=[[effect.value - effect.low], [effect.high - effect.value]],
                fmt="o" if right else "s",
                color=AFTER if right else BEFORE,
                capsize=3,
            )
            print(f"  {kind:15} {effect.value: .3f}  95 % interval {effect.low: .3f} to {effect.high: .3f}")
        axes.set_title(title, fontsize=9)
        axes.set_yticks(range(len(REWARDS)), [*reversed(REWARDS)] if name == PANELS[0][0] else [""] * len(REWARDS))
        axes.set_xlabel("orders per message")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return made


def dip(log: Simulated) -> Figure:
    """Draw the event study of messages after a quiet day, unadjusted and given the trigger."""
    made = figure(8.0, 3.5)
    for axes, kind in zip(made.subplots(1, 2, sharey=True), ("did", "did_dr"), strict=True):
        fitted = TreatmentEffects.fit(make_reward(kind, SPEC), log.history)
        events = event_study(fitted, log.history, EventTimes("1d", leads=4, lags=3))
        plot_event_study(events, unit="orders", ax=axes)
        axes.set_title("", loc="left")
        found = diagnose(fitted, log.history, events)
        axes.set_title("\n".join([kind, *wrap(found.verdict, 60)]), fontsize=8)
        if kind != "did":
            axes.set_ylabel("")
        print(f"after a quiet day, {kind}: p of pre-trends {events.pre_trends().p_value:.2g}. {found.verdict}")
    return made


def statistics() -> None:
    """Print the coverage of 95 % intervals, rejections of no effect, and how often the diagnostics fail."""
    from tests.reward.effects.test_coverage import (
        DIAGNOSED,
        LATE,
        MANY,
        RIGHT,
        STEP,
        WRONG,
        coverage,
        estimates,
        pre_trend_failure_rate,
        rates,
        scatter,
    )

    for kind, panels in (("did", PANELS[:2]), ("did_dr", PANELS)):
        for name, title in panels:
            print(f"{kind}, {title}: covers {coverage(estimates(kind, name, 1.0, MANY)):.3f} of {MANY}")
            print(f"{kind}, {title}: rejects no effect {1 - coverage(estimates(kind, name, 0.0, MANY)):.3f} of {MANY}")
    print(f"did, {PANELS[2][1]}: covers {coverage(estimates('did', 'dip', 1.0, DIAGNOSED)):.3f} of {DIAGNOSED}")
    print(f"pre-trend test fails after a quiet day {pre_trend_failure_rate('dip', DIAGNOSED):.3f} of {DIAGNOSED}")
    print(f"pre-trend test fails for messages to the active {pre_trend_failure_rate('level', 600):.3f} of 600")
    for case in (*WRONG, *RIGHT, LATE, STEP):
        r = rates(case, DIAGNOSED)
        source = "logged" if case.logged else "estimated"
        print(f"{case.kind:14} {case.assignment:6} covariate {case.window or 'none':4} {source:9}", end=" ")
        print(f"effect {r.effect:.3f} pre-trends {r.pre_trends:.3f} placebo {r.placebo:.3f} either {r.either:.3f}")
    for case in (LATE, STEP):
        for users, logs in ((300, 400), (1200, 200), (4800, 80)):
            s = scatter(case, users, logs)
            print(f"did_dr {case.assignment:5} estimated, {logs} logs of {users} users:", end=" ")
            print(f"mean {s.mean:.4f} +- {s.error:.4f}", end=" ")
            print(f"spread {s.spread:.4f} se {s.se:.4f} rejected {s.rejected:.3f}")


def main() -> None:
    """Draw all pictures."""
    if sys.argv[1:] == ["--coverage"]:
        return statistics()
    logs = {name: simulate(SEED, name, users=USERS) for name, _ in PANELS}
    for name, made in (("windows", windows()), ("kinds", kinds(logs)), ("dip", dip(logs["dip"]))):
        made.savefig(HERE / f"{name}.png", dpi=DPI)
    return None


if __name__ == "__main__":
    main()

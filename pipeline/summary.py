"""What a run has learned, as text for the terminal and as plain numbers for `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from crosschannel.evaluation import text_table, to_dict
from crosschannel.pipeline.building import Prepared
from crosschannel.pipeline.command_line import invocation
from crosschannel.pipeline.judging import Assessment, TrueValue
from crosschannel.pipeline.run_folder import Run


def metrics_of(assessment: Assessment) -> dict[str, Any]:
    """Plain numbers; what is not identified is null, with its reason."""
    return {
        "evaluation": to_dict(assessment.evaluation),
        "truth": [
            {
                "policy": value.name,
                "per_decision": value.per_decision,
                "per_user": value.deployed.mean,
                "per_user_se": value.deployed.se,
                "lift": _finite(value.deployed.lift),
                "sends_per_user": float(value.deployed.sends.mean()),
                "unsubscribed": float(value.deployed.unsubscribed.mean()),
            }
            for value in assessment.truth
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def truth_table(values: Sequence[TrueValue]) -> str:
    """The market's truth about each policy, as text."""
    head = ("policy", "per decision*", "per user**", "+-", "lift", "of the oracle", "messages", "unsubscribed")
    best = next(value.deployed.mean for value in values if value.name == "oracle")
    rows = [head]
    for value in values:
        d = value.deployed
        rows.append(
            (
                value.name,
                f"{value.per_decision:.4f}",
                f"{d.mean:.3f}",
                f"{1.96 * d.se:.3f}" if d.se > 0 else "",
                f"{d.lift:+.1%}" if math.isfinite(d.lift) else "-",
                f"{d.mean / best:.0%}" if best > 0 else "-",
                f"{d.sends.mean():.1f}",
                f"{d.unsubscribed.mean():.1%}",
            )
        )
    widths = [max(len(row[j]) for row in rows) for j in range(len(head))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    days = values[0].deployed
    note = [
        "* true effect at the test users' logged decisions: what the off-policy estimate estimates",
        f"** true incremental goal value of a deployment to {len(days.effect):,} fresh users, with its 95 % margin",
    ]
    return "\n".join([*lines, *note])


def summary_text(assessment: Assessment) -> str:
    """Return what was learned, as text."""
    parts = ["", "Off-policy estimate, from the log alone", "", text_table(assessment.evaluation)]
    if assessment.truth:
        parts += ["", "Truth, known because the market is simulated", "", truth_table(assessment.truth)]
    return "\n".join(parts)


def next_steps(run: Run) -> str:
    """Return the commands to run after training."""
    report = run.path / "report.html"
    commands = [
        f"Next: {invocation('evaluate', run.path)}   (writes {report})",
        f"      tensorboard --logdir {run.path.parent}",
    ]
    return "\n".join(commands)


def about(run: Run, prepared: Prepared, assessment: Assessment) -> dict[str, str]:
    """What was judged, in the reader's words, for the head of the report."""
    config = run.config
    goals = ", ".join(f"{goal.weight:+g} x {goal.event} ({goal.measure})" for goal in config.reward.goals)
    facts = {
        "run": str(run.path),
        "history": prepared.history.summary(),
        "reward": (
            f"{config.reward.kind}: {goals}; window {config.reward.pre} before and {config.reward.post} after, "
            f"calendar cells of {config.reward.cell}, overlap {config.reward.overlap}, "
            f"controls {config.reward.controls}"
            + (f", rhythm {config.reward.rhythm}" if config.reward.rhythm else "")
            + (f", within {', '.join(config.reward.matching.within)}" if config.reward.matching.within else "")
            + (f", {config.reward.matching.strata} strata of activity" if config.reward.matching.strata > 1 else "")
        ),
        "split": f"by user: {', '.join(f'{name} {share:.0%}' for name, share in config.split.shares.items())}",
        "policy": f"{config.agent.name}, exploring, as it would be deployed",
    }
    for value in assessment.truth:
        d = value.deployed
        facts[f"truth: {value.name}"] = (
            f"{d.mean:.3f} +- {1.96 * d.se:.3f} per user in deployment, {d.sends.mean():.1f} messages"
        )
    return facts

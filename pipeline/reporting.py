"""The report of a run as an HTML page, and the commands to run next."""

from __future__ import annotations

from pathlib import Path

from crosschannel.evaluation import write_html
from crosschannel.pipeline.command_line import invocation
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.results import EvaluationResult
from crosschannel.pipeline.run_folder import Run


def write_report(run: Run, result: EvaluationResult, path: Path) -> None:
    """Write the report of a run's evaluation as one self-contained HTML page."""
    write_html(path, [result.evaluation], _facts(run, result), run.path.name)


def next_steps(run: Run) -> str:
    """Return the commands to run after training."""
    commands = [
        f"Next: {invocation('evaluate', run.path)}   (writes {run.path / 'report.html'})",
        f"      tensorboard --logdir {run.path.parent}",
    ]
    return "\n".join(commands)


def _facts(run: Run, result: EvaluationResult) -> dict[str, str]:
    """Return what was evaluated, for the head of the report."""
    config = run.config
    facts = {
        "run": str(run.path),
        "history": result.history,
        "reward": _reward_text(config),
        "split": f"by user: {', '.join(f'{name} {share:.0%}' for name, share in config.split.shares.items())}",
        "policy": f"{config.agent.name}, exploring, as it would be deployed",
    }
    for whose, losses in result.losses.items():
        facts[f"{whose} decisions without a reward"] = losses.text(whose)
        if losses.warning:
            facts[f"warning, {whose} decisions"] = losses.warning
    for value in result.truth:
        facts[f"ground truth: {value.policy}"] = (
            f"{value.per_user:.3f} +- {1.96 * value.per_user_se:.3f} per user when deployed, "
            f"{value.sends_per_user:.1f} messages"
        )
    return facts | ({"attention": " ".join(result.notes)} if result.notes else {})


def _reward_text(config: Config) -> str:
    reward = config.reward
    goals = ", ".join(f"{goal.weight:+g} x {goal.event} ({goal.measure})" for goal in reward.goals)
    parts = [
        f"{reward.kind}: {goals}; window {reward.pre} before and {reward.post} after",
        f"time buckets of {reward.time_bucket}",
        f"overlap {reward.overlap}",
        f"controls {reward.controls}",
    ]
    if reward.seasonality:
        parts.append(f"seasonality {reward.seasonality}")
    if reward.matching.within:
        parts.append(f"within {', '.join(reward.matching.within)}")
    if reward.matching.strata > 1:
        parts.append(f"{reward.matching.strata} strata of activity")
    return ", ".join(parts)

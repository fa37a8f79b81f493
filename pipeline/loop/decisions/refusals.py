"""Refuse decisions that the training or the evaluation of a run does not cover."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from crosschannel.agents.constraints.settings import Constraints
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation.gate import DEPLOY
from crosschannel.pipeline.command_line import UsageError, invocation
from crosschannel.pipeline.run_folder import Run


def check_gate(folder: Path, allow_classes: Collection[str] = ()) -> None:
    """Refuse a run whose stored evaluation did not end with the verdict to deploy its policy.

    Raises:
        ConfigError: If it did not, or if the folder has no evaluation of the run's policy with the run's settings.
    """
    result = Run.open_ended(folder, allow_classes=allow_classes).stored_result()
    if result is None or result.gate is None:
        raise ConfigError(
            f"--require-gate: {folder} has no evaluation of its policy with its settings: run "
            f"`{invocation('evaluate', folder)}`"
        )
    if result.gate.verdict != DEPLOY:
        raise ConfigError(
            f"--require-gate: the verdict on the policy of {folder} is `{result.gate.verdict}`: {result.gate.reason} "
            "Nothing was decided"
        )


def check_against_run(asked: Constraints, trained: Constraints, *, greedy: bool, require_gate: bool) -> None:
    """Refuse what the training has not priced, and with --require-gate a policy that the verdict is not on.

    Args:
        asked: The constraints that decisions shall keep.
        trained: Those of the run.
        greedy: Whether the policy does not explore.
        require_gate: Whether the verdict must be to deploy.

    Raises:
        UsageError: If so.
    """
    if asked.discount != trained.discount:
        raise UsageError(
            f"--constraints.discount {asked.discount:g}: the run has {trained.discount:g}, and the price of a message "
            "is learned in training: train again with the other discount"
        )
    if not require_gate:
        return
    if greedy:
        raise UsageError(
            "--require-gate with --greedy: the verdict is on the exploring policy and holds for no other one: leave "
            "one of the two out"
        )
    if asked != trained:
        raise UsageError(
            "--require-gate with other --constraints: the verdict is on the policy under the run's own constraints: "
            "leave them out, or train a run with them and evaluate it"
        )

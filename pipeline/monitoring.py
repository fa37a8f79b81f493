"""What training shows in TensorBoard (docs/metrics.md defines each tag), and the progress bar's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.agents import Batch, Decisions, as_markdown, as_scalars
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray
from crosschannel.histories.history import History
from crosschannel.reward import REASONS, REWARDS, RewardFrame, RewardModel, Study, event_study
from crosschannel.reward.effects.report import picture


class Monitor:
    """Averages what happens between two points, and writes the averages.

    Args:
        folder: TensorBoard's folder.
        modules: The action space.
        resume_from: Step of the checkpoint that a run is resumed from; what was written later is discarded.
    """

    def __init__(self, folder: Path, modules: ActionSpace, resume_from: int = 0) -> None:
        # Imports TensorBoard and PyTorch, for which a command line that only shows its help need not wait.
        from torch.utils.tensorboard import SummaryWriter

        self.shown: dict[str, str] = {}
        self._writer = SummaryWriter(str(folder), purge_step=resume_from + 1 if resume_from else None)
        self._modules = modules
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._rewards: list[np.ndarray] = []
        self._chances: list[np.ndarray] = []

    def rewards(self, frame: RewardFrame) -> None:
        """Writes once what the rewards are like: how many have which fate, and their distribution."""
        for name, count in zip(REASONS, frame.counts().values(), strict=True):
            self._writer.add_scalar(f"reward/decisions/{name}", count, 0)
        ok = frame.identified
        if ok.any():
            self._writer.add_scalar("reward/overlap", float(frame.overlap[ok].mean()), 0)
            self._writer.add_histogram("reward/all", frame.reward[ok], 0)
            self._writer.add_histogram("reward/n_controls", frame.n_controls[ok], 0)

    def event_study(self, model: RewardModel, history: History) -> None:
        """Draws once what the logged messages did by time since the decision, and whether trends agreed before."""
        if type(model) not in REWARDS.values():  # a user's own kind need not have an influence function
            return
        events = event_study(Study.of(model, history), history)
        self._writer.add_figure("reward/event_study", picture(history, events), 0)

    def replayed(self, decisions: Decisions, batch: Batch, rows: BoolArray, matched: BoolArray) -> None:
        """Takes in one replayed step: what the agent chose, and what the log did."""
        if not rows.any():
            return
        n = float(len(batch))
        chosen = decisions.actions[rows]
        self._add("replay/reward", float(batch.rewards.sum()), n)
        self._add("replay/matched", float(matched[rows].all(1).sum()), n)
        sent = self._modules.sends(chosen)
        self._add("policy/sent", float(sent.sum()), n)
        for m, module in enumerate(self._modules):
            self._add(f"replay/matched/{module.name}", float(matched[rows, m].sum()), n)
            made = np.ones(len(chosen), dtype=bool) if m == 0 else sent
            for code, action in enumerate(module.actions):
                self._add(
                    f"policy/share/{module.name}/{action}", float((chosen[made, m] == code).sum()), float(made.sum())
                )
        self._rewards.append(batch.rewards)
        self._chances.append(decisions.joint[rows])

    def losses(self, scalars: Mapping[str, float]) -> None:
        """Takes in what the agent says of its update."""
        for name, value in scalars.items():
            if np.isfinite(value):
                self._add(f"train/{name}", float(value), 1.0)

    def scores(self, scores: Mapping[str, float], step: int) -> None:
        """Writes the validation users' scores."""
        for name, value in scores.items():
            self._writer.add_scalar(name, value, step)
        if "validation/value" in scores:
            self.shown["validation"] = f"{scores['validation/value']:.4g}"

    def explained(self, table: pd.DataFrame, step: int) -> None:
        """Writes what the learned policy does and why: as a table of text, and all decisions' numbers as scalars."""
        self._writer.add_text("explain/policy", as_markdown(table), step)
        for name, value in as_scalars(table).items():
            self._writer.add_scalar(name, value, step)

    def write(self, step: int) -> None:
        """Writes the averages since the last time, and begins anew."""
        for name, total in self._sums.items():
            if self._counts[name] > 0:
                self._writer.add_scalar(name, total / self._counts[name], step)
        if self._rewards:
            self._writer.add_histogram("replay/rewards", np.concatenate(self._rewards), step)
            self._writer.add_histogram("policy/probability", np.concatenate(self._chances), step)
        for name, short in (("train/loss", "loss"), ("policy/sent", "sent"), ("replay/matched", "matched")):
            if self._counts.get(name, 0) > 0:
                self.shown[short] = f"{self._sums[name] / self._counts[name]:.3g}"
        self._sums, self._counts, self._rewards, self._chances = {}, {}, [], []

    def flush(self) -> None:
        """Write to the disk what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Write to the disk what was added, and end."""
        self._writer.close()

    def _add(self, name: str, total: float, count: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + total
        self._counts[name] = self._counts.get(name, 0.0) + count

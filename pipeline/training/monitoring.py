"""What training shows in TensorBoard (docs/metrics.md defines each tag), and the progress bar's numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from crosschannel.agents import Batch, Decisions, as_markdown, as_scalars
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError
from crosschannel.histories.propensities.sources import KNOWN_SOURCES
from crosschannel.pipeline.building import Split
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.judgement.evidence import pre_trend_sentences
from crosschannel.pipeline.judgement.validation import curve_layout
from crosschannel.reward import REWARDS, RewardFrame
from crosschannel.reward.effects import TreatmentEffects, event_study, explain_pre_trends, picture, pre_trend_check

#: The tag of the table that a run writes last, after its last checkpoint.
POLICY_TABLE = "explain/policy"
SHOWN_BY_THE_PROGRESS_BAR = {
    "train/loss": "loss",
    "train/calibration_slope": "calibration slope",
    "policy/send_rate": "sent",
    "replay/action_match_rate": "matched",
}


class Monitor:
    """Average what happens between two points, and write the averages.

    Args:
        folder: TensorBoard's folder.
        modules: The action space.
        resume_from: Step of the checkpoint that a run is resumed from; what was written later is removed, so that no
            point occurs twice.
    """

    def __init__(self, folder: Path, modules: ActionSpace, resume_from: int = 0) -> None:
        # Imports TensorBoard and PyTorch, for which a command line that only shows its help need not wait.
        from torch.utils.tensorboard import SummaryWriter

        self.shown: dict[str, str] = {}
        _cut(folder, resume_from)
        self._writer = SummaryWriter(str(folder))
        self._modules = modules
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}
        self._rewards: list[np.ndarray] = []
        self._probabilities: list[np.ndarray] = []

    def rewards(self, frame: RewardFrame) -> None:
        """Write once how many decisions have a reward, why the others have none, and the rewards' distribution."""
        for name, count in frame.counts().items():
            self._writer.add_scalar(f"reward/decisions/{name}", count, 0)
        ok = frame.identified
        self._writer.add_scalar("reward/lost_share", float(1 - ok.mean()), 0)
        if ok.any():
            self._writer.add_scalar("reward/overlap", float(frame.overlap[ok].mean()), 0)
            self._writer.add_histogram("reward/all", frame.reward[ok], 0)
            self._writer.add_histogram("reward/n_controls", frame.n_controls[ok], 0)

    def layout(self, orders: int, order: int) -> None:
        """Arrange once the curves of the validation users as bands and beside their floor (`curve_layout`)."""
        self._writer.add_custom_scalars(curve_layout(orders, order))

    def event_study(self, split: Split) -> None:
        """Draw once the effect of the logged messages by time since the decision, and write what the pre-trends show.

        Where the pre-trend test fails, both name what it points at.
        """
        if type(split.model) not in REWARDS.values():  # a user's own kind need not have an influence function
            return
        events = event_study(TreatmentEffects.fit_outcomes(split.model, split.outcomes), split.history)
        known = split.history.propensity_source in KNOWN_SOURCES
        why = explain_pre_trends(events, split.model.spec.pre, known_propensities=known)
        self._writer.add_figure("reward/event_study", picture(split.history, events, why=why), 0)
        self._writer.add_text("reward/pre_trends", pre_trend_sentences(pre_trend_check(events), events, split), 0)

    def replayed(self, batch: Batch) -> None:
        """Add what the log did in one replayed step."""
        self._add("replay/reward", float(batch.rewards.sum()), float(len(batch)))
        self._rewards.append(batch.rewards)

    def chosen(self, decisions: Decisions, matched: BoolArray) -> None:
        """Add what the agent chose at the slots of one step, and for which modules (N, M) the log did the same."""
        n, actions = float(len(decisions)), decisions.actions
        self._add("replay/action_match_rate", float(matched.all(1).sum()), n)
        sent = self._modules.sends(actions)
        self._add("policy/send_rate", float(sent.sum()), n)
        for m, module in enumerate(self._modules):
            self._add(f"replay/action_match_rate/{module.name}", float(matched[:, m].sum()), n)
            made = actions[:, m] if m == 0 else actions[sent, m]
            for action, count in zip(module.actions, np.bincount(made, minlength=len(module.actions)), strict=True):
                self._add(f"policy/share/{module.name}/{action}", float(count), float(len(made)))
        self._probabilities.append(decisions.joint)

    def losses(self, scalars: Mapping[str, float]) -> None:
        """Add the scalars of an update."""
        for name, value in scalars.items():
            if np.isfinite(value):
                self._add(f"train/{name}", float(value), 1.0)

    def scores(self, scores: Mapping[str, float], step: int) -> None:
        """Write the validation users' scores."""
        for name, value in scores.items():
            self._writer.add_scalar(name, value, step)
        if "validation/value" in scores:
            self.shown["validation"] = f"{scores['validation/value']:.4g}"

    def policy_table(self, table: pd.DataFrame, step: int) -> None:
        """Write what the learned policy does: a table as text, and the numbers of all decisions as scalars."""
        self._writer.add_text(POLICY_TABLE, as_markdown(table), step)
        for name, value in as_scalars(table).items():
            self._writer.add_scalar(name, value, step)

    def write(self, step: int) -> None:
        """Write the averages since the last time, and start over."""
        for name, total in self._sums.items():
            if self._counts[name] > 0:
                self._writer.add_scalar(name, total / self._counts[name], step)
        for name, values in (("replay/rewards", self._rewards), ("policy/probability", self._probabilities)):
            if sum(map(len, values)):
                self._writer.add_histogram(name, np.concatenate(values), step)
        for name, short in SHOWN_BY_THE_PROGRESS_BAR.items():
            if self._counts.get(name, 0) > 0:
                self.shown[short] = f"{self._sums[name] / self._counts[name]:.3g}"
        if self._counts.get("train/calibration_slope", 0) > 0:
            self.shown.pop(SHOWN_BY_THE_PROGRESS_BAR["train/loss"], None)  # the networks no longer learn
        self._sums, self._counts, self._rewards, self._probabilities = {}, {}, [], []

    def flush(self) -> None:
        """Write to the disk what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Write to the disk what was added, and end."""
        self._writer.close()

    def _add(self, name: str, total: float, count: float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + total
        self._counts[name] = self._counts.get(name, 0.0) + count


def _cut(folder: Path, step: int) -> None:
    """Cut TensorBoard's files after the last event that was written before the checkpoint of a step; 0 is none.

    Raises:
        ConfigError: If the folder is a link: what lies elsewhere is not changed.
    """
    if folder.is_symlink():
        raise ConfigError(f"{folder} is a link: replace it by the folder itself, whose files are cut on resuming")
    for file in folder.glob("events.out.tfevents.*"):
        end = _end_of_events(file, step) if step and not file.is_symlink() else 0
        if not end:
            file.unlink()
        elif end < file.stat().st_size:
            os.truncate(file, end)


def _end_of_events(path: Path, step: int) -> int:
    """Return how many bytes of a file hold whole events up to a step, and before the table that ends a run."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    size, end = path.stat().st_size, 0
    with path.open("rb") as file:
        # A record is its length, a checksum of that, the event and a checksum of it.
        while len(head := file.read(12)) == 12:
            length = int.from_bytes(head[:8], "little")
            if file.tell() + length + 4 > size:
                break
            try:
                event = Event.FromString(file.read(length + 4)[:-4])
            except DecodeError:
                logger.warning(f"{path} is damaged from byte {end:,} on: what follows is removed")
                break
            if event.step > step or any(value.tag.startswith(POLICY_TABLE) for value in event.summary.value):
                break
            end = file.tell()
    return end

"""Callbacks of a training: code of a user's own that watches it, and may end it early."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crosschannel.agents import Agent
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import import_class
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.training.states import from_storable, to_storable

#: What a checkpoint holds of how far a training came.
_PROGRESS = ("steps", "decisions", "offline_updates", "stopped")


@dataclass
class Training:
    """How far a training came, and what a callback sees of it. A callback reads, and changes nothing.

    Attributes:
        run: Folder of the run.
        config: The configuration.
        agent: The agent as it is now.
        steps: Number of steps so far, replay and offline updates together.
        decisions: Number of decisions that were replayed.
        offline_updates: Number of offline steps.
        stopped: Whether a callback ended the learning.
        losses: Scalars of the last update, by name, such as `loss`.
    """

    run: Path
    config: Config
    agent: Agent
    steps: int = 0
    decisions: int = 0
    offline_updates: int = 0
    stopped: bool = False
    losses: Mapping[str, float] = field(default_factory=dict)

    def progress(self) -> dict[str, Any]:
        """Return how far the training came, for its checkpoint."""
        return {name: getattr(self, name) for name in _PROGRESS}

    def restore(self, progress: Mapping[str, Any]) -> None:
        """Go back to where a checkpoint was written: to what `progress` returned."""
        for name in _PROGRESS:
            setattr(self, name, progress.get(name, getattr(self, name)))


class Callback:
    """Base class of callbacks: every method does nothing until you override it.

    The methods have the names that users of Stable-Baselines3 know. `on_step` and `on_evaluation` end the learning
    where they return False; the policy of then is written and judged. A callback must not draw from the agent's random
    numbers. What a resumed training needs of it to end with the same bits stands in `state_dict`: numbers, texts,
    lists, mappings, arrays and tensors, which the checkpoint holds.
    """

    def on_start(self, training: Training) -> None:
        """Run before the first step, and again where a training is resumed, after `load_state_dict`."""

    def on_step(self, training: Training) -> bool | None:
        """Run after each step and its updates; False ends the learning."""

    def on_evaluation(self, training: Training, scores: Mapping[str, float]) -> bool | None:
        """Run after each evaluation on the validation users, before the checkpoint; False ends the learning.

        Args:
            training: The training.
            scores: What TensorBoard shows under `validation/`, such as `validation/value` where it is identified.
        """

    def on_checkpoint(self, training: Training) -> None:
        """Run after each checkpoint was written. What it changes of the callback is not in that checkpoint."""

    def on_end(self, training: Training, result: EvaluationResult) -> None:
        """Run once the policy was judged on the test users, before `metrics.json` marks the run as finished."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs; nothing by default."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Callbacks:
    """The callbacks of a training in their order: those that the configuration names, then those that were given."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self._callbacks = tuple(callbacks)

    @classmethod
    def build(cls, config: Config, given: Sequence[Callback] = ()) -> Callbacks:
        """Make the callbacks that `train.callbacks` names, without arguments, and add those that were given.

        Raises:
            ConfigError: If one cannot be imported or made, or is not a `Callback`.
        """
        made = []
        for name in config.train.callbacks:
            try:
                made.append(import_class(name, "callback")())
            except TypeError as error:
                raise ConfigError(
                    f"the callback {name!r} cannot be made without arguments ({error}): give its parameters defaults, "
                    "or hand it to `train(config, callbacks=[...])`"
                ) from None
        for one in (*made, *given):
            if not isinstance(one, Callback):
                raise ConfigError(f"the callback {one!r:.80} is not derived from crosschannel.pipeline.Callback")
        return cls((*made, *given))

    def start(self, training: Training) -> None:
        """Run every `on_start`, and refuse at once a state that no checkpoint takes.

        Raises:
            ConfigError: If a state cannot be stored.
        """
        for one in self._callbacks:
            one.on_start(training)
        self.state_dict()

    def after_step(self, training: Training) -> bool:
        """Run every `on_step`; return whether the learning continues."""
        return self._all(lambda one: one.on_step(training))

    def after_evaluation(self, training: Training, scores: Mapping[str, float]) -> bool:
        """Run every `on_evaluation`; return whether the learning continues."""
        return self._all(lambda one: one.on_evaluation(training, scores))

    def checkpoint(self, training: Training) -> None:
        """Run every `on_checkpoint`."""
        for one in self._callbacks:
            one.on_checkpoint(training)

    def end(self, training: Training, result: EvaluationResult) -> None:
        """Run every `on_end`."""
        for one in self._callbacks:
            one.on_end(training, result)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the name and the state of each callback, as a checkpoint holds them.

        Raises:
            ConfigError: If a state holds a value with which the checkpoint could not be read.
        """
        names = [_name_of(one) for one in self._callbacks]
        states = [to_storable(one.state_dict(), name) for one, name in zip(self._callbacks, names, strict=True)]
        return [{"name": name, "state": state} for name, state in zip(names, states, strict=True)]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ConfigError: If the callbacks are others than those that were stored.
        """
        stored, now = [str(each["name"]) for each in states], [_name_of(one) for one in self._callbacks]
        if stored != now:
            raise ConfigError(
                f"the run was trained with the callbacks {', '.join(stored) or 'none'}, and is resumed with "
                f"{', '.join(now) or 'none'}: hand over the same ones, in the same order"
            )
        for one, each in zip(self._callbacks, states, strict=True):
            one.load_state_dict(from_storable(each["state"]))

    def _all(self, call: Callable[[Callback], bool | None]) -> bool:
        """Return whether no callback returned what is false, such as NumPy's False; all are run."""
        answers = [call(one) for one in self._callbacks]
        return all(answer is None or bool(answer) for answer in answers)


def _name_of(callback: Callback) -> str:
    return f"{type(callback).__module__}:{type(callback).__qualname__}"

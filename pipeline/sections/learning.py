"""What a run learns from its history, and how: rewards, parts of the users, agent and training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crosschannel.agents.registry import agent_settings
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.serialization import from_dict, names_class
from crosschannel.reward import REWARDS, RewardSpec

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class RewardConfig(RewardSpec):
    """How goal events become rewards.

    Attributes:
        kind: `did`, `did_regression`, `did_dr`, `change`, `raw` or your own. Your own class is `package.module:Class`.
    """

    kind: str = "did"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in REWARDS and not names_class(self.kind):
            raise ConfigError(
                f"there is no reward kind {self.kind!r}. {nearest(self.kind, REWARDS)} "
                "Your own is 'package.module:Class'"
            )


@dataclass(frozen=True)
class SplitConfig:
    """Shares of users that train, validate and test.

    Attributes:
        train: Share that the agent and the reward model learn from.
        validation: Share whose estimates are shown while training.
        test: Share that the evaluation rests on.
    """

    train: float = 0.6
    validation: float = 0.1
    test: float = 0.3

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} is {share}: a share lies between 0 and 1")
        if not abs(sum(self.shares.values()) - 1) <= 1e-9:
            raise ConfigError(f"the shares {self.shares} do not add up to 1")
        if self.train == 0 or self.test == 0:
            raise ConfigError("the shares of `train` and `test` must be above 0: values need users of their own")

    @property
    def shares(self) -> dict[str, float]:
        """Share by part."""
        return {name: getattr(self, name) for name in SPLITS}


@dataclass(frozen=True)
class AgentConfig:
    """Which agent learns.

    Attributes:
        name: Name of an agent, or your own `package.module:Class`. An agent other than the file's starts from its own
            defaults.
        settings: The agent's settings: typed and complete for an agent of this package, plain values for your own.
    """

    name: str = "ensemble_thompson"
    settings: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = agent_settings(self.name)
        if known is None:
            if not isinstance(self.settings, Mapping):
                raise ConfigError(f"settings: expected a mapping, got {self.settings!r}")
        elif not isinstance(self.settings, known):
            # A frozen dataclass sets a field of its own in no other way.
            object.__setattr__(self, "settings", from_dict(known, self.settings, "settings"))


@dataclass(frozen=True)
class TrainConfig:
    """How the agent learns from the log.

    Attributes:
        num_envs: Users that are replayed in parallel.
        updates_per_step: Learning updates after each step of the replay.
        offline_updates: Extra offline updates after one pass over the log.
        log_every: Steps between two points in TensorBoard. While the log is replayed, the agent chooses at these only.
        checkpoint_every: Steps between two checkpoints. A multiple of `log_every`.
        callbacks: Classes of your own that watch the training. Each `package.module:Class` is derived from
            `crosschannel.pipeline.Callback`.
    """

    num_envs: int = 1024
    updates_per_step: int = 4
    offline_updates: int = 200
    log_every: int = 20
    checkpoint_every: int = 100
    callbacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [name for name in self.callbacks if not names_class(name)]:
            raise ConfigError(f"callbacks: {wrong[0]!r} does not name a class: write package.module:Class")
        least = {"num_envs": 1, "updates_per_step": 0, "offline_updates": 0, "log_every": 1, "checkpoint_every": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least {value}")
        if self.checkpoint_every % self.log_every:
            # An average that a checkpoint cut in two could not be resumed to the same bits.
            raise ConfigError(
                f"checkpoint_every {self.checkpoint_every} is not a multiple of log_every {self.log_every}"
            )

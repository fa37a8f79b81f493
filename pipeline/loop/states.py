"""States of learning on disk: what was learned after some slots, and what of the log each rests on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from crosschannel import agents
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError
from crosschannel.core.files import check_version
from crosschannel.core.serialization import to_dict
from crosschannel.core.times import duration
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.building import agent_spec
from crosschannel.pipeline.command_line import logger
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.learning import Learned
from crosschannel.pipeline.pricing import LogPace
from crosschannel.pipeline.run_folder import Run

#: Names of the states: after the last fit of everything, and after the last day that was added to it.
FITTED, LAST = "fitted", "last"
#: Version of what a state says of the log that it rests on: its digests are of another kind than those before.
VERSION = 2
#: Sections of the configuration that what is learned depends on, beside `update`.
DECIDES_WHAT_IS_LEARNED = ("seed", "guardrails", "context", "reward", "agent", "train", "constraints")
#: Settings of `update` that change nothing that is learned.
NOT_LEARNED_WITH = ("keep", "revise")


@dataclass
class States:
    """The folder `learning/` of a run, for one update.

    Attributes:
        run: The run.
        modules: The actions of the log.
        digests: A digest of each of its days, up to the last slot.
        users: Digests of what is known of its users before each slot, and after the last one.
        first: When the first day begins, microseconds since 1970 UTC.
        fitted_at: Number of slots after which the schedule has all fitted again for the last time.
        revised: Number of days that have changed since they were learned from, within `update.revise`.
        late: Number of days before that have changed; they count when all is fitted again.
    """

    run: Run
    modules: ActionSpace
    digests: list[str]
    users: Sequence[str]
    first: int
    fitted_at: int
    revised: int = field(default=0, init=False)
    late: int = field(default=0, init=False)

    def furthest(self) -> tuple[Learned | None, int]:
        """Return the furthest state that the log has not outdated, and the number of slots it has learned from."""
        for name in (LAST, FITTED):
            state = self._read(name)
            if state is not None and self._holds(state[1]):
                return state[0], int(state[1]["slot"])
        return None, 0

    def _read(self, name: str) -> tuple[Learned, dict[str, Any]] | None:
        """Return a state; None where there is none, or where it cannot be read: then it is computed again."""
        path, config = self._path(name), self.run.config
        if not path.is_file():
            return None
        try:
            agent, extra = agents.load_fit(path, config.device, self.run.allowed_classes)
            if check_version(extra.get("version"), VERSION, path) < VERSION:
                return None
            features, pace = ContextFeatures.from_state_dict(extra["features"]), LogPace.from_dict(extra["pace"])
            keys = np.asarray(extra["keys"].numpy()).view(np.uint64)
            return Learned(
                agent=agent, spec=agent_spec(config, features), features=features, pace=pace, keys=keys
            ), extra
        except (ConfigError, KeyError, TypeError, ValueError) as error:
            logger.warning(f"{error}: what it held is learned again")
            return None

    def _holds(self, extra: dict[str, Any]) -> bool:
        """Return whether what a state rests on is as it was, but for days before those that are revised."""
        slot, days = int(extra["slot"]), list(extra["days"])
        update = self.run.config.update
        oldest = len(self.digests) - duration(update.revise) // duration(update.every)
        changed = [k for k, (old, new) in enumerate(zip(days, self.digests, strict=False), 1) if old != new]
        if extra.get("actions") == self._actions():  # a digest of a day is one of all actions: others are no correction
            self.revised = max(self.revised, sum(k > oldest for k in changed))
            self.late = max(self.late, sum(k <= oldest for k in changed))
        return (
            len(days) <= len(self.digests)
            and extra["fitted_at"] == self.fitted_at
            and extra["first"] == self.first
            and extra["config"] == settings_digest(self.run.config)
            and extra["users"] == self.users[slot]
            and all(k <= oldest for k in changed)
        )

    def write(self, learned: Learned | None, slot: int) -> None:
        """Write what was learned after a slot, where later days can be added to it."""
        if learned is None or not is_extendable(learned):
            return
        assert isinstance(learned.agent, agents.ExtendableAgent)
        path = self._path(FITTED if slot == self.fitted_at else LAST)
        path.parent.mkdir(exist_ok=True)
        import torch

        extra = {
            "version": VERSION,
            "slot": slot,
            "fitted_at": self.fitted_at,
            "first": self.first,
            "days": self.digests[:slot],
            "users": self.users[slot],
            "actions": self._actions(),
            "config": settings_digest(self.run.config),
            "keys": torch.from_numpy(learned.keys.view(np.int64)),
            "features": learned.features.state_dict(),
            "pace": learned.pace.to_dict(),
        }
        agents.save_fit(learned.agent, path, learned.spec, extra)

    def fingerprint(self, slot: int) -> str:
        """Return a digest of what the log holds up to a slot, as 32 hexadecimal digits: of its days and its users."""
        days = json.dumps([self.digests[:slot], self.users[slot]])
        return hashlib.blake2b(days.encode(), digest_size=16).hexdigest()

    def _actions(self) -> str:
        return json.dumps(self.modules.to_dict(), sort_keys=True)

    def _path(self, name: str) -> Path:
        return self.run.path / "learning" / f"{name}.pt"


def is_extendable(learned: Learned) -> bool:
    """Return whether later days can be added to what was learned."""
    return isinstance(learned.agent, agents.ExtendableAgent) and learned.agent.extendable


def settings_digest(config: Config) -> str:
    """Return a digest of the settings that what is learned depends on."""
    plain = to_dict(config)
    update = {name: value for name, value in plain["update"].items() if name not in NOT_LEARNED_WITH}
    settings = {**{name: plain[name] for name in DECIDES_WHAT_IS_LEARNED}, "update": update}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

"""The typed configuration of a run, read from YAML and checked before any data are read or simulated."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crosschannel.agents.constraints.settings import Constraints
from crosschannel.agents.registry import AGENTS_WITHOUT_FUNNEL
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.files import check_version, read_yaml, write_yaml
from crosschannel.core.hashing import MAX_SEED
from crosschannel.core.serialization import convert, from_dict, to_dict
from crosschannel.envs.market import MarketConfig
from crosschannel.envs.market.observables import check_context
from crosschannel.evaluation.trials import TrialConfig
from crosschannel.histories.arms import Arms
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.guardrails import Guardrails
from crosschannel.pipeline.loop.settings import LoopConfig, UpdateConfig
from crosschannel.pipeline.sections.evaluation import RIDGE as RIDGE
from crosschannel.pipeline.sections.evaluation import EvaluationConfig as EvaluationConfig
from crosschannel.pipeline.sections.history import LOGISTIC as LOGISTIC
from crosschannel.pipeline.sections.history import SOURCES as SOURCES
from crosschannel.pipeline.sections.history import WITH_DECISIONS as WITH_DECISIONS
from crosschannel.pipeline.sections.history import HistoryConfig as HistoryConfig
from crosschannel.pipeline.sections.learning import SPLITS as SPLITS
from crosschannel.pipeline.sections.learning import AgentConfig as AgentConfig
from crosschannel.pipeline.sections.learning import RewardConfig as RewardConfig
from crosschannel.pipeline.sections.learning import SplitConfig as SplitConfig
from crosschannel.pipeline.sections.learning import TrainConfig as TrainConfig
from crosschannel.pipeline.watch.settings import AlertsConfig
from crosschannel.reward import Goal

logger = logging.getLogger("crosschannel")

CONFIG_FOLDER = Path(__file__).resolve().parent.parent / "configs"
#: Version of a configuration file, in which `version` may stand beside the settings.
CONFIG_VERSION = 1
DEVICES = ("cpu", "cuda", "mps", "auto")


@dataclass(frozen=True)
class Config:
    """A run of crosschannel.

    Attributes:
        name: Name of the run's folder. A number is added to a name that is taken.
        run_dir: Folder in which runs are written.
        seed: Seed of the run's random numbers, but not of the market's.
        device: `cpu`, `cuda`, `cuda:1`, `mps` or `auto`. The agent's networks compute there.
        history: Where the history comes from.
        guardrails: What may be sent, beyond the log's own eligibility.
        arms: Which users the policy decides for when it is deployed.
        context: Which context features are built.
        reward: How goal events become rewards.
        split: Shares of users that train, validate and test.
        agent: Which agent learns.
        constraints: Limits on what the policy is expected to use, kept by shadow prices.
        train: How the agent learns from the log.
        evaluation: How the learned policy is evaluated.
        update: How a policy in use learns from what came since.
        loop: A simulated deployment.
        trial: How a randomised trial of arms is read.
        alerts: What is watched after each day.
    """

    name: str = "market"
    run_dir: Path = Path("runs")
    seed: int = 0
    device: str = "cpu"
    history: HistoryConfig = field(default_factory=HistoryConfig)
    guardrails: Guardrails = field(default_factory=Guardrails)
    arms: Arms = field(default_factory=Arms)
    context: ContextSpec = field(default_factory=ContextSpec)
    reward: RewardConfig = field(default_factory=RewardConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    constraints: Constraints = field(default_factory=Constraints)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    trial: TrialConfig = field(default_factory=TrialConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)

    def __post_init__(self) -> None:
        check_name(self.name)
        check_seed(self.seed)
        check_device(self.device)
        if self.history.source == "market":
            self.market()
            check_context(self.context)
            if self.guardrails != Guardrails():
                raise ConfigError(
                    "the market has its own rules of what is eligible (history.market.min_gap_days), and deploys "
                    "policies under those: leave out `guardrails`, which are for logs"
                )

    def market(self) -> MarketConfig:
        """Return the market to simulate, whose true effects are in the units of the rewards.

        Raises:
            ConfigError: If the market cannot have the reward's goals, or was given goals of its own.
        """
        if self.history.market.goals not in (MarketConfig().goals, self.reward.goals):
            raise ConfigError(
                "the market's goals are those of the reward: set `reward.goals`, not `history.market.goals`"
            )
        return replace(self.history.market, goals=self.reward.goals)


def check_name(name: str) -> None:
    """Refuse a run's name that is not a plain folder name.

    Raises:
        ConfigError: If the name is empty, hidden, too long, leads to another folder, or cannot be written as UTF-8.
    """
    text = name.encode("utf-8", "surrogatepass")
    if not re.fullmatch(r"[^./\\\x00-\x1f\x7f\ud800-\udfff][^/\\\x00-\x1f\x7f\ud800-\udfff]*", name) or len(text) > 200:
        raise ConfigError(
            f"name {name[:80]!r} is not a plain folder name: it must not be empty, begin with a dot, have slashes or "
            "control characters, or be longer than 200 bytes; run_dir says where runs are written"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that not every generator of random numbers takes.

    Raises:
        ConfigError: If it is below 0 or above `MAX_SEED`.
    """
    if not 0 <= seed <= MAX_SEED:
        shown = f"seed {seed} is below 0" if -MAX_SEED <= seed < 0 else "the seed is out of range"
        raise ConfigError(f"{shown}: give a whole number from 0 to {MAX_SEED}")


def check_device(device: str) -> None:
    """Refuse what cannot name a device on any machine; whether this machine has it shows when the agent is made.

    Raises:
        ConfigError: If the name is not one of a device.
    """
    if not re.fullmatch(r"cpu|mps|auto|cuda(:\d+)?", device):
        raise ConfigError(f"unknown device {device!r}. {nearest(device, DEVICES)} One of several GPUs is 'cuda:1'")


def read_config(path: Path) -> Config:
    """Read a YAML file; relative paths in it are relative to where the program runs.

    Raises:
        ConfigError: With every fault of the file that can be told without data.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such configuration file")
    data = read_yaml(path)
    if isinstance(data, dict):
        check_version(data.pop("version", None), CONFIG_VERSION, path)
    return from_dict(Config, {} if data is None else data, f"{path}:")


def load_config(source: str | Path = "market", settings: Mapping[str, Any] | None = None) -> Config:
    """Return a configuration, with some settings replaced.

    Args:
        source: A YAML file, or the name of a configuration that comes with the package, such as `market`.
        settings: Values by dotted name, such as `{"history.market.users": 2000}`.

    Raises:
        ConfigError: If there is no such configuration, or a setting is unknown or refused; the nearest name is given.
    """
    return override(read_config(config_path(source)), settings or {})


def config_path(source: str | Path) -> Path:
    """Return the YAML file of a configuration: a file as it is, or that of a name such as `market`.

    Raises:
        ConfigError: If no configuration that comes with the package has the name; the nearest one is given.
    """
    path = Path(source)
    if path.suffix or path.is_file():
        return path
    known = sorted(file.stem for file in CONFIG_FOLDER.glob("*.yaml"))
    if str(source) not in known:
        raise ConfigError(f"there is no configuration {str(source)!r}. {nearest(str(source), known)}")
    return CONFIG_FOLDER / f"{source}.yaml"


def override(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return a configuration with settings replaced.

    An agent other than before begins with its own defaults, and goals other than before keep the costs and surrogates
    of the funnel that fit them. Constraints that were not set together with these are left out, with a note in the log,
    where the agent cannot keep any, or where their event is no longer a cost event.

    Args:
        config: The configuration.
        settings: Values by dotted name, such as `{"history.market.users": 2000}`.

    Raises:
        ConfigError: If a setting is unknown or refused; the nearest name is given.
    """
    data = to_dict(config)
    if settings.get("agent.name", config.agent.name) != config.agent.name:
        data["agent"]["settings"] = {}
    sets_constraints = any(name.partition(".")[0] == "constraints" for name in settings)
    for name, value in settings.items():
        *sections, last = name.split(".")
        section = data
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(f"{name}: {part!r} is a setting, not a section")
        section[last] = to_dict(value)
    if "reward.goals" in settings and not any(name.startswith("reward.funnel") for name in settings):
        goals = convert(tuple[Goal, ...], data["reward"]["goals"], "reward.goals")
        data["reward"]["funnel"] = to_dict(config.reward.funnel and config.reward.funnel.restricted_to(goals))
    changed = from_dict(Config, data)
    return changed if sets_constraints else replace(changed, constraints=_constraints_of(changed, config))


def with_agent(config: Config, name: str) -> Config:
    """Return a configuration with another agent, which begins with its own defaults; see `override`."""
    changed = replace(config, agent=AgentConfig(name))
    return replace(changed, constraints=_constraints_of(changed, config))


def _constraints_of(changed: Config, before: Config) -> Constraints:
    """Return the constraints that another agent and other goals leave; log those that they do not."""
    constraints = changed.constraints
    if not constraints.price_messages:
        return constraints
    if changed.agent.name != before.agent.name and changed.agent.name in AGENTS_WITHOUT_FUNNEL:
        names = ", ".join((*constraints.names, *(["later slots"] if constraints.discount else [])))
        logger.info(f"the agent {changed.agent.name} cannot keep constraints: left out are those on {names}")
        return Constraints()
    lost = _cost_events(before) - _cost_events(changed)
    if gone := [limit.event for limit in constraints.cost_events if limit.event in lost]:
        logger.info(f"no longer cost events of the rewards: the constraints on {', '.join(gone)} are left out")
    kept = tuple(limit for limit in constraints.cost_events if limit.event not in gone)
    return replace(constraints, cost_events=kept)


def _cost_events(config: Config) -> set[str]:
    return set() if config.reward.funnel is None else set(config.reward.funnel.costs)


def write_config(config: Config, path: Path) -> None:
    """Write every setting as YAML, defaults included, and the version of the format."""
    write_yaml({"version": CONFIG_VERSION, **to_dict(config)}, path)

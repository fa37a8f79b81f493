"""The typed configuration of a run, read from YAML and checked before any data are read or simulated."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from crosschannel.agents.constraints.settings import Constraints
from crosschannel.agents.registry import AGENTS_WITHOUT_FUNNEL, agent_settings
from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.files import read_yaml, write_yaml
from crosschannel.core.hashing import MAX_SEED
from crosschannel.core.serialization import convert, from_dict, to_dict
from crosschannel.envs.market import MarketConfig
from crosschannel.envs.market.observables import check_context
from crosschannel.evaluation import EvaluationSettings, GateRule, TrajectorySettings
from crosschannel.histories.arms import Arms
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.readers.datasets import DATASETS
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.tables import TableMapping
from crosschannel.reward import REWARDS, Goal, RewardSpec

logger = logging.getLogger("crosschannel")

SOURCES = ("market", "folder", "tables", "stream", *DATASETS)
#: Sources whose logs the decisions of a policy join.
WITH_DECISIONS = ("folder", "tables", "stream")
SPLITS = ("train", "validation", "test")
CONFIG_FOLDER = Path(__file__).resolve().parent.parent / "configs"
DEVICES = ("cpu", "cuda", "mps", "auto")
RIDGE, LOGISTIC = "ridge", "logistic"


@dataclass(frozen=True)
class HistoryConfig:
    """Where the history comes from.

    Attributes:
        source: `market`, `folder`, `tables`, `stream`, or a data set by name. `market` simulates the history, `folder`
            reads a native one; `tables` and `stream` need the mapping of that name in the file.
        path: Folder to read. For `tables` and `stream` it replaces the folder that their files are in.
        market: The simulated market, where `source` is `market`.
        tables: Which file and column is which, where `source` is `tables`.
        stream: Which events are sends and which slots there are, where `source` is `stream`.
        churn_events: Events after which nothing can be sent to a user. Later slots have no reward, end the
            replay and get nothing sent. None: those of a native folder's `history.yaml`, otherwise `unsubscribed` and
            `app_removed`.
        ties: Order of an event at the time of a decision. At exactly that of a decision of its user it is `before` it
            (the event that triggers a message) or `after` it (a campaign sent in the morning of a date). None: not
            declared; it counts as before, and where many goal events tie, rewards are refused.
        observed_from: When the users' own observation begins: with the `first_row` of each, or with the `log` if all
            users existed then, active or not. None: as the tables of users, a native folder or the slots of a stream
            declare it, otherwise with the `first_row`.
        propensity_model: Classifier of propensities that were not logged. `logistic`, or one of your own or of
            scikit-learn, such as `sklearn.ensemble:GradientBoostingClassifier`, with its defaults. It is
            cross-fitted by user and calibrated.
        decided: Folder of decisions that `decide` wrote, by date. They join those of the log, with the users' arms;
            for `tables` and `stream` it replaces the mapping's `decided`.
    """

    source: str = "market"
    path: Path | None = None
    market: MarketConfig = field(default_factory=MarketConfig)
    tables: TableMapping | None = None
    stream: StreamMapping | None = None
    churn_events: tuple[str, ...] | None = None
    ties: Literal["before", "after"] | None = None
    observed_from: Literal["first_row", "log"] | None = None
    propensity_model: str = LOGISTIC
    decided: Path | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f"unknown source {self.source!r}. {nearest(self.source, SOURCES)}")
        if self.decided is not None and self.source not in WITH_DECISIONS:
            raise ConfigError(
                f"decided {str(self.decided)!r} is not read: decisions join a log of the sources "
                f"{', '.join(WITH_DECISIONS)}, not of {self.source!r}"
            )
        if self.path is not None and self.source == "market":
            others = ", ".join(SOURCES[1:])
            raise ConfigError(
                f"path {str(self.path)!r} is not read: the history of the source 'market' is simulated. "
                f"Choose the source that reads the path: {others}"
            )
        if self.source in ("tables", "stream") and getattr(self, self.source) is None:
            raise ConfigError(f"the source {self.source!r} needs the mapping `{self.source}`: see docs/histories.md")
        if self.propensity_model != LOGISTIC and not _names_a_class(self.propensity_model):
            raise ConfigError(
                f"there is no propensity model {self.propensity_model!r}: use {LOGISTIC!r}, or a classifier of your "
                "own or of scikit-learn as 'package.module:Class'"
            )

    def with_path(self, path: Path) -> HistoryConfig:
        """Return the configuration of another log of the same layout; that of a market is in the native layout."""
        return replace(self, source="folder" if self.source == "market" else self.source, path=path)


@dataclass(frozen=True)
class RewardConfig(RewardSpec):
    """How goal events become rewards.

    Attributes:
        kind: `did`, `did_regression`, `did_dr`, `change`, `raw` or your own. Your own class is `package.module:Class`.
    """

    kind: str = "did"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in REWARDS and not _names_a_class(self.kind):
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
    """

    num_envs: int = 1024
    updates_per_step: int = 4
    offline_updates: int = 200
    log_every: int = 20
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        least = {"num_envs": 1, "updates_per_step": 0, "offline_updates": 0, "log_every": 1, "checkpoint_every": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least {value}")
        if self.checkpoint_every % self.log_every:
            # An average that a checkpoint cut in two could not be resumed to the same bits.
            raise ConfigError(
                f"checkpoint_every {self.checkpoint_every} is not a multiple of log_every {self.log_every}"
            )


@dataclass(frozen=True)
class EvaluationConfig(EvaluationSettings):
    """How the learned policy is evaluated.

    Attributes:
        market_users: Simulated users to whom each policy is deployed. For histories of a market only.
        segments: User attribute by which the policy is explained.
        gate: The rule of the verdict with which an evaluation ends.
        outcome_model: Regressor of the rewards. `ridge`, or one of your own or of scikit-learn, such as
            `sklearn.ensemble:RandomForestRegressor`, with its defaults. It is cross-fitted on the evaluated users.
        trajectories: The episodes of slots over which the policy is valued as one that is followed.
    """

    market_users: int = 4000
    segments: str | None = None
    gate: GateRule = field(default_factory=GateRule)
    outcome_model: str = "ridge"
    trajectories: TrajectorySettings = field(default_factory=TrajectorySettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.market_users < 2:
            raise ConfigError(f"market_users {self.market_users} is below 2: a standard error needs two users")
        if self.outcome_model != RIDGE and not _names_a_class(self.outcome_model):
            raise ConfigError(
                f"there is no outcome model {self.outcome_model!r}: use {RIDGE!r}, or a regressor of your own or of "
                "scikit-learn as 'package.module:Class'"
            )

    @property
    def estimation(self) -> EvaluationSettings:
        """Return the settings of the off-policy estimates."""
        return EvaluationSettings(**{f.name: getattr(self, f.name) for f in fields(EvaluationSettings)})


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


def _names_a_class(path: str) -> bool:
    return all(part.isidentifier() for part in re.split(r"[.:]", path)) and path.count(":") == 1


def read_config(path: Path) -> Config:
    """Read a YAML file; relative paths in it are relative to where the program runs.

    Raises:
        ConfigError: With every fault of the file that can be told without data.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such configuration file")
    data = read_yaml(path)
    return from_dict(Config, {} if data is None else data, f"{path}:")


def load_config(source: str | Path = "market", settings: Mapping[str, Any] | None = None) -> Config:
    """Return a configuration, with some settings replaced.

    Args:
        source: A YAML file, or the name of a configuration that comes with the package, such as `market`.
        settings: Values by dotted name, such as `{"history.market.users": 2000}`.

    Raises:
        ConfigError: If there is no such configuration, or a setting is unknown or refused; the nearest name is given.
    """
    path = Path(source)
    if not path.suffix:
        path = CONFIG_FOLDER / f"{source}.yaml"
        known = sorted(file.stem for file in CONFIG_FOLDER.glob("*.yaml"))
        if str(source) not in known:
            raise ConfigError(f"there is no configuration {str(source)!r}. {nearest(str(source), known)}")
    return override(read_config(path), settings or {})


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
    """Write every setting as YAML, defaults included."""
    write_yaml(to_dict(config), path)

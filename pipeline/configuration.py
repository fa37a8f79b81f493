"""The typed configuration of a run: YAML gives the defaults, dotted flags override them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro
import yaml

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.files import replacing
from crosschannel.core.serialization import from_plain, to_plain
from crosschannel.envs.market import MarketConfig
from crosschannel.evaluation import EvaluationSettings
from crosschannel.histories.features import ContextSpec
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.readers.datasets import DATASETS
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.tables import TableMapping
from crosschannel.reward import RewardSpec

WITHOUT_PATH = ("market", "tables", "stream")
SOURCES = (*WITHOUT_PATH, "folder", *DATASETS)
SPLITS = ("train", "validation", "test")
AGENT_FLAG = "--agent.settings."


@dataclass(frozen=True)
class HistoryConfig:
    """Where the history comes from.

    Attributes:
        source: `market` simulates one, `folder` reads the native folder, `tables` reads CSV or Parquet files by
            the mapping in `tables`, `stream` reads one event stream by the mapping in `stream`, or the name of a data
            set such as `starbucks_rewards`.
        path: The folder to read; not used by `market`, and not needed by a data set that an installed package brings
            (`complete_journey`).
        market: The simulated market, where `source` is `market`; its goals are always those of the reward.
        tables: How the columns of the files are called, where `source` is `tables`.
        stream: Which rows are sends and which slots there are, where `source` is `stream`.
    """

    source: str = "market"
    path: Path | None = None
    market: MarketConfig = field(default_factory=MarketConfig)
    tables: tyro.conf.SuppressFixed[TableMapping | None] = None  # in a file only: flags cannot show it well
    stream: tyro.conf.Suppress[StreamMapping | None] = None  # its parts have no defaults to be flags of

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ConfigError(f"unknown source {self.source!r}. {nearest(self.source, SOURCES)}")
        if self.path is not None and self.source in WITHOUT_PATH:
            where = "is simulated" if self.source == "market" else f"is read from the files in `{self.source}`"
            raise ConfigError(
                f"path {str(self.path)!r} is not read: with source {self.source!r} the history {where}. Say which "
                f"source reads that folder: {', '.join(name for name in SOURCES if name not in WITHOUT_PATH)}"
            )
        if self.source == "tables" and self.tables is None:
            raise ConfigError("source 'tables' needs the mapping `tables`: say which file and column is which")
        if self.source == "stream" and self.stream is None:
            raise ConfigError("source 'stream' needs the mapping `stream`: say which events are sends")


@dataclass(frozen=True)
class RewardConfig(RewardSpec):
    """How goal events become rewards.

    Attributes:
        kind: `did` subtracts the change of comparable users who got nothing; `change` and `raw` do not, and are
            there to be compared with. A class of your own is `package.module:Class`.
    """

    kind: str = "did"


@dataclass(frozen=True)
class SplitConfig:
    """Shares of the users that train, validate and test; a user is in one part only.

    Attributes:
        train: Share that the agent and the reward model learn from.
        validation: Share whose estimates are shown while training.
        test: Share that the final evaluation rests on.
    """

    train: float = 0.6
    validation: float = 0.1
    test: float = 0.3

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.test) < 0 or abs(sum(self.shares.values()) - 1) > 1e-9:
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
        name: A name from the agents' registry, or `package.module:Class` for your own. Its settings are flags too:
            `--agent.settings.members 20`.
        settings: Its settings; what is absent keeps the agent's default.
    """

    name: str = "ensemble_thompson"
    settings: tyro.conf.Suppress[Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainConfig:
    """How the log is replayed and learned from.

    Attributes:
        envs: Users that are replayed side by side.
        updates: Learning updates after each step.
        final_steps: Steps without replay, for learning only, after the whole log was replayed.
        log_every: Steps between two points in TensorBoard; while the log is replayed the agent chooses at these only.
        checkpoint_every: Steps between two checkpoints; a multiple of `log_every`, so that no average is cut in two.
    """

    envs: int = 1024
    updates: int = 4
    final_steps: int = 200
    log_every: int = 20
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name, least in (("envs", 1), ("log_every", 1), ("checkpoint_every", 1), ("updates", 0), ("final_steps", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        if self.checkpoint_every % self.log_every:
            raise ConfigError(
                f"checkpoint_every {self.checkpoint_every} is not a multiple of log_every {self.log_every}"
            )


@dataclass(frozen=True)
class EvaluationConfig(EvaluationSettings):
    """How the learned policy is judged.

    Attributes:
        market_users: Fresh simulated users who get each policy's messages, where the history is a market.
        segments: User attribute by whose values the policy is explained as well, such as `platform`; numbers are cut
            into quarters of users. None: for all users together only.
    """

    market_users: int = 4000
    segments: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.market_users < 2:
            raise ConfigError(f"market_users {self.market_users} is below 2: a standard error needs two users")


@dataclass(frozen=True)
class Config:
    """A run of crosschannel.

    Attributes:
        name: The run's name; it writes `runs/<name>/`.
        runs: Where runs are written.
        seed: Seed of everything random in the run, but not of the market (`history.market.seed`).
        device: Where the agent computes: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`.
        history: Where the history comes from.
        guardrails: What may be sent at all, on top of what the log says was eligible.
        context: Which context features are built.
        reward: How goal events become rewards.
        split: Who trains and who tests.
        agent: Which agent learns.
        train: How it learns.
        evaluation: How it is judged.
    """

    name: str = "market"
    runs: Path = Path("runs")
    seed: int = 0
    device: str = "cpu"
    history: HistoryConfig = field(default_factory=HistoryConfig)
    guardrails: Guardrails = field(default_factory=Guardrails)
    context: ContextSpec = field(default_factory=ContextSpec)
    reward: RewardConfig = field(default_factory=RewardConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.history.source == "market" and self.guardrails != Guardrails():
            raise ConfigError(
                "the market has its own rules of what is eligible (history.market.min_gap_days), and deploys policies "
                "under those: leave out `guardrails`, which are for logs"
            )


def read_config(path: Path) -> Config:
    """Reads a YAML file; relative paths in it are relative to where the program runs.

    Raises:
        ConfigError: If the file is absent, is not YAML, or has a key that is not known.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such configuration file")
    try:
        data = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not YAML: {error}") from None
    return from_plain(Config, data or {}, str(path))


def write_config(config: Config, path: Path) -> None:
    """Writes every setting, resolved, as YAML."""
    with replacing(path) as draft:
        draft.write_text(yaml.safe_dump(to_plain(config), sort_keys=False))


def override(config: Config, arguments: Sequence[str], description: str) -> Config:
    """The configuration with dotted flags (`--train.envs 256`) applied; `--help` lists them all.

    An agent's own settings are flags as well, `--agent.settings.KEY VALUE` with the value as in YAML; which there are
    depends on the agent, so that they are checked when it is made.

    Raises:
        ConfigError: If the settings do not fit together.
    """
    settings, rest = _agent_settings(arguments)
    changed = tyro.cli(Config, args=rest, default=config, description=description)
    return replace(changed, agent=replace(changed.agent, settings={**config.agent.settings, **settings}))


def _number(text: str) -> float | str:
    # YAML reads 1e-3 as text; a number is meant.
    try:
        return float(text)
    except ValueError:
        return text


def _agent_settings(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The agent's settings among the flags, and the other flags."""
    settings: dict[str, Any] = {}
    rest = []
    left = iter(arguments)
    for flag in left:
        if not flag.startswith(AGENT_FLAG):
            rest.append(flag)
            continue
        name, given, value = flag.removeprefix(AGENT_FLAG).partition("=")
        text = value if given else next(left, None)
        if text is None:
            raise ConfigError(f"{flag} has no value: write {flag} VALUE")
        try:
            parsed = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"{flag}: {text!r} is not a value as in YAML") from None
        settings[name.replace("-", "_")] = _number(parsed) if isinstance(parsed, str) else parsed
    return settings, rest

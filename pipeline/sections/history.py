"""Where the history of a run comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from crosschannel.core.errors import ConfigError, nearest
from crosschannel.core.serialization import names_class
from crosschannel.envs.market import MarketConfig
from crosschannel.histories.readers.datasets import DATASETS
from crosschannel.histories.readers.stream.mapping import StreamMapping
from crosschannel.histories.readers.tables import TableMapping

SOURCES = ("market", "folder", "tables", "stream", *DATASETS)
#: Sources whose logs the decisions of a policy join.
WITH_DECISIONS = ("folder", "tables", "stream")
LOGISTIC = "logistic"


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
        if self.propensity_model != LOGISTIC and not names_class(self.propensity_model):
            raise ConfigError(
                f"there is no propensity model {self.propensity_model!r}: use {LOGISTIC!r}, or a classifier of your "
                "own or of scikit-learn as 'package.module:Class'"
            )

    def anywhere(self) -> HistoryConfig:
        """Return the configuration without where the log stands: a log counts by its fingerprint."""
        return replace(self, path=None, decided=None)

    def with_path(self, path: Path) -> HistoryConfig:
        """Return the configuration of another log of the same layout; that of a market is in the native layout."""
        return replace(self, source="folder" if self.source == "market" else self.source, path=path)

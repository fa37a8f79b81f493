"""Context features: standardised arrays of what was known about a user strictly before a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from crosschannel.core.arrays import FloatArray, IntArray
from crosschannel.core.errors import ConfigError
from crosschannel.core.serialization import convert, from_dict, to_dict
from crosschannel.histories.context.columns import raw_columns
from crosschannel.histories.context.layout import ContextSpec as ContextSpec
from crosschannel.histories.context.layout import Layout as Layout
from crosschannel.histories.history import History
from crosschannel.histories.values.attributes import UserEncoding
from crosschannel.histories.windows import exact_mean

#: Standardised features are clipped to plus or minus this.
MAX_ABS_FEATURE = 10.0
#: The feature of a context in which nothing else varies, as agents need at least one.
CONSTANT = "constant"
#: Standard deviation up to which a column counts as constant.
MIN_DEVIATION = 1e-9


@dataclass(frozen=True)
class ContextFeatures:
    """Standardised context of decision slots, fitted on one history and applied to others.

    Counts, sums and days are transformed by `log(1 + x)`. Columns are standardised by the decisions of the fitted
    history, missing values become 0 (the mean), constant columns are dropped, and values are clipped to plus or minus
    `MAX_ABS_FEATURE`. Where every column is constant, a feature `constant` is 1.

    Attributes:
        layout: The raw columns.
        encoding: The user attributes.
        names: Names of the D features.
        mean: Means of the transformed columns (D,).
        scale: Their standard deviations (D,).
    """

    layout: Layout
    encoding: UserEncoding
    names: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, history: History, spec: ContextSpec | None = None) -> ContextFeatures:
        """Fit the columns, and their means and standard deviations, to all decisions of a history."""
        spec = spec or ContextSpec()
        layout = Layout.build(spec, history)
        encoding = UserEncoding.fit(history.users, spec.attributes, history.span[1])
        d = history.decisions
        names, mean, scale = [], [], []
        seen = set[str]()
        for name, column in _all_columns(layout, encoding, history, d.user, d.time):
            if name in seen:
                raise ConfigError(
                    f"two columns of the context have the name {name!r}, which stand for different things: rename the "
                    "event or the attribute, or leave it out of `context.events` or `context.attributes`"
                )
            seen.add(name)
            value = _transform(name, column)
            known = value[~np.isnan(value)]
            average = exact_mean(known)
            sd = exact_mean((known - average) ** 2) ** 0.5
            if sd > MIN_DEVIATION:
                names.append(name)
                mean.append(average)
                scale.append(sd)
        if not names:
            return cls(layout=layout, encoding=encoding, names=(CONSTANT,), mean=np.zeros(1), scale=np.ones(1))
        return cls(layout=layout, encoding=encoding, names=tuple(names), mean=np.array(mean), scale=np.array(scale))

    @property
    def dim(self) -> int:
        """Number of features D."""
        return len(self.names)

    @property
    def lookback(self) -> int:
        """Length of the longest window over which events are counted, microseconds; 0 if none are."""
        return max((length for _, length in self.layout.windows), default=0) if self.layout.groups else 0

    def covariates(self, history: History, shift: int = 0) -> FloatArray:
        """Return the features of every decision in double precision (n, D), for regressions.

        Args:
            history: The history.
            shift: Microseconds after each decision (before, if negative) at which the features are measured.
        """
        d = history.decisions
        return self._assemble(
            _all_columns(self.layout, self.encoding, history, d.user, d.time + shift), np.zeros((len(d), self.dim))
        )

    def transform(self, history: History) -> npt.NDArray[np.float32]:
        """Return the context of every decision of a history, (n, D)."""
        return self.at(history, history.decisions.user, history.decisions.time)

    def at(self, history: History, user: IntArray, time: IntArray) -> npt.NDArray[np.float32]:
        """Return the context (N, D) of users (N,) at times (N,), from what the history has strictly before them."""
        columns = _all_columns(self.layout, self.encoding, history, user, time)
        return self.assemble(columns, len(user))

    def assemble(self, columns: Iterator[tuple[str, FloatArray]], n: int) -> npt.NDArray[np.float32]:
        """Return the context (n, D) from raw columns by name, of `raw_columns` or of a simulator.

        Raises:
            ConfigError: If a column is missing.
        """
        return self._assemble(columns, np.zeros((n, self.dim), dtype=np.float32))

    def _assemble(self, columns: Iterator[tuple[str, FloatArray]], out: npt.NDArray[Any]) -> npt.NDArray[Any]:
        place = {name: j for j, name in enumerate(self.names)}
        if (j := place.pop(CONSTANT, None)) is not None:
            out[:, j] = 1.0
        for name, column in columns:
            j = place.pop(name, None)
            if j is not None:
                value = (_transform(name, column) - self.mean[j]) / self.scale[j]
                out[:, j] = np.clip(np.where(np.isnan(value), 0.0, value), -MAX_ABS_FEATURE, MAX_ABS_FEATURE)
        if place:
            raise ConfigError(f"the context needs columns that this history does not have: {sorted(place)}")
        return out

    def state_dict(self) -> dict[str, Any]:
        """Return the fitted features as mappings, lists, numbers and text, for checkpoints."""
        return {
            "layout": to_dict(self.layout),
            "attributes": self.encoding.to_dict(),
            "names": self.names,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> ContextFeatures:
        """Build the features that `state_dict` described.

        Raises:
            ConfigError: If a value is of another type, or the features have other numbers of means or scales.
        """
        names = convert(tuple[str, ...], state["names"], "names")
        mean, scale = (
            np.array(convert(tuple[float, ...], state[key], key), dtype=np.float64) for key in ("mean", "scale")
        )
        if not len(names) == len(mean) == len(scale) or not np.isfinite(mean).all() or not (scale > 0).all():
            raise ConfigError("the context's features do not have a mean and a positive scale each")
        layout = from_dict(Layout, state["layout"], "layout")
        return cls(
            layout=layout, encoding=UserEncoding.from_dict(state["attributes"]), names=names, mean=mean, scale=scale
        )


def _all_columns(
    layout: Layout, encoding: UserEncoding, history: History, user: IntArray, time: IntArray
) -> Iterator[tuple[str, FloatArray]]:
    yield from raw_columns(layout, history, user, time)
    for name, column in encoding.columns(history.users):
        yield name, column[user]


def _transform(name: str, column: FloatArray) -> FloatArray:
    if name.startswith(("clock ", "share ", "user ")):
        return column
    return np.asarray(np.sign(column) * np.log1p(np.abs(column)))

"""Estimate the propensities that a history lacks, cross-fitted by user and calibrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.hashing import derive
from crosschannel.core.times import DAY, WEEK
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.history import History
from crosschannel.histories.propensities.calibration import PlattScaling, Reliability
from crosschannel.histories.propensities.classifier import ClassifiedActions, Classifier
from crosschannel.histories.propensities.logistic import Logistic
from crosschannel.histories.propensities.sources import ESTIMATED, MISSING

_FOLD_SALT = 0x9095

MAX_CALENDAR_CELLS = 30
"""Calendar cells are days, weeks or periods of four weeks: the shortest with at most this number of cells."""

MAX_ROWS_PER_ACTION = 50_000
"""Decisions of each action to which one logistic regression is fitted; more would cost time without more precision."""


ZEROS_PER_ONE, MIN_ZEROS = 20, 1000
"""How many decisions of the reference action a regression uses for each decision of its action, and at least in all.
More would take the time of the reference action for each other one; these leave all but 5 % of the precision."""

MAX_NAMED = 5


@dataclass(frozen=True)
class PropensityReport:
    """Settings and fit of estimated propensities.

    Attributes:
        rows: Number of decisions whose propensities are estimated.
        folds: Number of folds of users.
        floor: Smallest propensity.
        floored: Number of decisions with an estimate below the floor in some module, which was raised to it.
        errors: Expected calibration error by module, for users to whom neither the model nor the calibration was
            fitted; NaN if a module never had alternatives.
        table: Reliability: `module, action, n, predicted, observed, se`, one row per bin of predictions, over all
            decisions at which the action and others were eligible. `se` is that of the observed share.
        pooled: `module=action` of actions that were too rare for a model of their own in some fold: their propensity
            is their share, the same for all users.
    """

    rows: int
    folds: int
    floor: float
    floored: int
    errors: dict[str, float]
    table: pd.DataFrame
    pooled: tuple[str, ...]

    def summary(self) -> str:
        """Return a line on the estimation and its calibration error."""
        errors = ", ".join(f"{name} {error:.4f}" for name, error in self.errors.items() if not np.isnan(error))
        more = f" and {len(self.pooled) - MAX_NAMED:,} more actions" if len(self.pooled) > MAX_NAMED else ""
        rare = f"; shares only for {', '.join(self.pooled[:MAX_NAMED])}{more}" if self.pooled else ""
        return (
            f"propensities of {self.rows:,} decisions were not logged and are estimated (cross-fitted in {self.folds} "
            f"folds of users, calibration error {errors or 'none, as there were no alternatives'}; "
            f"{self.floored:,} of {self.rows:,} raised to the floor {self.floor:g}{rare})"
        )


def estimate_propensities(
    history: History,
    features: ContextFeatures | ContextSpec | None = None,
    *,
    folds: int = 5,
    floor: float = 1e-3,
    min_rows: int = 50,
    only_missing: bool = False,
    classifier: Callable[[], Classifier] | None = None,
) -> tuple[History, PropensityReport]:
    r"""Estimate each module's conditional propensity from what was known before the decision.

    .. math:: p_i(a) \propto \exp(b_a + s \, x_i^\top \beta_a) \text{ over the actions a eligible at decision i}

    Within each group of competing actions (`ActionSpace.groups`), :math:`\beta_a` comes from a binary logistic
    regression of action a against the group's most frequent action, among the decisions that took one of the two while
    both were eligible. Begg & Gray (1984), "Calculation of polychotomous logistic regression parameters using
    individualized regressions", Biometrika. Covariates are the context features, the calendar cell
    (`MAX_CALENDAR_CELLS`) and the actions of earlier modules; slopes have a normal prior of variance 1 for standardised
    columns. With more than `MAX_ROWS_PER_ACTION` decisions of an action, or `ZEROS_PER_ONE` of the reference action for
    each of its own, the regression is fitted to a stable random sample, and its intercept is corrected. So the time is
    about linear in the number of actions.

    A classifier takes the regressions' place where it is given: their scores are then the logarithms of its
    probabilities. A logging policy that is a rule (a message to whoever visited three to five times) is no logit, and
    defeats the regression; a tree finds it.

    Users are divided into folds by a hash of their id. The propensities of fold k come from regressions fitted without
    the folds k and k + 1, and from a calibration (`PlattScaling`) fitted to fold k + 1, so that they do not depend on
    the data of fold k. They do not depend on the order of rows either, to the last bit.

    The assumption: the logging policy depended on nothing but the covariates that also affects the outcome. Calibration
    cannot test it; all values that depend on these propensities are labelled `estimated propensities`.

    Args:
        history: Any history; logged propensities are ignored and replaced, unless `only_missing` keeps them.
        features: Context features that are fitted, or the spec of those to be fitted on the history.
        folds: Number of folds of users, at least 3.
        floor: Smallest propensity, above 0; smaller estimates are raised to it, and counted.
        min_rows: Decisions that an action and the reference action each need in the fitting folds for a regression;
            with fewer, the odds are those of their shares, with half a decision added to each.
        only_missing: Keep the propensities that there are, and estimate those of the other decisions from these others
            alone, because another policy made them.
        classifier: A function that makes a classifier with `fit`, `predict_proba` and `classes_`, as those of
            scikit-learn; by default the regressions above. Its features are the same, and which actions were eligible.
            It should be one that does not follow single decisions: a tree grown until each leaf is pure states 0 and 1
            only.

    Returns:
        The history with these propensities, whose source is `estimated`; and the report.

    Raises:
        ConfigError: If `folds` or `floor` is out of range.
        NotIdentified: If a module had alternatives but always took the same action, or there are too few users.
    """
    if folds < 3:
        raise ConfigError(
            f"folds is {folds}: give at least 3, as fitting, calibration and prediction need different users"
        )
    if not 0.0 < floor < 0.5:
        raise ConfigError(f"floor is {floor}: give a number between 0 and 0.5")
    d = history.decisions
    wanted = d.propensity_source == MISSING if only_missing else np.ones(len(d), dtype=bool)
    if not wanted.any():
        raise ConfigError("every decision has a propensity: there are none to estimate")
    fold = np.asarray(derive(history.user_keys, _FOLD_SALT) % np.uint64(folds), dtype=np.int64)[d.user]
    if len(np.unique(fold[wanted])) < folds:
        users = len(np.unique(d.user[wanted]))
        raise NotIdentified(f"propensities cannot be estimated: {users} users are too few for {folds} folds")
    if not isinstance(features, ContextFeatures):
        features = ContextFeatures.fit(history, features)
    cells = _calendar(d.time[wanted])
    calendar = np.zeros((len(d), cells.shape[1]))
    calendar[wanted] = cells
    x = np.concatenate([features.covariates(history), calendar], axis=1)
    mask = history.modules.feasible_mask(history.eligible)
    # Sums of floats depend on their order. This one depends on hashes of the decisions' ids and not on the order in a
    # file, and its first rows are a random sample.
    order = np.argsort(d.key, kind="stable")

    cross_fit = partial(_cross_fit, folds=folds, min_rows=min_rows, classifier=classifier)
    found = [_estimate_module(history, m, wanted, mask, x, order, fold, cross_fit) for m in range(len(history.modules))]
    propensity = np.stack([each.propensity for each in found], axis=1)
    low = propensity < floor
    propensity = np.maximum(propensity, floor)
    tables = [
        _table(name, action, bins)
        for name, each in zip(history.modules.names, found, strict=True)
        for action, bins in each.bins
        if len(bins.n)
    ]
    report = PropensityReport(
        rows=int(wanted.sum()),
        folds=folds,
        floor=floor,
        floored=int(low.any(1).sum()),
        errors={
            name: _error([bins for _, bins in each.bins])
            for name, each in zip(history.modules.names, found, strict=True)
        },
        table=pd.concat(tables, ignore_index=True) if tables else _table("", "", _no_bins()),
        pooled=tuple(name for each in found for name in each.pooled),
    )
    estimated = history.with_propensities(
        np.where(wanted[:, None], propensity, d.propensity),
        np.where(wanted, propensity.prod(axis=1), d.joint),
        np.where(wanted, ESTIMATED, d.propensity_source),
    )
    return replace(estimated, notes=(*history.notes, report.summary())), report


@dataclass(frozen=True)
class _ModuleEstimate:
    """The estimated propensities of one module.

    Attributes:
        propensity: Probability of each decision's action (n,); 1 where there was no choice.
        bins: How reliable predictions of an action are, by its name.
        pooled: `module=action` of the actions that were too rare for a model of their own.
    """

    propensity: FloatArray
    bins: list[tuple[str, Reliability]]
    pooled: list[str]


def _estimate_module(
    history: History,
    m: int,
    wanted: BoolArray,
    mask: BoolArray,
    x: FloatArray,
    order: IntArray,
    fold: IntArray,
    cross_fit: Callable[..., tuple[FloatArray, BoolArray]],
) -> _ModuleEstimate:
    """Estimate the propensities of module m.

    Args:
        history: The history.
        m: Index of the module.
        wanted: Which decisions are estimated (n,).
        mask: Feasible actions (n, sum of actions).
        x: Covariates but for the earlier modules' actions (n, p).
        order: Order of the decisions in which sums are made (n,).
        fold: Fold of each decision's user (n,).
        cross_fit: `_cross_fit` with its settings.

    Raises:
        NotIdentified: If the module had alternatives but always took the same action.
    """
    d, module = history.decisions, history.modules[m]
    eligible = history.modules.conditional_mask(m, mask, d.actions)
    eligible[np.arange(len(d)), d.actions[:, m]] = True
    choice = wanted & (eligible.sum(1) > 1) & (history.modules.sends(d.actions) | (m == 0))
    if choice.any() and len(taken := np.unique(d.actions[choice, m])) == 1:
        raise NotIdentified(
            f"the propensities of {module.name!r} cannot be estimated: every decision with alternatives took the "
            f"same action, {module.actions[taken[0]]!r}"
        )
    found = _ModuleEstimate(np.ones(len(d)), [], [])
    for group in history.modules.groups(m):
        rows = order[(choice & np.isin(d.actions[:, m], group))[order]]
        if not len(rows):
            continue
        covariates = np.concatenate([x[rows], _earlier(history, m, rows)], axis=1)
        local = np.searchsorted(group, d.actions[rows, m])
        open_ = eligible[np.ix_(rows, group)]
        p, rare = cross_fit(covariates, local, open_, fold[rows])
        found.propensity[rows] = p[np.arange(len(rows)), local]
        found.pooled.extend(f"{module.name}={module.actions[group[a]]}" for a in np.flatnonzero(rare))
        found.bins.extend((module.actions[group[a]], _reliability(p, local, open_, a)) for a in range(len(group)))
    return found


def _cross_fit(
    x: FloatArray,
    taken: IntArray,
    eligible: BoolArray,
    fold: IntArray,
    folds: int,
    min_rows: int,
    classifier: Callable[[], Classifier] | None,
) -> tuple[FloatArray, BoolArray]:
    """Return probabilities (n, G) of a group's actions, and which actions (G,) were pooled in some fold."""
    p = np.zeros(eligible.shape)
    rare = np.zeros(eligible.shape[1], dtype=bool)
    for k in range(folds):
        test, held = fold == k, fold == (k + 1) % folds
        fit = ~(test | held)
        if classifier is None:
            offset, slopes, pooled = _individualised(x[fit], taken[fit], eligible[fit], min_rows)
            rare |= pooled
            of_held, of_test = x[held] @ slopes.T, x[test] @ slopes.T
        else:
            model = ClassifiedActions.fit(classifier, x[fit], taken[fit], eligible[fit])
            offset = np.zeros(eligible.shape[1])
            of_held, of_test = (model.scores(x[rows], eligible[rows]) for rows in (held, test))
        calibrated = PlattScaling.fit(offset, of_held, eligible[held], taken[held])
        p[test] = calibrated.predict(of_test, eligible[test])
    return p, rare


def _individualised(
    x: FloatArray, taken: IntArray, eligible: BoolArray, min_rows: int
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return intercepts (G,) and slopes (G, p) against the most frequent action, and which actions (G,) are pooled."""
    size = eligible.shape[1]
    count = np.bincount(taken, minlength=size)
    reference = int(count.argmax())
    offset, slopes, pooled = np.zeros(size), np.zeros((size, x.shape[1])), np.zeros(size, dtype=bool)
    for a in range(size):
        if a == reference:
            continue
        both = eligible[:, a] & eligible[:, reference]
        ones, zeros = np.flatnonzero(both & (taken == a)), np.flatnonzero(both & (taken == reference))
        if min(len(ones), len(zeros)) < min_rows:
            pooled[a] = True
            # Actions that are never eligible together with the reference are compared by their overall counts.
            n1, n0 = (len(ones), len(zeros)) if both.any() else (count[a], count[reference])
            offset[a] = np.log((n1 + 0.5) / (n0 + 0.5))
            continue
        n_ones = min(len(ones), MAX_ROWS_PER_ACTION)
        n_zeros = min(len(zeros), MAX_ROWS_PER_ACTION, max(ZEROS_PER_ONE * n_ones, MIN_ZEROS))
        rows = np.sort(np.concatenate([ones[:n_ones], zeros[:n_zeros]]))
        model = Logistic.fit(x[rows], taken[rows] == a, ridge=1.0 / len(rows))
        sampled = (n_ones / len(ones)) / (n_zeros / len(zeros))
        offset[a] = model.coefficients[0] - np.log(sampled)
        slopes[a] = model.coefficients[1:]
    return offset, slopes, pooled


def _calendar(time: IntArray) -> FloatArray:
    """Return columns for the calendar cells of times (n,), or a linear trend if there are too many cells."""
    for length in (DAY, WEEK, 4 * WEEK):
        cells, place = np.unique(time // length, return_inverse=True)
        if len(cells) == 1:
            return np.zeros((len(time), 0))
        if len(cells) <= MAX_CALENDAR_CELLS:
            return _indicators(place, len(cells))
    passed = (time - time.min()) / (time.max() - time.min())
    return np.asarray((passed - 0.5)[:, None] * 12**0.5)


def _earlier(history: History, m: int, rows: IntArray) -> FloatArray:
    """Return columns for the actions of earlier modules; the parent's action is the same in a whole group."""
    parent = history.modules.parent(m)
    others = [j for j in range(m) if parent is None or j != parent[0]]
    actions = history.decisions.actions[rows]
    columns = [_indicators(actions[:, j], history.modules.sizes[j]) for j in others]
    return np.concatenate([np.zeros((len(rows), 0)), *columns], axis=1)


def _indicators(code: IntArray, size: int) -> FloatArray:
    """Return standardised indicators (n, size) of codes (n,), all 0 for a code that does not vary."""
    share = np.bincount(code, minlength=size) / max(len(code), 1)
    scale = np.sqrt(share * (1 - share))
    hit = code[:, None] == np.arange(size)
    return np.asarray((hit - share) / np.where(scale > 0, scale, 1.0))


def _no_bins() -> Reliability:
    return Reliability.from_predictions(np.zeros(0), np.zeros(0, dtype=bool))


def _reliability(p: FloatArray, taken: IntArray, eligible: BoolArray, a: int) -> Reliability:
    rows = eligible[:, a]
    return Reliability.from_predictions(p[rows, a], taken[rows] == a)


def _error(parts: list[Reliability]) -> float:
    n = sum(int(each.n.sum()) for each in parts)
    return sum(each.error * int(each.n.sum()) for each in parts if each.n.sum()) / n if n else float("nan")


def _table(module: str, action: str, bins: Reliability) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "module": module,
            "action": action,
            "n": bins.n,
            "predicted": bins.predicted,
            "observed": bins.observed,
            "se": np.sqrt(bins.observed * (1 - bins.observed) / bins.n),
        }
    )

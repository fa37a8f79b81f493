"""Groups of decisions for the tests of exclusion: by earlier activity, and by predicted engagement x gain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crosschannel.core.arrays import BoolArray, FloatArray, IntArray
from crosschannel.core.times import DAY, duration
from crosschannel.histories.fixed_point import fit_bits
from crosschannel.histories.history import History
from crosschannel.histories.windows import Timeline
from crosschannel.reward.funnel.components import PricedGoals
from crosschannel.reward.interface import with_spec
from crosschannel.reward.measurement.amounts import window_amounts
from crosschannel.reward.measurement.ties import boundaries

#: Groups of users by earlier activity.
ACTIVITY_GROUPS = 5
#: Ridge penalties per row among which cross-validation chooses.
RIDGE_PENALTIES = (0.003, 0.03, 0.3, 3.0)


def earlier_rates(priced: PricedGoals, history: History) -> FloatArray:
    """Return how often each goal and surrogate occurred per day, before the pre window (n, G); NaN where not observed.

    What happened in the windows themselves would divide decisions by the noise of their own change.
    """
    d = history.decisions
    end = boundaries(history, priced.goals) - duration(priced.model.spec.pre)
    start = np.minimum(history.observed_from[d.user], end)
    events = Timeline(history.events.time, history.event_offsets)
    first, last = events.before(d.user, np.stack([start, end]))
    days = np.where(end > start, (end - start) / DAY, np.nan)
    out = np.empty((len(d), len(priced.goals)))
    for g, (goal, largest) in enumerate(zip(priced.goals, priced.amounts.largest, strict=True)):
        uniform = replace(goal, credit="uniform", half_life=None)
        out[:, g] = window_amounts(uniform, fit_bits(largest), history, d.time, (first, last))[0] / days
    return out


def with_activity_strata(priced: PricedGoals, rates: FloatArray) -> PricedGoals:
    """Return goals whose controls share the stratum of earlier activity, unless the reward's spec has strata already.

    Args:
        priced: The goals.
        rates: Earlier rates of each goal and surrogate (n, G).
    """
    spec, outcomes = priced.model.spec, priced.outcomes
    if spec.matching.strata > 1:
        return priced
    activity = total_activity(rates)
    edges = quantile_edges(activity[~np.isnan(activity)], ACTIVITY_GROUPS)
    fallback = tuple(dict.fromkeys((*spec.matching.fallback, "strata")))
    matching = replace(spec.matching, strata=ACTIVITY_GROUPS, fallback=fallback)
    stratum = np.where(np.isnan(activity), -1, np.searchsorted(edges, activity)).astype(np.int64)
    changed = replace(outcomes, stratum=stratum, preprocessing=replace(outcomes.preprocessing, edges=edges))
    return replace(priced, model=with_spec(priced.model, replace(spec, matching=matching)), outcomes=changed)


def total_activity(rates: FloatArray) -> FloatArray:
    """Return one number for the earlier activity of each decision's user (n,): the sum of relative rates."""
    known = ~np.isnan(rates).any(axis=1)
    mean = np.abs(rates[known]).mean(axis=0) if known.any() else np.zeros(rates.shape[1])
    return np.asarray((rates[:, mean > 0] / mean[mean > 0]).sum(axis=1) + np.where(known, 0.0, np.nan))


def quantile_edges(values: FloatArray, groups: int) -> FloatArray:
    """Return the distinct quantiles that divide values (k,) into about `groups` equal groups; each is a value."""
    if not len(values):
        return np.zeros(0)
    levels = np.arange(1, groups) / groups
    return np.asarray(np.unique(np.quantile(values, levels, method="inverted_cdf")), dtype=np.float64)


def predict_through_engagement(
    priced: PricedGoals, rates: FloatArray, product: FloatArray, rows: IntArray, folds: int = 5
) -> FloatArray:
    """Return the predicted engagement x value of the sent decisions `rows` (k,), learned from other users' messages.

    A ridge regression on earlier rates, actions and their products, cross-fitted by user; cross-validation chooses the
    penalty. It only divides messages into groups: a poor prediction costs power, and no more.

    Args:
        priced: The goals.
        rates: Earlier rates (n, G).
        product: Engaged times value (n,).
        rows: Sent decisions in which it is known.
        folds: Number of folds of users.
    """
    outcomes = priced.outcomes
    x = _features(rates[rows], outcomes.actions[rows])
    y, fold = product[rows], outcomes.fold[rows] % folds
    squares, products = [], []
    for k in range(folds):
        mine = x[fold == k]
        squares.append(mine.T @ mine)
        products.append(mine.T @ y[fold == k])
    best, chosen = np.inf, np.zeros(len(rows))
    for penalty in RIDGE_PENALTIES:
        predicted = np.zeros(len(rows))
        for k in range(folds):
            others = [j for j in range(folds) if j != k]
            square = np.sum([squares[j] for j in others], axis=0)
            ridge = np.diag(np.append(0.0, np.full(len(square) - 1, penalty * square[0, 0])))
            slope = np.linalg.lstsq(square + ridge, np.sum([products[j] for j in others], axis=0), rcond=1e-12)[0]
            predicted[fold == k] = x[fold == k] @ slope
        error = float(((y - predicted) ** 2).mean())
        if error < best:
            best, chosen = error, predicted
    return chosen


def _features(rates: FloatArray, actions: IntArray) -> FloatArray:
    """Return 1, earlier rates scaled to variance 1, actions and their products (k, p)."""
    known = np.nan_to_num(np.sqrt(np.abs(rates)), nan=0.0)
    sd = known.std(axis=0)
    known = (known[:, sd > 0] - known[:, sd > 0].mean(axis=0)) / sd[sd > 0]
    taken = [actions[:, m : m + 1] == np.unique(actions[:, m]) for m in range(actions.shape[1])]
    action = np.concatenate(taken, axis=1).astype(np.float64)
    products = (action[:, :, None] * known[:, None, :]).reshape(len(rates), -1)
    return np.concatenate([np.ones((len(known), 1)), known, action, products], axis=1)


def groups_by_quantile(values: FloatArray, rows: BoolArray, groups: int) -> list[BoolArray]:
    """Divide chosen decisions (n,) into groups of about equal size by the quantiles of values (n,)."""
    known = rows & ~np.isnan(values)
    code = np.searchsorted(quantile_edges(values[known], groups), values)
    return [known & (code == k) for k in np.unique(code[known])]

"""Regressions for every module of an action space: their statistics, prior scales, posterior draws and estimates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from crosschannel.agents.linear.regression import Prior, RegressionStatistics, deviations, fit, learn_scale
from crosschannel.core.action_changes import carry_over, design_matrix, previous_cells, select_present
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.arrays import FloatArray, IntArray


def statistics_by_module(
    modules: ActionSpace, phi: Tensor, actions: IntArray, rewards: FloatArray, weights: FloatArray
) -> list[RegressionStatistics]:
    """Sum n rows for each module: the first module uses all rows, the others those in which something was sent.

    Args:
        modules: All known actions.
        phi: Features (n, F) float64.
        actions: Codes (n, M).
        rewards: Rewards (n,).
        weights: Weights (n,), or (..., n) where they differ between members.
    """
    sent = torch.from_numpy(modules.sends(actions))
    r, w = (torch.from_numpy(np.ascontiguousarray(column, dtype=np.float64)) for column in (rewards, weights))
    out = []
    for m in range(len(modules)):
        cell = torch.from_numpy(modules.table_cell(m, actions))
        rows = (phi, cell, r, w) if m == 0 else (phi[sent], cell[sent], r[..., sent], w[..., sent])
        out.append(RegressionStatistics.from_rows(*rows, cells=modules.n_table_cells(m)))
    return out


def moved_statistics(
    saved: Mapping[str, Tensor], before: ActionSpace, known: ActionSpace, m: int
) -> RegressionStatistics:
    """Move saved statistics of module m's cells to the cells' new places; new cells have no rows."""
    place = previous_cells(before, known, m)
    fresh = RegressionStatistics.zeros(known.n_table_cells(m), saved["moment"].shape[-1])
    gram, moment = (
        torch.from_numpy(carry_over(saved[name].numpy(), place, getattr(fresh, name).numpy()))
        for name in ("gram", "moment")
    )
    return RegressionStatistics(**{**saved, "gram": gram, "moment": moment})


def learn_effect_scales(
    modules: ActionSpace, statistics: Sequence[RegressionStatistics], scales: Sequence[float], guess: float
) -> list[float]:
    """Choose each module's prior scale of effects by the evidence, from its last value and the initial guess."""
    return [
        learn_scale(each, torch.from_numpy(design_matrix(modules, m)), each.moment.shape[-1], scale, guess)
        for m, (each, scale) in enumerate(zip(statistics, scales, strict=True))
    ]


def posterior_draws(
    modules: ActionSpace,
    statistics: Sequence[RegressionStatistics],
    scales: Sequence[float],
    k: int,
    rng: np.random.Generator,
) -> list[Tensor]:
    """Draw K coefficients (K, cells, F) of each module from their posterior, in reward units.

    The draws are centred on the posterior mean and rescaled to keep their variance, so that their mean is exactly the
    posterior mean; a single draw is the mean itself.

    Args:
        modules: All known actions.
        statistics: Statistics of each module's rows.
        scales: Prior scale of each module's effects, in standard deviations of the noise.
        k: Number of draws.
        rng: The random generator.
    """
    drawn = []
    for m, (each, scale) in enumerate(zip(statistics, scales, strict=True)):
        width = each.moment.shape[-1]
        prior = Prior.build(torch.from_numpy(design_matrix(modules, m)), width, scale)
        posterior = fit(each, prior)
        normals = rng.standard_normal((k, sum(prior.design.shape), width))
        normals = (normals - normals.mean(0)) * math.sqrt(k / max(k - 1, 1))
        sigma = each.residual(posterior.mean).sqrt() if each.weight > 0 else 1.0
        drawn.append(posterior.mean + sigma * deviations(posterior, prior, torch.from_numpy(normals)))
    return drawn


def estimates(
    phi: Tensor, coefficients: Sequence[Tensor], known: ActionSpace, modules: ActionSpace
) -> list[FloatArray]:
    """Return K estimates of each present action, (K, N, *shape(m)) per module.

    Args:
        phi: Features (N, F).
        coefficients: Each module's coefficients (K, cells, F), of all known actions.
        known: All known actions.
        modules: The present actions.
    """
    found = [(phi @ each.transpose(1, 2)).numpy() for each in coefficients]
    return [select_present(each, known, modules, m) for m, each in enumerate(found)]

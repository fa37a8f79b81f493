"""The columns, the prior and its quadratic forms are those of the matrices written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from crosschannel.agents.funnel import design as module
from crosschannel.agents.funnel.design import Design
from tests.agents.funnel.samples import SPACES, contexts, dense, messages


@pytest.mark.parametrize("name", SPACES)
def test_a_row_has_the_common_features_and_those_of_its_cells(name: str) -> None:
    design, x = Design.build(SPACES[name], 2), contexts(9, 2)
    cells = design.cells_of(messages(9, SPACES[name]))
    phi = dense(design, x, cells)
    modules = len(SPACES[name])
    assert phi.shape == (9, design.base + design.each * sum(design.cells))
    assert (phi[:, design.base :] != 0).sum().item() == 9 * modules * design.each
    np.testing.assert_allclose(phi[:, 1:3].numpy(), x.numpy() / 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(phi[:, 3:5].numpy(), np.abs(x.numpy()) / 2**0.5, rtol=1e-6)


def test_effects_of_many_cells_do_not_vary_with_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COLUMNS", 20)
    design = Design.build(SPACES["plain"], 3)
    assert design.each == 1
    assert design.columns == 7 + 9
    assert design.of_cells(contexts(4, 3)).tolist() == [[1.0]] * 4


@pytest.mark.parametrize("width", [0, 2])
@pytest.mark.parametrize("name", SPACES)
def test_quadratic_forms_are_those_of_the_precision(name: str, width: int) -> None:
    design = Design.build(SPACES[name], width)
    rng = torch.Generator().manual_seed(1)
    theta = torch.randn(design.columns, 2, generator=rng, dtype=torch.float64)
    ones = torch.ones(design.blocks, dtype=torch.float64)
    precision = design.precision(ones)
    for b in range(design.blocks):
        only = torch.where(design.block == b, 1.0, 0.0).double()
        q = precision * only[:, None] * only[None, :]
        torch.testing.assert_close(design.squares(theta)[b], torch.einsum("dc,de,ec->c", theta, q, theta))
    variance = torch.rand(design.blocks, generator=rng, dtype=torch.float64) + 0.1
    torch.testing.assert_close(
        torch.einsum("dc,de,ec->c", theta, design.precision(variance), theta),
        (design.squares(theta) / variance[:, None]).sum(0),
    )


def test_cells_with_the_same_labels_vary_together() -> None:
    design = Design.build(SPACES["tables"], 1)
    hour = torch.linalg.inv(design.affinity[1]).view(3, 3, 3, 3)
    same_channel, same_hour, neither = hour[0, 0, 0, 1], hour[0, 0, 1, 0], hour[0, 0, 1, 1]
    assert hour[0, 0, 0, 0] > same_channel > neither
    assert hour[0, 0, 0, 0] > same_hour > neither
    plain = Design.build(SPACES["plain"], 1)
    torch.testing.assert_close(plain.affinity[1], torch.eye(3, dtype=torch.float64))

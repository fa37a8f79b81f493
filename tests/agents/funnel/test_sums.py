"""Sums over rows equal the products of the design matrix written out."""

from __future__ import annotations

import pytest
import torch

from crosschannel.agents.funnel import sums as module
from crosschannel.agents.funnel.design import Design
from crosschannel.agents.funnel.sums import DesignStatistics, sum_common, sum_rows
from tests.agents.funnel.samples import SPACES, contexts, dense, messages

N, WIDTH = 60, 2


def sums_of(
    name: str, rows: slice = slice(None), *, weighted: bool = False
) -> tuple[DesignStatistics, DesignStatistics]:
    """The sums of some rows, and those written out."""
    design, x = Design.build(SPACES[name], WIDTH), contexts(N, WIDTH)
    cells = design.cells_of(messages(N, SPACES[name]))
    targets, weight = contexts(N, 2, seed=1), contexts(N, 1, seed=2)[:, 0].abs() if weighted else torch.ones(N)
    phi, y, w = (part[rows].double() for part in (dense(design, x, cells), targets, weight))
    wanted = DesignStatistics(
        phi.t() @ (w[:, None] * phi), phi.t() @ (w[:, None] * y), (w[:, None] * y * y).sum(0), len(y)
    )
    given = weight[rows] if weighted else None
    return sum_rows(design, x[rows], cells[rows], targets[rows], given), wanted


def assert_same(found: DesignStatistics, wanted: DesignStatistics) -> None:
    for name in ("gram", "moment", "square"):
        torch.testing.assert_close(getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-5)
    assert found.rows == wanted.rows


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_sums_are_those_of_the_design_matrix(name: str, weighted: bool) -> None:
    assert_same(*sums_of(name, weighted=weighted))


def test_chunks_do_not_matter_and_halves_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = sums_of("tables", weighted=True)
    monkeypatch.setattr(module, "ROWS_PER_CHUNK", 7)
    assert_same(sums_of("tables", weighted=True)[0], whole)
    first, second = (sums_of("tables", part, weighted=True)[0] for part in (slice(25), slice(25, None)))
    assert_same(first + second, whole)
    torch.testing.assert_close(whole.target(1).moment[:, 0], whole.moment[:, 1])


def test_no_rows_have_sums_of_0() -> None:
    found, wanted = sums_of("parents", slice(0))
    assert_same(found, wanted)
    assert not found.gram.any()


def test_the_common_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    design, x, y = Design.build(SPACES["plain"], WIDTH), contexts(N, WIDTH), contexts(N, 2, seed=1)
    monkeypatch.setattr(module, "ROWS_PER_CHUNK", 7)
    phi, weight = design.common(x).double(), contexts(N, 1, seed=2)[:, 0].abs()
    weighted = phi * weight.double().unsqueeze(1)
    square = (y.double().square() * weight.double().unsqueeze(1)).sum(0)
    found = sum_common(design, x, y, weight)
    assert_same(found, DesignStatistics(weighted.t() @ phi, weighted.t() @ y.double(), square, N))

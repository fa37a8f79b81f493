"""The shared network: its hand-written gradient, its averages, and what it shows."""

from __future__ import annotations

import copy

import pytest
import torch

from crosschannel.agents.ensemble.network import AVERAGE, Trunk, with_one

WIDTH, ACTIONS = 3, 4


def trunk(hidden: tuple[int, ...] = (6, 5), rate: float = 1e-2) -> Trunk:
    return Trunk(WIDTH, ACTIONS, hidden, rate, 0.1, torch.Generator().manual_seed(0), torch.device("cpu"))


def rows(n: int = 50) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    return (
        with_one(torch.randn(n, WIDTH, generator=g)),
        torch.randint(ACTIONS, (n,), generator=g),
        torch.randn(n, generator=g),
        torch.rand(n, generator=g),
    )


@pytest.mark.parametrize("hidden", [(7,), (6, 5), (6, 5, 4)])
def test_the_gradient_is_that_of_automatic_differentiation(hidden: tuple[int, ...]) -> None:
    mine = trunk(hidden)
    x, action, target, weight = rows()
    for _ in range(5):  # the output layers begin at 0, where most of the gradient is 0 too
        before = [w.clone().requires_grad_() for w in mine._weights]
        units = x
        for i in range(len(hidden)):
            units = torch.relu((units if i == 0 else with_one(units)) @ before[i])
        estimates = units @ before[-2].t() + x @ before[-1].t()
        loss = (weight * (estimates[torch.arange(len(x)), action] - target).square()).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(mine.step(x, action, target, weight), loss.detach())
        for found, expected in zip(mine._gradients, before, strict=True):
            torch.testing.assert_close(found, expected.grad)


def test_features_are_the_blocks_and_move_only_when_settled() -> None:
    mine = trunk()
    x, *rest = rows()
    before = mine.features(x)
    assert before.shape == (len(x), len(mine.blocks))
    assert torch.bincount(mine.blocks).tolist() == [1, WIDTH, WIDTH, 5]
    torch.testing.assert_close(before[:, : 1 + 2 * WIDTH], torch.cat([x, x[:, 1:].abs()], 1))
    for _ in range(20):
        mine.step(x, *rest)
    torch.testing.assert_close(mine.features(x), before, rtol=0, atol=0)
    mine.settle()
    assert not torch.allclose(mine.features(x), before)


@pytest.mark.parametrize("hidden", [(7,), (6, 5)])
def test_estimates_are_the_heads_products_with_the_features(hidden: tuple[int, ...]) -> None:
    mine = trunk(hidden)
    x, *rest = rows()
    for _ in range(20):
        mine.step(x, *rest)
    mine.settle()
    heads = torch.randn(9, len(mine.blocks), generator=torch.Generator().manual_seed(2))
    wide = torch.full((9, len(x) + 2), torch.nan)
    found = mine.estimates(x[:, 1:], heads, wide[:, 1:-1])
    torch.testing.assert_close(found, heads @ mine.features(x).t())
    torch.testing.assert_close(mine.estimates(x[:, 1:], heads), found)
    torch.testing.assert_close(wide[:, 1:-1], found, rtol=0, atol=0)


def test_the_average_is_the_mean_at_first_and_fades_then() -> None:
    mine = trunk()
    seen = []
    for _ in range(10):
        mine.step(*rows())
        seen.append(mine._flat.clone())
    torch.testing.assert_close(mine._average, torch.stack(seen).mean(0))
    for _ in range(int(1 / AVERAGE)):
        mine.step(*rows())
    before = mine._average.clone()
    mine.step(*rows())
    torch.testing.assert_close(mine._average, before + AVERAGE * (mine._flat - before))


def test_a_restored_network_goes_on_to_the_same_bits() -> None:
    mine, other = trunk(), trunk()
    for _ in range(3):
        mine.step(*rows())
    other.load_state_dict(copy.deepcopy(mine.state_dict()))
    for _ in range(3):
        assert torch.equal(mine.step(*rows()), other.step(*rows()))
    assert torch.equal(mine._average, other._average)
    with pytest.raises(RuntimeError, match="its network has"):
        trunk((6,)).load_state_dict(mine.state_dict())

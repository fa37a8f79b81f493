"""The shared network: its gradient steps, its averages, and what it shows."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from crosschannel.agents.ensemble.network import AVERAGE, SharedNetwork

pytestmark = pytest.mark.numerics

WIDTH, ACTIONS = 3, 4
RATE, DECAY = 1e-2, 0.1


def network(hidden: tuple[int, ...] = (6, 5), actions: int = ACTIONS) -> SharedNetwork:
    return SharedNetwork(WIDTH, actions, hidden, RATE, DECAY, torch.Generator().manual_seed(0), torch.device("cpu"))


def rows(n: int = 50) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    return (
        torch.randn(n, WIDTH, generator=g),
        torch.randint(ACTIONS, (n,), generator=g),
        torch.randn(n, generator=g),
        torch.rand(n, generator=g),
    )


@pytest.fixture
def _double() -> Iterator[None]:
    """Double precision: Adam divides by the size of a gradient, so that single precision may lose its sign."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("hidden", [(7,), (6, 5), (6, 5, 4)])
def test_steps_are_those_of_adamw_on_the_weighted_squared_error(hidden: tuple[int, ...]) -> None:
    mine = network(hidden)
    x, action, target, weight = rows()
    *body, out, slope, level = (p.detach().clone().requires_grad_() for p in mine._network.parameters())
    optimizer = torch.optim.AdamW([*body, out, slope, level], lr=RATE, weight_decay=DECAY)
    for _ in range(10):  # the output layers begin at 0, where most of the gradient is 0 too
        units = x
        for w, b in zip(body[::2], body[1::2], strict=True):
            units = torch.relu(units @ w.t() + b)
        estimates = (units * out[action]).sum(1) + (x * slope[action]).sum(1) + level[action]
        loss = torch.dot(weight, (estimates - target) ** 2) / len(x)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        torch.testing.assert_close(mine.step(x, action, target, weight), loss.detach())
    for found, expected in zip(mine._network.parameters(), [*body, out, slope, level], strict=True):
        torch.testing.assert_close(found, expected)


def test_features_are_the_blocks_and_move_only_when_frozen() -> None:
    mine = network()
    x, *rest = rows()
    before = mine.features(x)
    assert before.shape == (len(x), len(mine.blocks))
    assert torch.bincount(mine.blocks).tolist() == [1, WIDTH, WIDTH, 5]
    torch.testing.assert_close(before[:, : 1 + 2 * WIDTH], torch.cat([torch.ones(len(x), 1), x, x.abs()], 1))
    torch.testing.assert_close(before[:, 1 + 2 * WIDTH :], mine._network.hidden(x).detach())
    for _ in range(20):
        mine.step(x, *rest)
    torch.testing.assert_close(mine.features(x), before, rtol=0, atol=0)
    out = torch.full_like(before, torch.nan)
    assert mine.features(x, out) is out
    torch.testing.assert_close(out, before, rtol=0, atol=0)
    mine.freeze()
    assert not torch.allclose(mine.features(x), before)


@pytest.mark.parametrize("hidden", [(7,), (6, 5)])
def test_estimates_are_the_heads_products_with_the_features(hidden: tuple[int, ...]) -> None:
    mine = network(hidden)
    x, *rest = rows()
    for _ in range(20):
        mine.step(x, *rest)
    mine.freeze()
    heads = torch.randn(9, len(mine.blocks), generator=torch.Generator().manual_seed(2))
    wide = torch.full((9, len(x) + 2), torch.nan)
    last = torch.full((len(x), hidden[-1]), torch.nan)
    found = mine.estimates(x, heads, wide[:, 1:-1], last)
    torch.testing.assert_close(found, heads @ mine.features(x).t())
    torch.testing.assert_close(mine.estimates(x, heads), found)
    torch.testing.assert_close(wide[:, 1:-1], found, rtol=0, atol=0)
    torch.testing.assert_close(last, mine.features(x)[:, 1 + 2 * WIDTH :])


def hidden_weights(mine: SharedNetwork) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in mine._network.hidden.parameters()])


def averaged_weights(mine: SharedNetwork) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in mine._average.parameters()])


def test_the_average_is_the_mean_at_first_and_fades_then() -> None:
    mine = network()
    seen = []
    for _ in range(10):
        mine.step(*rows())
        seen.append(hidden_weights(mine))
    torch.testing.assert_close(averaged_weights(mine), torch.stack(seen).mean(0))
    for _ in range(int(1 / AVERAGE)):
        mine.step(*rows())
    before = averaged_weights(mine)
    mine.step(*rows())
    torch.testing.assert_close(averaged_weights(mine), before + AVERAGE * (hidden_weights(mine) - before))


def test_a_restored_network_goes_on_to_the_same_bits() -> None:
    mine, other = network(), network()
    for _ in range(3):
        mine.step(*rows())
    mine.freeze()
    other.load_state_dict(copy.deepcopy(mine.state_dict()))
    for _ in range(3):
        assert torch.equal(mine.step(*rows()), other.step(*rows()))
    assert torch.equal(averaged_weights(mine), averaged_weights(other))
    assert torch.equal(mine.features(rows()[0]), other.features(rows()[0]))
    with pytest.raises(RuntimeError, match="size mismatch"):
        network((6, 4)).load_state_dict(mine.state_dict())


def test_a_state_is_a_copy() -> None:
    mine = network()
    mine.step(*rows())
    state, same = mine.state_dict(), mine.state_dict()
    mine.step(*rows())
    for part in ("network", "average", "frozen", "first", "second"):
        for name, value in state[part].items():
            assert torch.equal(value, same[part][name]), (part, name)


def test_outputs_move_with_their_actions() -> None:
    """Four actions become three: the third, a new one, the first. All weights and moments of each are at its place."""
    mine, other = network(), network(actions=3)
    x, action, target, weight = rows()
    for _ in range(5):
        mine.step(x, action, target, weight)
    place = torch.tensor([2, -1, 0])
    other.load_state_dict(other.moved_state_dict(mine.state_dict(), place))
    with torch.no_grad():
        before, after = mine._network(x), other._network(x)
    torch.testing.assert_close(after, torch.stack([before[:, 2], torch.zeros(len(x)), before[:, 0]], 1))
    for one, two in ((mine._first, other._first), (mine._second, other._second)):
        for name in ("of_hidden.weight", "of_context.weight", "of_context.bias"):
            torch.testing.assert_close(two[name][[0, 2]], one[name][[2, 0]], rtol=0, atol=0)
            assert not two[name][1].any()
    assert other.steps == mine.steps

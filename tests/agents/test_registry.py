"""Agents are found by name, a user's own by its path; what does not fit is said."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from crosschannel.agents import AGENTS, EnsembleThompson, make_agent, registry
from crosschannel.agents.baselines import Uniform
from crosschannel.core.errors import ConfigError
from tests.agents.samples import PLAIN, everything, observations_of


class Own(Uniform):
    """A user's agent that takes its settings as they stand."""

    def __init__(self, modules: Any, context_dim: int, settings: dict[str, Any], seed: int, device: str) -> None:
        super().__init__(modules, context_dim, seed=seed)
        self.settings, self.device = settings, device


class Unfinished:
    def __init__(self, *arguments: Any) -> None:
        self.modules = PLAIN

    def act(self) -> None: ...


def test_a_users_own_class() -> None:
    agent = make_agent(f"{__name__}:Own", PLAIN, 4, {"anything": [1]}, seed=3)
    assert isinstance(agent, Own)
    assert agent.settings == {"anything": [1]}
    assert len(agent.act(observations_of(everything(5, PLAIN)))) == 5


def offered(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """As if an installed package had these entry points."""
    points = EntryPoints(EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in names.items())
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))


def test_a_packages_own_agent_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, mine=f"{__name__}:Own", uniform=f"{__name__}:Own", gone="no_such_module:Own")
    agent = make_agent("mine", PLAIN, 4, {"anything": 2})
    assert isinstance(agent, Own)
    assert agent.settings == {"anything": 2}
    assert not isinstance(make_agent("uniform", PLAIN, 4), Own), "the names of this package come first"
    with pytest.raises(ConfigError, match="cannot be imported"):
        make_agent("gone", PLAIN, 4)
    with pytest.raises(ConfigError, match=r"Did you mean 'mine'\?"):
        make_agent("mime", PLAIN, 4)


@pytest.mark.parametrize("name", list(AGENTS))
def test_every_agent_can_be_made_without_settings(name: str) -> None:
    assert make_agent(name, PLAIN, 4).modules == PLAIN


def test_settings_arrive_typed() -> None:
    agent = make_agent("ensemble_thompson", PLAIN, 4, {"members": 3, "hidden": [8], "floor": 0, "weight_decay": 2})
    assert isinstance(agent, EnsembleThompson)
    assert (agent.settings.members, agent.settings.hidden, agent.settings.weight_decay) == (3, (8,), 2)


CASES = {
    "unknown agent": ("ensemble_tompson", {}, "Did you mean 'ensemble_thompson'?"),
    "unknown setting": (
        "ensemble_thompson",
        {"member": 3},
        "ensemble_thompson.settings: unknown key 'member'. Did you mean 'members'?",
    ),
    "setting of none": ("uniform", {"floor": 0.1}, "uniform.settings: unknown key 'floor'. Available: none."),
    "wrong type": (
        "ensemble_thompson",
        {"members": "ten"},
        "ensemble_thompson.settings.members: expected a whole number, got 'ten'",
    ),
    "fraction of a member": (
        "ensemble_thompson",
        {"members": 2.5},
        "settings.members: expected a whole number, got 2.5",
    ),
    "wrong list": ("ensemble_thompson", {"hidden": [64, "x"]}, "settings.hidden[1]: expected a whole number, got 'x'"),
    "not a list": ("ensemble_thompson", {"hidden": 64}, "settings.hidden: expected a list, got 64"),
    "no layer": ("ensemble_thompson", {"hidden": []}, "give at least one layer"),
    "no members": ("ensemble_thompson", {"members": 0}, "members is 0: it must be at least 1"),
    "too many members": ("ensemble_thompson", {"members": 65}, "members is 65: it must be at most 64"),
    "no time to forget": ("ensemble_thompson", {"half_life": -1.0}, "half_life is -1.0: it must be 0 or more"),
    "floor above 1": ("ensemble_thompson", {"floor": 1.5}, "floor is 1.5: it must be between 0 and 1"),
    "explores too much": (
        "ensemble_thompson",
        {"exploration_scale": 2.0},
        "exploration_scale is 2.0: it must be between 0 and 1",
    ),
    "negative rate": ("ensemble_thompson", {"learning_rate": -1.0}, "must be positive"),
    "negative decay": ("ensemble_thompson", {"weight_decay": -1.0}, "weight_decay is -1.0: it must be 0 or more"),
    "no such module": ("no_such_module:Own", {}, "cannot be imported"),
    "no class": ("math:pi", {}, "is of type float: name a class"),
    "no such class": (f"{__name__}:Missing", {}, "cannot be imported"),
    "no agent": (f"{__name__}:Unfinished", {}, "it lacks action_probabilities, load_state_dict, observe"),
}


@pytest.mark.parametrize(("name", "settings", "words"), list(CASES.values()), ids=list(CASES))
def test_what_does_not_fit_is_said(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_agent(name, PLAIN, 4, settings)
    assert words in str(caught.value)


def test_an_unknown_device_is_said() -> None:
    with pytest.raises(ConfigError, match="no device 'gpu'"):
        make_agent("uniform", PLAIN, 4, device="gpu")

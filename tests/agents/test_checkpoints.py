"""A checkpoint rebuilds an agent alone, which then goes on to the same bits."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crosschannel.agents import (
    AGENTS,
    Agent,
    load_agent,
    load_policy,
    make_agent,
    restore_agent,
    save_agent,
    save_policy,
)
from crosschannel.agents.checkpoints import CHECKPOINT_VERSION
from crosschannel.core.action_space import ActionSpace
from crosschannel.core.errors import ConfigError
from tests.agents.samples import NESTED, PLAIN, SETTINGS, SMALL, TABLES, everything, observations_of, random_batch


def spec(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "context_dim": 4, "settings": settings, "seed": 5}


def made(name: str, modules: ActionSpace = NESTED) -> tuple[Agent, dict[str, Any]]:
    agent_spec = spec(name, **SETTINGS.get(name, {}))
    return make_agent(modules=modules, **agent_spec), agent_spec


def go_on(agent: Agent, seed: int) -> list[np.ndarray]:
    """What an agent does next: acts, sees, learns, twice."""
    seen = observations_of(everything(200, agent.modules))
    out: list[np.ndarray] = []
    for i in range(2):
        out.append(agent.act(seen).actions)
        agent.observe(random_batch(300, agent.modules, seed=seed + i))
        agent.update(2)
        out += agent.action_probabilities(seen)
    return out


@pytest.mark.parametrize(("name", "modules"), [(n, m) for n in AGENTS for m in (NESTED, TABLES)])
def test_a_loaded_agent_goes_on_to_the_same_bits(name: str, modules: ActionSpace, tmp_path: Path) -> None:
    agent, agent_spec = made(name, modules)
    go_on(agent, 10)
    save_agent(agent, tmp_path / "c.pt", agent_spec, {"step": 3, "array": torch.arange(2)})
    expected = go_on(agent, 20)
    for loaded in (load_agent(tmp_path / "c.pt"), made(name, modules)[0]):
        extra = restore_agent(loaded, tmp_path / "c.pt")
        assert extra["step"] == 3
        for a, b in zip(go_on(loaded, 20), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("name", "modules"), [(n, m) for n in AGENTS for m in (NESTED, TABLES)])
def test_a_loaded_policy_decides_with_the_same_bits(name: str, modules: ActionSpace, tmp_path: Path) -> None:
    agent, agent_spec = made(name, modules)
    go_on(agent, 10)
    save_policy(agent, tmp_path / "p.pt", agent_spec, {"names": ("a", "b"), "mean": [0.5]})
    loaded, features = load_policy(tmp_path / "p.pt")
    assert features == {"names": ("a", "b"), "mean": [0.5]}
    assert loaded.modules == modules
    seen = observations_of(everything(200, modules), seed=3)
    for say in ("action_probabilities", "expected_rewards"):
        if hasattr(agent, say):
            for a, b in zip(getattr(loaded, say)(seen), getattr(agent, say)(seen), strict=True):
                np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(loaded.act(seen, explore=False).actions, agent.act(seen, explore=False).actions)
    save_policy(loaded, tmp_path / "again.pt", agent_spec, {})
    again, _ = load_policy(tmp_path / "again.pt")
    for a, b in zip(again.action_probabilities(seen), agent.action_probabilities(seen), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["ensemble_thompson", "neural_linear", "bootstrapped_q"])
def test_a_policy_has_no_rows_and_learns_nothing(name: str, tmp_path: Path) -> None:
    agent, agent_spec = made(name)
    agent.observe(random_batch(20_000, NESTED))
    agent.update(1)
    save_agent(agent, tmp_path / "c.pt", agent_spec)
    save_policy(agent, tmp_path / "p.pt", agent_spec, {})
    assert (tmp_path / "p.pt").stat().st_size < (tmp_path / "c.pt").stat().st_size / 2
    loaded, _ = load_policy(tmp_path / "p.pt")
    with pytest.raises(ConfigError, match="it cannot learn or be saved"):
        loaded.observe(random_batch(10, NESTED))
    with pytest.raises(ConfigError, match="Load its checkpoint instead"):
        save_agent(loaded, tmp_path / "d.pt", agent_spec)
    assert loaded.update(1) == {}


def test_a_loaded_agent_knows_its_modules_and_settings(tmp_path: Path) -> None:
    agent, agent_spec = made("ensemble_thompson")
    save_agent(agent, tmp_path / "c.pt", agent_spec)
    loaded = load_agent(tmp_path / "c.pt")
    assert loaded.modules == NESTED
    assert loaded.settings.members == 5  # type: ignore[attr-defined]
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    agent, agent_spec = made("logging")
    path = tmp_path / "c.pt"
    save_agent(agent, path, agent_spec, {"step": 1})
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_agent(agent, path, agent_spec, {"step": lambda: 2})
    assert restore_agent(agent, path)["step"] == 1


def write_sealed(content: Any, path: Path) -> None:
    """Writes what somebody else may have written: any content, with a checksum that fits."""
    torch.save(content, path)
    data = path.read_bytes()[:-2] + struct.pack("<H", 71)
    path.write_bytes(data + b"sha256:" + hashlib.sha256(data).hexdigest().encode())


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    write_sealed({"version": CHECKPOINT_VERSION, "agent": Path("x")}, tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        load_agent(tmp_path / "c.pt")


def test_faults_are_said(tmp_path: Path) -> None:
    agent, agent_spec = made("uniform")
    with pytest.raises(ConfigError, match="there is no such checkpoint"):
        load_agent(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ConfigError, match="is not a checkpoint"):
        load_agent(tmp_path / "text.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="its checksum is absent or does not fit"):
        load_agent(tmp_path / "list.pt")
    write_sealed([1], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="version None"):
        load_agent(tmp_path / "list.pt")
    for content in ({"version": torch.ones(2)}, {"version": CHECKPOINT_VERSION, "kind": torch.ones(2)}):
        write_sealed(content, tmp_path / "list.pt")
        with pytest.raises(ConfigError, match=r"list\.pt (has checkpoint version|is a) tensor"):
            load_agent(tmp_path / "list.pt")
    for version in (9, 99):  # version 9 has no limits of outliers and no learned half-lives
        write_sealed({"version": version}, tmp_path / "other.pt")
        with pytest.raises(ConfigError, match=f"version {version}; this program reads version {CHECKPOINT_VERSION}"):
            load_agent(tmp_path / "other.pt")
    save_policy(agent, tmp_path / "p.pt", agent_spec, {})
    with pytest.raises(ConfigError, match=r"p\.pt is a policy, not a checkpoint"):
        load_agent(tmp_path / "p.pt")
    save_agent(agent, tmp_path / "c.pt", agent_spec)
    with pytest.raises(ConfigError, match=r"c\.pt is a checkpoint, not a policy"):
        load_policy(tmp_path / "c.pt")
    with pytest.raises(ConfigError, match="there is no such policy"):
        load_policy(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="a run resumes with the same actions only"):
        restore_agent(make_agent("uniform", PLAIN, 4), tmp_path / "c.pt")


@pytest.mark.parametrize("other", [{"members": 6}, {"hidden": [16]}])
def test_a_state_of_another_shape_is_refused(other: dict[str, Any]) -> None:
    first = make_agent("ensemble_thompson", PLAIN, 4, SMALL)
    second = make_agent("ensemble_thompson", PLAIN, 4, SMALL | other)
    with pytest.raises(ConfigError, match="ensemble of another shape"):
        second.load_state_dict(first.state_dict())


def tensors(state: Any) -> list[tuple[Any, Any]]:
    """Every tensor of a nested state: what holds it, and its key."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    found = []
    for key, value in list(items):
        found += [(state, key)] if isinstance(value, torch.Tensor) else tensors(value)
    return found


@pytest.mark.parametrize("most", [8, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", AGENTS)
def test_a_policy_whose_tensors_have_another_shape_is_refused_when_it_is_loaded(
    name: str, most: int | None, tmp_path: Path
) -> None:
    """Each tensor of the file, or as many as that, from the first to the last."""
    agent, agent_spec = made(name)
    agent.observe(random_batch(300, agent.modules))
    agent.update(3)
    save_policy(agent, tmp_path / "p.pt", agent_spec)
    count = len(tensors(torch.load(tmp_path / "p.pt", weights_only=True)["agent"]))
    for k in sorted({round(place) for place in np.linspace(0, count - 1, min(count, most or count))}):
        content = torch.load(tmp_path / "p.pt", weights_only=True)
        holder, key = tensors(content["agent"])[k]
        holder[key] = holder[key].reshape(-1)[:0]
        write_sealed(content, tmp_path / "other.pt")
        refusal = None
        try:
            load_policy(tmp_path / "other.pt")[0].action_probabilities(observations_of(everything(20, agent.modules)))
        except ConfigError as error:
            refusal = str(error)
        assert refusal is None or "other.pt" in refusal
    with pytest.raises(ConfigError, match="context_dim is 0"):
        make_agent(name, NESTED, 0)

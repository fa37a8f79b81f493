"""The packages of environments: cheap to import, with everything that they export, documented as Gymnasium does."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from crosschannel.envs.market import MarketEnv, MarketVectorEnv
from crosschannel.envs.replay import CrossChannelReplay, CrossChannelReplayVector
from tests import ROOT

PACKAGES = ("envs", "envs.market", "envs.market.policies", "envs.replay", "envs.wrappers")


def loaded_by(code: str) -> set[str]:
    """Top-level packages, and all modules of this one, that a fresh interpreter has loaded after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import json, sys; print(json.dumps(list(sys.modules)))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = json.loads(done.stdout)
    return {name for name in modules if name.startswith("crosschannel") or "." not in name}


def test_importing_the_environments_registers_them_and_loads_nothing_heavy():
    loaded = loaded_by("import crosschannel.envs; import gymnasium; gymnasium.spec('CrossChannelMarket-v0')")
    assert not loaded & {"torch", "pandas", "scipy", "matplotlib", "pyarrow"}
    assert not {name for name in loaded if name.startswith("crosschannel.envs.")}


def test_importing_a_market_s_settings_loads_no_simulation():
    loaded = loaded_by("from crosschannel.envs.market import MarketConfig")
    assert not loaded & {"torch", "matplotlib"}
    simulation = {f"crosschannel.envs.market.{name}" for name in ("market", "state", "effects", "policies", "env")}
    assert not loaded & simulation


@pytest.mark.parametrize("name", PACKAGES)
def test_everything_that_a_package_exports_exists(name):
    package = importlib.import_module(f"crosschannel.{name}")
    if name == "envs.wrappers":
        pytest.importorskip("stable_baselines3", reason="Stable-Baselines3 is not installed")
    assert package.__doc__
    assert len(package.__all__) == len(set(package.__all__)) > 2
    for exported in package.__all__:
        assert getattr(package, exported) is not None
        assert exported in dir(package)


@pytest.mark.parametrize("cls", [MarketEnv, MarketVectorEnv, CrossChannelReplay, CrossChannelReplayVector])
def test_docstrings_have_gymnasium_s_headings(cls):
    headings = [line.strip()[3:] for line in cls.__doc__.splitlines() if line.strip().startswith("## ")]
    assert headings == [
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode Termination",
        "Information",
        "Arguments",
        "Version History",
    ]

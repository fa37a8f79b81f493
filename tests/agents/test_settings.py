"""Settings are documented, checked without heavy imports, and refused with the nearest known name."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

import crosschannel.agents
from crosschannel.agents import AGENTS, EnsembleThompsonSettings, agent_settings, check_settings, make_agent
from crosschannel.core.errors import ConfigError
from tests import ROOT
from tests.agents.samples import PLAIN


def test_names_and_settings_are_checked_without_torch() -> None:
    code = (
        "import sys\n"
        "import crosschannel.agents.registry\n"
        "from crosschannel.agents import AGENTS, agent_settings, check_settings\n"
        "for name in AGENTS:\n"
        "    assert isinstance(check_settings(name), agent_settings(name))\n"
        "for wrong in ('ensemble_tompson', {'member': 3}), ('ensemble_thompson', {'members': 'ten'}):\n"
        "    try:\n"
        "        check_settings(*wrong)\n"
        "    except ValueError:\n"
        "        continue\n"
        "    raise AssertionError(wrong)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", list(AGENTS))
def test_every_setting_is_documented_where_it_is_defined(name: str) -> None:
    known = AGENTS[name].settings
    for f in fields(known):
        defined = next(cls for cls in known.__mro__ if f.name in inspect.get_annotations(cls))
        assert "Attributes:" in (defined.__doc__ or "")
        assert re.search(rf"^        {f.name}: [A-Z]", defined.__doc__ or "", re.MULTILINE), f.name


@pytest.mark.parametrize("name", list(AGENTS))
def test_the_made_agent_is_the_named_class_with_its_settings(name: str) -> None:
    agent = make_agent(name, PLAIN, 4)
    assert f"{type(agent).__module__}:{type(agent).__name__}" == AGENTS[name].path
    if fields(AGENTS[name].settings):
        assert agent.settings == AGENTS[name].settings()  # type: ignore[attr-defined]


def test_settings_become_typed() -> None:
    found = check_settings(
        "ensemble_thompson", {"members": 3, "hidden": [8], "floor": {"channel": 0}, "half_life": "1e3"}
    )
    assert found == EnsembleThompsonSettings(members=3, hidden=(8,), floor={"channel": 0.0}, half_life=1000.0)
    assert pickle.loads(pickle.dumps(found)) == found
    assert check_settings("ensemble_thompson", found) is found
    assert make_agent("ensemble_thompson", PLAIN, 4, found).settings is found  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="expected a mapping with the keys of NeuralLinearSettings"):
        check_settings("neural_linear", found)


def test_settings_of_a_users_own_agent_stay_as_they_are() -> None:
    own = "examples.new_agent:BestSoFar"
    assert agent_settings(own) is None
    assert check_settings(own, {"anything": [1]}) == {"anything": [1]}
    with pytest.raises(ConfigError, match="cannot be imported"):
        check_settings("examples.new_agent:BestSoFat")


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such agent": ("uniforn", {}, "Did you mean 'uniform'?"),
    "no such setting": (
        "neural_linear",
        {"drows": 3},
        "neural_linear.settings: unknown key 'drows'. Did you mean 'draws'?",
    ),
    "a setting of another agent": ("best_fixed", {"members": 3}, "Available: 'effect_scale'"),
    "no probability": ("beta_thompson", {"floor": {"channel": -0.1}}, "floor is -0.1: it must be between 0 and 1"),
    "not a number": ("linear_thompson", {"exploration_scale": float("nan")}, "exploration_scale is nan"),
}


@pytest.mark.parametrize(("name", "settings", "words"), list(CASES.values()), ids=list(CASES))
def test_wrong_settings_are_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(name, settings)
    assert words in str(caught.value)


def test_the_package_has_what_its_stub_lists() -> None:
    for name in crosschannel.agents.__all__:
        found = getattr(crosschannel.agents, name)
        if isinstance(found, type):
            assert pickle.loads(pickle.dumps(found)) is found
    assert set(crosschannel.agents.__all__) <= set(dir(crosschannel.agents))
    stub = (ROOT / "agents" / "__init__.pyi").read_text()
    listed = re.findall(r'^    "(\w+)",$', stub, re.MULTILINE)
    assert sorted(listed) == sorted(crosschannel.agents.__all__), "the stub's list and its imports must agree"
    with pytest.raises(ImportError):
        exec("from crosschannel.agents import NoSuchAgent")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *(("ensemble_thompson", {"hidden": hidden}) for hidden in ([2**63 - 1], [10**30], [8] * 33)),
        *(("ensemble_thompson", {key: 10**30}) for key in ("members", "batch_size", "capacity")),
    ],
)
def test_sizes_that_overflow_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="at most"):
        check_settings(name, settings)


@pytest.mark.parametrize("width", [0, -1, 2**31, 2**63 - 1, 10**30])
@pytest.mark.parametrize("name", list(AGENTS))
def test_a_width_that_overflows_is_refused(name: str, width: int) -> None:
    with pytest.raises(ConfigError, match="an agent needs 1 to 1,000,000 context features"):
        make_agent(name, PLAIN, width)

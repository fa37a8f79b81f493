"""Configurations: what is written is what is read, and what is wrong is said, with the nearest right thing."""

from __future__ import annotations

import pytest
import yaml

from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.command_line import settings_of
from crosschannel.pipeline.configuration import Config, read_config, write_config
from tests import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_read_and_written_unchanged(path, tmp_path):
    config = read_config(path)
    write_config(config, tmp_path / "again.yaml")
    assert read_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede: 1", r"unknown key 'sede'. Did you mean 'seed'\?"),
        ("reward: {goal: []}", r"reward: unknown key 'goal'. Did you mean 'goals'\?"),
        ("reward: {goals: [{evnt: order}]}", r"goals\[0\]: unknown key 'evnt'. Did you mean 'event'\?"),
        ("reward: {goals: [{weight: 2}]}", r"goals\[0\]: the key 'event' is missing"),
        ("seed: one", r"seed: expected int, got 'one'"),
        ("seed: true", r"seed: expected int, got True"),
        ("reward: {overlap: drop}", r"overlap: 'drop' is not one of 'shared', 'exclude'"),
        ("reward: {pre: 3 weeks}", r"'3 weeks' is not a duration"),
        ("split: {train: 0.9}", r"do not add up to 1"),
        ("train: {envs: 0}", r"envs is 0: it must be at least 1"),
        ("train: {log_every: 30, checkpoint_every: 100}", r"not a multiple of log_every"),
        ("history: {source: markt}", r"unknown source 'markt'. Did you mean 'market'\?"),
        ("history: {source: tables}", r"needs the mapping `tables`"),
        ("history: {market: {scenario: dipp}}", r"no market scenario 'dipp'"),
        ("history: [1, 2]", r"expected a mapping"),
        ("history: {source: market, path: there}", r"path 'there' is not read: with source 'market'"),
        ("guardrails: {weekly_cap: 3}", r"the market has its own rules"),
        ("guardrails: {weekly_cap: -1}", r"weekly_cap is -1"),
        ("a: [", r"this is not YAML"),
    ],
)
def test_wrong_configurations_are_explained(text, message, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert "wrong.yaml" in str(caught.value)


def test_flags_override_the_file(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump({"name": "some", "agent": {"name": "uniform", "settings": {"floor": 0.1}}}))
    found = settings_of(["--config", str(path), "--train.envs", "7"], default=CONFIGS[0], description="")
    assert (found.config.name, found.config.train.envs) == ("some", 7)
    assert found.config.agent.settings == {"floor": 0.1}


def test_the_agents_settings_are_flags(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump({"agent": {"settings": {"floor": 0.1, "members": 3}}}))
    flags = ["--agent.settings.members", "5", "--train.envs=7", "--agent.settings.learning-rate=1e-2"]
    found = settings_of(
        ["--config", str(path), *flags, "--agent.settings.hidden", "[8, 4]"], default=path, description=""
    )
    assert found.config.agent.settings == {"floor": 0.1, "members": 5, "learning_rate": 0.01, "hidden": [8, 4]}
    assert found.config.train.envs == 7
    with pytest.raises(ConfigError, match="has no value"):
        settings_of(["--agent.settings.members"], default=path, description="")


def test_an_unknown_flag_names_the_nearest(capsys):
    with pytest.raises(SystemExit):
        settings_of(["--train.envz", "7"], default=CONFIGS[0], description="")
    assert "--train.envs" in capsys.readouterr().err


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("evaluation: {min_ess: 1e2}")
    assert read_config(path).evaluation.min_ess == 100.0


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        read_config(tmp_path / "none.yaml")


def test_help_explains_every_setting(capsys):
    with pytest.raises(SystemExit) as done:
        settings_of(["--help"], default=CONFIGS[0], description="Learns.")
    assert done.value.code == 0
    text = capsys.readouterr().out
    for name in Config.__dataclass_fields__:
        assert f"--{name}" in text.replace("_", "-") or f"--{name}." in text

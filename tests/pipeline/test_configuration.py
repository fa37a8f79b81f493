"""Configurations: what is written is what is read, and what is wrong is refused with the nearest right thing."""

from __future__ import annotations

import pytest
import yaml

from crosschannel.agents import agent_settings
from crosschannel.core.errors import ConfigError
from crosschannel.pipeline.configuration import AgentConfig, Config, load_config, read_config, write_config
from crosschannel.pipeline.reading import build_history
from tests import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
STREAM = "source: stream, stream: {rows: {path: a.csv}, modules: [{name: channel, actions: [none, push]}], "


def read(text: str, folder) -> Config:
    path = folder / "some.yaml"
    path.write_text(text)
    return read_config(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_read_and_written_unchanged(path, tmp_path):
    config = read_config(path)
    write_config(config, tmp_path / "again.yaml")
    assert read_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede: 1", r"wrong.yaml: unknown key 'sede'. Did you mean 'seed'\?"),
        ("reward: {goal: []}", r"wrong.yaml: reward: unknown key 'goal'. Did you mean 'goals'\?"),
        ("reward: {goals: [{evnt: order}]}", r"reward.goals\[0\]: unknown key 'evnt'. Did you mean 'event'\?"),
        ("reward: {goals: [{weight: 2}]}", r"reward.goals\[0\]: the key 'event' is missing"),
        ("seed: one", r"wrong.yaml: seed: expected a whole number, got 'one'"),
        ("seed: true", r"seed: expected a whole number, got True"),
        ("seed: -1", r"seed -1 is below 0"),
        ("history: {market: {seed: -1}}", r"seed -1 is below 0"),
        (
            "reward: {matching: {strata: two}}",
            r"wrong.yaml: reward.matching.strata: expected a whole number, got 'two'",
        ),
        ("train: {log_every: 1.5}", r"train.log_every: expected a whole number, got 1.5"),
        ("context: {clock: no}", r"context.clock: expected true or false, got 'no'"),
        (
            "reward: {overlap: exclud}",
            r"'exclud' is not one of 'shared', 'exclude', 'truncate'. Did you mean 'exclude'",
        ),
        ("reward: {pre: 3 weeks}", r"'3 weeks' is not a duration"),
        ("reward: {kind: didd}", r"there is no reward kind 'didd'. Did you mean 'did'\?"),
        ("reward: {kind: 'no class:'}", r"there is no reward kind 'no class:'"),
        ("agent: {name: ensemble}", r"unknown agent 'ensemble'. Did you mean 'ensemble_thompson'\?"),
        ("agent: {settings: {memberz: 3}}", r"agent: settings: unknown key 'memberz'. Did you mean 'members'\?"),
        ("agent: {settings: {members: many}}", r"agent: settings.members: expected a whole number, got 'many'"),
        ("agent: {settings: {members: 0}}", r"members is 0: it must be at least 1"),
        ("agent: {settings: [3]}", r"agent: settings: expected a mapping"),
        ("agent: {name: 'a.module:Agent', settings: [3]}", r"settings: expected a mapping"),
        ("device: gpu", r"unknown device 'gpu'. Did you mean 'cpu'\?"),
        ("device: 'cuda:first'", r"unknown device 'cuda:first'"),
        ("name: ../elsewhere", r"name '../elsewhere' is not a plain folder name"),
        ("name: a/b", r"is not a plain folder name"),
        ("name: 'a\\b'", r"is not a plain folder name"),
        ("name: ''", r"is not a plain folder name"),
        ("name: ..", r"is not a plain folder name"),
        ("name: .hidden", r"is not a plain folder name"),
        ("name: 5", r"name: expected text, got 5"),
        ("split: {train: 0.9}", r"do not add up to 1"),
        ("split: {train: .nan}", r"train is nan: a share lies between 0 and 1"),
        ("split: {train: 1.2, test: -0.3}", r"a share lies between 0 and 1"),
        ("split: {train: 0.9, validation: 0.1, test: 0}", r"`train` and `test` must be above 0"),
        ("train: {num_envs: 0}", r"num_envs is 0: it must be at least 1"),
        ("train: {log_every: 30, checkpoint_every: 100}", r"not a multiple of log_every"),
        ("history: {source: markt}", r"unknown source 'markt'. Did you mean 'market'\?"),
        ("history: {source: tables}", r"needs the mapping `tables`"),
        ("history: {source: stream}", r"needs the mapping `stream`"),
        (
            f"history: {{{STREAM}slots: daily, sends: [{{events: [s], constants: {{channel: push}}}}]}}}}",
            r"slots 'daily'",
        ),
        (
            f"history: {{{STREAM}slots: {{evry: 1d}}, sends: []}}}}",
            r"stream.slots: unknown key 'evry'. Did you mean 'every'",
        ),
        ("history: {market: {scenario: dipp}}", r"no market scenario 'dipp'. Did you mean 'dip'\?"),
        ("history: [1, 2]", r"history: expected a mapping with the keys of HistoryConfig, got \[1, 2\]"),
        ("history: {source: market, path: there}", r"path 'there' is not read: the history of the source 'market'"),
        ("history: {market: {goals: [{event: unsubscribed}]}}", r"set `reward.goals`, not `history.market.goals`"),
        ("reward: {goals: [{event: bought}]}", r"the market has no event 'bought'"),
        ("guardrails: {weekly_cap: 3}", r"the market has its own rules"),
        ("context: {windows: [36h]}", r"context window '36h' is not a whole number of days"),
        ("context: {blocks: [7, 19]}", r"context blocks begin at hours \[7, 19\]"),
        ("context: {blocks: [19, 7]}", r"context: blocks \[19, 7\] do not divide the day"),
        ("context: {time_zone: Asia/Tokyo}", r"context time_zone 'Asia/Tokyo' is not UTC"),
        ("context: {weekend: [sunday, satuday]}", r"context.weekend\[1\]: 'satuday' is not one of .*mean 'saturday'"),
        ("guardrails: {weekly_cap: -1}", r"weekly_cap is -1"),
        ("guardrails: {quiet_hours: [21:00, 8]}", r"quiet_hours\[1\]: expected text, got 8"),
        ("evaluation: {market_users: 1}", r"market_users 1 is below 2"),
        ("a: [", r"wrong.yaml: line 1, column 5: .*expected the node content"),
        ("- 1", r"expected a mapping with the keys of Config"),
        ("seed: 1\nname: a\nseed: 2", r"line 3, column 1: the key 'seed' occurs twice, first in line 1"),
        ("train: {log_every: 10, log_every: 20}", r"line 1, column 24: the key 'log_every' occurs twice"),
        ("name: !!python/name:os.system", r"line 1, column 7: values of the kind .* are not read"),
        ("name: &a [*a]", r"an alias refers to a value that contains it"),
        ("? [a]\n: 1", r"a key must be text"),
        ("seed: 1\n---\nseed: 2", r"line 2, column 1: expected a single document"),
        ("[" * 5000, r"nested too deeply"),
        ("name: a\0b", r"this is not YAML"),
    ],
)
def test_wrong_configurations_are_explained(text, message, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_all_faults_are_told_at_once(tmp_path):
    text = "sede: 1\nseed: x\nreward: {pre: 3, goals: [{evnt: a}]}\nagent: {settings: {memberz: 1, members: x}}"
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    for line in lines:
        assert line.startswith(f"{tmp_path / 'some.yaml'}: ")


def test_aliases_that_grow_beyond_all_bounds_are_refused(tmp_path):
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        read("\n".join(lines), tmp_path)


def test_aliases_and_merged_keys_are_read(tmp_path):
    config = read("train: {<<: &steps {log_every: 5, num_envs: 3}, num_envs: 4, checkpoint_every: 10}", tmp_path)
    assert (config.train.log_every, config.train.num_envs) == (5, 4)


def test_values_are_told_apart_as_people_read_them(tmp_path):
    """Days and times of day are text, and numbers in scientific notation are numbers."""
    text = (
        "history: {source: folder}\nevaluation: {min_ess: 1e2}\nagent: {settings: {learning_rate: 1e-3}}\n"
        "guardrails: {quiet_hours: [21:00, 08:00], starts: {offer: {none: 2026-11-24}}}\nname: 007"
    )
    config = read(text, tmp_path)
    assert config.evaluation.min_ess == 100.0
    assert config.agent.settings.learning_rate == 0.001
    assert config.guardrails.quiet_hours == ("21:00", "08:00")
    assert config.guardrails.starts == {"offer": {"none": "2026-11-24"}}
    assert config.name == "007"


def test_an_empty_file_is_the_default(tmp_path):
    assert read("", tmp_path) == Config()


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such configuration file"):
        read_config(tmp_path / "none.yaml")


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "some.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"some\.yaml: this is not text in UTF-8"):
        read_config(tmp_path / "some.yaml")


def test_the_agents_settings_are_typed_and_complete(tmp_path):
    config = read("agent: {settings: {hidden: [8, 4], half_life: .inf, floor: {channel: 0.1}}}", tmp_path)
    settings = config.agent.settings
    assert isinstance(settings, agent_settings("ensemble_thompson"))
    assert (settings.hidden, settings.half_life, settings.floor) == ((8, 4), float("inf"), {"channel": 0.1})
    write_config(config, tmp_path / "written.yaml")
    assert yaml.safe_load((tmp_path / "written.yaml").read_text())["agent"]["settings"]["members"] == settings.members
    assert read_config(tmp_path / "written.yaml") == config


def test_an_agent_or_a_reward_of_ones_own_is_not_imported_before_it_is_used(tmp_path):
    """Its settings are passed on as they stand."""
    text = (
        "agent: {name: 'not.there:Agent', settings: {anything: [1, {two: 3}]}}\nreward: {kind: 'not.there:Reward'}\n"
        "history: {source: folder}"
    )
    config = read(text, tmp_path)
    assert config.agent.settings == {"anything": [1, {"two": 3}]}
    write_config(config, tmp_path / "again.yaml")
    assert read_config(tmp_path / "again.yaml") == config


def test_settings_given_in_python_are_checked_alike():
    with pytest.raises(ConfigError, match=r"unknown key 'memberz'. Did you mean 'members'\?"):
        AgentConfig("ensemble_thompson", {"memberz": 3})
    with pytest.raises(ConfigError, match="seed -1 is below 0"):
        Config(seed=-1)


def test_a_folder_that_is_needed_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match=r"needs a folder: add --history\.path FOLDER"):
        build_history(read("history: {source: folder}", tmp_path))


@pytest.mark.parametrize("name", ["trees", "sklearn.ensemble.GradientBoostingClassifier", "a:b:c", ""])
def test_a_propensity_model_is_the_logit_or_a_class(name):
    with pytest.raises(ConfigError, match="there is no propensity model"):
        load_config("market", {"history.propensity_model": name})
    assert load_config("market", {"history.propensity_model": "package.module:Trees"}).history.propensity_model


@pytest.mark.parametrize("name", ["forest", "sklearn.ensemble.RandomForestRegressor", "a:b:c", ""])
def test_an_outcome_model_is_the_ridge_or_a_class(name):
    with pytest.raises(ConfigError, match="there is no outcome model"):
        load_config("market", {"evaluation.outcome_model": name})
    assert load_config("market", {"evaluation.outcome_model": "package.module:Forest"}).evaluation.outcome_model

"""Command lines: flags that override a file, help, refusals, and where output goes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from crosschannel.__main__ import COMMANDS
from crosschannel.__main__ import main as crosschannel
from crosschannel.core.errors import ConfigError, CrosschannelError
from crosschannel.pipeline.command_line import (
    DEFAULT_CONFIG,
    WIDTH,
    Parser,
    UsageError,
    invocation,
    program,
    refuse_existing,
    resumable,
)
from crosschannel.pipeline.configuration import Config, EvaluationConfig, override, write_config
from crosschannel.pipeline.flags import CommandLine, each_setting, parse_settings
from crosschannel.programs import evaluate
from tests import ROOT

HEAVY = ("torch", "tensorboard", "matplotlib", "pyarrow.parquet", "scipy.stats", "statsmodels")


def parsed(*arguments: str, sections: tuple[str, ...] | None = None) -> CommandLine:
    return parse_settings(Parser("train", "Learn."), arguments, sections)


def written(folder: Path, **sections: object) -> tuple[str, str]:
    path = folder / "some.yaml"
    path.write_text(yaml.safe_dump(sections))
    return "--config", str(path)


def python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH), **environment},
    )


def help_of(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as done:
        crosschannel([*arguments])
    assert done.value.code == 0
    return capsys.readouterr().out


def test_flags_override_the_file(tmp_path):
    given = written(tmp_path, name="some", agent={"name": "best_fixed", "settings": {"floor": 0.1}})
    line = parsed(*given, "--train.num-envs", "7")
    assert (line.config.name, line.config.train.num_envs) == ("some", 7)
    assert line.config.agent.settings.floor == 0.1
    assert line.overrides == ("--config", "--train.num-envs")


def test_without_flags_the_file_holds(tmp_path):
    assert parsed(*written(tmp_path, seed=3)).config == Config(seed=3)


def test_every_setting_but_mappings_of_files_is_a_flag():
    flags = {setting.flag for setting in each_setting(Config())}
    for name in ("--name", "--run-dir", "--history.market.users", "--reward.matching.strata", "--reward.goals"):
        assert name in flags
    assert not [flag for flag in flags if flag.startswith(("--history.tables", "--history.stream"))]


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--train.num-envs=7"], "train.num_envs", 7),
        (["--train.num_envs", "7"], "train.num_envs", 7),
        (["--seed", "1", "--seed", "2"], "seed", 2),
        (["--name", "007"], "name", "007"),
        (["--run-dir", "else/where"], "run_dir", Path("else/where")),
        (
            ["--split.train", ".5", "--split.test", "4e-1"],
            "split.shares",
            {"train": 0.5, "validation": 0.1, "test": 0.4},
        ),
        (["--context.clock", "false"], "context.clock", False),
        (["--context.windows", "1d", "2d"], "context.windows", ("1d", "2d")),
        (["--context.windows", "[1d, 2d]"], "context.windows", ("1d", "2d")),
        (["--context.events"], "context.events", ()),
        (["--context.events", "none"], "context.events", None),
        (["--evaluation.segments", "none"], "evaluation.segments", None),
        (["--agent.settings.members", "5"], "agent.settings.members", 5),
        (["--agent.settings.hidden", "8", "4"], "agent.settings.hidden", (8, 4)),
        (["--agent.settings.learning-rate=1e-2"], "agent.settings.learning_rate", 0.01),
        (["--agent.settings.half-life", "inf"], "agent.settings.half_life", float("inf")),
        (["--agent.settings.floor", "{channel: .1}"], "agent.settings.floor", {"channel": 0.1}),
        (["--reward.goals", "{event: unsubscribed, weight: -1}"], "reward.goals.0.weight", -1.0),
        (["--reward.goals", "[{event: unsubscribed}, {event: 'order:*'}]"], "reward.goals.1.event", "order:*"),
        (["--constraints.cost-events", "{event: unsubscribed}"], "constraints.cost_events.0.at_most", "log"),
        (["--constraints.cost-events", "{event: a, at_most: .5}"], "constraints.cost_events.0.at_most", 0.5),
        (["--constraints.cost-events"], "constraints.cost_events", ()),
        (["--constraints.messages-per-week", "2"], "constraints.messages_per_week", 2.0),
        (["--reward.matching.within", "platform"], "reward.matching.within", ("platform",)),
    ],
)
def test_values_are_parsed_by_their_settings_types(arguments, path, value):
    found = parsed(*arguments).config
    for name in path.split("."):
        found = found[int(name)] if name.isdigit() else getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_mappings_are_written_as_in_yaml(tmp_path):
    given = written(tmp_path, history={"source": "folder"})
    line = parsed(*given, "--guardrails.weekly-caps", "{push: 2}", "--guardrails.quiet-hours", "21:00", "08:00")
    assert line.config.guardrails.weekly_caps == {"push": 2}
    assert line.config.guardrails.quiet_hours == ("21:00", "08:00")


def test_another_agent_begins_with_its_own_defaults(tmp_path):
    given = written(tmp_path, agent={"settings": {"members": 3}})
    assert parsed(*given).config.agent.settings.members == 3
    line = parsed(*given, "--agent.name", "linear_thompson", "--agent.settings.draws", "4")
    assert line.config.agent.settings.draws == 4
    assert not hasattr(line.config.agent.settings, "members")
    assert parsed(*given, "--agent.name", "ensemble_thompson").config.agent.settings.members == 3


def test_settings_are_overridden_by_dotted_names_in_python_too():
    config = override(Config(), {"train.num_envs": 7, "agent.settings.members": 3})
    assert (config.train.num_envs, config.agent.settings.members) == (7, 3)
    assert override(config, {"agent.name": "best_fixed"}).agent.settings.floor == 0.02
    for name, message in (
        ("train.num_envz", r"train: unknown key 'num_envz'. Did you mean 'num_envs'\?"),
        ("tran.num_envs", r"unknown key 'tran'. Did you mean 'train'\?"),
        ("seed.more", r"seed\.more: 'seed' is a setting, not a section"),
    ):
        with pytest.raises(ConfigError, match=message):
            override(config, {name: 1})


def test_settings_of_an_agent_of_ones_own_are_passed_on(tmp_path):
    flags = (
        "--agent.name",
        "package.module:Agent",
        "--agent.settings.some-list",
        "[1, a]",
        "--agent.settings.rate=1e-2",
    )
    assert parsed(*flags).config.agent.settings == {"some_list": [1, "a"], "rate": 0.01}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.num-envz", "7"], r"there is no flag --train.num-envz. Did you mean '--train.num-envs'\?"),
        (
            ["--agent.settings.memberz", "3"],
            r"no flag --agent.settings.memberz. Did you mean '--agent.settings.members'",
        ),
        (["--agent.name", "linear", "--seed", "1"], r"unknown agent 'linear'. Did you mean 'linear_thompson'\?"),
        (["--no-such-flag", "1"], r"^there is no flag --no-such-flag. See .* --help$"),
        (["stray"], r"'stray' is not expected here"),
        (["--train.num-envs"], r"--train.num-envs: expected one argument"),
        (["--config"], r"--config: expected one argument"),
        (["--train.num-envs", "many"], r"--train.num-envs: expected a whole number, got 'many'"),
        (["--context.clock", "maybe"], r"--context.clock: expected true or false, got 'maybe'"),
        (["--reward.controls", "notsent"], r"--reward.controls: 'notsent' is not one of .* Did you mean 'not_sent'\?"),
        (["--reward.goals", "{event: [}"], r"--reward.goals: line 1"),
        (["--reward.goals", "{evnt: a}"], r"--reward.goals\[0\]: unknown key 'evnt'. Did you mean 'event'\?"),
        (["--agent.settings.members", "0"], r"members is 0: it must be at least 1"),
        (["--train.num-envs", "0"], r"train: num_envs is 0: it must be at least 1"),
        (["--split.train", "0.9"], r"split: the shares .* do not add up to 1"),
        (["--seed", "-1"], r"seed -1 is below 0"),
        (["--device", "tpu"], r"unknown device 'tpu'"),
        (["--name", "../x"], r"not a plain folder name"),
        (["--history.source", "tables"], r"needs the mapping `tables`"),
        (["--history.tables", "x"], r"there is no flag --history.tables"),
    ],
)
def test_wrong_flags_are_explained(arguments, message):
    with pytest.raises(UsageError, match=message):
        parsed(*arguments)


def test_all_wrong_values_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        parsed("--train.num-envs", "many", "--context.clock", "maybe")
    assert len(str(caught.value).splitlines()) == 2


def test_a_wrong_file_is_not_the_flags_fault(tmp_path):
    with pytest.raises(ConfigError, match=r"some.yaml: seed -1 is below 0") as caught:
        parsed(*written(tmp_path, seed=-1))
    assert not isinstance(caught.value, UsageError)


def test_a_program_has_flags_for_what_it_reads_only():
    assert parsed("--reward.pre", "5d", sections=("history", "reward")).config.reward.pre == "5d"
    for flags in (["--seed", "1"], ["--agent.name", "uniform"], ["--train.num-envs", "2"]):
        with pytest.raises(UsageError, match=f"there is no flag {flags[0]}"):
            parsed(*flags, sections=("history", "reward"))


def test_the_commands_explain_themselves(capsys):
    assert crosschannel(["--help"]) == crosschannel([]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in shown
        assert help_of(capsys, command, "--help").startswith(f"usage: crosschannel {command} ")
    assert crosschannel(["--version"]) == 0
    assert re.fullmatch(r"crosschannel \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
    assert crosschannel(["tran"]) == 2
    assert "there is no command 'tran'. Did you mean 'train'?" in capsys.readouterr().err


def test_the_help_shows_every_section_with_its_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    shown = help_of(capsys, "train", "--help")
    for text in (
        "--config FILE",
        "--resume RUN",
        "--out PATH",
        "--force",
        "--help-all",
        "--seed INT",
        "--run-dir PATH",
    ):
        assert f"  {text} " in shown
    for section in (
        "history",
        "guardrails",
        "context",
        "reward",
        "split",
        "agent",
        "constraints",
        "train",
        "evaluation",
    ):
        assert f"\n{section} (" in shown
    assert "agent.settings (ensemble_thompson):" in shown
    one_line = " ".join(shown.split())
    assert "--train.offline-updates INT Extra offline updates after one pass over the log [60]" in one_line
    assert "--agent.settings.members INT" in shown
    assert "--history.market.users" not in shown
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert shown.count("\n") < 200


def test_the_full_help_explains_every_setting(capsys):
    shown = {command: help_of(capsys, command, "--help-all") for command in ("train", "trial", "simulate")}
    for setting in each_setting(parsed().config):
        of_program = shown[{"trial": "trial", "loop": "simulate", "alerts": "simulate"}.get(setting.path[0], "train")]
        assert re.search(rf"^  {setting.flag}[ \n]", of_program, re.MULTILINE), setting.flag
        assert setting.explanation, setting.flag


def test_the_help_is_that_of_the_chosen_agent_and_file(capsys, tmp_path):
    given = written(tmp_path, train={"num_envs": 77})
    shown = help_of(capsys, "train", *given, "--agent.name", "linear_thompson", "--help")
    assert "agent.settings (linear_thompson):" in shown
    assert "--agent.settings.draws INT" in shown
    assert "[77]" in shown


def test_flags_of_one_meaning_have_one_name_in_all_programs(capsys):
    shown = {command: help_of(capsys, command, "--help") for command in COMMANDS}
    for flag, commands in {
        "--history.path": COMMANDS,
        "--history.decided": COMMANDS,
        "--out": {*COMMANDS} - {"explain", "update", "alerts", "forget", "bucket"},
        "--force": {*COMMANDS} - {"explain", "update", "alerts", "forget", "bucket"},
        "--device": {*COMMANDS} - {"update", "effects", "trial", "alerts", "forget", "bucket"},
        "--seed": ("train", "start", "decide", "simulate"),
        "--at": ("decide", "trial", "alerts"),
        "--config": {*COMMANDS} - {"evaluate", "decide", "update", "explain", "alerts", "forget"},
    }.items():
        assert {name for name, text in shown.items() if f"  {flag} " in text} == set(commands), flag
    for command in ("evaluate", "decide"):
        assert "\npositional arguments:\n  RUN " in shown[command]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "crosschannel", "--help"],
        *(["-m", "crosschannel", command, "--help"] for command in COMMANDS),
        ["-m", "crosschannel", "train", "--no-such-flag", "1"],
        ["-m", "crosschannel", "train", "--config", "wrong.yaml"],
        [str(ROOT / "train.py"), "--help"],
        [str(ROOT / "evaluate.py"), "--help"],
    ],
    ids=" ".join,
)
def test_help_and_refusals_import_nothing_heavy(arguments, tmp_path):
    (tmp_path / "wrong.yaml").write_text("sede: 1")
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print('heavy', [name for name in {HEAVY} if name in sys.modules], file=sys.stderr))\n"
        "sys.argv = sys.argv[1:]\n"
        "if sys.argv[0] == '-m':\n"
        "    sys.argv = sys.argv[1:]\n"
        "    runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)\n"
        "else:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    done = python("-c", code, *arguments, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "heavy []"


def test_the_default_configuration_is_found_from_an_empty_folder(tmp_path):
    code = "from crosschannel.pipeline.flags import parse_settings, Parser; c = parse_settings(Parser('train', ''), [])"
    done = python("-c", f"{code}; print(c.config.name, c.config.history.market.users)", cwd=tmp_path)
    assert done.stdout == "market 20000\n"
    assert DEFAULT_CONFIG.is_file()
    assert not list(tmp_path.iterdir())


def test_errors_are_one_line_with_an_exit_code(capsys):
    def fails(error: BaseException) -> int:
        raise error

    for error, code, text in (
        (UsageError("no such flag"), 2, "error: no such flag\n"),
        (ConfigError("wrong file"), 1, "error: wrong file\n"),
        (CrosschannelError("wrong data"), 1, "error: wrong data\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ):
        with pytest.raises(SystemExit) as done:
            program(lambda error=error: fails(error))
        assert (done.value.code, capsys.readouterr().err) == (code, text)
    with pytest.raises(SystemExit) as done:
        program(lambda: 0)
    assert done.value.code == 0


def test_an_interruption_names_the_command_that_resumes(capsys, monkeypatch):
    def interrupted() -> int:
        with resumable(Path("runs/market-2")):
            raise KeyboardInterrupt

    for script, command in (
        ("/usr/bin/crosschannel", "crosschannel train"),
        (str(ROOT / "crosschannel" / "__main__.py"), "crosschannel train"),
        (str(ROOT / "train.py"), f"python {ROOT / 'train.py'}"),
        (str(ROOT / "evaluate.py"), f"python {ROOT / 'train.py'}"),
    ):
        monkeypatch.setattr(sys, "argv", [script])
        assert invocation("train") == command
        with pytest.raises(SystemExit) as done:
            program(interrupted)
        assert done.value.code == 130
        assert (
            f"resume the run from its last checkpoint with: {command} --resume runs/market-2" in capsys.readouterr().err
        )


def finished_run(folder: Path, config: Config | None = None) -> Path:
    folder.mkdir()
    write_config(config or Config(), folder / "config.yaml")
    (folder / "metrics.json").write_text("{}")
    return folder


def test_flags_of_an_evaluation_begin_with_the_settings_of_the_run_wherever_it_stands(tmp_path):
    run = str(finished_run(tmp_path / "run", Config(evaluation=EvaluationConfig(min_ess=33, market_users=7))))
    flags = ("--evaluation.min-users", "5")
    for arguments in ((run, *flags), (*flags, run), ("--device", "cpu", *flags, run), ("--device=cpu", run, *flags)):
        chosen, settings = evaluate.parse(arguments)
        assert str(chosen.run) == run
        assert (settings.min_ess, settings.market_users, settings.min_users) == (33, 7, 5)


def test_existing_output_is_overwritten_only_if_asked(tmp_path):
    (tmp_path / "file.csv").touch()
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "new.csv", force=False)
    refuse_existing(tmp_path / "empty", force=False)
    refuse_existing(tmp_path / "file.csv", force=True)
    for path in (tmp_path / "file.csv", tmp_path):
        with pytest.raises(UsageError, match="exists already: give another --out, or overwrite it with --force"):
            refuse_existing(path, force=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--resume", "runs/x", "--seed", "1"], "--resume keeps the run's own settings"),
        (["train", "--resume", "runs/x", "--config", str(DEFAULT_CONFIG)], "--resume keeps the run's own settings"),
        (["train", "--resume", "runs/x"], "runs/x is not a run"),
        (["train", "--out", "x", "--name", "y"], "leave out --name and --run-dir"),
        (["train", "--out", "x/.."], "not a plain folder name"),
        (["train", "--force"], "--force overwrites what --out names"),
        (["evaluate"], "the following arguments are required: RUN"),
        (["evaluate", "runs/x"], "runs/x is not a run"),
        (["evaluate", "finished", "--devise", "cpu"], r"there is no flag --devise. Did you mean '--device'\?"),
        (["evaluate", "finished", "--device", "cuda:x"], "unknown device 'cuda:x'"),
        (["evaluate", "finished", "--force"], "--force overwrites what --out names"),
        (["evaluate", "finished", "--train.num-envs", "3"], "there is no flag --train.num-envs"),
        (["evaluate", "finished", "--evaluation.min-ess", "0"], "min_ess 0.0 is not a number of 1 or more"),
        (["decide", "runs/x"], "--out is missing: a folder of decisions by date, or a file"),
        (["decide", "runs/x", "--out", "x.xlsx"], "decisions are written as .parquet or .csv"),
        (["decide", "runs/x", "--out", "x.csv", "--dry-run"], "give the folder as --out"),
        (["decide", "runs/x", "--out", "x", "--ramp", "1.5"], "'1.5' is not a share from 0 to 1"),
        (["decide", "runs/x", "--out", "x.csv", "--seed", "-2"], "--seed: seed -2 is below 0"),
        (["decide", "runs/x", "--out", "x.csv", "--seed", "two"], "--seed: expected a whole number, got 'two'"),
        (["effects", "--out", "a.csv", "b.csv"], "at most one .csv file"),
        (["effects", "--out", "a.txt"], "at most one .csv file"),
        (["effects", "--agent.name", "uniform"], "there is no flag --agent.name"),
    ],
)
def test_programs_refuse_what_does_not_go_together(arguments, message, tmp_path, monkeypatch):
    finished_run(tmp_path / "finished")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        crosschannel(arguments)


def test_a_reader_who_leaves_early_sees_no_traceback(tmp_path):
    """As in `crosschannel effects ... | head -1`."""
    script = tmp_path / "long.py"
    script.write_text(
        "from crosschannel.pipeline.command_line import program\n"
        "def main():\n    for k in range(100_000): print('line', k)\n    return 0\n"
        "program(main)\n"
    )
    command = f"{sys.executable} {script} | head -1"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=env)
    assert done.stdout == "line 0\n"
    assert done.stderr == ""

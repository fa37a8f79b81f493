"""Training on buckets: one policy for every division and engine, also after an interruption, judged on a sample."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from crosschannel import agents, pipeline
from crosschannel.agents.funnel import model, personal
from crosschannel.agents.funnel.rows import FunnelRows
from crosschannel.agents.leaves import funnel as leaves_funnel
from crosschannel.core.errors import ConfigError, InputError, NotIdentified
from crosschannel.engines import make_engine, run_locally
from crosschannel.histories.buckets import write_buckets
from crosschannel.histories.history import History
from crosschannel.pipeline.batches import message_odds
from crosschannel.pipeline.buckets import reading, sampling, training
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import BucketedLog, reads_buckets
from crosschannel.pipeline.buckets.training import SCRATCH_FOLDER
from crosschannel.pipeline.building import TrainingData, agent_spec, prepare
from crosschannel.pipeline.configuration import Config, override
from crosschannel.pipeline.run_files import TrainedWith
from crosschannel.pipeline.run_folder import Run
from crosschannel.programs import decide, evaluate, train
from tests import ROOT
from tests.pipeline.buckets.samples import Interrupted, Stops, configuration, contents, market_log, write_log


@pytest.fixture(scope="module")
def log() -> History:
    return market_log()


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging takes most of the time, and changes no policy."""
    monkeypatch.setattr(training, "_judge", lambda *_: None)


def learn(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: object = run_locally,
    resume: bool = False,
    **settings: object,
) -> Path:
    """Train in a folder on its log; return the policy."""
    monkeypatch.chdir(folder)
    out, passes = Path("run"), Passes(engine, shows=False)  # type: ignore[arg-type]
    if resume:
        training.train_on_buckets(configuration(**settings), resume=Run.open(out), passes=passes)
    else:
        training.train_on_buckets(configuration(**settings), out, passes=passes)
    return folder / "run" / "policy.pt"


@pytest.fixture(scope="module")
def wanted(log: History, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The policy that the log teaches, learned from 4 buckets in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_judge", lambda *_: None)
        policy = learn(write_log(log, tmp_path_factory.mktemp("wanted"), 4), patch)
    assert not (policy.parent / SCRATCH_FOLDER).exists()
    return policy.read_bytes()


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("n", [1, pytest.param(16, marks=pytest.mark.slow)])
def test_the_policy_has_one_set_of_bytes(
    log: History, wanted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    assert learn(write_log(log, tmp_path, n), monkeypatch).read_bytes() == wanted


@pytest.mark.slow
@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(("engine", "package"), [("processes", "crosschannel"), ("ray", "ray"), ("spark", "pyspark")])
def test_engines_give_the_same_bytes(
    log: History, wanted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, package: str
) -> None:
    """Paths of the log and of the run are relative to the folder in which the program was started."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    assert learn(write_log(log, tmp_path, 4), monkeypatch, make_engine(engine, 2)).read_bytes() == wanted


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    "calls", [pytest.param(2, marks=pytest.mark.slow), 13, pytest.param(27, marks=pytest.mark.slow)]
)
def test_what_was_interrupted_resumes_to_the_same_bytes(
    log: History, wanted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """4 buckets are read, passed twice for rewards and once for rows; 8 groups of leaves are passed three times."""
    folder = write_log(log, tmp_path, 4)
    with pytest.raises(Stops):
        learn(folder, monkeypatch, Interrupted(calls))
    assert not (folder / "run" / "policy.pt").exists()
    assert learn(folder, monkeypatch, resume=True).read_bytes() == wanted


@pytest.mark.usefixtures("unjudged")
def test_another_log_is_not_resumed(log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_log(log, tmp_path, 4)
    with pytest.raises(Stops):
        learn(folder, monkeypatch, Interrupted(10))
    write_log(log.select_users(np.arange(log.n_users) > 5), tmp_path, 4)
    with pytest.raises(ConfigError, match=r"the history of run run has changed: restore it, or train a new run"):
        learn(folder, monkeypatch, resume=True)


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("calls", [pytest.param(2, marks=pytest.mark.slow), 14])
def test_other_settings_are_not_resumed(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Interrupted while buckets are read, and while rows are written: both are of the users that the seed chose."""
    folder = write_log(log, tmp_path, 4)
    with pytest.raises(Stops):
        learn(folder, monkeypatch, Interrupted(calls))
    written = (folder / "run" / "config.yaml").read_text()
    for key, edited in {"seed": {"seed": 5}, "split.test": {"split.test": 0.2, "split.train": 0.7}}.items():
        pipeline.write_config(override(Run.open(Path("run")).config, edited), Path("run", "config.yaml"))
        with pytest.raises(ConfigError, match=rf"run/config.yaml: {key} is .*, but the run was trained with"):
            learn(folder, monkeypatch, resume=True)
        (folder / "run" / "config.yaml").write_text(written)
    assert learn(folder, monkeypatch, resume=True).is_file()


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(("before", "after"), [(4, 8), pytest.param(8, 2, marks=pytest.mark.slow)])
def test_a_log_that_was_divided_again_is_resumed_with_all_rows(
    log: History, wanted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    """The log is the same one, so that its fingerprint is: rows that another division gave do not count."""
    folder = write_log(log, tmp_path, before)
    with pytest.raises(Stops):
        learn(folder, monkeypatch, Interrupted(3 * before + before // 2))  # half of the rows are written
    shutil.rmtree(folder / "log")
    write_log(log, folder, after)
    assert learn(folder, monkeypatch, resume=True).read_bytes() == wanted


@pytest.mark.usefixtures("unjudged")
def test_a_log_that_was_moved_is_resumed(
    log: History, wanted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_log(log, tmp_path, 4)
    with pytest.raises(Stops):
        learn(folder, monkeypatch, Interrupted(14))
    (folder / "log").rename(folder / "moved")
    config = override(Run.open(Path("run")).config, {"history.path": "moved"})
    pipeline.write_config(config, Path("run", "config.yaml"))
    assert learn(folder, monkeypatch, resume=True).is_file()
    (tmp_path / "wanted.pt").write_bytes(wanted)
    found, whole = (agents.load_policy(path)[0] for path in (folder / "run" / "policy.pt", tmp_path / "wanted.pt"))
    some = agents.Observations(np.ones((3, found.funnel.design.width)), np.ones((3, log.modules.total), dtype=bool))
    for one, other in zip(found.action_probabilities(some), whole.action_probabilities(some), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.usefixtures("unjudged")
def test_it_is_the_policy_of_all_users_in_memory(log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small log is its own sample: contexts, rewards and pace are equal, and policies up to rounding.

    Heads differ by 1e-5 of their size, which decides a vote where two actions are as close: one decision in a thousand.
    """
    learned, extra = agents.load_policy(learn(write_log(log, tmp_path, 4), monkeypatch))
    trained_with = TrainedWith.from_dict(extra["run"], tmp_path)
    config = configuration()
    data = prepare(config)  # reads all buckets as one history
    assert trained_with.features.state_dict() == data.features.state_dict()
    assert trained_with.pace == data.pace
    agent = taught_in_memory(config, data)
    assert learned.funnel.heads.blend.personal == agent.funnel.heads.blend.personal  # type: ignore[attr-defined]
    some = data.test.observations[np.arange(500)]
    for found, wanted in zip(learned.action_probabilities(some), agent.action_probabilities(some), strict=True):
        assert np.abs(found - wanted).mean() < 1e-3


def taught_in_memory(config: Config, data: TrainingData) -> agents.Agent:
    """An agent that has learned from all training users at once."""
    split = data.train
    rows = np.flatnonzero(split.rewards.identified)
    parts = split.rewards.components
    assert parts is not None
    kept = parts.select(rows)
    decisions = split.history.decisions
    agent = agents.make_agent(modules=data.history.modules, device="cpu", **agent_spec(config, data.features))
    agent.observe(
        agents.Batch(
            observations=split.observations[rows],
            actions=decisions.actions[rows],
            rewards=split.rewards.reward[rows],
            se=split.rewards.se[rows],
            keys=decisions.key[rows],
            components=agents.Components(
                engaged=kept.engaged,
                value=kept.value,
                cost=kept.cost,
                odds=message_odds(decisions.actions[rows, 0] > 0, decisions.propensity[rows, 0]),
                cost_names=kept.cost_names,
                cost_weights=kept.cost_weights,
            ),
        )
    )
    agent.update(1)
    return agent


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    ("seed", "divisions"),
    [(100, (4,)), *(pytest.param(seed, (1, 4, 16), marks=pytest.mark.slow) for seed in (100, 101, 102))],
)
def test_policies_are_compared_at_the_same_contexts_for_every_division(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, divisions: tuple[int, ...]
) -> None:
    """How much of what is personal is followed is learned at few of the contexts: the same ones in memory."""
    monkeypatch.setattr(personal, "CONTEXTS", 32)
    found: list[bytes] = []

    def recorded(messages: FunnelRows) -> list[Tensor]:
        contexts = personal.contexts_to_judge(messages)
        assert [len(each) for each in contexts] == [32, 32]
        assert min(int((messages.fold == half).sum()) for half in (0, 1)) > 64
        found.append(b"".join(each.numpy().tobytes() for each in contexts))
        return contexts

    for module in (model, leaves_funnel):
        monkeypatch.setattr(module, "contexts_to_judge", recorded)
    settings: dict[str, object] = {"seed": seed, "history.market.seed": seed}
    history, weights = market_log(**settings), []
    for n in divisions:
        learned, _ = agents.load_policy(learn(write_log(history, tmp_path / str(n), n), monkeypatch, **settings))
        weights.append(learned.funnel.heads.blend.personal)
    config = configuration(**settings)
    in_memory: Any = taught_in_memory(config, prepare(config))
    assert weights == [in_memory.funnel.heads.blend.personal] * len(divisions)
    assert len(found) == 1 + len(divisions)
    assert len({*found}) == 1


@pytest.fixture(scope="module")
def judged(log: History, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of `crosschannel train` on a log in buckets, judged on 150 test users."""
    folder = write_log(log, tmp_path_factory.mktemp("judged"), 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pipeline.write_config(configuration(**{"evaluation.max_users": 150}), Path("config.yaml"))
        assert train.main(["--config", "config.yaml", "--out", "run"]) == 0
    return folder


def test_a_run_says_on_whom_it_was_judged(judged: Path) -> None:
    data = json.loads((judged / "run" / "evaluation.json").read_text())
    note = next(text for text in data["notes"] if "evaluation.max_users" in text)
    assert "the log has 600 users in buckets: the policy is judged on 150 of its test users" in note
    names = {item.name for item in (judged / "run").iterdir()}
    assert {"config.yaml", "policy.pt", "metrics.json", "evaluation.json", "policy.csv", "tensorboard"} <= names
    assert SCRATCH_FOLDER not in names


@pytest.mark.slow
def test_trajectories_are_followed_in_the_sample(judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(judged)
    out = tmp_path / "followed"
    assert evaluate.main(["run", "--evaluation.trajectories.slots=2", "--out", str(out)]) == 0
    assert json.loads((out / "evaluation.json").read_text())["followed"]["value"] is not None


def test_evaluate_accepts_the_run(
    judged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(judged)
    before = (judged / "run" / "evaluation.json").read_bytes()
    assert evaluate.main(["run"]) == 0
    assert (judged / "run" / "evaluation.json").read_bytes() == before
    assert "judged on 150 of its test users" in capsys.readouterr().out
    assert "150 of its test users" in (judged / "run" / "report.html").read_text()
    assert evaluate.main(["run", "--evaluation.max-users=160", "--out", "more"]) == 0
    assert "judged on 160 of its test users" in (judged / "more" / "evaluation.json").read_text()
    assert {item.name for item in (judged / "more").iterdir()} == {*evaluate.FILES}


@pytest.mark.parametrize("settings", [[], ["--evaluation.max-users=100"]])
def test_an_evaluation_writes_its_files_and_touches_no_other(
    judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str]
) -> None:
    """It writes nothing into the run, which may be read-only; beside it another evaluation may be under way."""
    monkeypatch.chdir(judged)
    out = tmp_path / "out"
    before = contents(judged / "run")
    for folder in (out, judged / "run"):
        (folder / "scratch").mkdir(parents=True)
        (folder / "scratch" / "thesis.txt").write_text("mine")
    found = []

    def read_log(config: Config, scratch: Path, passes: Passes, **how: Any) -> BucketedLog:
        """Read it, while another evaluation of the same run begins and ends."""
        assert scratch.parent in (out, *found)
        if not found:
            found.append(tmp_path / "other")
            assert evaluate.main(["run", "--out", str(found[0])]) == 0
        return reading.read_log(config, scratch, passes, **how)

    monkeypatch.setattr(sampling, "read_log", read_log)
    assert evaluate.main(["run", *settings, "--out", str(out), "--force"]) == 0
    assert contents(judged / "run") == before | {"scratch/thesis.txt": b"mine"}
    shutil.rmtree(judged / "run" / "scratch")
    assert (out / "scratch" / "thesis.txt").read_text() == "mine"
    assert {item.name for item in out.iterdir()} == {*evaluate.FILES, "scratch"}
    assert contents(out).keys() - {"scratch/thesis.txt"} == contents(found[0]).keys()


def test_an_evaluation_that_fails_leaves_no_folder(
    judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(judged)
    write_buckets(market_log(), tmp_path / "other", 2)
    next((tmp_path / "other" / "bucket-00001" / "events").iterdir()).unlink()
    with pytest.raises(InputError):
        evaluate.main(["run", f"--history.path={tmp_path / 'other'}", "--out", str(tmp_path / "found")])
    assert not (tmp_path / "found").exists()


def test_decide_accepts_the_run(judged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(judged)
    assert decide.main(["run", "--out", str(tmp_path / "decisions.csv")]) == 0
    assert len((tmp_path / "decisions.csv").read_text().splitlines()) == 601


def test_another_log_is_named_in_an_evaluation(
    log: History, judged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(judged)
    write_buckets(log.select_users(np.arange(log.n_users) % 3 > 0), tmp_path / "other", 2)
    assert evaluate.main(["run", f"--history.path={tmp_path / 'other'}", "--out", str(tmp_path / "found")]) == 0
    notes = json.loads((tmp_path / "found" / "evaluation.json").read_text())["notes"]
    assert any("the history has changed" in note for note in notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agent.name": "beta_thompson"}, "beta_thompson does not learn from buckets"),
        ({"reward.kind": "did_dr"}, "rewards over buckets are of the kind 'did'"),
        ({"history.decided": "days"}, "history.decided: decisions by date do not join buckets yet"),
        ({"context.events": ("no_such_event",)}, "no_such_event"),
    ],
)
def test_what_cannot_be_trained_leaves_nothing_behind(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], message: str
) -> None:
    folder = write_log(log.select_users(np.arange(log.n_users) < 200), tmp_path, 2)
    with pytest.raises(ConfigError, match=message):
        learn(folder, monkeypatch, **settings)
    assert not (folder / "run").exists() or not list((folder / "run").iterdir())


def test_a_run_that_cannot_learn_leaves_nothing_behind(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as where the messages are all of one half of the users, which shows when their rows are summed."""

    def learn_nothing(*_: object) -> None:
        raise NotIdentified("too few")

    monkeypatch.setattr(training, "learn_from_leaves", learn_nothing)
    folder = write_log(log.select_users(np.arange(log.n_users) < 200), tmp_path, 2)
    with pytest.raises(NotIdentified, match="too few"):
        learn(folder, monkeypatch)
    assert not list((folder / "run").iterdir())


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"context.events": ("no_such_event",)}, "no_such_event"),
        ({"reward.pre": "90d", "reward.post": "90d"}, "no window without a message"),
        ({"agent.name": "epsilon_greedy", "agent.settings": {"half_life": 5.0}}, "rows in leaves have no age"),
    ],
)
def test_an_earlier_run_stays_as_it_is_where_another_one_cannot_start(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], message: str
) -> None:
    folder = write_log(log.select_users(np.arange(log.n_users) < 200), tmp_path, 2)
    monkeypatch.chdir(folder)
    pipeline.write_config(configuration(), _earlier_run(folder) / "config.yaml")
    before = contents(folder)
    with pytest.raises((ConfigError, NotIdentified), match=message):
        training.train_on_buckets(configuration(**settings), Path("run"), force=True, passes=Passes(shows=False))
    assert contents(folder) == before
    assert {item.name for item in folder.iterdir()} == {"log", "run"}


@pytest.mark.usefixtures("unjudged")
@pytest.mark.parametrize("calls", [1, 7])
def test_an_earlier_run_stays_as_it_is_until_the_log_is_read(
    log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    folder = write_log(log.select_users(np.arange(log.n_users) < 200), tmp_path, 2)
    monkeypatch.chdir(folder)
    pipeline.write_config(configuration(), _earlier_run(folder) / "config.yaml")
    before = contents(folder)
    passes = Passes(Interrupted(calls), shows=False)
    with pytest.raises(Stops):
        training.train_on_buckets(configuration(), Path("run"), force=True, passes=passes)
    assert contents(folder) == before
    assert {item.name for item in folder.iterdir()} == {"log", "run"}


@pytest.mark.usefixtures("unjudged")
def test_an_earlier_run_is_replaced(
    log: History, wanted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy is that of a new folder; interrupted while it learns, the run is resumed to the same bits."""
    folder = write_log(log, tmp_path, 4)
    monkeypatch.chdir(folder)
    for engine in (run_locally, Interrupted(20)):
        pipeline.write_config(configuration(seed=9), _earlier_run(folder) / "config.yaml")
        with nullcontext() if engine is run_locally else pytest.raises(Stops):
            passes = Passes(engine, shows=False)
            training.train_on_buckets(configuration(), Path("run"), force=True, passes=passes)
        assert not (folder / "run" / "metrics.json").exists()
        assert not (folder / "run" / "tensorboard").exists()
        assert (folder / "run" / SCRATCH_FOLDER).exists() == (engine is not run_locally)
        if engine is run_locally:
            assert (folder / "run" / "policy.pt").read_bytes() == wanted
    assert learn(folder, monkeypatch, resume=True).read_bytes() == wanted
    assert {item.name for item in folder.iterdir()} == {"log", "run"}


def _earlier_run(folder: Path) -> Path:
    """Make the folder of a run that has files of every kind, but for its configuration."""
    run = folder / "run"
    (run / "tensorboard").mkdir(parents=True, exist_ok=True)
    for name in ("policy.pt", "metrics.json", "notes.txt", "tensorboard/events"):
        (run / name).write_text(name)
    return run


def test_a_history_is_bucketed_by_its_folder(log: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_log(log.select_users(np.arange(log.n_users) < 20), tmp_path, 2))
    assert reads_buckets(configuration())
    assert not reads_buckets(pipeline.load_config("market"))

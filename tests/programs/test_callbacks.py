"""Callbacks see the training, may end it, and leave its bits as they are, also where it is resumed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import crosschannel
from crosschannel.core.errors import ConfigError
from crosschannel.pipeline import Callback, Callbacks, Run
from crosschannel.pipeline.configuration import override, read_config
from crosschannel.programs.train import main
from examples.callbacks import EarlyStopping, LogToTracker, MlflowTracker, WandbTracker
from tests import ROOT
from tests.programs.samples import SMALL

FILES = ("policy.pt", "evaluation.json", "policy.csv")
#: Smaller still than the small run: many trainings are compared here.
TINY = {
    "history.market.users": 200,
    "split.train": 0.4,
    "split.validation": 0.3,
    "train.num_envs": 32,
    "train.checkpoint_every": 5,
    "train.offline_updates": 3,
    "evaluation.market_users": 20,
}


class Count(Callback):
    """Counts its calls, draws random numbers of its own, and may end the learning or kill the program."""

    def __init__(self, stop_at: int = -1, kill_at: int = -1) -> None:
        self.stop_at, self.kill_at = stop_at, kill_at
        self.steps, self.evaluations, self.checkpoints, self.starts, self.result = [], 0, [], [], None

    def on_start(self, training):
        self.starts.append(training.steps)

    def on_step(self, training):
        np.random.random(3)  # noqa: NPY002 - the global generator, which a training must not use
        torch.rand(3)
        self.steps.append(training.steps)
        if training.steps == self.kill_at:
            raise KeyboardInterrupt
        return training.steps != self.stop_at

    def on_evaluation(self, training, scores):
        self.evaluations += 1
        assert all(name.startswith("validation/") for name in scores)

    def on_checkpoint(self, training):
        assert (training.run / "checkpoint.pt").is_file()
        self.checkpoints.append(training.steps)

    def on_end(self, training, result):
        assert not (training.run / "metrics.json").exists()
        self.result = result

    def state_dict(self):
        return {"steps": np.array(self.steps), "last": np.float32(self.steps[-1] if self.steps else np.nan)}

    def load_state_dict(self, state):
        assert isinstance(state["last"], np.float32)
        assert state["last"] == state["steps"][-1]
        self.steps = state["steps"].tolist()


@pytest.fixture(scope="module")
def config():
    return override(read_config(Path(SMALL[1])), TINY)


@pytest.fixture(scope="module")
def watched(config, tmp_path_factory) -> tuple[Path, Count]:
    """A run with a callback, and the callback."""
    count = Count()
    run = crosschannel.train(config, tmp_path_factory.mktemp("watched") / "market", callbacks=[count])
    return run.path, count


def test_a_callback_sees_every_step_and_changes_no_bit(config, watched, tmp_path):
    path, count = watched
    plain = crosschannel.train(config, tmp_path / "market").path
    assert count.starts == [0]
    assert count.steps == list(range(1, len(count.steps) + 1))
    every = config.train.checkpoint_every
    assert count.checkpoints == [step for step in count.steps if step % every == 0]
    assert count.evaluations == len(count.checkpoints) > 0
    assert count.result is not None
    for name in FILES:
        assert (path / name).read_bytes() == (plain / name).read_bytes(), name


@pytest.mark.slow
def test_an_interrupted_training_resumes_to_the_same_bits(config, watched, tmp_path):
    path, whole = watched
    last = whole.steps[-1]
    with pytest.raises(KeyboardInterrupt):
        crosschannel.train(config, tmp_path / "market", callbacks=[Count(kill_at=last - 1)])
    run = Run.open(tmp_path / "market", to_train=True)
    with pytest.raises(ConfigError, match=r"was trained with the callbacks .*:Count, and is resumed with none"):
        crosschannel.train(run.config, resume=run)
    again = Count()
    crosschannel.train(run.config, resume=run, callbacks=[again])
    assert again.steps == whole.steps
    assert again.starts == [max(step for step in whole.checkpoints if step < last)]
    for name in FILES:
        assert (run.path / name).read_bytes() == (path / name).read_bytes(), name


def test_a_callback_ends_the_learning_and_the_policy_of_then_is_judged(config, tmp_path):
    count = Count(stop_at=3)
    run = crosschannel.train(config, tmp_path / "market", callbacks=[count])
    assert count.steps == [1, 2, 3]
    assert run.ended
    assert count.result.evaluation.policy == config.agent.name
    # The end of the learning is in the checkpoint: whoever resumes from it does not learn further.
    (run.path / "metrics.json").unlink()
    policy = (run.path / "policy.pt").read_bytes()
    resumed = Count()
    crosschannel.train(run.config, resume=Run.open(run.path, to_train=True), callbacks=[resumed])
    assert resumed.steps == [1, 2, 3]
    assert (run.path / "policy.pt").read_bytes() == policy


@pytest.mark.parametrize("answer", [np.bool_(False), False, 0])
def test_every_false_ends_the_learning_and_none_does_not(answer):
    class Answers(Callback):
        def on_step(self, training):
            return answer

        def on_evaluation(self, training, scores):
            return answer

    assert not Callbacks([Answers(), Callback()]).after_step(at(1))
    assert not Callbacks([Callback(), Answers()]).after_evaluation(at(1), {})
    assert Callbacks([Callback(), Callback()]).after_step(at(1))


class Keeps(Callback):
    """Keeps a state, and gets it back."""

    def __init__(self, state):
        self.state, self.loaded = state, None

    def state_dict(self):
        return {"kept": self.state}

    def load_state_dict(self, state):
        self.loaded = state["kept"]


VALUES = {
    "float32": np.float32(0.1),
    "float64": np.float64(0.1),
    "nan": np.float64("nan"),
    "long double": np.longdouble(1) / 3,
    "int64": np.int64(2**62),
    "uint64": np.uint64(2**64 - 1),
    "bool": np.bool_(True),
    "text": np.str_("é"),
    "time": np.datetime64("2026-11-30T08:00", "us"),
    "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    "reversed": np.arange(4.0)[::-1],
    "big-endian": np.arange(3, dtype=">f4"),
    "scalar array": np.array(3.5),
    "empty": np.zeros((0, 2), dtype=np.float32),
    "plain": [1, 0.5, "a", None, True, (2, 3)],
    "tensor": torch.arange(3),
    "nested": {"a": [np.float32(2), {"b": np.zeros(2)}], 3: (np.int8(1),)},
}


def assert_same(found, wanted):
    assert type(found) is type(wanted)
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    elif isinstance(wanted, np.generic | np.ndarray):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert found.tobytes() == wanted.tobytes()
    elif isinstance(wanted, torch.Tensor):
        assert torch.equal(found, wanted)
    else:
        assert found == wanted


@pytest.mark.parametrize("name", VALUES)
def test_a_state_comes_back_from_the_checkpoint_as_it_was(name, tmp_path):
    torch.save(Callbacks([Keeps(VALUES[name])]).state_dict(), tmp_path / "state.pt")
    again = Keeps(None)
    Callbacks([again]).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert_same(again.loaded, VALUES[name])


def test_keys_of_numpy_are_stored_as_equal_ones(tmp_path):
    torch.save(Callbacks([Keeps({np.int64(3): 1, np.str_("a"): 2})]).state_dict(), tmp_path / "state.pt")
    again = Keeps(None)
    Callbacks([again]).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.loaded == {3: 1, "a": 2}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (np.array([{}], dtype=object), r"state_dict\(\)\['kept'\] is a ndarray"),
        ({"a": [1, Path("x")]}, r"state_dict\(\)\['kept'\]\['a'\]\[1\] is a \w*Path"),
        (lambda: None, r"state_dict\(\)\['kept'\] is a function"),
        (np.zeros(2, dtype=[("a", int)]), r"state_dict\(\)\['kept'\] is a ndarray"),
    ],
)
def test_what_no_checkpoint_gives_back_is_refused_before_the_first_step(config, tmp_path, value, place):
    with pytest.raises(ConfigError, match=rf":Keeps: {place}, with which no checkpoint can be read back"):
        crosschannel.train(config, tmp_path / "market", callbacks=[Keeps(value)])
    assert not (tmp_path / "market" / "checkpoint.pt").exists()


CODE = """
from crosschannel.pipeline import Callback
class Mine(Callback):
    def on_step(self, training):
        return training.steps < 2
class Needs(Callback):
    def __init__(self, what): ...
class Other: ...
"""


def test_the_command_line_imports_callbacks_only_where_it_names_them(tmp_path, monkeypatch, capsys):
    (tmp_path / "watching.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    assert main([*SMALL, *flags, "--train.callbacks", "watching:Mine"]) == 0
    run = tmp_path / "runs" / "market"
    capsys.readouterr()
    (run / "metrics.json").unlink()
    with pytest.raises(ConfigError, match=r"names the class 'watching:Mine'.*--allow-class watching:Mine"):
        main(["--resume", str(run)])
    assert main(["--resume", str(run), "--allow-class", "watching:Mine"]) == 0
    # What decides and evaluates imports no callback.
    assert Run.open_ended(run).allowed_classes == ()
    # A class that lies in the run's own folder is no code of the user's.
    (run / "metrics.json").unlink()
    shutil.move(tmp_path / "watching.py", run / "inside.py")
    text = (run / "config.yaml").read_text().replace("watching:Mine", "inside:Mine")
    (run / "config.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(run))
    with pytest.raises(ConfigError, match="lies in the run's own folder"):
        main(["--resume", str(run), "--allow-class", "inside:Mine"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine:Needs", "cannot be made without arguments"),
        ("mine:Other", r"is not derived from crosschannel\.pipeline\.Callback"),
        ("mine:None_", "cannot be imported"),
        ("mine", "does not name a class: write package.module:Class"),
    ],
)
def test_what_is_no_callback_is_refused_before_anything_is_read(name, message, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        Callbacks.build(crosschannel.load_config("market", {"train.callbacks": [name]}))


def at(step: int) -> SimpleNamespace:
    """A training at a step, as a callback sees it."""
    config = crosschannel.load_config("market", {"train.log_every": 2, "train.checkpoint_every": 2})
    return SimpleNamespace(steps=step, config=config, run=Path("runs/shop"), losses={"loss": 0.5, "slope": np.nan})


def test_early_stopping_waits_for_a_better_bound():
    stopping = EarlyStopping(patience=2)
    bounds = [0.1, 0.3, 0.2, np.nan, 0.3]
    answers = [stopping.on_evaluation(at(1), {"validation/low/order_1": low}) for low in bounds[:-1]]
    assert answers == [True] * 4
    resumed = EarlyStopping(patience=2)
    resumed.load_state_dict(stopping.state_dict())
    assert resumed.on_evaluation(at(1), {"validation/low/order_1": bounds[-1]}) is False
    assert EarlyStopping().on_evaluation(at(1), {}) is True  # where nothing is identified, nothing is compared


class FakeWandb:
    """Records what is sent, with the interface of `wandb` that the example uses."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.summary: dict[str, float] = {}

    def init(self, project, id, resume, config):
        self.calls.append(("init", project, id, resume, config))
        return self

    def log(self, values, step):
        self.calls.append(("log", values, step))

    def save(self, path, base_path):
        self.calls.append(("save", path))

    def finish(self):
        self.calls.append(("finish",))


class FakeMlflow(FakeWandb):
    """The same for `mlflow`."""

    def start_run(self, run_name):
        self.calls.append(("init", run_name))

    def log_params(self, values):
        self.calls.append(("params", values))

    def log_metrics(self, values, step=None):
        self.calls.append(("log", values, step))

    def log_artifact(self, path):
        self.calls.append(("save", path))

    def end_run(self):
        self.calls.append(("finish",))


@pytest.mark.parametrize(("tracker", "package"), [(WandbTracker, FakeWandb), (MlflowTracker, FakeMlflow)])
def test_trackers_get_losses_scores_and_the_final_value(tracker, package, watched):
    """With stand-ins for the packages, which are not installed here: what is sent, not where it arrives."""
    path, count = watched
    fake = package()
    log = LogToTracker(tracker(fake))
    log.on_start(at(0))
    for step in (1, 2):
        log.on_step(at(step))
    log.on_evaluation(at(2), {"validation/value": 0.25, "validation/low/order_1": np.nan})
    log.on_end(SimpleNamespace(run=path), count.result)
    kinds = [call[0] for call in fake.calls]
    assert kinds[0] == "init"
    assert kinds[-1] == "finish"
    logged = [call[1:] for call in fake.calls if call[0] == "log"]
    assert ({"train/loss": 0.5}, 2) in logged  # not at step 1, and without what is not finite
    assert ({"validation/value": 0.25}, 2) in logged
    assert ("save", str(path / "MODEL_CARD.md")) in fake.calls


@pytest.mark.slow
def test_the_example_runs_as_a_program(tmp_path, capsys):
    from examples import callbacks

    assert callbacks.main(users=200, out=tmp_path / "run") >= 0
    shown = capsys.readouterr().out
    assert "step 5: train/" in shown
    assert "MODEL_CARD.md" in shown


def test_the_snippet_of_the_page_runs(tmp_path, monkeypatch):
    """docs/callbacks.md as it stands, but for the training itself, which the other tests run."""
    page = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.S)
    given = []
    monkeypatch.setattr(crosschannel, "train", lambda config, callbacks: given.extend([config, *callbacks]))
    exec(compile(snippet, "callbacks.md", "exec"), {})
    config, callback = given
    assert config.history.market.users == 2000
    assert isinstance(callback, Callback)
    assert callback.on_evaluation(at(1), {"validation/low/order_1": 0.5})

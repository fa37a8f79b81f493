"""Every piece of Python and YAML on the pages that is not part of a program runs, with what its page assumes."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import yaml

from crosschannel.agents import Observations, make_agent, save_agent
from crosschannel.core import ActionSpace, Module
from crosschannel.core.serialization import from_dict
from crosschannel.envs.market import Market, MarketConfig, simulate_history
from crosschannel.envs.replay import ReplayLog
from crosschannel.evaluation import EvaluationSettings, Interval, LoggedDecisions, evaluate
from crosschannel.histories import ContextFeatures, History
from crosschannel.pipeline import read_config
from crosschannel.reward import DidReward, RewardSpec, make_reward
from crosschannel.reward.funnel import FunnelSpec
from tests import ROOT
from tests.docs.pages import Block, all_blocks, read_blocks
from tests.docs.test_walkthroughs import PAGES as WALKTHROUGHS
from tests.evaluation.trials.worlds import GOALS, trial_history

Names = dict[str, Any]


def log_of_market(**settings: Any) -> Names:
    """A log of the market, its rewards and contexts, and an agent."""
    config = MarketConfig(**{"users": 200, "days": 8} | settings)
    history, truth = simulate_history(Market(config))
    spec = RewardSpec(goals=config.goals, pre="2d", post="1d", overlap="exclude")
    features = ContextFeatures.fit(history)
    rewards = DidReward(spec).fit_transform(history)
    agent = make_agent("uniform", history.modules, features.dim, None, 0)
    everything = Observations(features.transform(history), features_mask(history))
    return {
        **{"history": history, "truth": truth, "spec": spec, "features": features, "rewards": rewards},
        **{"agent": agent, "observations": everything, "rng": np.random.default_rng(0), "np": np},
    }


def features_mask(history: History) -> Any:
    eligible = history.decisions.eligible
    return np.ones((len(history.decisions), history.modules.total), dtype=bool) if eligible is None else eligible


def agents_guide(folder: Path) -> Names:
    """A run, and an agent of a channel."""
    from crosschannel.__main__ import main

    small = ["--config", str(ROOT / "tests" / "programs" / "small.yaml"), "--agent.name=best_fixed"]
    size = ["--history.market.users=150", "--history.market.days=6", "--train.offline-updates=0"]
    assert main(["train", *small, *size, "--evaluation.market-users=40"]) == 0
    modules = ActionSpace([Module("channel", ("none", "email"))])
    spec = {"name": "best_fixed", "context_dim": 2, "settings": None, "seed": 0}
    save_agent(make_agent("best_fixed", modules, 2, None, 0), folder / "agent.pt", spec)
    return {"path": folder / "agent.pt", "new_modules": ActionSpace([Module("channel", ("none", "email", "push"))])}


def environments(folder: Path) -> Names:
    """The log has two slots a user; the users have a time zone."""
    made = log_of_market(days=2)
    history = made["history"]
    users = history.users.assign(tz="Europe/Berlin")
    log = ReplayLog.build(history, DidReward(replace(made["spec"], pre="1h")).fit_transform(history), made["features"])

    def policy(observation: Any) -> Any:
        mask = observation["action_mask"].astype(bool)
        return made["agent"].act(Observations(observation["context"], mask)).actions

    d = history.decisions
    rows = np.arange(5)
    probabilities = made["agent"].action_probabilities(made["observations"][rows])
    return made | {
        **{"history": replace(history, users=users), "log": log, "policy": policy},
        **{"users": d.user[:5], "times": d.time[:5], "rows": rows, "probabilities": probabilities},
    }


def evaluation(folder: Path) -> Names:
    made = log_of_market(users=60, days=6)
    d = made["history"].decisions
    sums = np.random.default_rng(0).normal(size=len(d))
    p = made["agent"].action_probabilities(made["observations"])
    return made | {
        **{"log": LoggedDecisions.from_history(made["history"]), "p_today": p, "p_yesterday": p, "rewards": sums},
        "churned": np.zeros(len(d), dtype=bool),
    }


def operations(folder: Path) -> Names:
    """A log and decisions where the page has them; the decisions of an agent are in a deployment of a day."""
    from crosschannel.__main__ import main

    loop = ROOT / "tests" / "programs" / "closed_loop.yaml"
    size = ["--history.market.users", "60", "--history.market.days", "2", "--loop.marketers", "[]"]
    assert main(["simulate", "--config", str(loop), *size, "--out", str(folder / "run")]) == 0
    return {}


def planning(folder: Path) -> Names:
    made = evaluation(folder)
    log, rewards = made["log"], made["rewards"]

    def value(name: str, rows: Any) -> Interval:
        r = rewards[rows] + (name == "tuesday")
        return Interval(r.mean(), r.mean() - 0.1, r.mean() + 0.1, 0.05)

    return {"log": log, "value": value, "rng": made["rng"]}


def plots(folder: Path) -> Names:
    made = evaluation(folder)
    found = evaluate(
        made["log"],
        made["p_today"],
        made["rewards"],
        rng=made["rng"],
        settings=EvaluationSettings(bootstrap_replicates=40),
    )
    return {"evaluation": found}


def reward(folder: Path) -> Names:
    made = log_of_market(users=600)
    funnel = FunnelSpec(engagement={"email": "opened:email", "push": "opened:push"}, costs=("unsubscribed",))
    spec = replace(made["spec"], funnel=funnel)
    history = made["history"]
    d = history.decisions
    sent = d.actions[:, 0] > 0
    frame = make_reward("did", made["spec"]).fit_transform(history)
    predicted = np.random.default_rng(0).normal(size=int(sent.sum()))
    return {
        **{"spec": spec, "history": history, "reward": frame.reward[sent], "predicted": predicted},
        **{"user": d.user[sent], "channel": d.actions[sent, 0], "CHANNELS": history.modules[0].actions},
    }


def trials(folder: Path) -> Names:
    return {"history": trial_history(0), "goals": GOALS}


SETUPS: dict[str, Callable[[Path], Names]] = {
    "docs/agents_guide.md": agents_guide,
    "docs/environments.md": environments,
    "docs/evaluation.md": evaluation,
    "docs/operations.md": operations,
    "docs/planning.md": planning,
    "docs/plots.md": plots,
    "docs/reward.md": reward,
    "docs/trials.md": trials,
}
#: What is smaller here than on the page, or elsewhere.
SMALLER = {
    "docs/environments.md": {
        "users=2000": "users=200",
        '"oracle", 4000': '"oracle", 50',
        "num_envs=1000": "num_envs=8",
    },
    "docs/evaluation.md": {"horizon=12": "horizon=2"},
    "docs/operations.md": {'"/data/log"': '"run/log"', '"/data/decisions"': '"run/decisions"', "bounced": "clicked"},
    "docs/reward.md": {'Goal("order")': 'Goal("order:*")'},
    "docs/trials.md": {'"2026-03-02"': '"2024-01-15", looks="once"'},
}


def snippets(page: str) -> list[Block]:
    """Return the Python of a page that is neither a program of its own nor run elsewhere."""
    return [b for b in read_blocks(ROOT / page) if b.language == "python" and b.is_run and not b.title]


@pytest.mark.parametrize("page", SETUPS)
def test_the_snippets_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    names = SETUPS[page](tmp_path)
    found = snippets(page)
    assert found
    for block in found:
        code = block.text
        for text, smaller in SMALLER.get(page, {}).items():
            code = code.replace(text, smaller)
        with redirect_stdout(io.StringIO()):
            exec(compile(code, block.name, "exec"), names)


def test_every_piece_of_python_is_run_or_says_why_not():
    """A piece without a note is a snippet of a page above, or a file of a walkthrough; each compiles."""
    walks = {f"docs/{page}" for page in (*WALKTHROUGHS, "your_data.md")}
    for block in all_blocks("python"):
        if "--8<--" not in block.text:
            compile(block.text, block.name, "exec")
        known = block in snippets(block.page) and block.page in SETUPS
        assert not block.is_run or known or (block.page in walks and block.title), f"{block.name} is run by no test"


def configuration(block: Block, folder: Path) -> None:
    """Read a piece of a configuration with the rest that it needs."""
    piece = yaml.safe_load(block.text)
    sections = set(piece)
    if sections == {"modules"}:
        ActionSpace([from_dict(Module, module, "modules") for module in piece["modules"]])
        return
    base: dict[str, Any] = {}
    for name, page in (("tables", "your_data.md"), ("stream", "histories.md"), ("context", "your_data.md")):
        if sections == {name}:
            whole = next(b for b in read_blocks(ROOT / "docs" / page) if b.text.startswith("name: "))
            base = yaml.safe_load(whole.text)
            if name in base["history"]:
                base["history"][name] |= piece.pop(name)
    path = folder / "piece.yaml"
    path.write_text(yaml.safe_dump(base | piece))
    read_config(path)


PIECES = [
    block
    for block in all_blocks("yaml")
    if block.is_run and not block.title and "### Exports of vendors" not in block.page
]


@pytest.mark.parametrize("block", [b for b in PIECES if "preset: " not in b.text], ids=lambda block: block.name)
def test_a_piece_of_a_configuration_is_accepted(block: Block, tmp_path: Path):
    configuration(block, tmp_path)


def test_presets_are_run_by_the_tests_of_their_page():
    """tests/histories/readers/presets/test_page.py reads all pieces below their heading."""
    presets = [block for block in PIECES if "preset: " in block.text]
    assert {block.page for block in presets} == {"docs/histories.md"}
    assert len(presets) == 6

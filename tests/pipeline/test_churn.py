"""A log whose users leave by an event of its own, `closed_account`: replay, rewards and decisions all know it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from crosschannel.core.errors import ConfigError
from crosschannel.core.times import DAY, NEVER
from crosschannel.envs.market import MarketConfig
from crosschannel.envs.replay.env import CrossChannelReplay
from crosschannel.envs.replay.log import CHURNED, ReplayLog
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS, EventLog, History
from crosschannel.histories.readers.folder import write_history
from crosschannel.pipeline.configuration import Config, HistoryConfig, RewardConfig
from crosschannel.pipeline.reading import build_history
from crosschannel.reward import Goal, make_reward
from tests.programs.samples import run_here
from tests.samples import random_history

LATER = 19_000 * DAY


def log_with_closed_accounts() -> tuple[History, np.ndarray]:
    """A random log of today in which some users close their account, and when each did so (U,), `NEVER` for others."""
    history = random_history(0, users=80)
    rng = np.random.default_rng(0)
    closed_at = np.where(rng.random(80) < 0.5, LATER + rng.integers(4 * DAY, 8 * DAY, 80), NEVER)
    leavers = np.flatnonzero(closed_at < NEVER)
    d, e = history.decisions, history.events
    log = History.from_arrays(
        replace(d, time=d.time + LATER),
        EventLog(
            user=np.append(e.user, leavers),
            time=np.append(e.time + LATER, closed_at[leavers]),
            event=np.append(e.event, np.full(len(leavers), 2)),
            value=np.append(e.value, np.ones(len(leavers))),
        ),
        modules=history.modules,
        user_ids=history.user_ids,
        event_names=("order", "visit", "closed_account"),
        span=(history.span[0] + LATER, history.span[1] + LATER),
        propensity_source="missing",
    )
    return log, closed_at


def config_of(folder: Path, churn_events: tuple[str, ...] | None) -> Config:
    return Config(
        history=HistoryConfig(source="folder", path=folder, churn_events=churn_events),
        context=ContextSpec(windows=("3d",)),
        reward=RewardConfig(goals=(Goal("order"),), pre="1d", post="1d", min_controls=2),
    )


def test_replay_and_rewards_end_with_a_churn_event_of_the_log(tmp_path):
    written, closed_at = log_with_closed_accounts()
    write_history(written, tmp_path)
    config = config_of(tmp_path, ("closed_account",))
    history, _ = build_history(config)
    rewards = make_reward(config.reward.kind, config.reward).fit_transform(history)
    decisions = history.decisions

    late = decisions.time > closed_at[decisions.user]
    assert 0 < late.sum() < len(late)
    assert ((rewards.to_pandas()["reason"] == CHURNED) == late).all()
    assert np.isnan(rewards.reward[late]).all()

    log = ReplayLog.build(history, rewards, ContextFeatures.fit(history, config.context))
    assert log.skipped[CHURNED] == late.sum()
    of = dict(zip(history.user_ids, closed_at, strict=True))
    env = CrossChannelReplay(log=log)
    ends = []
    for user in log.user_ids:
        env.reset(seed=0, options={"user": user})
        terminated = truncated = False
        while not (terminated or truncated):
            assert not terminated
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            assert decisions.time[info["decision_row"]] <= of[user]
        assert (terminated, truncated) == (of[user] < NEVER, of[user] == NEVER)
        ends.append(terminated)
    assert 0 < sum(ends) < len(ends)


def test_without_the_setting_the_events_of_the_folder_count(tmp_path):
    history, _ = log_with_closed_accounts()
    write_history(history, tmp_path)
    assert build_history(config_of(tmp_path, None))[0].churn_events == DEFAULT_CHURN_EVENTS
    write_history(history.with_churn_events(("closed_account",)), tmp_path)
    assert build_history(config_of(tmp_path, None))[0].churn_events == ("closed_account",)
    assert build_history(config_of(tmp_path, ()))[0].churn_events == ()
    with pytest.raises(ConfigError, match="churn_events: the history has no event 'closed_acount'"):
        build_history(config_of(tmp_path, ("closed_acount",)))


def test_every_source_takes_the_setting():
    market = Config(history=HistoryConfig(market=MarketConfig(users=50, days=4), churn_events=("visit:*",)))
    assert build_history(market)[0].churn_events == ("visit:*",)


def test_the_programs_send_nothing_to_users_who_churned(tmp_path):
    history, closed_at = log_with_closed_accounts()
    write_history(history, tmp_path / "log")
    settings = {
        "name": "closed",
        "history": {"source": "folder", "path": str(tmp_path / "log"), "churn_events": ["closed_account"]},
        "context": {"windows": ["3d"]},
        "reward": {"goals": [{"event": "order"}], "pre": "1d", "post": "1d", "min_controls": 2},
        "agent": {"name": "uniform"},
    }
    (tmp_path / "closed.yaml").write_text(yaml.safe_dump(settings))
    done = run_here("train.py", "--config", str(tmp_path / "closed.yaml"), cwd=tmp_path)
    ends = re.search(r"\((\d+) users end by churn", done.stdout + done.stderr)
    assert ends
    assert int(ends[1]) > 0
    run_here("decide.py", "runs/closed", "--out", "out.parquet", cwd=tmp_path)
    table = pd.read_parquet(tmp_path / "out.parquet").set_index("user_id").loc[history.user_ids]
    churned = closed_at < NEVER
    assert (table["channel"][churned] == "none").all()
    assert (table["propensity"][churned] == 1.0).all()
    assert (table["channel"][~churned] != "none").any()

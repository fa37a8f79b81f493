"""Estimates from a replay against known truth: four of them are wrong, rejection and importance weights are right."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay.env import CrossChannelReplay
from crosschannel.envs.replay.rejection import largest_weight
from crosschannel.envs.replay.vector import CrossChannelReplayVector
from crosschannel.evaluation import IPS, SNIPS, Sample
from tests.envs.replay.reject_samples import (
    AGENT,
    LOGGED_TRUTH,
    PATIENT_TRUTH,
    PER_SLOT_TRUTH,
    TRUTH,
    bandit_log,
    draw,
    fatigue_log,
)


def kinds(observation) -> np.ndarray:
    return observation["context"][:, 0].astype(int)


def replay_once(log, act=None, distribute=None, **settings):
    """One pass over a log: slots, rewards, and for each step whether it counts, whether it matched, and its weight."""
    env = CrossChannelReplayVector(min(500, log.n_users), log=log, **settings)
    observation, _ = env.reset(seed=1)
    seen: dict[str, list] = {name: [] for name in ("slot", "reward", "accepted", "matched")}
    while env.passes_completed < 1:
        step = env.step_distribution(distribute(observation)) if distribute else env.step(act(observation))
        observation, reward, _, _, info = step
        rows = info["_executed_action"] & (info["pass"] < 1)
        for name, value in ({"reward": reward} | info).items():
            if name in seen:
                seen[name].append(value[rows])
    return {name: np.concatenate(parts) for name, parts in seen.items() if parts}, env.acceptance


def policy(seed: int):
    rng = np.random.default_rng([7, seed])
    return lambda observation: draw(rng, AGENT[kinds(observation)])[:, None]


def distribution(observation):
    return [AGENT[kinds(observation)]]


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def show(estimates: dict[str, tuple[float, float]], truth: float) -> None:
    """The table of docs/environments.md, for `pytest -s`."""
    for name, (value, error) in estimates.items():
        print(f"| {name} | {value:.3f} | {error:.3f} | {(value - truth) / error:+.1f} |")


def bandit_estimates(seed: int, users: int) -> dict[str, tuple[float, float]]:
    log = bandit_log(seed, users)
    x = log.context[:, 0].astype(int)
    weights = AGENT[x, log.actions[:, 0]] / log.joint
    logged, _ = replay_once(log, policy(seed))
    hits, rewards = logged["matched"], logged["reward"]
    action, _ = replay_once(log, policy(seed), mode="reject")
    tight = largest_weight(log, [AGENT[x]])
    drawn, _ = replay_once(log, distribute=distribution, mode="reject", largest_weight=tight)
    sample = Sample(log.rewards, weights, np.ones(len(log)))
    ips, snips = IPS().value(sample), SNIPS().value(sample)
    return {
        "mean of logged rewards, whatever the agent does": mean_and_error(rewards),
        "mean over matching actions": mean_and_error(rewards[hits]),
        "0 for actions that do not match": mean_and_error(rewards * hits),
        "reject, sampled actions": mean_and_error(action["reward"][action["accepted"]]),
        "reject, probabilities": mean_and_error(drawn["reward"][drawn["accepted"]]),
        "ips": (ips, mean_and_error(weights * log.rewards)[1]),
        "snips": (snips, mean_and_error(weights * (log.rewards - snips))[1]),
    }


WRONG = (
    "mean of logged rewards, whatever the agent does",
    "mean over matching actions",
    "0 for actions that do not match",
)


def test_three_readings_of_a_log_are_wrong_and_rejection_and_weighting_are_within_two_errors():
    # One log of 40,000 users: the wrong readings are off by 5 errors or more, the right ones by less than 2.
    estimates = bandit_estimates(0, 40_000)
    show(estimates, TRUTH)
    for name, (value, error) in estimates.items():
        distance = abs(value - TRUTH) / error
        assert (distance > 5) == (name in WRONG), (name, value, error, TRUTH)
        assert name in WRONG or distance < 2, (name, value, error, TRUTH)
    value, error = estimates["mean of logged rewards, whatever the agent does"]
    assert abs(value - LOGGED_TRUTH) < 3 * error


@pytest.mark.slow
def test_rejection_and_weighting_have_standard_normal_errors():
    # 200 logs of 4,000 users: the mean of z has error .07, its spread .05, bounds are 3 and 4 of them.
    z = {name: [] for name in bandit_estimates(0, 1000) if name not in WRONG}
    for seed in range(200):
        estimates = bandit_estimates(1000 + seed, 4000)
        for name, values in z.items():
            values.append((estimates[name][0] - TRUTH) / estimates[name][1])
    for name, values in z.items():
        assert abs(np.mean(values)) < 0.21, (name, np.mean(values))
        assert 0.8 < np.std(values) < 1.2, (name, np.std(values))


def test_acceptance_is_the_inverse_of_the_largest_weight_and_better_with_the_policys_own():
    log = bandit_log(3, 20_000)
    _, action = replay_once(log, policy(3), mode="reject")
    _, loose = replay_once(log, distribute=distribution, mode="reject")
    tight = largest_weight(log, [AGENT[log.context[:, 0].astype(int)]])
    assert tight == pytest.approx(6.0)
    _, drawn = replay_once(log, distribute=distribution, mode="reject", largest_weight=tight)
    for report, bound in ((action, 10.0), (loose, 10.0), (drawn, 6.0)):
        assert report.judged >= len(log)  # sub-envs that have served their share are in the next pass already
        assert report.largest_weight == pytest.approx(bound)
        # The share has error .0021 to .0026 at 20,000 slots.
        assert report.share == pytest.approx(1 / bound, abs=0.01)
        assert report.weight == pytest.approx(1.0, abs=0.06)
    assert drawn.accepted > 1.4 * loose.accepted
    assert str(drawn).startswith(f"accepted {drawn.accepted:,} of {drawn.judged:,} slots")
    assert "propensities logged" in str(drawn)


def test_what_the_log_has_no_support_for_shows_in_the_mean_weight():
    log = bandit_log(4, 20_000, logged=np.array([[0.7, 0.3, 0.0], [0.4, 0.6, 0.0]]))
    _, report = replay_once(log, distribute=distribution, mode="reject")
    # Push, .45 of the agent's choices, is nowhere in this log.
    assert report.weight == pytest.approx(0.55, abs=0.02)


def patient(observation) -> np.ndarray:
    """Waits at the first slot and sends at the second."""
    return (observation["context"] > 0).astype(np.int64)


def two_slot_values(seed: int, users: int) -> dict[str, tuple[float, float]]:
    log = fatigue_log(seed, users)
    seen, _ = replay_once(log, patient, mode="reject")
    parts = [mean_and_error(seen["reward"][seen["accepted"] & (seen["slot"] == slot)]) for slot in (0, 1)]
    # Without truncation every slot is judged separately, given the logged past.
    wanted = log.slot[:, None]
    weights = (log.actions == wanted).all(1) / log.joint
    kept = np.random.default_rng(seed).random(len(log)) < weights / weights.max()
    per_slot = [mean_and_error(log.rewards[kept & (log.slot == slot)]) for slot in (0, 1)]
    # Per-decision importance weights: that of the second slot includes that of the first.
    own = weights.reshape(2, users).cumprod(0) * log.rewards.reshape(2, users)
    single = weights.reshape(2, users) * log.rewards.reshape(2, users)
    return {
        "reject": (parts[0][0] + parts[1][0], float(np.hypot(parts[0][1], parts[1][1]))),
        "per-decision importance weights": mean_and_error(own.sum(0)),
        "rejection without truncation": (
            per_slot[0][0] + per_slot[1][0],
            float(np.hypot(per_slot[0][1], per_slot[1][1])),
        ),
        "per-step importance weights": mean_and_error(single.sum(0)),
    }


def test_with_fatigue_rejection_must_truncate_the_episode():
    # One log of 40,000 users; the truth is .370, and slot by slot under the log's fatigue .248.
    assert (PATIENT_TRUTH, round(PER_SLOT_TRUTH, 3)) == (0.37, 0.248)
    estimates = two_slot_values(0, 40_000)
    show(estimates, PATIENT_TRUTH)
    for name in ("reject", "per-decision importance weights"):
        value, error = estimates[name]
        assert abs(value - PATIENT_TRUTH) < 2 * error < 0.05, (name, value, error)
    for name in ("rejection without truncation", "per-step importance weights"):
        value, error = estimates[name]
        assert abs(value - PER_SLOT_TRUTH) < 2 * error, (name, value, error)
        assert PATIENT_TRUTH - value > 5 * error, (name, value, error)


@pytest.mark.slow
def test_with_fatigue_errors_are_standard_normal():
    # 200 logs of 4,000 users, bounds as above.
    for name in ("reject", "per-decision importance weights"):
        z = []
        for seed in range(200):
            value, error = two_slot_values(2000 + seed, 4000)[name]
            z.append((value - PATIENT_TRUTH) / error)
        assert abs(np.mean(z)) < 0.21, (name, np.mean(z))
        assert 0.8 < np.std(z) < 1.2, (name, np.std(z))


def test_the_env_refuses_a_step_after_a_rejection_and_says_why():
    log = fatigue_log(0, 200)
    env = CrossChannelReplay(log=log, mode="reject")
    observation, _ = env.reset(seed=0)
    refused = 0
    for _ in range(400):
        observation, reward, terminated, truncated, info = env.step(patient(observation))
        if not info["accepted"]:
            assert reward == 0
            assert truncated == (info["slot"] == 1)
        if truncated and not info["accepted"]:
            with pytest.raises(gym.error.ResetNeeded, match=r"rejected.*follows the action that was logged, not the"):
                env.step(np.array([1]))
            refused += 1
        if terminated or truncated:
            observation, _ = env.reset()
    assert refused > 10


def test_a_log_on_which_rejection_is_not_exact_is_refused():
    log = fatigue_log(0, 50)
    for make in (CrossChannelReplay, CrossChannelReplayVector):
        with pytest.raises(ConfigError, match="3 of 100 steps have none"):
            make(log=replace(log, joint=np.where(np.arange(100) < 3, np.nan, log.joint)), mode="reject")
        with pytest.raises(ConfigError, match="50 steps follow one"):
            make(log=replace(log, decided_next=log.decided_next // 2), mode="reject")
        with pytest.raises(ConfigError, match=r"later decisions.*50 of 100 rewards.*post window no longer"):
            make(log=replace(log, available_at=log.available_at + 1), mode="reject")
        with pytest.raises(ConfigError, match=r"largest_weight is 0\.5"):
            make(log=log, mode="reject", largest_weight=0.5)
        with pytest.raises(ConfigError, match="mode 'logged' uses no weights"):
            make(log=log, largest_weight=2.0)
        with pytest.raises(ConfigError, match="step_distribution is for mode 'reject'"):
            make(log=log).step_distribution([np.ones((1, 2)) / 2])
        with pytest.raises(ConfigError, match="step_logged is for mode 'logged'; this replay's mode is 'reject'"):
            make(log=log, mode="reject").step_logged()
        with pytest.raises(gym.error.ResetNeeded):
            make(log=log).step_logged()
    env = CrossChannelReplayVector(20, log=log, mode="reject", largest_weight=1.1)
    env.reset(seed=0)
    with pytest.raises(ConfigError, match=r"a weight of .* exceeds the bound of 1\.1"):
        env.step(np.zeros((20, 1), dtype=np.int64))

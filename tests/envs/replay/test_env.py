"""The replay env: Gymnasium's checks, what it pays, when it ends, and that nobody can change the log through it."""

from __future__ import annotations

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay.env import CrossChannelReplay
from crosschannel.envs.replay.settings import matching, terminal_mask
from tests.envs.replay.samples import sample_log, steps_of

LOG = sample_log()


def rollout(env, episodes: int, seed: int = 3):
    """Observation before, action, and the result of each step."""
    env.action_space.seed(seed)
    out = []
    for episode in range(episodes):
        observation, info = env.reset(seed=seed if episode == 0 else None)
        out.append((observation, info))
        ended = False
        while not ended:
            action = env.action_space.sample()
            step = env.step(action)
            out.append((action, *step))
            ended = step[2] or step[3]
    return out


@pytest.mark.parametrize(
    ("mode", "known", "seeds"), [("logged", 1.0, 50), ("logged", 0.5, 5), ("logged", 0.0, 5), ("reject", 1.0, 50)]
)
def test_check_env_without_a_warning_over_many_seeds(mode, known, seeds):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(seeds):
            env = gym.make("CrossChannelReplay-v0", log=sample_log(seed, users=20, days=10, known=known), mode=mode)
            check_env(env.unwrapped)
            rollout(env, 2, seed)


@pytest.mark.parametrize("mode", ["logged", "reject"])
def test_it_is_made_without_a_log(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("CrossChannelReplay-v0", mode=mode)
        check_env(env.unwrapped)


def test_it_is_made_without_an_argument():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("CrossChannelReplay-v0")
    total = rollout(env, 2)
    assert len(total) > 6
    assert env.spec is not None
    assert env.unwrapped.log is CrossChannelReplay().log


@pytest.mark.parametrize("policy", ["sample", "send nothing", "as logged"])
def test_a_step_pays_the_logged_reward_of_the_logged_action_and_only_the_log_ends_an_episode(policy):
    env = CrossChannelReplay(log=LOG)
    env.action_space.seed(0)
    matched = 0
    for episode in range(LOG.n_users):
        env.reset(seed=0 if episode == 0 else None)
        user = None
        for step in range(1000):
            row = env._row
            action = {
                "sample": env.action_space.sample(),
                "send nothing": np.zeros(2, dtype=np.int64),
                "as logged": LOG.actions[row],
            }[policy]
            _, reward, terminated, truncated, info = env.step(action)
            assert reward == LOG.rewards[row]
            assert info["row"] == row
            assert info["decision_row"] == LOG.decision_row[row]
            assert info["executed_action"].tolist() == LOG.actions[row].tolist()
            assert info["propensity"] == LOG.joint[row]
            assert info["propensities"].tolist() == LOG.propensity[row].tolist()
            assert (info["se"], info["key"]) == (LOG.se[row], LOG.keys[row])
            assert info["available_at"] == LOG.available_at[row]
            assert info["mode"] == "logged"
            matched += info["matched"]
            assert info["matched"] == info["matched_modules"].all()
            user = int(LOG.users_of([info["user"]])[0])
            assert (terminated or truncated) == (step + 1 == len(steps_of(LOG, user)))
            if terminated or truncated:
                break
        assert terminated == LOG.churned[user]
        assert truncated == (not LOG.churned[user])
    share = matched / len(LOG)
    assert (share == 1.0) == (policy == "as logged")
    assert share > 0


def test_modules_match_only_where_both_send_or_neither_does():
    modules = ActionSpace([Module("channel", ("none", "push")), Module("offer", ("small", "large"))])
    chosen = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [0, 0]])
    executed = np.array([[0, 0], [0, 0], [1, 0], [1, 0], [0, 0], [1, 0]])
    expected = [[True, True], [True, True], [True, True], [True, False], [False, False], [False, False]]
    assert matching(modules, chosen, executed).tolist() == expected


def test_observations_are_those_of_the_log_and_the_last_one_allows_nothing():
    env = CrossChannelReplay(log=LOG)
    observation, info = env.reset(seed=5)
    user = int(LOG.users_of([info["user"]])[0])
    nothing = env.action_space.sample()
    for row in steps_of(LOG, user):
        assert observation["context"].tobytes() == LOG.context[row].tobytes()
        assert observation["action_mask"].tolist() == LOG.action_mask[row].tolist()
        last = observation
        observation, _, terminated, truncated, _ = env.step(nothing)
    assert terminated or truncated
    assert observation["context"].tobytes() == last["context"].tobytes()
    assert observation["action_mask"].tolist() == [1, 0, 0, 0, 0]
    assert terminal_mask(LOG.modules).tolist() == [True, False, False, False, False]


def test_what_is_handed_out_are_copies():
    log = sample_log()
    spoiled, untouched = CrossChannelReplay(log=log), CrossChannelReplay(log=LOG)
    action = np.zeros(2, dtype=np.int64)
    for episode in range(4):
        seed = 3 if episode == 0 else None
        results = [spoiled.reset(seed=seed), untouched.reset(seed=seed)]
        ended = False
        while True:
            assert data_equivalence(results[0], results[1], exact=True)
            for array in (*results[0][0].values(), *results[0][-1].values()):
                if isinstance(array, np.ndarray):
                    array[...] = 1
            if ended:
                break
            results = [spoiled.step(action), untouched.step(action)]
            ended = results[1][2] or results[1][3]


@pytest.mark.parametrize("mode", ["logged", "reject"])
def test_equal_seeds_give_equal_rollouts_and_others_another_order(mode):
    a, b = (rollout(CrossChannelReplay(log=LOG, mode=mode), 5) for _ in range(2))
    assert data_equivalence(a, b, exact=True)
    orders = [[user for _, user in served(CrossChannelReplay(log=LOG), 5, seed)] for seed in (1, 2)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("mode", ["logged", "reject"])
def test_a_pickled_or_copied_env_goes_on_with_the_same_bits(mode):
    env = CrossChannelReplay(log=LOG, mode=mode)
    env.reset(seed=1)
    env.step(np.zeros(2, dtype=np.int64))
    others = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    assert others[1].log is LOG
    for _ in range(60):
        results = []
        for one in (env, *others):
            step = one.step(np.zeros(2, dtype=np.int64))
            results.append((step, one.reset() if step[2] or step[3] else None))
        assert data_equivalence(results[0], results[1], exact=True)
        assert data_equivalence(results[0], results[2], exact=True)


def served(env, episodes: int, seed: int = 9) -> list[tuple[int, str]]:
    out = []
    for episode in range(episodes):
        _, info = env.reset(seed=seed if episode == 0 else None)
        out.append((info["pass"], info["user"]))
        ended = False
        while not ended:
            step = env.step(np.zeros(2, dtype=np.int64))
            ended = step[2] or step[3]
    return out


def test_each_pass_serves_every_user_once_and_shards_divide_it():
    n = LOG.n_users
    one = CrossChannelReplay(log=LOG)
    walk = served(one, 3 * n)
    assert one.passes_completed == 3
    for number in range(3):
        assert sorted(user for p, user in walk if p == number) == sorted(LOG.user_ids)
    assert [u for p, u in walk if p == 0] != [u for p, u in walk if p == 1]
    for stride in (3, 7, n + 5):
        shards = [CrossChannelReplay(log=LOG, shard=(i, stride)) for i in range(stride)]
        together = [pair for env in shards for pair in served(env, 2 * n // stride + 2)]
        for number in range(2):
            assert sorted(user for p, user in together if p == number) == sorted(LOG.user_ids)


def test_passes_completed_counts_whole_passes_only():
    env = CrossChannelReplay(log=LOG)
    env.reset(seed=0)
    steps = 0
    while env.passes_completed == 0:
        result = env.step(np.zeros(2, dtype=np.int64))
        steps += 1
        if (result[2] or result[3]) and env.passes_completed == 0:
            env.reset()
    assert steps == len(LOG)


def test_a_user_can_be_picked_out_of_turn():
    env = CrossChannelReplay(log=LOG)
    _, first = env.reset(seed=4)
    _, picked = env.reset(options={"user": "u007"})
    _, second = env.reset()
    assert (picked["user"], picked["pass"]) == ("u007", -1)
    plain = CrossChannelReplay(log=LOG)
    assert plain.reset(seed=4)[1] == first
    assert plain.reset()[1] == second


def test_users_and_their_order_are_chosen_at_reset():
    env = CrossChannelReplay(log=LOG)
    ids = [str(LOG.user_ids[i]) for i in (7, 3, 11)]

    def walk(episodes, options):
        _, info = env.reset(seed=2, options=options)
        out = [(info["pass"], info["user"])]
        out += [(info["pass"], info["user"]) for _, info in (env.reset() for _ in range(episodes - 1))]
        return out

    assert walk(6, {"among": ids, "order": "listed"}) == [(p, name) for p in (0, 1) for name in ids]
    shuffled = walk(30, {"among": ids})
    assert all(sorted(shuffled[i : i + 3]) == sorted((i // 3, name) for name in ids) for i in range(0, 30, 3))
    assert len({tuple(name for _, name in shuffled[i : i + 3]) for i in range(0, 30, 3)}) > 2
    assert env.passes_completed == 9
    assert [name for _, name in walk(LOG.n_users, {"order": "listed"})] == LOG.user_ids.tolist()
    # A seed alone is everybody, shuffled, as ever.
    assert walk(5, None) == [(p, u) for p, u in served(CrossChannelReplay(log=LOG), 5, 2)]


def test_the_timeline_of_a_user_is_text_on_one_screen():
    env = gym.make("CrossChannelReplay-v0", log=LOG, render_mode="ansi")
    assert env.metadata["render_modes"] == ["ansi"]
    env.reset(seed=0, options={"user": "u007"})
    rows, shown = steps_of(LOG, int(LOG.users_of(["u007"])[0])), []
    for row in rows[:3]:
        env.step(LOG.actions[row])
        shown.append(env.render())
    last = shown[-1].splitlines()
    assert f"user u007 | mode logged | 3 of {len(rows)} slots replayed" in last[0]
    assert sum("matched" in line for line in last) == 3
    assert sum(line.startswith(">") for line in last) == 1
    # The slot that comes next keeps its logged action and reward to itself.
    assert f"{LOG.rewards[rows[3]]:+.3f}" not in shown[-1]
    assert max(len(line) for line in last) <= 120
    long = CrossChannelReplay(log=sample_log(days=80), render_mode="ansi")
    long.reset(seed=0)
    ended = False
    while not ended:
        step = long.step(long.action_space.sample())
        ended = step[2] or step[3]
        assert len(long.render().splitlines()) <= 24
    assert "earlier slots" in long.render()
    assert CrossChannelReplay(log=LOG).render() is None


def test_an_unknown_propensity_is_left_out():
    log = sample_log(known=0.5)
    env = CrossChannelReplay(log=log)
    known = []
    for step in rollout(env, log.n_users):
        if len(step) > 2:
            info = step[-1]
            row = int(np.flatnonzero(log.decision_row == info["decision_row"])[0])
            known.append(np.isfinite(log.joint[row]))
            assert ("propensity" in info) == ("propensities" in info) == known[-1]
    assert 0 < np.mean(known) < 1


def test_what_is_wrong_is_named():
    with pytest.raises(ConfigError, match=r"no mode 'logger'\. Did you mean 'logged'"):
        CrossChannelReplay(log=LOG, mode="logger")
    with pytest.raises(ConfigError, match=r"no render mode 'ansy'\. Did you mean 'ansi'\?"):
        CrossChannelReplay(log=LOG, render_mode="ansy")
    with pytest.raises(ConfigError, match=r"no order 'list'\. Did you mean 'listed'"):
        CrossChannelReplay(log=LOG).reset(options={"order": "list"})
    with pytest.raises(ConfigError, match="2 users, 1 different"):
        CrossChannelReplay(log=LOG).reset(options={"among": ["u001", "u001"]})
    with pytest.raises(ConfigError, match=r"no mode 'zzz'\. Available: 'logged', 'reject'"):
        CrossChannelReplay(log=LOG, mode="zzz")
    for shard in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match="shard"):
            CrossChannelReplay(log=LOG, shard=shard)
    env = CrossChannelReplay(log=LOG)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(ConfigError, match=r"no option 'usr'\. Did you mean 'user'"):
        env.reset(options={"usr": "u007"})
    with pytest.raises(ConfigError, match="'nobody'"):
        env.reset(options={"user": "nobody"})
    env.reset(seed=0)
    for action in (np.array([0, 2]), np.array([0]), np.array([0.5, 0.0])):
        with pytest.raises(gym.error.InvalidAction):
            env.step(action)
    ended = False
    while not ended:
        step = env.step(np.zeros(2, dtype=np.int64))
        ended = step[2] or step[3]
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(2, dtype=np.int64))

"""The vector replay equals single envs to the last bit, serves each user once a pass, and resumes where saved."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import crosschannel.envs  # noqa: F401 - registers the environments
from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay.env import CrossChannelReplay
from crosschannel.envs.replay.vector import CrossChannelReplayVector
from tests.envs.replay.samples import sample_log

LOG = sample_log()
HOLES = sample_log(1, known=0.5)


def singles(log, n: int, mode: str = "logged") -> SyncVectorEnv:
    return SyncVectorEnv(
        [partial(CrossChannelReplay, log=log, mode=mode, shard=(i, n)) for i in range(n)],
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )


def assert_same(native, single) -> None:
    """Equal results; an information of which no single env has any is masked throughout in the native one."""
    *arrays, info = native
    *others, theirs = single
    assert data_equivalence(arrays, others, exact=True)
    for name in info:
        if name.startswith("_"):
            continue
        mask = info[f"_{name}"]
        assert mask.dtype == bool
        if name not in theirs:
            assert not mask.any()
            continue
        assert data_equivalence(mask, theirs[f"_{name}"], exact=True)
        assert info[name].dtype == theirs[name].dtype
        assert data_equivalence(info[name][mask], theirs[name][mask], exact=True)
    assert theirs.keys() <= info.keys()


@pytest.mark.parametrize(
    ("log", "mode"), [(LOG, "logged"), (HOLES, "logged"), (LOG, "reject")], ids=["logged", "half of them", "reject"]
)
@pytest.mark.parametrize("n", [1, 7, LOG.n_users, LOG.n_users + 9])
def test_equals_single_envs_to_the_last_bit(log, mode, n):
    native, single = CrossChannelReplayVector(n, log=log, mode=mode), singles(log, n, mode)
    assert native.observation_space == single.observation_space
    assert native.action_space == single.action_space
    assert native.metadata["autoreset_mode"] == single.metadata["autoreset_mode"]
    for seed in (0, 1):
        native.action_space.seed(seed)
        assert_same(native.reset(seed=seed), single.reset(seed=[seed] * n))
        for step in range(60):
            actions = native.action_space.sample()
            assert_same(native.step(actions), single.step(actions))
            assert native.passes_completed == min(env.passes_completed for env in single.envs)
            if mode == "reject":
                tallies = [env.acceptance for env in single.envs]
                assert native.acceptance.judged == sum(t.judged for t in tallies)
                assert native.acceptance.accepted == sum(t.accepted for t in tallies)
            if step == 25:
                assert_same(native.reset(), single.reset())
            if step == 30:
                some = {"among": log.user_ids[3:15].tolist(), "order": "listed" if seed else "shuffled"}
                assert_same(native.reset(options=some), single.reset(options=some))
            if step == 35 and n > 1:
                some = np.arange(n) % 2 == 0
                assert_same(native.reset(options={"reset_mask": some}), single.reset(options={"reset_mask": some}))


WAYS = {
    "dict": dict,
    "unpacked": lambda info: {**info},
    "joined": lambda info: info | {},
    "joined to": lambda info: {} | info,
    "updated": lambda info: (plain := {}, plain.update(info))[0],
    "items": lambda info: dict(info.items()),
    "by key": lambda info: {key: info[key] for key in info},
    "copied": lambda info: info.copy(),
    "deep copied": copy.deepcopy,
    "pickled": lambda info: pickle.loads(pickle.dumps(info)),
    "as arguments": lambda info: dict(**info),
}


@pytest.mark.parametrize("way", WAYS)
def test_information_is_the_same_however_and_whenever_it_is_first_looked_at(way):
    env, other = (CrossChannelReplayVector(9, log=LOG) for _ in range(2))
    env.reset(seed=1)
    other.reset(seed=1)
    at_once, later = [], []
    for _ in range(40):
        actions = np.random.default_rng(3).integers(0, 2, (9, 2))
        info = other.step(actions)[-1]
        assert len(info) > 20
        at_once.append(dict(info))
        later.append(env.step(actions)[-1])
        actions[:] = 0
    env.reset(seed=2)
    for now, then in zip(at_once, later, strict=True):
        assert data_equivalence(WAYS[way](then), now, exact=True)
    assert env.step(actions)[-1].get("se") is not None
    assert "se" in env.step(actions)[-1]
    assert bool(env.step(actions)[-1])
    assert "executed_action" in repr(env.step(actions)[-1])


@pytest.mark.parametrize("n", [1, 6])
def test_steps_without_an_action_are_those_with_one(n):
    """The same slots, rewards, ends and information but for what the action matched, in all three forms."""
    acting, native = (CrossChannelReplayVector(n, log=LOG) for _ in range(2))
    single = [CrossChannelReplay(log=LOG, shard=(i, n)) for i in range(n)]
    for env in (acting, native, *single):
        env.reset(seed=2)
    begins = np.zeros(n, dtype=bool)
    for _ in range(60):
        *expected, told = acting.step(acting.action_space.sample())
        *found, info = native.step_logged()
        assert data_equivalence(found, expected, exact=True)
        matches = {name for name in told if "matched" in name}
        assert matches
        assert data_equivalence(dict(info), {name: told[name] for name in told if name not in matches}, exact=True)
        for i, env in enumerate(single):
            if begins[i]:
                env.reset()
                continue
            _, reward, *ends, alone = env.step_logged()
            assert (reward, *ends) == (found[1][i], found[2][i], found[3][i])
            assert alone["row"] == info["row"][i]
        begins = found[2] | found[3]


@pytest.mark.parametrize("n", [1, 6])
def test_steps_by_distribution_equal_single_envs_to_the_last_bit(n):
    native = CrossChannelReplayVector(n, log=LOG, mode="reject")
    alone = [CrossChannelReplay(log=LOG, mode="reject", shard=(i, n)) for i in range(n)]
    observation, _ = native.reset(seed=5)
    for env in alone:
        env.reset(seed=5)
    rng, begins, kept = np.random.default_rng(0), np.zeros(n, dtype=bool), 0
    for _ in range(200):
        parts = LOG.modules.split(observation["action_mask"].astype(float))
        given = [part * rng.uniform(0.5, 1.0, part.shape) for part in parts]
        given = [part / np.maximum(part.sum(1, keepdims=True), 1e-9) for part in given]
        observation, reward, terminated, truncated, info = native.step_distribution(given)
        for i, env in enumerate(alone):
            if begins[i]:
                theirs, _ = env.reset()
                assert not info["_accepted"][i]
            else:
                theirs, paid, *ends, told = env.step_distribution([part[i] for part in given])
                assert (paid, ends) == (reward[i], [terminated[i], truncated[i]])
                for name, value in told.items():
                    assert info[f"_{name}"][i]
                    assert np.array_equal(info[name][i], value)
                assert "matched" not in info
                kept += told["accepted"]
            assert all(theirs[name].tobytes() == observation[name][i].tobytes() for name in theirs)
        begins = terminated | truncated
    assert kept > 0


def test_probabilities_must_be_those_of_eligible_actions():
    env = CrossChannelReplayVector(4, log=LOG, mode="reject")
    observation, _ = env.reset(seed=0)
    parts = LOG.modules.split(observation["action_mask"].astype(float))
    right = [part / np.maximum(part.sum(1, keepdims=True), 1) for part in parts]
    for wrong, message in (
        ([right[0] * 0.9, right[1]], "module 'channel' at row 0"),
        ([right[0], right[1] + 0.1], "module 'offer'"),
        ([1 - right[0] * 0, right[1]], "do not sum to 1 over the eligible actions"),
        ([right[0]], "shapes"),
        ([right[0][:3], right[1]], r"for \[3, 4\] sub-envs"),
    ):
        with pytest.raises(gym.error.InvalidAction, match=message):
            env.step_distribution(wrong)
    env.step_distribution(right)


def test_an_action_that_is_not_eligible_is_judged_as_sending_nothing():
    mask = LOG.action_mask.copy()
    mask[:, 1:3] = False
    log = replace(LOG, action_mask=mask)
    results = []
    for action in ([1, 0], [2, 1], [0, 0]):
        env = CrossChannelReplayVector(LOG.n_users, log=log, mode="reject")
        env.reset(seed=0)
        results.append([env.step(np.tile(action, (LOG.n_users, 1)))[4]["accepted"] for _ in range(30)])
    assert np.array_equal(results[0], results[2])
    assert np.array_equal(results[1], results[2])
    assert np.any(results[0])


def test_everything_returned_is_in_its_space_and_new():
    env = CrossChannelReplayVector(9, log=sample_log())
    other = CrossChannelReplayVector(9, log=LOG)
    actions = np.zeros((9, 2), dtype=np.int64)
    results = [env.reset(seed=1), other.reset(seed=1)]
    for _ in range(40):
        assert data_equivalence(results[0], results[1], exact=True)
        assert results[0][0] in env.observation_space
        for array in (*results[0][0].values(), *results[0][1:-1], *results[0][-1].values()):
            if array.flags.writeable:
                array[...] = 1
        assert all(array.flags.writeable for array in results[0][0].values())
        results = [env.step(actions), other.step(actions)]


@pytest.mark.parametrize("n", [1, 5, 16, LOG.n_users, LOG.n_users + 3])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_learning_loop_sees_every_decision_once_a_pass(n, passes):
    env = CrossChannelReplayVector(n, log=LOG)
    observation, info = env.reset(seed=3)
    seen: list[np.ndarray] = []
    while env.passes_completed < passes:
        following, reward, _, _, info = env.step(np.zeros((n, 2), dtype=np.int64))
        rows = info["_executed_action"] & (info["pass"] < passes)
        place = np.argsort(LOG.decision_row)[np.searchsorted(np.sort(LOG.decision_row), info["decision_row"][rows])]
        np.testing.assert_array_equal(observation["context"][rows], LOG.context[place])
        np.testing.assert_array_equal(observation["action_mask"][rows], LOG.action_mask[place])
        np.testing.assert_array_equal(info["executed_action"][rows], LOG.actions[place])
        np.testing.assert_array_equal(reward[rows], LOG.rewards[place])
        np.testing.assert_array_equal(info["se"][rows], LOG.se[place])
        np.testing.assert_array_equal(info["key"][rows], LOG.keys[place])
        seen.append(info["key"][rows])
        observation = following
    keys, counts = np.unique(np.concatenate(seen), return_counts=True)
    assert len(keys) == len(LOG)
    assert (counts == passes).all()


def test_the_step_that_begins_anew_pays_nothing_and_hides_the_next_decision():
    env = CrossChannelReplayVector(6, log=LOG)
    env.reset(seed=2)
    begun = np.zeros(6, dtype=bool)
    checked = 0
    for _ in range(60):
        observation, reward, terminated, truncated, info = env.step(np.zeros((6, 2), dtype=np.int64))
        assert (info["_executed_action"] == ~begun).all()
        assert (reward[begun] == 0).all()
        for name in ("executed_action", "se", "key", "decision_row", "available_at", "propensity", "propensities"):
            assert (info[name][begun] == 0).all()
        assert not (terminated | truncated)[begun].any()
        checked += int(begun.sum())
        begun = terminated | truncated
        nothing = np.zeros((int(begun.sum()), LOG.modules.total), dtype=np.int8)
        nothing[:, 0] = 1
        np.testing.assert_array_equal(observation["action_mask"][begun], nothing)
    assert checked > 10


@pytest.mark.parametrize(
    ("mode", "options"), [("logged", None), ("reject", None), ("logged", {"among": LOG.user_ids[9:30].tolist()})]
)
def test_a_saved_state_goes_on_with_the_same_bits(mode, options):
    env = CrossChannelReplayVector(7, log=LOG, mode=mode)
    actions = np.zeros((7, 2), dtype=np.int64)
    fresh = CrossChannelReplayVector(7, log=LOG, mode=mode)
    fresh.load_state_dict(env.state_dict())
    with pytest.raises(gym.error.ResetNeeded):
        fresh.step(actions)
    env.reset(seed=11, options=options)
    for step in range(100):
        if step % 9 == 0:
            state = json.loads(json.dumps(env.state_dict()))
            fresh = CrossChannelReplayVector(7, log=LOG, mode=mode)
            fresh.load_state_dict(state)
            assert data_equivalence(fresh.observations(), env.observations(), exact=True)
            assert fresh.passes_completed == env.passes_completed
            again = pickle.loads(pickle.dumps(env))
        result = env.step(actions)
        assert data_equivalence(fresh.step(actions), result, exact=True)
        assert data_equivalence(again.step(actions), result, exact=True)
    assert fresh.acceptance == env.acceptance or mode == "logged"
    assert fresh.np_random.bit_generator.state == env.np_random.bit_generator.state
    assert data_equivalence(fresh.reset(), env.reset(), exact=True)


def test_a_state_of_another_replay_is_refused():
    state = CrossChannelReplayVector(4, log=LOG).state_dict()
    with pytest.raises(ConfigError, match="log is"):
        CrossChannelReplayVector(4, log=HOLES).load_state_dict(state)
    with pytest.raises(ConfigError, match="number of sub-envs is 5, but the saved state's is 4"):
        CrossChannelReplayVector(5, log=LOG).load_state_dict(state)
    with pytest.raises(ConfigError, match="mode is 'logged', but the saved state's is 'other'"):
        CrossChannelReplayVector(4, log=LOG).load_state_dict(state | {"mode": "other"})


def test_a_state_of_another_bound_is_refused():
    state = CrossChannelReplayVector(4, log=LOG, mode="reject").state_dict()
    with pytest.raises(ConfigError, match=r"largest weight is 200\.0, but the saved state's is"):
        CrossChannelReplayVector(4, log=LOG, mode="reject", largest_weight=200.0).load_state_dict(state)


def test_users_can_be_picked_and_the_pass_goes_on_afterwards():
    env, plain = (CrossChannelReplayVector(3, log=LOG) for _ in range(2))
    first = env.reset(seed=4)
    observation, info = env.reset(options={"users": ["u007", "u001", "u007"]})
    assert info["user"].tolist() == ["u007", "u001", "u007"]
    assert info["pass"].tolist() == [-1, -1, -1]
    single = CrossChannelReplay(log=LOG)
    for i, user in enumerate(info["user"]):
        expected, _ = single.reset(seed=0, options={"user": user})
        assert all(observation[name][i].tobytes() == expected[name].tobytes() for name in expected)
    assert data_equivalence(plain.reset(seed=4), first, exact=True)
    assert data_equivalence(plain.reset(), env.reset(), exact=True)


@pytest.mark.parametrize("mode", [None, "sync", "vector_entry_point"])
def test_make_vec_needs_no_argument(mode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make_vec("CrossChannelReplay-v0", num_envs=3, vectorization_mode=mode)
        observation, _ = env.reset(seed=0)
        assert observation in env.observation_space
        _, reward, _, _, info = env.step(env.action_space.sample())
    assert reward.shape == (3,)
    assert info["executed_action"].shape == (3, len(CrossChannelReplay().log.modules))
    assert isinstance(env, CrossChannelReplayVector) == (mode != "sync")
    alone = gym.make_vec("CrossChannelReplay-v0")
    alone.reset(seed=0)
    assert alone.num_envs == 1


def test_what_is_wrong_is_named():
    with pytest.raises(ConfigError, match="num_envs is 0"):
        CrossChannelReplayVector(0, log=LOG)
    with pytest.raises(ConfigError, match=r"no mode 'rejects'\. Did you mean 'reject'"):
        CrossChannelReplayVector(2, log=LOG, mode="rejects")
    with pytest.raises(ConfigError, match="'shuffled'"):
        CrossChannelReplayVector(2, log=LOG).reset(options={"order": "shufled"})
    env = CrossChannelReplayVector(2, log=LOG)
    mask = np.array([True, False])
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros((2, 2), dtype=np.int64))
    with pytest.raises(ConfigError, match="reset them all first"):
        env.reset(options={"reset_mask": mask})
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="reset them all first"):
        env.reset(seed=0, options={"reset_mask": mask})
    with pytest.raises(ConfigError, match="2 bools"):
        env.reset(options={"reset_mask": [True, False]})
    with pytest.raises(ConfigError, match="3 ids for 2 sub-envs"):
        env.reset(options={"users": ["u001", "u002", "u003"]})
    with pytest.raises(ConfigError, match=r"no option 'user'\. Did you mean 'users'"):
        env.reset(options={"user": "u001"})
    for actions in ([[0, 0], [0, 2]], [[0, 0], [-1, 0]], [0, 0], [[0.0, 0.0], [0.0, 0.0]]):
        with pytest.raises(gym.error.InvalidAction):
            env.step(np.array(actions))

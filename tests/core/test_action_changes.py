"""Sets of actions that change: what every agent keeps, what starts over, and what is never done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crosschannel.agents import AGENTS, Agent, Batch, load_agent, load_policy, make_agent, save_agent, save_policy
from crosschannel.core.action_changes import known_actions, label_columns, previous_cells
from crosschannel.core.action_space import ActionSpace, Module
from crosschannel.core.errors import ConfigError
from tests.agents.samples import SETTINGS, TABLES, everything, observations_of, random_batch

BEFORE = ActionSpace(
    [
        Module("channel", ("none", "email", "push")),
        Module("kind", ("bogo", "info"), condition_on="channel"),
        Module("offer", ("b1", "b2", "i1"), "kind", ("bogo", "bogo", "info"), {"b1": {"cost": 1}, "b2": {"cost": 5}}),
    ]
)
AFTER = ActionSpace(
    [
        Module("channel", ("none", "sms", "push", "email")),
        Module("kind", ("info", "bogo"), condition_on="channel"),
        Module("offer", ("i1", "b3", "b1"), "kind", ("info", "bogo", "bogo"), {"b1": {"cost": 1}, "b3": {"cost": 9}}),
    ]
)
LEARNING = [name for name in AGENTS if name not in ("uniform", "no_send", "logging")]


def test_known_actions_are_the_present_ones_and_then_the_retired() -> None:
    known = known_actions(AFTER, BEFORE)
    assert known[0].actions == ("none", "sms", "push", "email")
    assert known["offer"].actions == ("i1", "b3", "b1", "b2")
    assert known["offer"].requires == ("info", "bogo", "bogo", "bogo")
    assert known["offer"].labels["b2"] == {"cost": 5}
    assert known_actions(BEFORE, known)["offer"].actions == ("b1", "b2", "i1", "b3")


def test_previous_cells_are_those_before_the_change() -> None:
    known = known_actions(AFTER, BEFORE)
    np.testing.assert_array_equal(previous_cells(BEFORE, known, 0), [0, -1, 2, 1])
    np.testing.assert_array_equal(previous_cells(BEFORE, known, 1), [1, 0, -1, -1, 5, 4, 3, 2])
    np.testing.assert_array_equal(previous_cells(BEFORE, known, 2), [2, -1, 0, 1])


def test_labels_are_columns() -> None:
    module = Module(
        "tone",
        ("a", "b", "c", "d"),
        labels={
            "a": {"warmth": 1, "emoji": True},
            "b": {"warmth": 3, "emoji": False},
            "c": {"sort": "x", "emoji": True},
        },
    )
    emoji = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    np.testing.assert_array_equal(label_columns(module), np.column_stack([emoji, [0, 0, 1, 0], [-1, 1, 0, 0]]))


def changed(old: ActionSpace, m: int, **parts: object) -> ActionSpace:
    modules = list(old)
    modules[m] = Module(**{**vars(modules[m]), **parts})
    return ActionSpace(modules)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        (ActionSpace(list(TABLES)[:3]), "modules must stay the same"),
        (changed(TABLES, 0, actions=("nothing", "email", "push")), "it must stay the first"),
        (changed(TABLES, 1, condition_on=None), "dependencies may not"),
    ],
)
def test_no_more_than_the_actions_may_change(present: ActionSpace, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        known_actions(present, TABLES)


def opened(agent: Agent, path: Path, modules: ActionSpace) -> Agent:
    name = next(name for name, (_, path) in AGENTS.items() if path.endswith(f":{type(agent).__name__}"))
    save_agent(agent, path, {"name": name, "context_dim": 4, "settings": SETTINGS.get(name, {}), "seed": 5})
    return load_agent(path, modules=modules)


def one_channel_earns(n: int, modules: ActionSpace, good: str, seed: int = 0) -> Batch:
    """One channel earns 1, the others nothing; noise of 1/2."""
    batch = random_batch(n, modules, seed)
    code = modules[0].actions.index(good)
    rewards = (batch.actions[:, 0] == code) * 1.0 + 0.25 * batch.rewards
    return replace(batch, rewards=rewards)


def learn(agent: Agent, batch: Batch) -> None:
    agent.observe(batch)
    for _ in range(4):
        agent.update(10)


@pytest.mark.parametrize("name", LEARNING)
def test_kept_actions_keep_what_was_learned(name: str, tmp_path: Path) -> None:
    """E-mail stands elsewhere now, and is still the best; the others' places and rank are kept too."""
    agent = make_agent(name, BEFORE, 4, SETTINGS.get(name), seed=5)
    learn(agent, one_channel_earns(3000, BEFORE, "email"))
    again = opened(agent, tmp_path / "c.pt", AFTER)
    assert again.modules == AFTER
    seen = observations_of(everything(100, AFTER), seed=2)
    channel = again.action_probabilities(seen)[0]
    assert channel[:, 3].mean() > 0.8
    assert channel[:, 3].mean() > channel[:, 2].mean()
    actions = again.act(seen, explore=False).actions
    assert (actions[:, 0] == 3).mean() > 0.8


@pytest.mark.parametrize("name", LEARNING)
def test_an_opened_agent_learns_on_and_is_saved_whole(name: str, tmp_path: Path) -> None:
    """A new action is found, a retired one is remembered when it comes back, and a checkpoint keeps all of it."""
    agent = make_agent(name, BEFORE, 4, SETTINGS.get(name), seed=5)
    learn(agent, one_channel_earns(2000, BEFORE, "email"))
    only = changed(BEFORE, 0, actions=("none", "sms", "push"))
    second = opened(agent, tmp_path / "a.pt", only)
    seen = observations_of(everything(100, only), seed=2)
    learn(second, one_channel_earns(2000, only, "sms", seed=1))
    assert second.action_probabilities(seen)[0][:, 1].mean() > 0.7, "the new channel"
    third = opened(second, tmp_path / "b.pt", only)
    for a, b in zip(third.action_probabilities(seen), second.action_probabilities(seen), strict=True):
        np.testing.assert_array_equal(a, b)
    back = opened(third, tmp_path / "c.pt", AFTER)
    channel = back.action_probabilities(observations_of(everything(100, AFTER), seed=2))[0].mean(0)
    assert channel[[1, 3]].sum() > 0.7, "sms, learned since, and e-mail, learned before"
    assert channel[3] > 0.1


@pytest.mark.parametrize(
    "name",
    ["ensemble_thompson", "linear_thompson", "epsilon_greedy", "best_fixed", "neural_linear", "beta_thompson"],
)
def test_a_new_action_begins_with_what_its_labels_earned(name: str, tmp_path: Path) -> None:
    """Tones with an emoji earn, those without do not; two tones are added that nobody has ever seen."""
    tones = {f"t{i}": {"emoji": i % 2 == 0} for i in range(8)}
    old = ActionSpace([Module("channel", ("none", "push")), Module("tone", tuple(tones), labels=tones)])
    batch = random_batch(6000, old)
    rewards = ((batch.actions[:, 1] % 2 == 0) & (batch.actions[:, 0] == 1)) * 1.0 + 0.5 * batch.rewards
    agent = make_agent(name, old, 4, SETTINGS.get(name), seed=5)
    learn(agent, replace(batch, rewards=rewards))
    fresh = {"with": {"emoji": True}, "without": {"emoji": False}}
    new = ActionSpace([Module("channel", ("none", "push")), Module("tone", tuple(fresh), labels=fresh)])
    again = opened(agent, tmp_path / "c.pt", new)
    estimates = again.expected_rewards(observations_of(everything(50, new)))[1].mean((0, 1))  # type: ignore[attr-defined]
    assert estimates[0] - estimates[1] > 0.3, "a third or more of the true difference of 1, before any row"


@pytest.mark.parametrize("name", LEARNING)
def test_a_policy_opens_with_other_actions_as_a_checkpoint_does(name: str, tmp_path: Path) -> None:
    """To the bit, but where a checkpoint fits its rows again on newer features, or with the next slots valued again."""
    how = {"name": name, "context_dim": 4, "settings": SETTINGS.get(name, {}), "seed": 5}
    agent = make_agent(name, BEFORE, 4, SETTINGS.get(name), seed=5)
    learn(agent, one_channel_earns(3000, BEFORE, "email"))
    save_policy(agent, tmp_path / "p.pt", how, {})
    policy, _ = load_policy(tmp_path / "p.pt", modules=AFTER)
    seen = observations_of(everything(100, AFTER), seed=2)
    found = policy.action_probabilities(seen)
    if name not in ("neural_linear", "bootstrapped_q"):
        for a, b in zip(found, opened(agent, tmp_path / "c.pt", AFTER).action_probabilities(seen), strict=True):
            np.testing.assert_array_equal(a, b)
    assert found[0][:, 3].mean() > 0.8, "e-mail, which stands elsewhere now, is still the best"


@pytest.mark.parametrize("name", LEARNING)
def test_a_new_action_without_labels_is_tried(name: str, tmp_path: Path) -> None:
    """Nothing earns: a new channel is as good as any, and the agent gives it its share."""
    agent = make_agent(name, BEFORE, 4, SETTINGS.get(name), seed=5)
    learn(agent, random_batch(500, BEFORE))
    again = opened(agent, tmp_path / "c.pt", AFTER)
    shares = again.action_probabilities(observations_of(everything(300, AFTER), seed=2))[0].mean(0)
    assert shares[1] > 0.004


def test_what_members_believe_of_a_new_action_is_new(tmp_path: Path) -> None:
    """An ensemble without rows: beliefs of kept actions stay with them, and those of new ones resemble no other's."""
    agent = make_agent("ensemble_thompson", BEFORE, 4, {"members": 40}, seed=5)
    save_agent(
        agent,
        tmp_path / "c.pt",
        {"name": "ensemble_thompson", "context_dim": 4, "settings": {"members": 40}, "seed": 5},
    )
    again = load_agent(tmp_path / "c.pt", modules=AFTER)
    old, new = (
        each.expected_rewards(observations_of(everything(50, modules)))[0]  # type: ignore[attr-defined]
        for each, modules in ((agent, BEFORE), (again, AFTER))
    )
    correlation = np.corrcoef(np.concatenate([old, new], 2).reshape(-1, 7).T)
    for before, after in ((0, 0), (1, 3), (2, 2)):
        assert correlation[before, 3 + after] > 0.9
    assert correlation[4, [0, 1, 2, 3, 5, 6]].max() < 0.8


def test_the_order_of_actions_does_not_matter_to_what_an_ensemble_learns_on(tmp_path: Path) -> None:
    """The same rows in the codes of another order: equal estimates, but for rounding, now and after more training.

    Network, moments of its optimiser, sums, prior draws and kept rows must all have moved for that.
    """
    order = [0, 2, 1]
    channels = ("none", "email", "push")
    modules = ActionSpace([Module("channel", channels), Module("offer", ("small", "large"))])
    turned = changed(modules, 0, actions=tuple(channels[code] for code in order))
    agent = make_agent("ensemble_thompson", modules, 4, SETTINGS["ensemble_thompson"], seed=5)
    learn(agent, one_channel_earns(1000, modules, "email"))
    again = opened(agent, tmp_path / "c.pt", turned)
    more = one_channel_earns(1000, modules, "push", seed=1)
    codes = np.column_stack([np.argsort(order)[more.actions[:, 0]], more.actions[:, 1]])
    seen = observations_of(everything(100, modules), seed=2)
    for atol in (1e-5, 1e-3):
        plain, other = (each.expected_rewards(seen) for each in (agent, again))  # type: ignore[attr-defined]
        np.testing.assert_allclose(plain[0][..., order], other[0], atol=atol)
        np.testing.assert_allclose(plain[1], other[1], atol=atol)
        learn(agent, more)
        learn(again, replace(more, actions=codes))

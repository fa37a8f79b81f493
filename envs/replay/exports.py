"""Export of a replayed log to other packages: Minari episodes, and bandit feedback of the Open Bandit Pipeline."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from crosschannel.core.arrays import BoolArray
from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.settings import replay_spaces, terminal_mask
from crosschannel.histories.propensities.sources import source_names

EXPORTED_INFO = ("propensity", "joint", "se", "keys", "time", "available_at", "decision_row")


def to_minari(log: ReplayLog, dataset_id: str, **metadata: Any) -> Any:
    """Write a log into the local Minari store, one episode per user, as in mode `logged` of `CrossChannelReplay`.

    Actions are the executed ones and rewards those of the log, so that an episode's return is that of the logged
    policy. The information of each step has the data for off-policy learning: `propensity` (M,), `joint`, `se`, `keys`,
    `time`, `available_at` and `decision_row`, as in `ReplayLog`. Minari stores one more observation and information
    than steps: the last context again, with a mask that allows only sending nothing, as in the env, and the last
    information again. An episode's id is the user's code; the users' own ids are not exported.

    Args:
        log: The log to export.
        dataset_id: Name of the data set, such as `shop/replay/logged-v0`.
        metadata: Further arguments for `minari.create_dataset_from_buffers`, such as `author`; they replace ours.

    Returns:
        The `minari.MinariDataset`; `description` says where the propensities come from.

    Raises:
        ConfigError: If Minari is not installed, or a propensity is unknown.
    """
    minari = _minari()
    check_propensities(log, np.isfinite(log.joint) & np.isfinite(log.propensity).all(1))
    observation_space, action_space = replay_spaces(log)
    settings = {
        "algorithm_name": "logged policy",
        "description": json.dumps(
            {
                "log": log.summary(),
                "propensity_source": log.propensities,
                "modules": log.modules.to_dict(),
                "rewards": "incremental rewards of the executed actions; their sum is the return of the logged policy",
            }
        ),
    }
    return minari.create_dataset_from_buffers(
        dataset_id=dataset_id,
        buffer=[_episode(log, user, minari) for user in range(log.n_users)],
        observation_space=observation_space,
        action_space=action_space,
        **settings | metadata,
    )


def _episode(log: ReplayLog, user: int, minari: Any) -> Any:
    rows = [user]  # a user's first step is the row of the user's code
    while (row := int(log.next_row[rows[-1]])) >= 0:
        rows.append(row)
    behind = [*rows, rows[-1]]
    mask = log.action_mask[behind]
    mask[-1] = terminal_mask(log.modules)
    last = np.arange(len(rows)) == len(rows) - 1
    return minari.data_collector.EpisodeBuffer(
        id=user,
        observations={"context": log.context[behind], "action_mask": mask.astype(np.int8)},
        actions=log.actions[rows],
        rewards=log.rewards[rows],
        terminations=last & bool(log.churned[user]),
        truncations=last & ~bool(log.churned[user]),
        infos={name: getattr(log, name)[behind] for name in EXPORTED_INFO},
    )


def to_bandit_feedback(log: ReplayLog, module: str | None = None) -> dict[str, Any]:
    """Return a log as the feedback dictionary of Open Bandit Pipeline; that package need not be installed.

    Without a module, an action is the number of the joint action in `log.modules.joint_actions`, and `pscore` its joint
    propensity. With a module's name it is that module's code, and `pscore` the probability of that choice given the
    choices of earlier modules: estimates are then of this module's policy, with the others as logged. Modules after
    the first only choose when a message is sent, so their rounds are those slots.

    The pipeline does not know two things: rounds of one user are not independent, so its intervals are too narrow
    (`user` has the users' codes, to cluster by), and ineligible actions must have probability 0 (`action_mask`).

    Saito, Aihara, Matsutani & Narita (2021), "Open Bandit Dataset and Pipeline: towards realistic and reproducible
    off-policy evaluation", NeurIPS Datasets and Benchmarks.

    Args:
        log: The log to export.
        module: Name of one module, or None for the whole action.

    Returns:
        `n_rounds`, `n_actions`, `action` (n,) int, `position` (n,) all 0, `reward` (n,), `pscore` (n,) in (0, 1],
        `context` (n, D) and `action_context` (A, d): one-hot codes, of all modules side by side for whole actions; and,
        in addition to the pipeline's own keys, `user` (n,), `action_mask` (n, A) and `propensity_source` (n,).

    Raises:
        ConfigError: If there is no such module, there are too many joint actions, or a propensity is unknown.
    """
    rows = np.ones(len(log), dtype=bool)
    modules = log.modules
    if module is None:
        action, pscore = modules.joint_index(log.actions), log.joint
        mask = modules.joint_mask(log.action_mask)
        codes = modules.joint_actions
        sent = modules.sends(codes)[:, None]
        parts = [np.eye(size)[codes[:, m]] * (sent | (m == 0)) for m, size in enumerate(modules.sizes)]
        action_context = np.concatenate(parts, axis=1)
    else:
        if module not in modules.names:
            raise ConfigError(f"there is no module {module!r}: name one of {list(modules.names)}")
        m = modules.names.index(module)
        if m > 0:
            rows = modules.sends(log.actions)
        action, pscore = log.actions[:, m], log.propensity[:, m]
        mask = modules.conditional_mask(m, log.action_mask, log.actions)
        action_context = np.eye(modules.sizes[m])
    check_propensities(log, np.isfinite(pscore) | ~rows)
    return {
        "n_rounds": int(rows.sum()),
        "n_actions": len(action_context),
        "action": action[rows],
        "position": np.zeros(int(rows.sum()), dtype=np.int64),
        "reward": log.rewards[rows],
        "pscore": np.array(pscore[rows], dtype=np.float64),
        "context": log.context[rows].astype(np.float64),
        "action_context": action_context,
        "user": log.user[rows],
        "action_mask": mask[rows],
        "propensity_source": source_names(log.propensity_source[rows]).to_numpy(dtype=object),
    }


def check_propensities(log: ReplayLog, known: BoolArray) -> None:
    """Check that the log has all propensities that an export needs.

    Raises:
        ConfigError: If one is unknown.
    """
    if not known.all():
        raise ConfigError(
            f"{log.name} lacks the propensities of {int((~known).sum()):,} of {len(known):,} decisions, without which "
            "no estimate from the export could be right: log them, or estimate them first with "
            "crosschannel.histories.propensities.estimate_propensities, which labels them as estimated"
        )


def _minari() -> Any:
    try:
        import minari
        import minari.data_collector
    except ImportError as error:
        raise ConfigError(f"Minari is not installed ({error}): pip install 'crosschannel[minari]'") from error
    return minari

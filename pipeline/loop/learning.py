"""Learn from the decisions of a log whose rewards have closed: all again, or by adding a day to the last fit.

The log comes in parts of its users. Sums are made by leaf of users and added in the order of the leaves, so that what
is learned does not depend on the parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crosschannel.agents import Agent, ExtendableAgent, make_agent
from crosschannel.agents import leaves as by_leaf  # whose names are imported on first use: help does not wait
from crosschannel.core.arrays import UIntArray
from crosschannel.core.errors import OutputError
from crosschannel.histories.features import ContextFeatures
from crosschannel.pipeline.building import AgentSpec, agent_spec
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.parts.log import LogParts
from crosschannel.pipeline.loop.parts.rewards import Memory, RowsAreMissing, count, fit_rewards, pace_of
from crosschannel.pipeline.loop.parts.rows import ChooseRows, rows_by_leaf, rows_in_memory
from crosschannel.pipeline.pricing import LogPace, check_priceable

KEYS_FILE = "keys.npy"


@dataclass(frozen=True)
class Learned:
    """What was learned from a log up to a time.

    Attributes:
        agent: The agent.
        spec: The arguments that made it.
        features: How contexts are built.
        pace: How often decisions are made, and how often cost events follow where business is as usual.
        keys: Sorted keys of the decisions that it has learned from (n,).
    """

    agent: Agent
    spec: AgentSpec
    features: ContextFeatures
    pace: LogPace
    keys: UIntArray

    @property
    def rows(self) -> int:
        """Number of decisions that it has learned from."""
        return len(self.keys)


def fit(config: Config, log: LogParts, time: int) -> Learned:
    """Learn everything again from the decisions whose windows have closed by a time.

    Contexts, prices of surrogates, scales and weights are learned as well. The result depends on the configuration and
    on what the log holds before the time, and on nothing else.

    Args:
        config: The configuration.
        log: The log.
        time: Microseconds since 1970 UTC.

    Raises:
        NotIdentified: If the log does not tell yet what surrogates are worth.
        RowsAreMissing: If the log has only totals of its first days.
    """
    if log.shared.earlier is not None:
        raise RowsAreMissing
    features = ContextFeatures.fit(log.sample(time), config.context)
    choose, pace = _prepare(config, log, time, features, None)
    spec = agent_spec(config, features)
    agent = make_agent(modules=log.shared.modules, device=config.device, **spec)
    check_priceable(agent, config.constraints)
    keys = _fit_funnel(agent, log, choose)
    if keys is None:
        batch = rows_in_memory(log, choose)
        if len(batch):
            agent.observe(batch)
            agent.update(max(config.train.offline_updates, 1))
        keys = np.sort(batch.keys)
    return Learned(agent=agent, spec=spec, features=features, pace=pace, keys=keys)


def extend(config: Config, learned: Learned, log: LogParts, time: int) -> Learned:
    """Add the decisions whose rewards have become known since to what was learned, each once.

    Prices of surrogates are those that the log tells by then; contexts are built as they were when all was fitted.
    Decisions that have grown older than the memory stay in the sums until all is fitted again.

    Args:
        config: The configuration.
        learned: What was learned; its agent can be extended, and changes.
        log: The log.
        time: Time up to which it is learned, microseconds since 1970 UTC.

    Raises:
        RowsAreMissing: If it takes earlier rows than the log has.
    """
    choose, pace = _prepare(config, log, time, learned.features, _at_hand(learned.keys, log))
    assert isinstance(learned.agent, ExtendableAgent)  # whoever calls it has asked
    if by_leaf.has_funnel(learned.agent):
        keys = _extend_funnel(learned.agent, log, choose)
    else:
        batch = rows_in_memory(log, choose)
        if len(batch):
            learned.agent.extend(batch)
        keys = batch.keys
    return replace(learned, pace=pace, keys=np.sort(np.concatenate([learned.keys, keys])))


def _prepare(
    config: Config, log: LogParts, time: int, features: ContextFeatures, learned: UIntArray | Path | None
) -> tuple[ChooseRows, LogPace]:
    """Return what chooses the rows to learn from at a time, with rewards fitted to all of them, and the pace."""
    memory = Memory.at(config, log.shared, time)
    counts, sample = count(config, log, memory), memory.recent(log.sample(time))
    rewards = fit_rewards(config, log, memory, sample, counts.largest)
    return ChooseRows(config, memory, rewards, features, learned), pace_of(config, counts, sample)


def _fit_funnel(agent: Agent, log: LogParts, choose: ChooseRows) -> UIntArray | None:
    """Fit an agent's funnel; return the keys of the rows, None if there is no funnel or too few messages for one."""
    if choose.config.reward.funnel is None or not by_leaf.has_funnel(agent):
        return None
    found = rows_by_leaf(log, choose)
    if found is None or not by_leaf.fit_funnel_of(agent, found.leaves, log.passes.named("learning")):
        return None
    return found.keys


def _extend_funnel(agent: Agent, log: LogParts, choose: ChooseRows) -> UIntArray:
    """Add the rows that were chosen to the fit of an agent's funnel; return their keys."""
    found = rows_by_leaf(log, choose)
    if found is None:
        return np.zeros(0, dtype=np.uint64)
    by_leaf.extend_funnel_of(agent, found.leaves, log.passes.named("learning"))
    return found.keys


def _at_hand(keys: UIntArray, log: LogParts) -> UIntArray | Path:
    """Return keys, or where the parts of a log are on disk a file with them, which tasks open."""
    file = log.folder(KEYS_FILE)
    if file is None:
        return keys
    try:
        np.save(file, keys)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror or error}") from None
    return file

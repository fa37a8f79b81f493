"""Learn from the decisions of a log whose rewards have closed: all again, or by adding a day to the last fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from crosschannel.agents import Agent, Batch, Components, ExtendableAgent, Observations, make_agent
from crosschannel.agents.constraints.budgets import check_constraints
from crosschannel.core.arrays import BoolArray, UIntArray
from crosschannel.core.times import duration
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import allowed_actions
from crosschannel.histories.history import History
from crosschannel.histories.observation.slicing import since, until
from crosschannel.pipeline.batches import message_odds
from crosschannel.pipeline.building import AgentSpec, agent_spec_of
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.cost_counts import CostCounts
from crosschannel.pipeline.loop.log_files import lookback
from crosschannel.pipeline.pricing import LogPace, check_priceable
from crosschannel.reward import RewardFrame, make_reward


class RowsAreMissing(Exception):
    """Learning needs rows of the time for which the history has totals only."""


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


def fit(config: Config, history: History, time: int) -> Learned:
    """Learn everything again from the decisions whose windows have closed by a time.

    Contexts, prices of surrogates, scales and weights are learned as well. The result depends on the configuration and
    on what the history holds before the time, and on nothing else.

    Args:
        config: The configuration.
        history: The history.
        time: Microseconds since 1970 UTC.

    Raises:
        NotIdentified: If the log does not tell yet what surrogates are worth.
        RowsAreMissing: If the history has only totals of its first days.
    """
    if history.earlier is not None:
        raise RowsAreMissing
    past, recent, frame, known = _known(config, history, time)
    features = ContextFeatures.fit(past, config.context)
    remembered = recent.decisions.time >= time - duration(config.update.memory)
    batch = _batch(config, past, recent, frame, features, known & remembered)
    spec = agent_spec_of(config, features)
    agent = make_agent(modules=history.modules, device=config.device, **spec)
    check_priceable(agent, config.constraints)
    if len(batch):
        agent.observe(batch)
        agent.update(max(config.train.offline_updates, 1))
    pace = _pace(config, recent)
    return Learned(agent=agent, spec=spec, features=features, pace=pace, keys=np.sort(batch.keys))


def extend(config: Config, learned: Learned, history: History, time: int) -> Learned:
    """Add the decisions whose rewards have become known since to what was learned, each once.

    Prices of surrogates are those that the log tells by then; contexts are built as they were when all was fitted.
    Decisions that have grown older than the memory stay in the sums until all is fitted again.

    Args:
        config: The configuration.
        learned: What was learned; its agent can be extended, and changes.
        history: The history.
        time: Time up to which it is learned, microseconds since 1970 UTC.

    Raises:
        RowsAreMissing: If it takes earlier rows than the history has.
    """
    past, recent, frame, known = _known(config, history, time)
    new = known.copy()
    new[known] = ~_among(recent.decisions.key[known], learned.keys)
    batch = _batch(config, past, recent, frame, learned.features, new)
    assert isinstance(learned.agent, ExtendableAgent)  # whoever calls it has asked
    if len(batch):
        learned.agent.extend(batch)
    return replace(learned, pace=_pace(config, recent), keys=np.sort(np.concatenate([learned.keys, batch.keys])))


def _among(keys: UIntArray, found: UIntArray) -> BoolArray:
    """Return which keys (n,) are among others."""
    return np.asarray(pd.Series(keys).isin(found))  # by a hash table, as keys in no order make bisections slow


def _known(config: Config, history: History, time: int) -> tuple[History, History, RewardFrame, BoolArray]:
    """Return the past of a time, what of it is remembered, its rewards, and which of these are final (n,)."""
    past = until(history, time)
    remembered = max(past.span[0], time - duration(config.update.memory) - duration(config.reward.pre))
    if past.earlier is not None and remembered < past.earlier.time:
        raise RowsAreMissing
    recent = since(past, remembered)
    frame = make_reward(config.reward.kind, config.reward).fit_transform(recent)
    return past, recent, frame, frame.identified & _closed(config, recent, time)


def _closed(config: Config, history: History, time: int) -> BoolArray:
    """Return which decisions (n,) have all their windows behind them at a time.

    Events at exactly the end of a window belong to it, unless ties come after; they are not in a log that ends there.
    """
    funnel = config.reward.funnel
    length = duration(config.reward.post)
    if funnel is not None and funnel.window is not None:
        length = max(length, duration(funnel.window))
    end = history.decisions.time + length
    return np.asarray(end <= time if history.ties == "after" else end < time)


def _batch(
    config: Config, past: History, recent: History, frame: RewardFrame, features: ContextFeatures, chosen: BoolArray
) -> Batch:
    """Return the chosen decisions (n,) of the recent history as rows to learn from, day by day.

    Contexts look back over the whole past.
    """
    d = recent.decisions
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(d.time[rows], kind="stable")]
    user, time, parts = d.user[rows], d.time[rows], frame.components
    looks_back = lookback(features.layout, config.guardrails)
    if past.earlier is not None and len(rows) and time[0] - looks_back <= past.earlier.time:
        raise RowsAreMissing
    mask = recent.modules.feasible_mask(recent.eligible[rows] & allowed_actions(config.guardrails, past, user, time))
    components = None
    if parts is not None:
        components = Components(
            engaged=parts.engaged[rows],
            value=parts.value[rows],
            cost=parts.cost[rows],
            odds=message_odds(recent.modules.sends(d.actions[rows]), d.propensity[rows, 0]),
            cost_names=parts.cost_names,
            cost_weights=parts.cost_weights,
        )
    observations = Observations(features.at(past, user, time), mask, past.user_keys[user])
    return Batch(observations, d.actions[rows], frame.reward[rows], frame.se[rows], d.key[rows], components=components)


def _pace(config: Config, recent: History) -> LogPace:
    """Measure the pace; where there is such an arm, the rates of cost events under business as usual."""
    events = () if config.reward.funnel is None else config.reward.funnel.costs
    check_constraints(config.constraints, recent.modules, events)
    window = duration(config.reward.post)
    pace = LogPace.measure(recent, events, duration(config.update.every), window)
    usual = CostCounts.of_business_as_usual(recent, events, window)
    return pace if usual is None else replace(pace, rates=usual.rates(events))

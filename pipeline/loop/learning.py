"""Learn from the decisions of a log whose rewards have closed: all again, or by adding a day to the last fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from crosschannel.agents import Agent, Batch, Components, ExtendableAgent, Observations, make_agent
from crosschannel.agents.constraints.budgets import check_constraints
from crosschannel.core.arrays import BoolArray
from crosschannel.core.times import duration
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.guardrails import allowed_actions
from crosschannel.histories.history import History
from crosschannel.histories.slicing import since, until
from crosschannel.pipeline.building import AgentSpec, agent_spec_of
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.pricing import LogPace, check_priceable
from crosschannel.reward import RewardFrame, make_reward

#: The arm whose cost events are business as usual, where there is one.
USUAL = "business_as_usual"


@dataclass(frozen=True)
class Learned:
    """What was learned from a log up to a time.

    Attributes:
        agent: The agent.
        spec: The arguments that made it.
        features: How contexts are built.
        pace: How often decisions are made, and how often cost events follow where business is as usual.
        rows: Number of decisions that it has learned from.
    """

    agent: Agent
    spec: AgentSpec
    features: ContextFeatures
    pace: LogPace
    rows: int


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
    """
    past = until(history, time)
    recent = since(past, max(past.span[0], time - duration(config.update.memory) - duration(config.reward.pre)))
    frame = make_reward(config.reward.kind, config.reward).fit_transform(recent)
    start, last = time - duration(config.update.memory), time - duration(config.reward.post)
    when = recent.decisions.time
    features = ContextFeatures.fit(past, config.context)
    batch = _batch(config, past, recent, frame, features, frame.identified & (when >= start) & (when <= last))
    spec = agent_spec_of(config, features)
    agent = make_agent(modules=history.modules, device=config.device, **spec)
    check_priceable(agent, config.constraints)
    if len(batch):
        agent.observe(batch)
        agent.update(max(config.train.offline_updates, 1))
    return Learned(agent, spec, features, _pace(config, recent), len(batch))


def extend(config: Config, learned: Learned, history: History, begin: int, time: int) -> Learned:
    """Add the decisions whose windows have closed since a time to what was learned.

    Prices of surrogates are those that the log tells by then; contexts are built as they were when all was fitted.

    Args:
        config: The configuration.
        learned: What was learned; its agent can be extended, and changes.
        history: The history.
        begin: Time up to which it was learned, microseconds since 1970 UTC.
        time: Time up to which it is learned now.
    """
    past = until(history, time)
    recent = since(past, max(past.span[0], time - duration(config.update.memory) - duration(config.reward.pre)))
    frame = make_reward(config.reward.kind, config.reward).fit_transform(recent)
    closed = recent.decisions.time + duration(config.reward.post)
    batch = _batch(
        config, past, recent, frame, learned.features, frame.identified & (closed > begin) & (closed <= time)
    )
    assert isinstance(learned.agent, ExtendableAgent)  # whoever calls it has asked
    if len(batch):
        learned.agent.extend(batch)
    return replace(learned, pace=_pace(config, recent), rows=learned.rows + len(batch))


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
    mask = recent.modules.feasible_mask(recent.eligible[rows] & allowed_actions(config.guardrails, past, user, time))
    components = None
    if parts is not None:
        components = Components(
            engaged=parts.engaged[rows],
            value=parts.value[rows],
            cost=parts.cost[rows],
            cost_names=parts.cost_names,
            cost_weights=parts.cost_weights,
        )
    observations = Observations(features.at(past, user, time), mask, past.user_keys[user])
    return Batch(observations, d.actions[rows], frame.reward[rows], frame.se[rows], d.key[rows], components=components)


def _pace(config: Config, recent: History) -> LogPace:
    """Measure the pace, where there is such an arm on the users with whom business is as usual."""
    events = () if config.reward.funnel is None else config.reward.funnel.costs
    check_constraints(config.constraints, recent.modules, events)
    pace = LogPace.measure(recent, events, duration(config.update.every))
    arm = recent.decisions.arm
    usual = np.zeros(recent.n_users, dtype=bool)
    if arm is not None:
        usual[recent.decisions.user[arm == USUAL]] = True
    if usual.any():
        pace = replace(pace, rates=LogPace.measure(recent.select_users(usual), events, pace.period).rates)
    return pace

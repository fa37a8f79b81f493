"""Start a run without a log of decisions: everybody is decided for at random until rewards have closed."""

from __future__ import annotations

from crosschannel.agents import make_agent
from crosschannel.core.times import duration
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.history import History
from crosschannel.pipeline.building import AgentSpec
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.pricing import LogPace
from crosschannel.pipeline.run_files import TrainedWith
from crosschannel.pipeline.run_folder import Run

#: The policy of the first days: every eligible action of each module with equal probability.
START = "uniform"


def start(run: Run, history: History) -> Run:
    """Give a new run its first policy, which draws every eligible action with equal probability.

    Updates replace that policy by one that has learned as soon as rewards have closed. Constraints do not hold before,
    since nothing is known yet of what they limit.

    Args:
        run: The run, whose folder has been made.
        history: The log, which need not have decisions.

    Returns:
        The run with this policy in use.

    Raises:
        OutputError: If the folder cannot be written.
    """
    config, policies = run.config, Policies(run.path)
    features = ContextFeatures.fit(history, config.context)
    spec = AgentSpec(name=START, context_dim=features.dim, settings={}, seed=config.seed)
    agent = make_agent(modules=history.modules, **spec)
    pace = LogPace(duration(config.update.every), {})
    trained_with = TrainedWith(config, history.fingerprint(), features, pace).to_dict()
    policies.use(policies.write(agent, spec, {"run": trained_with, "slot": 0}))
    return Run.open_in_use(run.path, allow_classes=run.allowed_classes)

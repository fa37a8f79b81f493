"""Start a run without a log of decisions: everybody is decided for at random until rewards have closed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from crosschannel.agents import make_agent
from crosschannel.core.times import duration
from crosschannel.histories.features import ContextFeatures
from crosschannel.histories.history import History
from crosschannel.pipeline.building import AgentSpec
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.pricing import LogPace
from crosschannel.pipeline.run_files import TrainedWith
from crosschannel.pipeline.run_folder import Run

#: The policy of the first days: every eligible action of each module with equal probability.
START = "uniform"


def start(config: Config, history: History, out: Path) -> Run:
    """Make the folder of a run whose first policy draws every eligible action with equal probability.

    Updates replace that policy by one that has learned as soon as rewards have closed. Constraints do not hold before,
    since nothing is known yet of what they limit.

    Args:
        config: The configuration.
        history: The log, which need not have decisions.
        out: Folder of the run.

    Raises:
        ConfigError: If the folder is in use.
        OutputError: If it cannot be written.
    """
    with ExitStack() as locks:
        run = Run.create(config, out, locks)
        features = ContextFeatures.fit(history, config.context)
        spec = AgentSpec(name=START, context_dim=features.dim, settings={}, seed=config.seed)
        agent = make_agent(modules=history.modules, **spec)
        pace = LogPace(duration(config.update.every), {})
        trained_with = TrainedWith(config, history.fingerprint(), features, pace).to_dict()
        policies = Policies(run.path)
        version = policies.write(agent, spec, {"run": trained_with, "slot": 0})
        policies.use(version)
    return Run.open_in_use(run.path)

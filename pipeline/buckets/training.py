"""Train an agent on a bucketed log, and judge its policy on a sample of the test users."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from crosschannel import agents
from crosschannel.agents.leaves.learning import Schedule, check_learns, learn_from_leaves
from crosschannel.agents.leaves.leaves import Leaves
from crosschannel.core.errors import ConfigError, InputError, NotIdentified
from crosschannel.core.files import check_version, replacing
from crosschannel.envs.replay import ReplayLog
from crosschannel.pipeline.buckets.leaf_rows import fit_rewards, write_leaves
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import BucketedLog, read_log, summary
from crosschannel.pipeline.buckets.sampling import data_of_sample, sample_notes, scratch_of
from crosschannel.pipeline.building import TrainingData, agent_spec
from crosschannel.pipeline.command_line import logger, resumable
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.judging import explain_policy, judge
from crosschannel.pipeline.judgement.validation import Validation
from crosschannel.pipeline.monitoring import Monitor
from crosschannel.pipeline.pricing import check_priceable, price_messages
from crosschannel.pipeline.report.model_card import write_model_card
from crosschannel.pipeline.run_files import RunLock, TrainedWith
from crosschannel.pipeline.run_folder import Run, check_run_folder
from crosschannel.reward.buckets.passes import check_kind

LOG_FILE = "log.json"
#: Version of the files that an interrupted training leaves to the one that resumes it.
SCRATCH_VERSION = 1
#: What TensorBoard shows of a training over buckets stands at this step: there is one fit, and no replay.
STEP = 1


def train_on_buckets(
    config: Config, out: Path | None = None, resume: Run | None = None, *, force: bool = False, passes: Passes
) -> Run:
    """Train an agent on a bucketed log, and judge its policy; no step holds more than a few buckets in memory.

    Args:
        config: The configuration.
        out: Exact folder of the run; by default that of the configuration, with a number where it is taken.
        resume: A run that was interrupted; it is resumed to the same bits.
        force: Replace the run that stands at `out`.
        passes: How functions run over buckets and leaves.

    Returns:
        The finished run.

    Raises:
        ConfigError: If the settings do not fit the log or buckets, a resumed run's log has changed, or `out` is taken.
        InputError: If a bucket cannot be read.
        NotIdentified: If the log tells too little.
    """
    with ExitStack() as locks:
        if resume is None:
            check_run_folder(config, out, force)
        else:
            locks.enter_context(RunLock(resume.path))
        check_kind(config.reward.kind)
        check_learns(config.agent.name)
        run = resume or Run.create(config, out, locks)
        logger.info(f"writing to {run.path}")
        scratch = scratch_of(run.path)
        with resumable(run.path):
            try:
                log = read_log(run.config, scratch, passes, learns=True)
                _check_unchanged(run, log)
                data, leaves = _prepare(run.config, log, scratch, passes)
                agent = agents.make_agent(
                    modules=log.buckets.modules, device=run.config.device, **agent_spec(run.config, data)
                )
                check_priceable(agent, run.config.constraints)
                scalars = learn_from_leaves(agent, leaves, passes.named("learning"), _schedule(run.config))
            except (ConfigError, InputError, NotIdentified):
                if resume is None:
                    _discard(run)  # a run that cannot start leaves nothing behind
                raise
            data = _write_policy(run, data, agent)
            del agent
            _judge(run, log, data, scalars)
            shutil.rmtree(scratch, ignore_errors=True)
        return run


def _schedule(config: Config) -> Schedule:
    return Schedule(config.train.num_envs, config.train.offline_updates, config.train.updates_per_step)


def _check_unchanged(run: Run, log: BucketedLog) -> None:
    """Remember a log by its fingerprint; refuse another one in a resumed run.

    Raises:
        ConfigError: If it is another one.
    """
    path = scratch_of(run.path) / LOG_FILE
    if path.is_file():
        found = json.loads(path.read_text())
        found = {"log": found} if isinstance(found, str) else found
        check_version(found.get("version"), SCRATCH_VERSION, path)
        if found.get("log") != log.fingerprint:
            raise ConfigError(f"the history of run {run.path} has changed: restore it, or train a new run")
        return
    with replacing(path) as draft:
        draft.write_text(json.dumps({"version": SCRATCH_VERSION, "log": log.fingerprint}))


def _prepare(config: Config, log: BucketedLog, scratch: Path, passes: Passes) -> tuple[TrainingData, Leaves]:
    """Fit contexts and rewards, and write the rows of all leaves."""
    data = data_of_sample(config, log)
    logger.info(summary(log))
    if log.facts.unknown and config.reward.overlap != "shared":
        raise ConfigError(
            f"{log.facts.unknown:,} decisions have no propensity, and with `overlap: {config.reward.overlap}` rewards "
            "need one. Over buckets they are not estimated yet: estimate them before, or use `overlap: shared`"
        )
    rewards = fit_rewards(log, data.train.history, config.reward, passes)
    leaves = write_leaves(log, rewards, data.features, scratch, passes)
    logger.info(f"{leaves.rows:,} decisions of training users have a reward, in {len(leaves.folders)} leaves")
    return data, leaves


def _write_policy(run: Run, data: TrainingData, agent: agents.Agent) -> TrainingData:
    """Write the policy; return the data with the price of a message, which is learned from the sample."""
    config, train = run.config, data.train
    if config.constraints.discount:
        replay = ReplayLog.build(
            train.history, train.rewards, train.features, observations=train.observations, min_steps=1
        )
        data = replace(data, pace=price_messages(agent, replay, config.constraints, data.pace))
    trained_with = TrainedWith(config, data.fingerprint, data.features, data.pace).to_dict()
    agents.save_policy(agent, run.policy, agent_spec(config, data), {"run": trained_with})
    return data


def _judge(run: Run, log: BucketedLog, data: TrainingData, scalars: Mapping[str, float]) -> None:
    """Judge the policy as it was written, and write the result and what TensorBoard shows."""
    config = run.config
    written, _ = agents.load_policy(run.policy, config.device, allow_classes=run.allowed_classes)
    notes = sample_notes(config, log, data)
    for note in notes:
        logger.warning(note)
    monitor = Monitor(run.tensorboard, log.buckets.modules, resume_from=0)
    monitor.rewards(data.train.rewards)
    monitor.event_study(data.train)
    monitor.losses(scalars)
    monitor.write(STEP)
    if (validation := Validation.build(config, data)) is not None:
        monitor.layout(validation.orders, validation.order)
        monitor.scores(validation.scores(written), STEP)
    policy = explain_policy(config, data, written)
    monitor.policy_table(policy.table, STEP)
    monitor.close()
    result = judge(config, data, written, policy, notes)
    run.write_result(result, data.fingerprint)
    write_model_card(run, result)
    run.finish(result)


def _discard(run: Run) -> None:
    """Remove what a run has written that could not start."""
    for item in run.path.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)

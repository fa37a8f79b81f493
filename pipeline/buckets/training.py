"""Train an agent on a bucketed log, and judge its policy on a sample of the test users."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crosschannel import agents
from crosschannel.agents.leaves.learning import Schedule, check_learns, check_learns_from, learn_from_leaves
from crosschannel.agents.leaves.leaves import Leaves
from crosschannel.core.errors import ConfigError, InputError, NotIdentified, OutputError
from crosschannel.core.files import check_version, replacing
from crosschannel.envs.replay import ReplayLog
from crosschannel.pipeline.buckets.leaf_rows import over_training_users, write_leaves
from crosschannel.pipeline.buckets.passes import Passes
from crosschannel.pipeline.buckets.reading import BucketedLog, read_log, summary
from crosschannel.pipeline.buckets.sampling import data_of_sample, sample_notes
from crosschannel.pipeline.building import TrainingData, agent_spec
from crosschannel.pipeline.command_line import logger, resumable
from crosschannel.pipeline.configuration import Config, read_config, write_config
from crosschannel.pipeline.judgement.judging import explain_policy, judge
from crosschannel.pipeline.judgement.validation import Validation
from crosschannel.pipeline.pricing import check_priceable, price_messages
from crosschannel.pipeline.report.model_card import write_model_card
from crosschannel.pipeline.run_files import (
    RunLock,
    TrainedWith,
    check_same_settings,
    remove_left_scratch,
    scratch_folder,
)
from crosschannel.pipeline.run_folder import Run, check_run_folder
from crosschannel.pipeline.training.monitoring import Monitor
from crosschannel.reward.buckets.passes import check_kind, fit_rewards

#: What a run that was interrupted has kept of its log, in its folder; it is removed at the end.
SCRATCH_FOLDER = ".scratch.part"
#: Below it: the fingerprint of the log, and the configuration with which it was read.
LOG_FILE, CONFIG_FILE = "log.json", "config.yaml"
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
        force: Replace the run that stands at `out`, once the log was read and the settings fit it.
        passes: How functions run over buckets and leaves.

    Returns:
        The finished run.

    Raises:
        ConfigError: If the settings do not fit the log or buckets, a resumed run's log or configuration has changed,
            or `out` is taken.
        InputError: If a bucket cannot be read.
        NotIdentified: If the log tells too little.
    """
    with ExitStack() as locks:
        if resume is None:
            check_run_folder(config, out, force)
        else:
            locks.enter_context(RunLock(resume.path))
        if folder := resume.path if resume else out:
            remove_left_scratch(folder)
        check_kind(config.reward.kind)
        check_learns(config.agent.name)
        if resume is None and out is not None and Run.is_at(out):
            run, prepared = _prepare_aside(config, out, passes, locks)
        else:
            run = resume or Run.create(config, out, locks, force=force)
            prepared = _prepare_within(run, passes, is_new=resume is None)
        with resumable(run.path):
            log, data, agent = prepared.log, prepared.data, prepared.agent
            with _discarded(run, is_new=resume is None):
                scalars = learn_from_leaves(agent, prepared.leaves, passes.named("learning"), _schedule(config))
            data = _write_policy(run, data, agent)
            del agent, prepared  # frees the sums, which are large: what is judged is the policy as it was written
            _judge(run, log, data, scalars)
            shutil.rmtree(run.path / SCRATCH_FOLDER, ignore_errors=True)
        return run


def _schedule(config: Config) -> Schedule:
    return Schedule(config.train.num_envs, config.train.offline_updates, config.train.updates_per_step)


@dataclass(frozen=True)
class _Prepared:
    """What an agent learns from, and the agent, to which nothing was shown yet.

    Attributes:
        log: The log.
        data: Its sample.
        leaves: The rows.
        agent: The agent.
    """

    log: BucketedLog
    data: TrainingData
    leaves: Leaves
    agent: agents.Agent

    def moved(self, scratch: Path, to: Path) -> _Prepared:
        """Move the files of the log and the rows to another folder.

        Raises:
            OutputError: If that is not possible.
        """
        try:
            shutil.move(scratch, to)  # it copies to another disk
        except OSError as error:
            raise OutputError(f"{to} cannot be written: {error.strerror or error}") from None
        places = tuple(to / part.relative_to(scratch) for part in self.leaves.parts if isinstance(part, Path))
        return replace(self, leaves=replace(self.leaves, parts=places))


def _prepare_within(run: Run, passes: Passes, *, is_new: bool) -> _Prepared:
    """Prepare in the run's own folder, where what was interrupted is resumed; a run that cannot start leaves nothing.

    Args:
        run: The run.
        passes: How functions run over buckets and leaves.
        is_new: Whether the run begins.
    """
    logger.info(f"writing to {run.path}")
    with resumable(run.path), _discarded(run, is_new=is_new):
        return _prepare(run.config, run.path / SCRATCH_FOLDER, passes, run.path / "config.yaml")


def _prepare_aside(config: Config, out: Path, passes: Passes, locks: ExitStack) -> tuple[Run, _Prepared]:
    """Prepare in a folder of the run that is replaced, whose files go when nothing can be wrong with the new one.

    There `forget` and the next training find what a killed process leaves.
    """
    with scratch_folder(out.absolute()) as aside:
        scratch = aside / SCRATCH_FOLDER
        prepared = _prepare(config, scratch, passes, out / "config.yaml")
        run = Run.create(config, out, locks, force=True, keep=aside.name)
        logger.info(f"writing to {run.path}")
        return run, prepared.moved(scratch, run.path / SCRATCH_FOLDER)


def _prepare(config: Config, scratch: Path, passes: Passes, path: Path) -> _Prepared:
    """Read the log, fit contexts and rewards, write the rows of all leaves, and make the agent.

    All that can be wrong with the settings or the log shows here.

    Args:
        config: The configuration.
        scratch: Folder for columns and rows.
        passes: How functions run over buckets.
        path: The file of the configuration, which a fault is reported in.
    """
    _check_same_settings(config, scratch, path)
    log = read_log(config, scratch, passes, learns=True)
    _check_same_log(log, scratch, path.parent)
    data = data_of_sample(config, log)
    logger.info(summary(log))
    if log.facts.unknown and config.reward.overlap != "shared":
        raise ConfigError(
            f"{log.facts.unknown:,} decisions have no propensity, and with `overlap: {config.reward.overlap}` rewards "
            "need one. Over buckets they are not estimated yet: estimate them before, or use `overlap: shared`"
        )
    largest, run = np.array(log.facts.largest), over_training_users(log, passes)
    rewards = fit_rewards(data.train.history, config.reward, largest, run)
    leaves = write_leaves(log, rewards, data.features, scratch, passes)
    logger.info(f"{leaves.rows:,} decisions of training users have a reward, in {len(leaves.parts)} leaves")
    agent = agents.make_agent(modules=log.buckets.modules, device=config.device, **agent_spec(config, data.features))
    check_priceable(agent, config.constraints)
    check_learns_from(agent, leaves)
    return _Prepared(log, data, leaves, agent)


def _check_same_settings(config: Config, scratch: Path, path: Path) -> None:
    """Remember the configuration before anything is read with it; refuse another one where a run is resumed.

    What was read is of the users whom the seed and the shares chose, and what was written is in the units of the
    rewards: with other settings it would be mixed with what is read from now on.

    Raises:
        ConfigError: With a line for each setting that differs.
    """
    kept = scratch / CONFIG_FILE
    if kept.is_file():
        check_same_settings(read_config(kept), config, path, ended=False)
    else:
        write_config(config, kept)


def _check_same_log(log: BucketedLog, scratch: Path, run: Path) -> None:
    """Remember a log by its fingerprint; refuse another one in a resumed run.

    Raises:
        ConfigError: If it is another one.
    """
    path = scratch / LOG_FILE
    if path.is_file():
        found = json.loads(path.read_text())
        found = {"log": found} if isinstance(found, str) else found  # as it was before it had a version
        check_version(found.get("version"), SCRATCH_VERSION, path)
        if found.get("log") != log.fingerprint:
            raise ConfigError(f"the history of run {run} has changed: restore it, or train a new run")
        return
    with replacing(path) as draft:
        draft.write_text(json.dumps({"version": SCRATCH_VERSION, "log": log.fingerprint}))


def _write_policy(run: Run, data: TrainingData, agent: agents.Agent) -> TrainingData:
    """Write the policy; return the data with the price of a message, which is learned from the sample."""
    config, train = run.config, data.train
    if config.constraints.discount:
        replay = ReplayLog.build(
            train.history, train.rewards, train.features, observations=train.observations, min_steps=1
        )
        data = replace(data, pace=price_messages(agent, replay, config.constraints, data.pace))
    trained_with = TrainedWith(config, data.fingerprint, data.features, data.pace).to_dict()
    agents.save_policy(agent, run.policy, agent_spec(config, data.features), {"run": trained_with})
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


@contextmanager
def _discarded(run: Run, *, is_new: bool) -> Iterator[None]:
    """Remove what a new run has written if it cannot start."""
    try:
        yield
    except (ConfigError, InputError, NotIdentified):
        if is_new:
            for item in run.path.iterdir():
                if item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item, ignore_errors=True)
                else:
                    item.unlink(missing_ok=True)
        raise

"""Learn a messaging policy from a logged history, and estimate its value.

  crosschannel train                                         the default market, simulated
  crosschannel train --config FILE --history.path FOLDER     a log, described in FILE
  crosschannel train --config FILE --train.num-envs 256      any setting as a dotted flag
  crosschannel train --resume runs/market                    resume a run, to the same bits
  crosschannel train --config FILE --engine processes        a log in buckets, on two processes

A run writes config.yaml, checkpoint.pt, policy.pt, metrics.json, evaluation.json, policy.csv,
MODEL_CARD.md and tensorboard/ to a folder of its own. A log in buckets (`crosschannel bucket`) is
never in memory as a whole: see docs/scale.md. In a checkout, `python train.py` is the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from crosschannel import agents, envs, pipeline
from crosschannel.core import ConfigError
from crosschannel.engines import Engine, make_engine, run_locally
from crosschannel.pipeline.command_line import (
    Parser,
    UsageError,
    invocation,
    logger,
    one_thread,
    program,
    resumable,
)
from crosschannel.pipeline.configuration import Config, check_name
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.run_files import RunLock, TrainedWith
from crosschannel.pipeline.run_folder import Run, check_classes, check_run_folder
from crosschannel.pipeline.simulation.simulating import is_simulation

# `agents.NAME` and the like are imported on first use, so that help and wrong flags do not wait for PyTorch.


@one_thread()
def train(
    config: Config,
    out: Path | None = None,
    resume: Run | None = None,
    *,
    force: bool = False,
    engine: Engine = run_locally,
    callbacks: Sequence[pipeline.Callback] = (),
) -> Run:
    """Train an agent on the history that a configuration names, and judge its policy.

    Args:
        config: The configuration.
        out: Exact folder of the run; by default that of the configuration, with a number where it is taken.
        resume: A run that was interrupted; it is resumed to the same bits.
        force: Replace the run that stands at `out`.
        engine: What runs the passes over a log in buckets.
        callbacks: What watches the training and may end it early, after those that `train.callbacks` names.

    Returns:
        The finished run: its folder with the policy, the metrics and the evaluation.

    Raises:
        ConfigError: If the settings do not fit the history, a resumed run's history has changed, or `out` is taken.
        InputError: If the history cannot be read.
    """
    check_classes(config)
    pipeline.check_procedure(config)
    if resume is not None:
        if is_simulation(resume.path):
            again = invocation("simulate", "--resume", resume.path)
            raise ConfigError(f"{resume.path} is the folder of a simulation and no training: resume it with `{again}`")
        resume.check_trains()
    if pipeline.reads_buckets(config):
        if callbacks or config.train.callbacks:
            raise ConfigError("callbacks watch steps, and a log in buckets is learned in passes: leave them out")
        passes = pipeline.Passes(engine)
        return pipeline.train_on_buckets(config, out, resume, force=force, passes=passes)
    with ExitStack() as locks:
        if resume is None:
            check_run_folder(config, out, force)
        else:
            locks.enter_context(RunLock(resume.path))
        earlier = resume.resumes_from() if resume else None
        # Everything that can be wrong with the settings or the log shows before a new run's folder is made.
        watching = pipeline.Callbacks.build(config, callbacks)
        data = pipeline.prepare(config, earlier.features if earlier else None)
        logger.info(data.history.summary())
        if resume and earlier and earlier.history != data.fingerprint:
            raise ConfigError(f"the history of run {resume.path} has changed: restore it, or train a new run")
        log, agent = make_learner(config, data)
        run = resume or Run.create(config, out, locks, force=force)
        logger.info(f"writing to {run.path}")

        with resumable(run.path):
            policy, data, training = learn(run, data, log, agent, watching)
            del agent, log  # frees the observed rows: what is judged is the policy as it was written
            written, _ = agents.load_policy(run.policy, config.device, allow_classes=run.allowed_classes)
            result = pipeline.judge(run.config, data, written, policy)
            run.write_result(result, data.fingerprint)
            pipeline.write_model_card(run, result)
            watching.end(replace(training, agent=written), result)
            run.finish(result)
        return run


def make_learner(config: Config, data: pipeline.TrainingData) -> tuple[envs.replay.ReplayLog, agents.Agent]:
    """Return the log of the training users that an agent replays, and the agent that has not learned yet.

    Raises:
        ConfigError: If the agent cannot keep the constraints.
    """
    split = data.train
    if split.losses.warning:
        logger.warning(f"training decisions: {split.losses.warning}")
    log = envs.replay.ReplayLog.build(
        split.history, split.rewards, split.features, observations=split.observations, min_steps=1
    )
    logger.info(log.summary())
    agent = agents.make_agent(modules=log.modules, device=config.device, **pipeline.agent_spec(config, data.features))
    pipeline.check_priceable(agent, config.constraints)
    del split.observations  # the replay log holds them now, and they are large
    return log, agent


def learn_fold(run: Run, data: pipeline.TrainingData) -> None:
    """Learn as `train` does, but from all folds of users but one: see `pipeline.value_procedure`.

    Args:
        run: Where the agent is written, and the configuration of the fold.
        data: The history, divided into the users to learn from and those of the fold.
    """
    learn(run, data, *make_learner(run.config, data), pipeline.Callbacks())


def learn(
    run: Run,
    data: pipeline.TrainingData,
    log: envs.replay.ReplayLog,
    agent: agents.Agent,
    callbacks: pipeline.Callbacks,
) -> tuple[pipeline.ExplainedPolicy, pipeline.TrainingData, pipeline.Training]:
    """Replay the training users once, with updates after every step, then update offline.

    The log pays its own actions, so that the agent chooses only at the steps whose choices are shown. Rewards of an
    ended log are known, so users are replayed in parallel whatever the date. All that the rest of the run depends on is
    in the checkpoint, so that an interrupted run resumes to the same bits.

    Returns:
        What the learned policy does at the test users' slots, the data with the price of a message, and how far the
        training came.
    """
    config = run.config
    env = envs.replay.CrossChannelReplayVector(min(config.train.num_envs, log.n_users), log)
    validation = pipeline.Validation.build(config, data)
    transitions = envs.replay.TransitionIndex.from_log(log)

    env.reset(seed=config.seed)
    training = pipeline.Training(run.path, config, agent)
    if run.checkpoint.is_file():
        saved = agents.restore_agent(agent, run.checkpoint)
        env.load_state_dict(saved["env"])
        callbacks.load_state_dict(saved.get("callbacks", []))
        training.restore(saved["done"])
        logger.info(f"{run.path} resumes from step {training.steps:,}")
    monitor = pipeline.Monitor(run.tensorboard, log.modules, resume_from=training.steps)
    if not training.steps:
        monitor.rewards(data.train.rewards)
        monitor.event_study(data.train)
        if validation is not None:
            monitor.layout(validation.orders, validation.order)

    spec = pipeline.agent_spec(config, data.features)
    trained_with = TrainedWith(config, data.fingerprint, data.features, data.pace).to_dict()

    def save() -> None:
        monitor.flush()
        state = {"env": env.state_dict(), "done": training.progress(), "callbacks": callbacks.state_dict()}
        agents.save_agent(agent, run.checkpoint, spec, {"run": trained_with, **state})

    def update() -> dict[str, str]:
        """Update the agent; write scalars and a checkpoint where they are due; return the progress bar's numbers."""
        training.losses = agent.update(config.train.updates_per_step)
        monitor.losses(training.losses)
        training.steps += 1
        training.stopped |= not callbacks.after_step(training)
        if training.steps % config.train.log_every == 0:
            monitor.write(training.steps)
        if training.steps % config.train.checkpoint_every == 0:
            if validation is not None:
                scores = validation.scores(agent)
                monitor.scores(scores, training.steps)
                training.stopped |= not callbacks.after_evaluation(training, scores)
            save()
            callbacks.checkpoint(training)
        return monitor.shown

    callbacks.start(training)

    # 1. Replay: the agent learns from what was logged.
    observation = env.observations()
    with tqdm(total=len(log), initial=training.decisions, desc="replaying", unit=" decisions", unit_scale=True) as bar:
        while env.passes_completed < 1 and not training.stopped:
            shown = (training.steps + 1) % config.train.log_every == 0
            if shown:
                mask = observation["action_mask"].astype(bool)
                decisions = agent.act(agents.Observations(observation["context"], mask))
                observation, _, _, _, info = env.step(decisions.actions)
            else:
                observation, _, _, _, info = env.step_logged()
            rows = info["_row"] & (info["pass"] == 0)
            batch = pipeline.batch_at(log, transitions, info["row"][rows])
            agent.observe(batch)
            monitor.replayed(batch)
            if shown:
                monitor.chosen(decisions[rows], info["matched_modules"][rows])
            training.decisions += len(batch)
            bar.set_postfix(update(), refresh=False)
            bar.update(len(batch))

    # 2. Offline: the agent learns from what it has observed.
    total = config.train.offline_updates
    with tqdm(total=total, initial=training.offline_updates, desc="learning", unit=" steps") as bar:
        while training.offline_updates < total and not training.stopped:
            training.offline_updates += 1
            bar.set_postfix(update(), refresh=False)
            bar.update()
    if training.stopped:
        logger.info(f"a callback ended the learning at step {training.steps:,}")
    save()
    data = replace(data, pace=pipeline.price_messages(agent, log, config.constraints, data.pace))
    trained_with = TrainedWith(config, data.fingerprint, data.features, data.pace).to_dict()
    agents.save_policy(agent, run.policy, spec, {"run": trained_with})
    policy = pipeline.explain_policy(config, data, agent)
    monitor.policy_table(policy.table, training.steps)
    monitor.close()
    return policy, data, training


def parse(arguments: Sequence[str] | None) -> tuple[Config, Run | None, argparse.Namespace]:
    """Return the configuration, the run to resume if any, and the program's own options.

    Raises:
        ConfigError: If the configuration is wrong, or there is no such run.
        UsageError: If a flag is wrong, or does not go together with the others.
    """
    parser = Parser("train", __doc__, "[--config FILE | --resume RUN] [--SETTING VALUE ...]")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="folder of the run to resume, as it was configured")
    parser.add_shared(
        "--allow-class",
        "--out",
        "--force",
        "--engine",
        "--engine-address",
        "--workers",
        out="folder of the run, in place of --run-dir and --name",
    )
    line = parse_settings(parser, arguments, without=("trial", "loop", "alerts"))
    resume, out = line.options.resume, line.options.out
    if resume is not None:
        if line.overrides or out:
            raise UsageError("--resume keeps the run's own settings: leave out --config, --out and all settings")
        run = Run.open(resume, line.options.allow_class, to_train=True)
        return run.config, run, line.options
    if out is not None:
        if {"--name", "--run-dir"} & set(line.overrides):
            raise UsageError("--out names the run's folder: leave out --name and --run-dir")
        check_name(out.name)
    check_run_folder(line.config, out, line.options.force)
    return line.config, None, line.options


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, train, print what was found; return the exit code."""
    config, resumed, options = parse(arguments)
    if resumed and resumed.ended:
        Run.open_ended(resumed.path, allow_classes=resumed.allowed_classes)  # whose files are those of its training
        print(f"run {resumed.path} is finished: its metrics are in {resumed.metrics}\n{pipeline.next_steps(resumed)}")
        return 0
    run = train(
        *(config, options.out, resumed),
        force=options.force,
        engine=make_engine(options.engine, options.workers, options.engine_address),
    )
    print(f"{run.stored_result()}\n\n{pipeline.next_steps(run)}")
    return 0


if __name__ == "__main__":
    program(main)

"""Learn a messaging policy from a logged history, and estimate its value.

  crosschannel train                                         the default market, simulated
  crosschannel train --config FILE --history.path FOLDER     a log, described in FILE
  crosschannel train --config FILE --train.num-envs 256      any setting as a dotted flag
  crosschannel train --resume runs/market                    resume a run, to the same bits

A run writes config.yaml, checkpoint.pt, metrics.json and tensorboard/ to a folder of its own.
In a checkout, `python train.py` is the same command.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from crosschannel import agents, evaluation, pipeline
from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay.log import ReplayLog
from crosschannel.envs.replay.vector import CrossChannelReplayVector
from crosschannel.histories.fingerprint import fingerprint
from crosschannel.pipeline.command_line import Parser, UsageError, logger, program, refuse_existing, resumable
from crosschannel.pipeline.configuration import Config, check_name
from crosschannel.pipeline.flags import parse_settings
from crosschannel.pipeline.run_folder import Run, write_json

# `agents.NAME` and `pipeline.NAME` are imported on first use, so that help and wrong flags do not wait for PyTorch.


def train(
    run: Run,
    prepared: pipeline.Prepared,
    log: ReplayLog,
    agent: agents.Agent,
    outcome_model: evaluation.OutcomeModel,
) -> None:
    """Replays the training users once, learning after every step, then learns on without replay.

    The log has ended, so every reward it holds is known, and users are replayed side by side whatever the date. All
    that the rest of the run depends on is in the checkpoint, so that an interrupted run goes on to the same bits.
    """
    config = run.config
    env = CrossChannelReplayVector(min(config.train.num_envs, log.n_users), log)
    validation = pipeline.Validation.of(config, prepared, outcome_model)
    followers = pipeline.Followers.of(log)

    env.reset(seed=config.seed)
    done = {"steps": 0, "decisions": 0, "offline_updates": 0}
    if run.checkpoint.is_file():
        saved = agents.restore_agent(agent, run.checkpoint)
        env.load_state_dict(saved["env"])
        done = dict(saved["done"])
        logger.info(f"{run.path} resumes from step {done['steps']:,}")
    monitor = pipeline.Monitor(run.tensorboard, log.modules, resume_from=done["steps"])
    if not done["steps"]:
        monitor.rewards(prepared.rewards)
        monitor.event_study(prepared.model, prepared.train)

    def save() -> None:
        monitor.flush()
        agents.save_agent(
            agent, run.checkpoint, pipeline.recipe_of(config, prepared), {"env": env.state_dict(), "done": done}
        )

    def learn() -> dict[str, str]:
        """Updates the agent; every so often writes scalars and a checkpoint. Gives the numbers for the bar."""
        monitor.losses(agent.update(config.train.updates_per_step))
        done["steps"] += 1
        if done["steps"] % config.train.log_every == 0:
            monitor.write(done["steps"])
        if done["steps"] % config.train.checkpoint_every == 0:
            if validation is not None:
                monitor.scores(validation.scores(agent), done["steps"])
            save()
        return monitor.shown

    # 1. Replay: the agent decides, the log answers with what was really done, and the agent learns from that.
    observation = env.observations()
    with tqdm(total=len(log), initial=done["decisions"], desc="replaying", unit=" decisions", unit_scale=True) as bar:
        while env.passes_completed < 1:
            seen = agents.Observations(observation["context"], observation["action_mask"].astype(bool))
            decisions = agent.act(seen)
            observation, reward, _, _, info = env.step(decisions.actions)
            rows = info["_executed_action"] & (info["pass"] == 0)
            step = followers.rows(info["key"][rows])
            batch = agents.Batch(
                followers.observations(step),
                info["executed_action"][rows],
                reward[rows],
                info["se"][rows],
                info["key"][rows],
                *followers.after(step),
            )
            agent.observe(batch)
            monitor.replayed(decisions, batch, rows, info["matched_modules"])
            done["decisions"] += len(batch)
            bar.set_postfix(learn(), refresh=False)
            bar.update(len(batch))

    # 2. Learn on from what was observed.
    with tqdm(
        total=config.train.offline_updates, initial=done["offline_updates"], desc="learning", unit=" steps"
    ) as bar:
        while done["offline_updates"] < config.train.offline_updates:
            done["offline_updates"] += 1
            bar.set_postfix(learn(), refresh=False)
            bar.update()
    monitor.explained(pipeline.explained(config, prepared, agent), done["steps"])
    save()
    monitor.close()


def parse(arguments: Sequence[str] | None) -> tuple[Config, Run | None, Path | None]:
    """Return the configuration, the run to resume if any, and the folder that the run is to have if one is named.

    Raises:
        ConfigError: If the configuration is wrong, or there is no such run.
        UsageError: If a flag is wrong, or does not go together with the others.
    """
    parser = Parser("train", __doc__, "[--config FILE | --resume RUN] [--SETTING VALUE ...]")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="folder of the run to resume, as it was configured")
    parser.add_shared("--out", "--force", out="exact folder of the run, in place of --run-dir and --name")
    line = parse_settings(parser, arguments)
    resume, out = line.options.resume, line.options.out
    if resume is not None:
        if line.overrides or out:
            raise UsageError("--resume keeps the run's own settings: leave out --config, --out and all settings")
        run = Run.open(resume)
        return run.config, run, None
    if out is not None:
        if {"--name", "--run-dir"} & set(line.overrides):
            raise UsageError("--out names the run's folder: leave out --name and --run-dir")
        check_name(out.name)
        refuse_existing(out, line.options.force)
    return line.config, None, out


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, build, learn, evaluate, write; return the exit code."""
    config, resumed, out = parse(arguments)
    if resumed and resumed.ended:
        print(f"run {resumed.path} is finished: its metrics are in {resumed.metrics}\n{pipeline.next_steps(resumed)}")
        return 0

    # Everything that can be wrong with the settings or the log shows before a new run's folder is made.
    prepared = pipeline.prepare(config, resumed.features() if resumed else None)
    logger.info(prepared.history.summary())
    log = ReplayLog.build(prepared.train, prepared.rewards, prepared.features, guardrails=config.guardrails)
    logger.info(log.summary())
    agent = agents.make_agent(modules=log.modules, device=config.device, **pipeline.recipe_of(config, prepared))
    outcome_model = pipeline.fit_outcome_model(prepared)
    known = fingerprint(prepared.history)
    if resumed and not resumed.same_history(known):
        raise ConfigError(f"the history of run {resumed.path} has changed: restore it, or train a new run")
    run = resumed or Run.create(config, prepared.features, known, out)
    logger.info(f"writing to {run.path}")

    with resumable(run.path):
        train(run, prepared, log, agent, outcome_model)
        result = pipeline.assess(run.config, prepared, agent, outcome_model, logger.info)
    write_json(pipeline.metrics_of(result), run.metrics)
    print(f"{pipeline.summary_text(result)}\n\n{pipeline.next_steps(run)}")
    return 0


if __name__ == "__main__":
    program(main)

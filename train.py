"""Learns a messaging policy from a logged history, and says what it is worth.

    python train.py                                             the default market, simulated
    python train.py --config configs/starbucks_rewards.yaml --history.path FOLDER
    python train.py --config FILE --train.envs 256              any setting as a dotted flag
    python train.py --resume runs/market                        go on after an interruption, to the same bits

A run writes runs/NAME/: config.yaml, checkpoint.pt, policy.pt, metrics.json and tensorboard/.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from crosschannel.agents import Agent, Observations, make_agent, restore_agent, save_agent, save_policy
from crosschannel.core.errors import ConfigError
from crosschannel.envs.replay import CrossChannelReplayVector, ReplayLog, TransitionIndex
from crosschannel.evaluation import OutcomeModel
from crosschannel.pipeline.batches import batch_at
from crosschannel.pipeline.building import Prepared, agent_spec, prepare
from crosschannel.pipeline.command_line import ROOT, program, say, settings_of
from crosschannel.pipeline.judging import Validation, assess, explained, fit_outcome_model
from crosschannel.pipeline.monitoring import Monitor
from crosschannel.pipeline.run_folder import Run, write_json
from crosschannel.pipeline.summary import metrics_of, summary_text


def train(run: Run, prepared: Prepared, log: ReplayLog, agent: Agent, outcome_model: OutcomeModel) -> None:
    """Replays the training users once, learning after every step, then learns on without replay.

    The log pays its own actions, so that the agent chooses only at the steps whose choices are shown.

    The log has ended, so every reward it holds is known, and users are replayed side by side whatever the date. All
    that the rest of the run depends on is in the checkpoint, so that an interrupted run goes on to the same bits.
    """
    config = run.config
    env = CrossChannelReplayVector(min(config.train.envs, log.n_users), log)
    validation = Validation.of(config, prepared, outcome_model)
    transitions = TransitionIndex.from_log(log)

    env.reset(seed=config.seed)
    done = {"steps": 0, "decisions": 0, "final_steps": 0}
    if run.checkpoint.is_file():
        saved = restore_agent(agent, run.checkpoint)
        env.load_state_dict(saved["env"])
        done = dict(saved["done"])
        say(f"{run.path} goes on from step {done['steps']:,}")
    writer = SummaryWriter(str(run.tensorboard), purge_step=done["steps"] + 1 if done["steps"] else None)
    monitor = Monitor(writer, log.modules)
    if not done["steps"]:
        monitor.rewards(prepared.train.rewards)
        monitor.event_study(prepared.train)

    def save() -> None:
        writer.flush()
        save_agent(agent, run.checkpoint, agent_spec(config, prepared), {"env": env.state_dict(), "done": done})

    def learn() -> dict[str, str]:
        """Updates the agent; every so often writes scalars and a checkpoint. Gives the numbers for the bar."""
        monitor.losses(agent.update(config.train.updates))
        done["steps"] += 1
        if done["steps"] % config.train.log_every == 0:
            monitor.write(done["steps"])
        if done["steps"] % config.train.checkpoint_every == 0:
            if validation is not None:
                monitor.scores(validation.scores(agent), done["steps"])
            save()
        return monitor.shown

    # 1. Replay: the log says what was really done, and the agent learns from that.
    observation = env.observations()
    with tqdm(total=len(log), initial=done["decisions"], desc="replaying", unit=" decisions", unit_scale=True) as bar:
        while env.passes_completed < 1:
            shown = (done["steps"] + 1) % config.train.log_every == 0
            if shown:
                decisions = agent.act(Observations(observation["context"], observation["action_mask"].astype(bool)))
                observation, _, _, _, info = env.step(decisions.actions)
            else:
                observation, _, _, _, info = env.step_logged()
            rows = info["_row"] & (info["pass"] == 0)
            batch = batch_at(log, transitions, info["row"][rows])
            agent.observe(batch)
            monitor.replayed(batch)
            if shown:
                monitor.chosen(decisions[rows], info["matched_modules"][rows])
            done["decisions"] += len(batch)
            bar.set_postfix(learn(), refresh=False)
            bar.update(len(batch))

    # 2. Learn on from what was observed.
    with tqdm(total=config.train.final_steps, initial=done["final_steps"], desc="learning", unit=" steps") as bar:
        while done["final_steps"] < config.train.final_steps:
            done["final_steps"] += 1
            bar.set_postfix(learn(), refresh=False)
            bar.update()
    monitor.explained(explained(config, prepared, agent), done["steps"])
    save()
    save_policy(agent, run.policy, agent_spec(config, prepared), prepared.features.state_dict())
    writer.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses, builds, learns, judges, writes; returns the exit code."""
    settings = settings_of(arguments, default=ROOT / "configs" / "market.yaml", description=__doc__ or "")
    resumed = Run.open(settings.resume) if settings.resume else None
    if resumed and resumed.ended:
        where = resumed.path
        print(f"{where} has ended already: its numbers are in {resumed.metrics}.\nNext: python evaluate.py {where}")
        return 0
    config = resumed.config if resumed else settings.config

    # Everything that can be wrong with the settings or the log shows before a new run's folder is made.
    prepared = prepare(config, resumed.features() if resumed else None)
    say(prepared.history.summary())
    split = prepared.train
    log = ReplayLog.build(split.history, split.rewards, split.features, observations=split.observations)
    say(log.summary())
    agent = make_agent(modules=log.modules, device=config.device, **agent_spec(config, prepared))
    outcome_model = fit_outcome_model(prepared)
    known = prepared.history.fingerprint()
    if resumed and not resumed.same_history(known):
        raise ConfigError(f"the history of {resumed.path} has changed since the run began: restore it, or train anew")
    run = resumed or Run.create(config, prepared.features, known)
    say(f"writing to {run.path}")

    train(run, prepared, log, agent, outcome_model)
    assessment = assess(run.config, prepared, agent, outcome_model, say)
    write_json(metrics_of(assessment), run.metrics)
    print(summary_text(assessment, run))
    return 0


if __name__ == "__main__":
    program(main)

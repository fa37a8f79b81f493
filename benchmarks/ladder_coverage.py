"""How often the ladder's intervals contain the truth: policies of finished runs on the logs of other markets.

    python train.py --name a && python train.py --name b --history.market.seed 1 --seed 1
    python benchmarks/ladder_coverage.py runs/a runs/b --seeds 100:150 --scenario default

Each log is a new market of the runs' configuration with users whom the policy has never met, all of them evaluated. The
table has, for each order, the share of the logs in which its value is identified, and of these the share whose interval
contains the true value, the mean error in standard errors, and the mean effective sample size. Below it: how often the
headline widened by the true share of interactions contains the truth; how often a log says "better than the log" of a
policy that is not although its breakdown point is above that share; how often content modules were joined to factors,
and how often a pair of them is said to interact.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from crosschannel import agents
from crosschannel.evaluation import Evaluation, LoggedDecisions, evaluate
from crosschannel.pipeline import prepare
from crosschannel.pipeline.building import Split
from crosschannel.pipeline.judgement.judging import fit_outcomes, policy_at
from crosschannel.pipeline.run_folder import Run
from crosschannel.reward import refit


@dataclass(frozen=True)
class Judged:
    """One policy on one log: the evaluation, the true value and that of the logged policy, and what content adds."""

    evaluation: Evaluation
    truth: float
    logged: float


def judge(folder: Path, seed: int, scenario: str, users: int, replicates: int) -> Judged:
    """Evaluate the policy of a run on the log of another market."""
    run = Run.open_ended(folder)
    market = replace(run.config.history.market, seed=seed, users=users, scenario=scenario)
    config = replace(run.config, history=replace(run.config.history, market=market))
    agent, _ = agents.load_policy(run.policy)
    trained_with = run.trained_with("policy")
    data = replace(prepare(config, trained_with.features), pace=trained_with.pace)
    everyone = Split(data.history, data.model, data.features, data.guardrails)
    policy = policy_at(config, data, agent, everyone).probabilities
    history, frame = data.history, everyone.rewards
    outcomes = fit_outcomes(config, everyone)
    assert outcomes is not None
    assert data.truth is not None
    found = evaluate(
        LoggedDecisions.from_history(history),
        policy,
        refit(data.model, everyone.outcomes),
        rng=np.random.default_rng(seed),
        q_values=outcomes.q_values(everyone.observations.context, history.decisions.actions, policy),
        settings=replace(config.evaluation.estimation, bootstrap_replicates=replicates),
        p_uncensored=frame.p_uncensored,
    )
    rows = np.flatnonzero(frame.identified)
    p_uncensored = frame.p_uncensored[rows]
    weight = 1.0 / np.where(np.isnan(p_uncensored), 1.0, p_uncensored)
    modules = history.modules
    given = [modules.condition(m) for m in range(len(modules))]
    true = data.truth.expected_effect(rows, [p[rows] for p in policy], given)
    logged = data.truth.effect(rows, data.truth.actions[rows])
    return Judged(found, float(np.average(true, weights=weight)), float(np.average(logged, weights=weight)))


def table(judged: list[Judged]) -> str:
    """Return the table of orders and the lines below it."""
    lines = [f"{'order':8} {'identified':>10} {'covers':>8} {'mean z':>8} {'sd z':>6} {'ESS':>8}"]
    for order in range(len(judged[0].evaluation.ladder.orders)):  # type: ignore[union-attr]
        pairs = [(j.evaluation.ladder.orders[order], j.truth) for j in judged if j.evaluation.ladder is not None]
        known = [(e, truth) for e, truth in pairs if e.identified]
        z = np.array([(e.value.point - truth) / e.value.se for e, truth in known])
        covers = np.mean([e.value.contains(truth) for e, truth in known]) if known else np.nan
        ess = np.mean([e.support.ess for e, _ in pairs])
        spread = f"{z.mean():8.2f} {z.std():6.2f}" if known else f"{'-':>8} {'-':>6}"
        lines.append(f"{order:<8} {len(known) / len(pairs):10.3f} {covers:8.3f} {spread} {ess:8.0f}")
    widened = wrong = found = 0
    for j in judged:
        ladder = j.evaluation.ladder
        assert ladder is not None
        e = ladder.headline
        if not e.identified:
            continue
        found += 1
        content = abs(e.value.point - ladder.orders[0].value.point)
        # What interactions change, by the truth, as a share of what the log says that content adds.
        share = abs(mean_error(judged)) / max(content, 1e-12)
        widened += e.value.low - share * content <= j.truth <= e.value.high + share * content
        claims = ladder.breakdown is not None and e.difference.point > 0
        wrong += claims and j.truth <= j.logged and (ladder.breakdown or 0.0) > share
    joined = np.mean([len(j.evaluation.ladder.factors) < 5 for j in judged])  # type: ignore[union-attr]
    pairs_found = np.mean([any(p.p_value < 0.05 for p in j.evaluation.ladder.pairs) for j in judged])  # type: ignore[union-attr]
    lines += [
        f"headline identified in {found} of {len(judged)}; widened by the true share it has the truth in {widened}",
        f"'better than the log' of a policy that is not, above the true share: {wrong}",
        f"modules joined to factors in {joined:.3f} of logs, a pair said to interact in {pairs_found:.3f}",
    ]
    return "\n".join(lines)


def mean_error(judged: list[Judged]) -> float:
    """Return the mean error of order 1 over the logs: what interactions take away, but for noise."""
    errors = [
        j.evaluation.ladder.orders[1].value.point - j.truth
        for j in judged
        if j.evaluation.ladder is not None and j.evaluation.ladder.orders[1].identified
    ]
    return float(np.mean(errors)) if errors else 0.0


def main() -> None:
    """Judge every run on every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--seeds", default="100:120", help="first:last+1")
    parser.add_argument("--scenario", default="default")
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--replicates", type=int, default=200)
    chosen = parser.parse_args()
    first, last = map(int, chosen.seeds.split(":"))
    judged = []
    for k, seed in enumerate(range(first, last)):
        run = chosen.runs[k % len(chosen.runs)]
        judged.append(judge(run, seed, chosen.scenario, chosen.users, chosen.replicates))
        e = judged[-1].evaluation.ladder
        assert e is not None
        v = e.headline.value
        print(
            f"{seed} {run.name}: {v.point:+.4f} [{v.low:.4f}, {v.high:.4f}], truth {judged[-1].truth:+.4f}, "
            f"log {judged[-1].logged:+.4f}, ESS {e.headline.support.ess:.0f}, breakdown {e.breakdown}",
            e.headline.reason,
            flush=True,
        )
    print(table(judged))


if __name__ == "__main__":
    main()

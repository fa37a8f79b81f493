"""How often the ladder's intervals contain the truth: policies of finished runs on the logs of other markets.

    python train.py --name a && python train.py --name b --history.market.seed 1 --seed 1
    python -m benchmarks.ladder_coverage runs/a runs/b --seeds 100:300 --scenario default --records default.jsonl

Each log is a new market of the runs' configuration with users whom the policy has never met, all of them evaluated. A
log that the file of records has is not judged again, so that an interrupted benchmark can be continued. Without runs
(`--tilt 0.7`) the policy of each log changes the log's own probabilities by random factors, which needs no agent, no
context and no outcome model: half of the time.

The table has, for each order, step and module, in how many logs the value is identified, and the share of these whose
interval contains the exact value of what is estimated; for an order from 1 on that is the policy's value, which order 1
has only if the parts of a message add up, and beside it what order 1 estimates if they do not. Below it: how often
order 1's interval widened by g |V_1 - V_0| contains the policy's value, with g the exact share by which the market's
interactions change it; how often a log says "better than the log" of a policy that is not, although g is below its
breakdown point; how often content modules were joined to factors, and how often a pair of them is said to interact.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.ladder_truth import ExactValues, history_with_probabilities
from crosschannel import agents
from crosschannel.envs.market import Market
from crosschannel.evaluation import SNIPS, Evaluation, Interval, LoggedDecisions, evaluate
from crosschannel.pipeline import prepare
from crosschannel.pipeline.building import Split
from crosschannel.pipeline.configuration import load_config
from crosschannel.pipeline.judgement.judging import fit_outcomes, policy_at
from crosschannel.pipeline.run_folder import Run
from crosschannel.reward import make_reward, refit

#: The estimators of single modules that are listed.
MODULE_ESTIMATORS = ("dr", "snips")


#: Name of a number, its group, its point, bounds, standard error, effective sample size, and the exact value.
Row = tuple[str, str, float, float, float, float, float, float]


@dataclass(frozen=True)
class Judged:
    """One policy on one log.

    Attributes:
        seed: Seed of the market.
        run: Name of the policy's run.
        rows: Name of the number, group, point, lower and upper bound (NaN where not identified), standard error,
            effective sample size, and the exact value.
        exact: Exact values of the log, the policy, and of what orders 0 and 1 estimate.
        order: The order of the headline.
        breakdown: The breakdown point; None where there is none.
        factors: Number of factors.
        pairs: The pairs of factors that are said to interact, at .05 by Holm's method.
    """

    seed: int
    run: str
    rows: list[Row]
    exact: dict[str, float]
    order: int
    breakdown: float | None
    factors: int
    pairs: list[str]


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
    modules = history.modules
    exact = ExactValues(
        truth=data.truth,
        rows=rows,
        weight=1.0 / np.where(np.isnan(p_uncensored), 1.0, p_uncensored),
        policy=[p[rows] for p in policy],
        logged=[p[rows] for p in history_with_probabilities(data.truth.market)[2]],
        given=[modules.condition(m) for m in range(len(modules))],
    )
    return _judged(seed, run.path.name, found, exact, modules.names)


def judge_tilted(tilt: float, seed: int, scenario: str, users: int, replicates: int) -> Judged:
    """Evaluate a policy whose odds are those of the log times lognormal factors, one for each action."""
    settings = {"history.market.scenario": scenario, "history.market.seed": seed, "history.market.users": users}
    config = load_config("market", {**settings, "reward.funnel": None, "constraints.cost_events": []})
    history, truth, logged = history_with_probabilities(Market(config.market()))
    rng = np.random.default_rng(seed)
    policy = [p * np.exp(tilt * rng.normal(size=p.shape[1])) for p in logged]
    policy = [p / p.sum(1, keepdims=True) for p in policy]
    model = make_reward(config.reward.kind, config.reward)
    outcomes = model.measure(history)
    frame = model.fit_outcomes(outcomes).transform_outcomes(outcomes)
    found = evaluate(
        LoggedDecisions.from_history(history),
        policy,
        refit(model, outcomes),
        rng=rng,
        settings=replace(config.evaluation.estimation, bootstrap_replicates=replicates),
        estimators=[SNIPS()],
        p_uncensored=frame.p_uncensored,
    )
    rows = np.flatnonzero(frame.identified)
    p_uncensored = frame.p_uncensored[rows]
    exact = ExactValues(
        truth=truth,
        rows=rows,
        weight=1.0 / np.where(np.isnan(p_uncensored), 1.0, p_uncensored),
        policy=[p[rows] for p in policy],
        logged=[p[rows] for p in logged],
        given=[None] * len(policy),
    )
    return _judged(seed, f"tilted by {tilt:g}", found, exact, history.modules.names)


def _judged(seed: int, run: str, found: Evaluation, exact: ExactValues, names: Sequence[str]) -> Judged:
    ladder = found.ladder
    assert ladder is not None
    values = exact.by_name(names, [[names.index(name) for name in f.split("+")] for f in ladder.factors])

    def row(name: str, group: str, value: Interval, ess: float, truth: float) -> Row:
        return (name, group, value.point, value.low, value.high, value.se, ess, truth)

    rows = [row("logged", "logged", found.logged, math.nan, values["logged"])]
    for k, e in enumerate(ladder.orders):
        truth = values["order 0"] if k == 0 else values["policy"]
        rows.append(row(f"order {k}", "order", e.value, e.support.ess, truth))
        if k == 1:
            rows.append(row("order 1, of what it estimates", "own", e.value, e.support.ess, values["order 1"]))
            gain = values["policy"] - values["logged"]
            rows.append(row("order 1 minus the log", "difference", e.difference, e.support.ess, gain))
    for step in ladder.waterfall:
        if step.kind == "channel":
            gain = values["order 0"] - values["logged"]
            rows.append(row("step " + step.name, "step", step.value, math.nan, gain))
        elif step.kind == "factor":
            rows.append(row("step " + step.name, "step", step.value, math.nan, values["step " + step.name]))
    for e in found.estimates:
        if e.module is not None and e.estimator in MODULE_ESTIMATORS:
            name = f"{e.module}, {e.estimator}"
            rows.append(row(name, f"module, {e.estimator}", e.value, e.support.ess, values[e.module]))
    pairs = [pair.label for pair in ladder.pairs if pair.p_value < 0.05]
    kept = {name: values[name] for name in ("logged", "policy", "order 0", "order 1")}
    return Judged(seed, run, rows, kept, ladder.order, ladder.breakdown, len(ladder.factors), pairs)


def share_of_interactions(exact: dict[str, float]) -> float:
    """Return the exact share of what content changes by which interactions change the policy's value."""
    return abs(exact["order 1"] - exact["policy"]) / max(abs(exact["order 1"] - exact["order 0"]), 1e-12)


def table(judged: Sequence[Judged]) -> str:
    """Return the table in Markdown and the sentences below it."""
    names = {row[0]: row[1] for j in judged for row in j.rows}
    groups = {group: [name for name, own in names.items() if own == group] for group in dict.fromkeys(names.values())}
    lines = ["| number | identified | covers | mean z | sd z | ESS |", "|---|---|---|---|---|---|"]
    for group, members in groups.items():
        lines += [_line(name, judged, [name]) for name in members]
        if len(members) > 1:
            lines.append(_line(f"**pooled: {group}**", judged, members))
    return "\n".join([*lines, "", *_claims(judged)])


def _line(title: str, judged: Sequence[Judged], names: Sequence[str]) -> str:
    found = np.array([row[2:] for j in judged for row in j.rows if row[0] in names], dtype=np.float64)
    point, low, high, se, ess, truth = found.T
    known = np.isfinite(low)
    n = int(known.sum())
    if not n:
        return f"| {title} | 0 of {len(found)} | | | | {_mean(ess)} |"
    z = (point[known] - truth[known]) / se[known]
    covers = ((low <= truth) & (truth <= high))[known].mean()
    return f"| {title} | {n} of {len(found)} | {covers:.3f} | {z.mean():+.2f} | {z.std():.2f} | {_mean(ess)} |"


def _mean(ess: np.ndarray) -> str:
    return f"{ess.mean():,.0f}" if np.isfinite(ess).all() else ""


def _claims(judged: Sequence[Judged]) -> Iterator[str]:
    by_name = [({row[0]: row for row in j.rows}, j) for j in judged]
    shares = np.array([share_of_interactions(j.exact) for j in judged])
    yield f"- logs: {len(judged)}, policies: {', '.join(sorted({j.run for j in judged}))}"
    yield (
        f"- share g of what content changes that interactions change: mean {shares.mean():.3f}, "
        f"from {shares.min():.3f} to {shares.max():.3f}"
    )
    covered, narrow = list[bool](), list[bool]()
    for (rows, j), share in zip(by_name, shares, strict=True):
        _, _, point, low, high, *_ = rows["order 1"]
        margin = share * abs(point - rows["order 0"][2])
        if math.isfinite(low) and math.isfinite(margin):
            covered.append(low - margin <= j.exact["policy"] <= high + margin)
            narrow.append(low <= j.exact["policy"] <= high)
    if covered:
        yield (
            f"- order 1's interval widened by g times |V_1 - V_0| contains the policy's value in {sum(covered)} of "
            f"{len(covered)} ({np.mean(covered):.3f}), as it is in {sum(narrow)} ({np.mean(narrow):.3f})"
        )
    better = [(rows, j) for rows, j in by_name if rows["order 1 minus the log"][3] > 0]
    false = [j for _, j in better if j.exact["policy"] <= j.exact["logged"]]
    above = [j for j in false if (j.breakdown or 0.0) > share_of_interactions(j.exact)]
    yield (
        f'- "better than the log" by order 1 in {len(better)}; of these the policy is not better in {len(false)}, and '
        f"in {len(above)} although g is below the breakdown point"
    )
    moved = sum(j.order != 1 for j in judged)
    pairs = [pair for j in judged for pair in j.pairs]
    yield f"- the headline moved to a higher order in {moved}"
    most = max(j.factors for j in judged)
    yield f"- content modules joined to factors in {sum(j.factors < most for j in judged)}"
    some = sum(bool(j.pairs) for j in judged)
    named = ", ".join(f"{pair} {pairs.count(pair)}" for pair in sorted(set(pairs)))
    yield f"- a pair is said to interact in {some}: {named or 'none'}"


def read_records(path: Path) -> list[Judged]:
    """Return the logs that were judged already."""
    if not path.is_file():
        return []
    return [Judged(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Judge the runs on the logs of all seeds, in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--tilt", type=float, default=0.7, help="without runs: spread of the factors' logarithms")
    parser.add_argument("--seeds", default="100:120", help="first:last+1")
    parser.add_argument("--scenario", default="default")
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--records", type=Path, default=Path("ladder_coverage.jsonl"), help="file to continue")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    first, last = map(int, chosen.seeds.split(":"))
    judged = {j.seed: j for j in read_records(chosen.records)}
    for k, seed in enumerate(range(first, last)):
        if seed in judged:
            continue
        common = (seed, chosen.scenario, chosen.users, chosen.replicates)
        if chosen.runs:
            judged[seed] = judge(chosen.runs[k % len(chosen.runs)], *common)
        else:
            judged[seed] = judge_tilted(chosen.tilt, *common)
        with chosen.records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(judged[seed])) + "\n")
        print(seed, flush=True)
    print(table([judged[seed] for seed in range(first, last) if seed in judged]))


if __name__ == "__main__":
    main()

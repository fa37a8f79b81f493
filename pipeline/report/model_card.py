"""The model card of a run, `MODEL_CARD.md`: what its policy is for, what it rests on, and what it must not do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosschannel.core.files import replacing
from crosschannel.evaluation import headline
from crosschannel.evaluation.report.formatting import format_number
from crosschannel.evaluation.report.ladder_text import NO_ASSUMPTION, ladder_sentences
from crosschannel.evaluation.report.markdown import render_markdown
from crosschannel.histories.guardrails import Guardrails
from crosschannel.histories.history import DEFAULT_CHURN_EVENTS
from crosschannel.pipeline.configuration import Config
from crosschannel.pipeline.judgement.results import EvaluationResult
from crosschannel.pipeline.loop.policies import Policies
from crosschannel.pipeline.procedure.records import NOT_OF_THE_POLICY, in_short
from crosschannel.pipeline.report.card import card_of
from crosschannel.pipeline.report.words import reward_in_words
from crosschannel.pipeline.run_folder import Run, classes_of
from crosschannel.reward.effects.report import ASSUMPTIONS
from crosschannel.version import __version__

MODEL_CARD = "MODEL_CARD.md"
#: Version of the card's layout, in its second line.
CARD_VERSION = 1
STATUS = (
    "`train`, `evaluate` and `update` write this card from the records of `evaluation.json` and the report: do not "
    "edit it. RUN is the run's folder."
)
#: What stands in the card's sections on what an evaluation finds, where there is none.
NOT_JUDGED = "No evaluation of this policy stands in the run"


@dataclass(frozen=True)
class LearnedFrom:
    """What an update learned from, for the card of the policy that it wrote.

    Attributes:
        text: What the update did, in a sentence.
        history: Summary of the log.
    """

    text: str
    history: str


def write_model_card(
    run: Run,
    result: EvaluationResult | None,
    folder: Path | None = None,
    fingerprint: str | None = None,
) -> None:
    """Write the model card of a run, with what an update learned from where one has written the policy that decides.

    Args:
        run: The run, with the policy that decides.
        result: The evaluation of the policy that training wrote; None where there is none.
        folder: Folder of the card; by default that of the run.
        fingerprint: That of the log which the policy has learned from; by default it is read from the policy.

    Raises:
        ConfigError: If what was kept is damaged.
        OutputError: If the file cannot be written.
    """
    kept = None if run.version is None else Policies(run.path).noted(run.version)
    learned = None if kept is None else LearnedFrom(**kept)
    with replacing((folder or run.path) / MODEL_CARD) as draft:
        draft.write_text(model_card(run, result, learned, fingerprint), encoding="utf-8")


def rewrite_model_card(run: Run, fingerprint: str | None = None) -> None:
    """Write the card of a run again after its policy in use has changed, with the evaluation that stands in it."""
    trained = replace(run, version=None)
    write_model_card(run, trained.stored_result() if trained.ended else None, fingerprint=fingerprint)


def model_card(
    run: Run, result: EvaluationResult | None, learned: LearnedFrom | None = None, fingerprint: str | None = None
) -> str:
    """Return the model card of a run as Markdown: see `write_model_card`."""
    config = run.config
    card = None if result is None else card_of(result, Path("RUN"), reward_in_words(config))
    return render_markdown(
        "model_card.md.jinja",
        {
            "name": run.path.name,
            "card_version": CARD_VERSION,
            "status": STATUS,
            "card": card,
            "not_judged": NOT_JUDGED,
            "version": run.policy_version,
            "version_note": "from training" if run.version is None else "from an update",
            "learned": list(_learned(run, result, learned)),
            "agent": config.agent.name,
            "modules": _modules(result),
            "data": (learned.history if learned else result.history if result else "not known").splitlines(),
            "fingerprint": fingerprint or run.trained_with("policy").history,
            "split": ", ".join(f"{name} {share:.0%}" for name, share in config.split.shares.items()),
            "losses": [losses.text(whose) for whose, losses in result.losses.items()] if result else [],
            "goals": [_goal(goal) for goal in config.reward.goals],
            "reward": f"A reward is {reward_in_words(config)} (kind `{config.reward.kind}`).",
            "assumptions": list(_assumptions(config, result)),
            "limits": [f"{NOT_JUDGED}: none was looked for."] if card is None else card.caveats,
            "constraints": list(_constraints(config, result)),
            "costs": () if result is None or result.gate is None else result.gate.costs,
            "costs_in_words": _without_costs(config, result),
            "excluded": list(_excluded(config)),
            "commands": list(_commands(run, result)),
            "package": f"crosschannel {__version__}",
            "seed": config.seed,
        },
    )


def _learned(run: Run, result: EvaluationResult | None, learned: LearnedFrom | None) -> Iterator[str]:
    """Yield what a policy of an update has learned, and that the evaluation is not of it."""
    if learned is not None:
        yield learned.text
    if run.version is not None and result is not None:
        trained = replace(run, version=None).policy_version
        yield (
            f"All values in this card are those of the policy that training wrote, version `{trained}`. What the "
            "policy in use is worth, a trial shows (`crosschannel trial`)"
        )


def _modules(result: EvaluationResult | None) -> dict[str, list[str]]:
    """Return the actions of each module, by the table of the policy."""
    if result is None or not len(result.policy_table):
        return {}
    table = result.policy_table
    return {str(name): list(dict.fromkeys(part["action"])) for name, part in table.groupby("module", sort=False)}


def _goal(goal: Any) -> dict[str, Any]:
    limits = [f"{name} {value:g}" for name in ("clip", "winsor") if (value := getattr(goal, name)) is not None]
    credit = goal.credit if goal.half_life is None else f"{goal.credit}, half-life {goal.half_life}"
    return {
        "event": goal.event,
        "measure": goal.measure,
        "weight": goal.weight,
        "limit": ", ".join(limits) or "none",
        "credit": credit,
    }


def _assumptions(config: Config, result: EvaluationResult | None) -> Iterator[str]:
    """Yield the estimand, what it assumes, and what the tests of it found."""
    kind = config.reward.kind
    if kind in ASSUMPTIONS:
        yield f"Rewards: that {ASSUMPTIONS[kind]}"
    if result is None:
        return
    evaluation = result.evaluation
    best = headline(evaluation)
    yield f"Estimand: {best.estimand}, as a mean over {evaluation.population}"
    yield f"Value: right {best.assumption or NO_ASSUMPTION} ({best.estimator})"
    if best.identified:
        yield f"Value: {_interval(best.value)}; difference to the log {_interval(best.difference)}"
    else:
        yield f"Value: not identified ({best.reason})"
    if result.evidence.pre_trends:
        yield f"Test of the rewards: {result.evidence.pre_trends}"
    tests = ladder_sentences(evaluation) or [f"There is no interaction ladder: {evaluation.no_ladder or 'none'}."]
    yield from (f"Ladder: {sentence.removeprefix('* ')}" for sentence in tests)
    if (procedure := result.procedure) is not None:
        yield f"Learning procedure: {in_short(procedure)}. It is {procedure.estimand}"
        yield f"Learning procedure: {NOT_OF_THE_POLICY}"
    for truth in result.truth[:1]:
        yield f"True value, known because the market is simulated: {truth.per_decision:+.4g} per decision"


def _interval(interval: Any) -> str:
    return f"{interval.point:.6g} [{interval.low:.6g}, {interval.high:.6g}]"


def _constraints(config: Config, result: EvaluationResult | None) -> Iterator[dict[str, str]]:
    """Yield each constraint with its limit, and its price and use where the policy was judged."""
    used = {row.name: row for row in (result.constraints if result else ())}
    limits = {cost.event: _cost_limit(cost) for cost in config.constraints.cost_events}
    limits |= {budget.name: f"{budget.amount:g} per {budget.per}" for budget in config.constraints.budgets}
    for name in config.constraints.names:
        row = used.get(name)
        yield {
            "name": name,
            "limit": limits.get(name, f"{config.constraints.messages_per_week} messages per user and week"),
            "price": format_number(row.price, ".4g") if row else "-",
            "use": format_number(row.use, ".4g") if row else "-",
            "budget": format_number(row.budget, ".4g") if row else "-",
            "binding": f"at {row.binding:.0%} of {row.decision_times} decision times" if row else "-",
        }


def _without_costs(config: Config, result: EvaluationResult | None) -> str:
    """Return why the card has no table of cost events."""
    if result is None:
        return f"{NOT_JUDGED}: none was looked at."
    if any(goal.weight < 0 for goal in config.reward.goals) or config.constraints.cost_events:
        return "The evaluation has no record of them: `evaluate` writes one."
    return "The goals and constraints name none, so none was looked at."


def _cost_limit(cost: Any) -> str:
    rate = "the log's rate" if cost.at_most == "log" else f"{cost.at_most:g} per user and week"
    return f"at most {rate}, of which {cost.margin:.0%} stays unused"


def _excluded(config: Config) -> Iterator[str]:
    """Yield who gets no message, whatever the policy would choose."""
    events = DEFAULT_CHURN_EVENTS if config.history.churn_events is None else config.history.churn_events
    names = ", ".join(f"`{name}`" for name in events)
    yield f"Churn: users after {names}" if events else "Churn: no event ends a user's consent (`history.churn_events`)"
    yield from _consent(config.guardrails)
    yield from _limits_of(config.guardrails)
    yield (
        "Eligibility: only what `decide --eligible FILE` or the user's last slot in the log allows; what was eligible "
        "is written beside each decision"
    )
    arms = config.arms
    yield (
        f"Holdout: {arms.holdout:.1%} of the users get no message (arm `holdout`, salt `{arms.salt}`)"
        if arms.holdout
        else "Holdout: none is set (`arms.holdout`), so that no user shows what all messages are worth"
    )
    if arms.business_as_usual:
        yield f"Business as usual: another system decides for {arms.business_as_usual:.1%} of the users"


def _consent(guardrails: Guardrails) -> Iterator[str]:
    for opening, mapped in (("without", guardrails.reachable), ("with", guardrails.opted_out)):
        for channel, names in mapped.items():
            listed = names if isinstance(names, tuple) else (names,)
            where = "any message" if channel == "*" else f"`{channel}`"
            yield f"Consent: no {where} to users {opening} {' and '.join(f'`{name}`' for name in listed)}".replace(
                "no any message", "no message"
            )
    if not guardrails.consent_attributes:
        yield "Consent: no column of the users is mapped (`guardrails.reachable`, `guardrails.opted_out`)"


def _limits_of(guardrails: Guardrails) -> Iterator[str]:
    parts = []
    if guardrails.weekly_cap is not None:
        parts.append(f"at most {guardrails.weekly_cap} messages in 7 days")
    parts += [f"at most {cap} of `{channel}` in 7 days" for channel, cap in guardrails.weekly_caps.items()]
    if guardrails.min_gap is not None:
        parts.append(f"at least {guardrails.min_gap} between two messages")
    if guardrails.quiet_hours is not None:
        parts.append(f"nothing from {guardrails.quiet_hours[0]} to {guardrails.quiet_hours[1]}")
    for word, dates in (("not before", guardrails.starts), ("not after", guardrails.ends)):
        parts += [f"`{a}` {word} {date}" for actions in dates.values() for a, date in actions.items()]
    if parts:
        yield f"Guardrails: {'; '.join(parts)}"


def _commands(run: Run, result: EvaluationResult | None) -> Iterator[str]:
    allowed = [word for name in classes_of(run.config) for word in ("--allow-class", name)]
    yield shlex.join(["crosschannel", "train", "--config", "RUN/config.yaml"])
    evaluate = ["crosschannel", "evaluate", "RUN", *allowed]
    yield shlex.join(evaluate)
    if result is not None and result.procedure is not None:
        folds = str(result.procedure.folds)
        yield shlex.join([*evaluate, "--evaluation.procedure.folds", folds, "--out", "FOLDER"])

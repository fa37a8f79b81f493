"""Build each part of a run from its configuration: history, splits, rewards, context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from crosschannel.agents import Observations
from crosschannel.agents.constraints.budgets import check_constraints
from crosschannel.core.arrays import BoolArray, FloatArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.core.serialization import import_class, to_dict
from crosschannel.core.times import duration
from crosschannel.core.wording import counted
from crosschannel.envs.market import MarketTruth
from crosschannel.evaluation.ladder import check_factors
from crosschannel.histories.arms import held_out
from crosschannel.histories.eligibility import consent_columns
from crosschannel.histories.features import ContextFeatures, ContextSpec
from crosschannel.histories.guardrails import Guardrails, guarded_mask
from crosschannel.histories.history import History
from crosschannel.histories.observation.goal_events import goal_notes
from crosschannel.histories.propensities.checks import PropensityCheck, check_propensities, notes_on_estimates
from crosschannel.histories.propensities.estimate import estimate_propensities
from crosschannel.histories.propensities.sources import MISSING
from crosschannel.histories.splits import split_users
from crosschannel.pipeline.configuration import LOGISTIC, RIDGE, Config, RewardConfig
from crosschannel.pipeline.pricing import LogPace
from crosschannel.pipeline.reading import build_history
from crosschannel.reward import REWARDS, Outcomes, RewardFrame, RewardLosses, RewardModel, make_reward, refit
from crosschannel.reward.effects import TreatmentEffects
from crosschannel.reward.effects.checks.rewards import RewardTests, run_reward_tests
from crosschannel.reward.funnel import with_components
from crosschannel.reward.reason import Reason


@dataclass(eq=False)
class Split:
    """A part of the users, and what is made of their history: each once, when it is first asked for.

    What is large and no longer needed may be deleted, as in `del split.observations`.

    Attributes:
        history: Their history.
        model: The reward model.
        features: How context is built.
        guardrails: What may be sent at all.
    """

    history: History
    model: RewardModel
    features: ContextFeatures
    guardrails: Guardrails

    @cached_property
    def observations(self) -> Observations:
        """Return what a policy sees at every decision."""
        history = self.history
        users = history.user_keys[history.decisions.user]
        return Observations(self.features.transform(history), guarded_mask(self.guardrails, history), users)

    @cached_property
    def outcomes(self) -> Outcomes:
        """Return what was measured around every decision."""
        return self.model.measure(self.history)

    @cached_property
    def rewards(self) -> RewardFrame:
        """Return the rewards, from these users' own controls, with components where a funnel is declared.

        Decisions of the holdout, and of users who wait for the roll-out, are controls alone and have none: no policy is
        valued at them, or learns from them.
        """
        frame = self.model.fit_outcomes(self.outcomes).transform_outcomes(self.outcomes)
        frame = with_components(self.model, self.history, self.outcomes, frame)
        return frame.without(self.held_out, Reason.HELD_OUT)

    @cached_property
    def held_out(self) -> BoolArray:
        """Return which decisions (n,) are those of the holdout."""
        return held_out(self.history.decisions, self.history.modules)

    def refit(self) -> Callable[[FloatArray], FloatArray]:
        """Return the function from decision weights (n,) to rewards that a bootstrap calls: see `reward.refit`."""
        fitted, controls = refit(self.model, self.outcomes), self.held_out
        if not controls.any():
            return fitted
        return lambda weights: np.where(controls, np.nan, fitted(weights))

    @cached_property
    def losses(self) -> RewardLosses:
        """Return how many decisions have no reward, why, and what would help."""
        return RewardLosses.from_rewards(self.rewards, self.history.decisions.time, self.model.spec)


@dataclass(frozen=True)
class TrainingData:
    """A history with its splits, and what is fitted on the training users.

    Attributes:
        history: The whole history.
        truth: The market's hidden truth of every decision, if the history is simulated.
        part: Name of the part that each user belongs to (U,).
        model: The reward model.
        features: Context features, fitted on the training users.
        guardrails: What may be sent at all.
        train: The users that the agent and the outcome model learn from.
        propensities: What is known of the log's propensities from the log itself.
        fingerprint: Fingerprint of the history as it was read, before propensities are estimated.
        pace: How often decisions are made, and how often cost events follow, on the training users.
    """

    history: History
    truth: MarketTruth | None
    part: npt.NDArray[Any]
    model: RewardModel
    features: ContextFeatures
    guardrails: Guardrails
    train: Split
    propensities: PropensityCheck
    fingerprint: str
    pace: LogPace

    @cached_property
    def reward_tests(self) -> RewardTests | None:
        """Return the tests of the training users' rewards; None for rewards of a user's own kind, which have none."""
        if type(self.model) not in REWARDS.values():
            return None
        return run_reward_tests(TreatmentEffects.fit_outcomes(self.model, self.train.outcomes), self.train.history)

    @property
    def not_identified(self) -> str:
        """Why the log identifies the value of no policy; empty where it may."""
        return self.propensities.no_overlap or self.refused

    @property
    def refused(self) -> str:
        """Why the rewards are not what messages change, so that not even the log's value is identified; else empty."""
        return "" if self.reward_tests is None else self.reward_tests.refusal_in_short

    @cached_property
    def validation(self) -> Split:
        """Return the users whose estimates are shown while training."""
        return self._split("validation")

    @cached_property
    def test(self) -> Split:
        """Return the users that the evaluation rests on."""
        return self._split("test")

    def _split(self, name: str) -> Split:
        return Split(self.history.select_users(self.part == name), self.model, self.features, self.guardrails)

    def rows(self, name: str) -> BoolArray:
        """Return which decisions of the whole history belong to a part (n,)."""
        return np.asarray((self.part == name)[self.history.decisions.user])


def compute_rewards(history: History, config: Config | RewardConfig) -> RewardFrame:
    """Compute the incremental reward of every decision, with the history's own controls.

    Raises:
        ConfigError: If a goal or an attribute that the settings name is not in the history.
    """
    settings = config.reward if isinstance(config, Config) else config
    return make_reward(settings.kind, settings).fit_transform(history)


def prepare(config: Config, features: ContextFeatures | None = None) -> TrainingData:
    """Build the history, split its users, and fit the context on the training users; see `Split` for the rest.

    Propensities that were not logged are estimated, for all users at once: each user's come from other users only.
    Those that were logged are kept. The history's summary reports this, and every number that rests on them is labelled
    by the sources of its decisions (`DecisionLog.propensity_source`).

    Args:
        config: The configuration.
        features: How context is built, where a run has learned with it already; by default it is fitted.

    Raises:
        ConfigError: If settings do not fit the history, a class that they name cannot be imported, or a part of the
            split has no user.
        InputError: If the history cannot be read, or its propensities are not its own.
        NotIdentified: If rewards are weighted by propensities, and these have no overlap or cannot be estimated.
    """
    history, truth = build_history(config)
    return prepare_history(config, history, history.fingerprint(), features, truth)


def prepare_history(
    config: Config,
    history: History,
    fingerprint: str,
    features: ContextFeatures | None = None,
    truth: MarketTruth | None = None,
) -> TrainingData:
    """Split the users of a history that was read, and fit the context on the training users: see `prepare`.

    Args:
        config: The configuration.
        history: The history.
        fingerprint: The fingerprint of the log that it is, or that it is a sample of.
        features: How context is built; by default it is fitted.
        truth: The market's hidden truth, if the history is simulated.
    """
    check_factors(history.modules, config.evaluation.factors)
    outcome_regressor(config)
    classifier = propensity_classifier(config)
    history, check = check_log(history, config.reward)
    history = replace(history, notes=(*history.notes, *_consent_notes(history, config.guardrails)))
    history = _with_estimated_propensities(history, config.context, classifier)
    part = split_users(history.user_keys, config.split.shares, config.seed)
    for name, share in config.split.shares.items():
        if share > 0 and not (part == name).any():
            raise ConfigError(
                f"{history.name} has {counted(history.n_users, 'user')}: too few for a {name} part of {share:.0%}"
            )
    model = make_reward(config.reward.kind, config.reward)
    train = history.select_users(part == "train")
    features = features or ContextFeatures.fit(train, config.context)
    return TrainingData(
        history=history,
        truth=truth,
        part=part,
        model=model,
        features=features,
        guardrails=config.guardrails,
        train=Split(train, model, features, config.guardrails),
        propensities=check,
        fingerprint=fingerprint,
        pace=measure_pace(config, train),
    )


def outcome_regressor(config: Config) -> type | None:
    """Return the class of the regressor that models rewards in the evaluation; None for the package's own.

    Raises:
        ConfigError: If it cannot be imported.
    """
    name = config.evaluation.outcome_model
    return None if name == RIDGE else import_class(name, "outcome model")


def propensity_classifier(config: Config) -> type | None:
    """Return the class of the classifier that estimates propensities; None for the package's own regressions.

    Raises:
        ConfigError: If it cannot be imported, or does not state probabilities.
    """
    name = config.history.propensity_model
    if name == LOGISTIC:
        return None
    found = import_class(name, "propensity model")
    if missing := [part for part in ("fit", "predict_proba") if not hasattr(found, part)]:
        raise ConfigError(f"history.propensity_model: {name} is not a classifier: it lacks {', '.join(missing)}")
    return found


def measure_pace(config: Config, train: History) -> LogPace:
    """Measure the pace of the training users' log, for the cost events of the funnel."""
    events = () if config.reward.funnel is None else config.reward.funnel.costs
    check_constraints(config.constraints, train.modules, events)
    window = duration(config.reward.post)
    return LogPace.measure(train, events, window, window)


def check_log(history: History, reward: RewardConfig) -> tuple[History, PropensityCheck]:
    """Check the propensities of a log; return the log with notes on them, and what was found.

    Raises:
        InputError: If they are not those of the log.
        NotIdentified: If the log has no overlap, and the rewards are weighted by its propensities.
    """
    check = check_propensities(history)
    check.refuse_contradictions()
    remedy = "`propensity_source: missing` estimates the propensities from what was known before the decisions"
    if reward.kind == "did_dr" and check.no_controls:
        raise NotIdentified(f"rewards of the kind did_dr are not identified: {check.no_controls}. {remedy}")
    if reward.overlap != "shared" and check.no_overlap:
        raise NotIdentified(
            f"with `overlap: {reward.overlap}` rewards are not identified: {check.no_overlap}. {remedy}"
        )
    return history.with_notes((*check.notes, *goal_notes(history, reward.goals))), check


def _consent_notes(history: History, guardrails: Guardrails) -> list[str]:
    """Return a note on columns of consent that nobody mapped, where the log does not say what was eligible."""
    if history.decisions.eligible is not None:
        return []
    columns = consent_columns(history.users, history.modules[0].actions[1:])
    if not (unmapped := [name for name in columns if name not in guardrails.consent_attributes]):
        return []
    return [
        f"columns of the users look like consent or reachability, and nothing maps them: {', '.join(unmapped)}. "
        "The policy learns as if every channel were eligible for everybody: see guardrails.reachable and "
        "guardrails.opted_out"
    ]


def _with_estimated_propensities(history: History, spec: ContextSpec, classifier: type | None) -> History:
    """Estimate the propensities that the history lacks; where only some are lacking and cannot be, say so.

    Raises:
        NotIdentified: If the history has no propensities, and they cannot be estimated.
    """
    lacking = history.decisions.propensity_source == MISSING
    if not lacking.any():
        return history
    try:
        estimated, _ = estimate_propensities(history, spec, only_missing=True, classifier=classifier)
        return replace(estimated, notes=(*estimated.notes, *notes_on_estimates(estimated)))
    except NotIdentified as error:
        if lacking.all():
            raise
        note = f"propensities of {int(lacking.sum()):,} decisions were not logged and remain missing: {error}"
        return replace(history, notes=(*history.notes, note))


class AgentSpec(TypedDict):
    """The arguments of `make_agent` that make a run's agent and that its checkpoint stores."""

    name: str
    context_dim: int
    settings: dict[str, Any]
    seed: int


def agent_spec(config: Config, features: ContextFeatures) -> AgentSpec:
    """Return the arguments that make the agent of a configuration for contexts of some features."""
    return AgentSpec(
        name=config.agent.name,
        context_dim=features.dim,
        settings=to_dict(config.agent.settings),
        seed=config.seed,
    )

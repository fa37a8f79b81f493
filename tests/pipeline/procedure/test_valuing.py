"""The learning procedure is valued on all users: every agent, constraints and comparators, as records and in words."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chi2

from crosschannel import pipeline
from crosschannel.agents.registry import AGENTS
from crosschannel.core.errors import ConfigError
from crosschannel.evaluation import Interval, LoggedDecisions, headline
from crosschannel.evaluation.bootstrap import UNDEFINED
from crosschannel.histories import write_history
from crosschannel.pipeline import ProcedureValue, load_config
from crosschannel.pipeline.configuration import override
from crosschannel.pipeline.judgement.constants import constant_weights, constants_of
from crosschannel.pipeline.judgement.judging import fit_outcomes, policy_at
from crosschannel.pipeline.procedure import valuing
from crosschannel.pipeline.procedure.folds import fold_data, folds_of_keys
from crosschannel.pipeline.procedure.learning import learned_fold
from crosschannel.pipeline.procedure.records import FoldValue, in_short, procedure_text, spread_sentence
from crosschannel.pipeline.sections.evaluation import ProcedureSettings
from tests.pipeline.loop.samples import daily_log, with_a_holdout
from tests.pipeline.procedure.samples import small_config, valued
from tests.programs.samples import FUNNEL

FREE = {"evaluation.min_ess": 1.0, "evaluation.min_users": 2.0, "evaluation.max_unsupported_mass": 1.0}
CONFIG = small_config(**{"history.market.users": 300, **FREE})


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A value, the data, and the folder of the agents."""
    folder = tmp_path_factory.mktemp("procedure")
    return *valued(folder, CONFIG), folder


def test_every_user_counts_once(found):
    value, data, _ = found
    assert value.folds == 3
    assert value.evaluation.logged_decisions == len(data.history.decisions)
    assert sum(each.decisions for each in value.by_fold) == value.evaluation.decisions
    assert sum(each.users for each in value.by_fold) == value.evaluation.users
    fold = folds_of_keys(data.history.user_keys, 3, CONFIG.seed)
    for k, each in enumerate(value.by_fold):
        assert (each.fold, each.learned_from) == (k + 1, int((fold != k).sum()))


def test_each_user_is_judged_by_the_agent_that_has_not_seen_the_fold(found):
    """The truth is the mean of those of the three policies, each at its own fold, by the number of its decisions."""
    value, data, folder = found
    run, total, counted = pipeline.Run(folder, CONFIG), 0.0, 0.0
    for k in range(3):
        agent, divided = learned_fold(run, data, k, lambda *_: pytest.fail("it has learned"), folder)
        p = policy_at(CONFIG, divided, agent, divided.test).probabilities
        frame = divided.test.rewards
        kept = frame.identified
        rows, weights = np.flatnonzero(divided.rows("test"))[kept], 1.0 / frame.p_uncensored[kept]
        given = [data.history.modules.condition(m) for m in range(len(data.history.modules))]
        assert data.truth is not None
        effect = data.truth.expected_effect(rows, [each[kept] for each in p], given)
        assert value.by_fold[k].truth == pytest.approx(np.average(effect, weights=weights))
        total, counted = total + weights @ effect, counted + weights.sum()
    assert value.truth == pytest.approx(total / counted)
    own = next(row for row in value.comparators if row.policy == "evaluated policy")
    assert own.truth == pytest.approx(value.truth)


def test_no_outcome_model_learns_from_the_fold_that_it_is_used_on(found):
    """Other rewards in a fold change the modelled rewards of the other folds and not its own."""
    _, data, _ = found
    fold = folds_of_keys(data.history.user_keys, 3, CONFIG.seed)[data.history.decisions.user]
    rewards = np.random.default_rng(0).normal(size=len(fold))
    modules = data.history.modules
    given = [np.full((len(fold), *modules.shape(m)), 1 / modules.shape(m)[-1]) for m in range(len(modules))]

    def modelled(values):
        frame = SimpleNamespace(reward=values, identified=np.ones(len(fold), dtype=bool))
        observations = SimpleNamespace(context=data.features.transform(data.history))
        split = SimpleNamespace(history=data.history, rewards=frame, observations=observations)
        forest = replace(CONFIG.evaluation, outcome_model="sklearn.linear_model:LinearRegression")
        config = replace(CONFIG, evaluation=forest)
        outcomes = fit_outcomes(config, split, 3, fold)
        assert outcomes is not None
        return outcomes.q_values(observations.context, data.history.decisions.actions, given)[0].policy

    pytest.importorskip("sklearn")
    before, after = modelled(rewards), modelled(np.where(fold == 1, 50.0, rewards))
    assert after[fold == 1] == pytest.approx(before[fold == 1], abs=1e-9)
    assert np.abs(after - before)[fold != 1].min() > 1.0


def test_constants_are_chosen_by_the_users_who_teach(found):
    """The weights of `best constant channel` are those of each fold's own choice, whatever the others chose."""
    value, data, _ = found
    names = [row.policy for row in value.comparators]
    assert names[:5] == ["logged", "uniform", "no send", "greedy", "best constant"]
    assert [name for name in names if name.startswith("best constant ")][-1] == "best constant by true effect"
    chosen = []
    for k in range(3):
        best = constants_of(CONFIG, fold_data(CONFIG, data, k).train)
        assert best is not None
        chosen.append(best.modules[0])
    row = next(row for row in value.comparators if row.policy == "best constant channel")
    actions = data.history.modules[0].actions
    assert row.detail == " or ".join(dict.fromkeys(actions[code] for code in chosen))
    fold = folds_of_keys(data.history.user_keys, 3, CONFIG.seed)[data.history.decisions.user]
    log = LoggedDecisions.from_history(data.history)
    mask = data.history.eligible
    mixed = constant_weights(log, mask, 0, np.array([1, 2, 1])[fold])
    for k, code in enumerate((1, 2, 1)):
        assert mixed[fold == k] == pytest.approx(constant_weights(log, mask, 0, code)[fold == k])


QUICKEST = ("linear_thompson", "uniform")


@pytest.mark.parametrize(
    "agent", [name if name in QUICKEST else pytest.param(name, marks=pytest.mark.slow) for name in AGENTS]
)
def test_every_agent(agent, tmp_path):
    """A policy that the log does not identify is so for a reason; what it earns in truth is known in any case."""
    settings = {"agent.name": agent, "history.market.users": 120, "evaluation.procedure.folds": 2, **FREE}
    value, _ = valued(tmp_path, small_config(**settings))
    assert math.isfinite(value.truth)
    assert f"2 policies of {agent}" in value.evaluation.policy
    best = headline(value.evaluation)
    assert best.identified or "ESS" in best.reason
    if agent in ("uniform", "logging", "no_send"):
        assert best.value.is_defined


def test_policies_under_constraints_are_priced_in_each_fold(tmp_path):
    config = load_config(
        FUNNEL[1], {"evaluation.procedure.folds": 2, "train.offline_updates": 1, "train.num_envs": 256}
    )
    assert config.constraints.names
    value, data = valued(tmp_path, config)
    assert {each.name for each in value.constraints} == set(config.constraints.names)
    times = len(np.unique(data.history.decisions.time))
    for each in value.constraints:
        assert times <= each.decision_times <= 2 * times
        assert each.use <= each.budget * (1 + 1e-9)


def test_a_log_whose_truth_is_unknown_and_some_of_whose_users_are_held_out(tmp_path):
    """Users of the holdout are controls in their fold, and no policy is valued at them."""
    write_history(with_a_holdout(daily_log(300)), tmp_path / "log")
    source = {"history.source": "folder", "history.path": tmp_path / "log", "context.events": ["visit"]}
    rewards = {"goals": [{"event": "order", "weight": 1.0}], "pre": "1d", "post": "1d", "min_controls": 2}
    rewards |= {"overlap": "shared", "time_bucket": "1d"}
    config = small_config(**source, **{f"reward.{name}": each for name, each in rewards.items()}, **FREE)
    value, data = valued(tmp_path, config)
    counts = value.evaluation.reward_counts
    assert counts["user is held out or waits, and serves as a control"] > 0.1 * len(data.history.decisions)
    assert headline(value.evaluation).value.is_defined
    assert math.isnan(value.truth)
    assert "true effect" not in procedure_text(value)


def test_a_log_without_support_is_not_identified(found):
    _, data, folder = found
    value, _ = valued(folder, override(CONFIG, {"evaluation.min_ess": 1e7}), data)
    assert all("ESS" in each.reason for each in value.by_fold)
    assert math.isnan(value.difference_p)
    assert in_short(value).startswith("not identified (ESS")
    assert "not identified" in procedure_text(value)
    assert json.loads(json.dumps(value.to_dict(), allow_nan=False))["difference_p"] is None


def test_the_record_as_plain_values_and_back(found):
    value = found[0]
    plain = json.loads(json.dumps(value.to_dict(), allow_nan=False))
    again = ProcedureValue.from_dict(plain)
    assert again.to_dict() == value.to_dict()
    assert procedure_text(again) == procedure_text(value)
    assert "value of the learning procedure" in plain["estimand"]
    assert "not the value of the policy in the run" in plain["estimand"]


def test_the_estimand_is_named_in_every_estimate(found):
    for estimate in found[0].evaluation.estimates:
        assert "the learning procedure (3 policies of best_fixed)" in estimate.estimand


def test_a_run_with_callbacks_is_refused():
    config = small_config(**{"train.callbacks": ["examples.callbacks:EarlyStopping"]})
    with pytest.raises(ConfigError, match="callbacks may end a training by the validation users' scores"):
        valuing.check_procedure(config)
    valuing.check_procedure(replace(config, evaluation=replace(config.evaluation, procedure=ProcedureSettings())))


def folds_with(*differences: tuple[float, float]) -> list[FoldValue]:
    return [
        FoldValue(k + 1, 200, 100, 1000, Interval(d, d - 2 * se, d + 2 * se, se))
        for k, (d, se) in enumerate(differences)
    ]


def test_the_test_of_equal_values_by_hand():
    """Differences 0 and 2 of errors 1: their mean is 1, Q = 2 with one degree of freedom."""
    by_hand = valuing._difference_p(folds_with((0.0, 1.0), (2.0, 1.0)))
    assert by_hand == pytest.approx(chi2.sf(2.0, 1))
    weighted = valuing._difference_p(folds_with((0.0, 1.0), (3.0, 2.0), (1.0, 0.5)))
    mean = (0 * 1 + 3 / 4 + 1 * 4) / (1 + 1 / 4 + 4)
    assert weighted == pytest.approx(chi2.sf(mean**2 + (3 - mean) ** 2 / 4 + 4 * (1 - mean) ** 2, 2))
    unknown = replace(folds_with((0.0, 1.0))[0], difference=UNDEFINED, reason="ESS 3 < 5")
    assert math.isnan(valuing._difference_p([*folds_with((0.0, 1.0)), unknown]))


def test_policies_that_differ_are_named_so(found):
    assert "differ in value by more than chance (p below .001)" in spread_sentence(replace(found[0], difference_p=1e-5))
    assert "do not differ in value" in spread_sentence(replace(found[0], difference_p=0.4))
    assert spread_sentence(replace(found[0], difference_p=math.nan)) == ""

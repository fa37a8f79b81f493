"""Evaluation: what a policy is worth, from a log of another policy's decisions, and whether the log can say so.

`evaluate` answers for the whole action and for each module ("this module's policy, the others as logged"), by several
estimators, each with a user-clustered interval, the effective sample size and the policy's mass without
support. A value that the log does not identify is not a number but a reason.

    model = OutcomeModel.fit(modules, train_context, train_actions, train_rewards, train_user)
    p = agent.action_probabilities(test_observations)
    q = model.q_values(test_context, test_actions, p)
    result = evaluate(LoggedDecisions.of(test), p, refit(reward_model, outcomes), q_values=q, rng=rng)
    print(text_table(result))

`evaluate_trajectories` answers for a policy that chooses at several slots of a user in a row, where effects last.
"""

from evaluation.bootstrap import Interval, t_interval, user_bootstrap
from evaluation.estimators import DM, DR, ESTIMATORS, IPS, SNIPS, Estimator, Sample, SwitchDR
from evaluation.off_policy import Refit, evaluate
from evaluation.outcome_model import OutcomeModel, QValues
from evaluation.report.html_report import html_page, write_html
from evaluation.report.text import findings, headline, text_table, to_dict
from evaluation.results import Estimate, Evaluation, EvaluationSettings
from evaluation.sequential.estimators import (
    FQE,
    TRAJECTORY_ESTIMATORS,
    PerDecisionIPS,
    PerDecisionSNIPS,
    SequentialDR,
    TrajectoryEstimator,
    TrajectoryIPS,
    WeightedDR,
)
from evaluation.sequential.fitted_q import fitted_q
from evaluation.sequential.trajectories import Episodes, Trajectories, blocks, first_slots
from evaluation.sequential.value import (
    TrajectoryEstimate,
    TrajectoryEvaluation,
    evaluate_trajectories,
    value_trajectories,
)
from evaluation.support import LoggedDecisions, Support, effective_sample_size, importance_weights, unsupported_mass

__all__ = [
    "DM",
    "DR",
    "ESTIMATORS",
    "FQE",
    "IPS",
    "SNIPS",
    "TRAJECTORY_ESTIMATORS",
    "Episodes",
    "Estimate",
    "Estimator",
    "Evaluation",
    "EvaluationSettings",
    "Interval",
    "LoggedDecisions",
    "OutcomeModel",
    "PerDecisionIPS",
    "PerDecisionSNIPS",
    "QValues",
    "Refit",
    "Sample",
    "SequentialDR",
    "Support",
    "SwitchDR",
    "Trajectories",
    "TrajectoryEstimate",
    "TrajectoryEstimator",
    "TrajectoryEvaluation",
    "TrajectoryIPS",
    "WeightedDR",
    "blocks",
    "effective_sample_size",
    "evaluate",
    "evaluate_trajectories",
    "findings",
    "first_slots",
    "fitted_q",
    "headline",
    "html_page",
    "importance_weights",
    "t_interval",
    "text_table",
    "to_dict",
    "unsupported_mass",
    "user_bootstrap",
    "value_trajectories",
    "write_html",
]

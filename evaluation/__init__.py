"""Off-policy evaluation: a policy's value from a log of another policy's decisions, if the log identifies it.

`evaluate` estimates the value of the whole action and of each module ("this module's policy, the others as logged"), by
several estimators, each with a user-clustered interval, the effective sample size and the policy's mass without
support. A value that the log does not identify is reported as not identified, with the reason.

    model = OutcomeModel.fit(modules, train_context, train_actions, train_rewards, train_user)
    p = agent.action_probabilities(test_observations)
    q = model.q_values(test_context, test_actions, p)
    result = evaluate(LoggedDecisions.from_history(test), p, refit(reward_model, outcomes), q_values=q, rng=rng)
    print(text_table(result))

`evaluate_trajectories` estimates the value of a policy that chooses at several slots of a user in a row, where effects
outlast a slot (`crosschannel.evaluation.sequential`).
"""

if not __name__.startswith("crosschannel."):
    raise ImportError(
        "import `crosschannel.evaluation` instead of `evaluation`: a second copy of its classes would not fit the first"
    )


from crosschannel.evaluation.bootstrap import Interval, t_interval, user_bootstrap
from crosschannel.evaluation.estimators import DM, DR, ESTIMATORS, IPS, SNIPS, Estimator, Sample, SwitchDR
from crosschannel.evaluation.logged_decisions import LoggedDecisions
from crosschannel.evaluation.off_policy import Refit, evaluate
from crosschannel.evaluation.outcome_model import OutcomeModel, QValues
from crosschannel.evaluation.report import (
    caveats,
    headline,
    module_effects,
    render_html,
    text_table,
    to_dict,
    verdict,
    write_html,
)
from crosschannel.evaluation.results import Estimate, Evaluation, EvaluationSettings
from crosschannel.evaluation.sequential import (
    FQE,
    TRAJECTORY_ESTIMATORS,
    PerDecisionIPS,
    PerDecisionSNIPS,
    SequentialDR,
    Trajectories,
    TrajectoryEstimate,
    TrajectoryEstimator,
    TrajectoryEvaluation,
    TrajectoryIndex,
    TrajectoryIPS,
    WeightedDR,
    blocks,
    evaluate_trajectories,
    first_slots,
    fit_q_values,
    value_trajectories,
)
from crosschannel.evaluation.support import Support, kurtosis, required_ess, unsupported_mass
from crosschannel.evaluation.weights import effective_sample_size, importance_weights

__all__ = [
    "DM",
    "DR",
    "ESTIMATORS",
    "FQE",
    "IPS",
    "SNIPS",
    "TRAJECTORY_ESTIMATORS",
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
    "TrajectoryIndex",
    "WeightedDR",
    "blocks",
    "caveats",
    "effective_sample_size",
    "evaluate",
    "evaluate_trajectories",
    "first_slots",
    "fit_q_values",
    "headline",
    "importance_weights",
    "kurtosis",
    "module_effects",
    "render_html",
    "required_ess",
    "t_interval",
    "text_table",
    "to_dict",
    "unsupported_mass",
    "user_bootstrap",
    "value_trajectories",
    "verdict",
    "write_html",
]

"""Policy against policy: the difference of two policies' values on the same log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.core.errors import ConfigError, NotIdentified
from crosschannel.evaluation.bootstrap import UNDEFINED, Interval, t_interval, user_bootstrap
from crosschannel.evaluation.estimates import EvaluationSettings, reason_not_identified
from crosschannel.evaluation.estimators import optimal_baseline
from crosschannel.evaluation.ladder.build import assumption_of
from crosschannel.evaluation.ladder.factors import find_factors
from crosschannel.evaluation.ladder.weights import ladder_weights
from crosschannel.evaluation.logged_decisions import LoggedDecisions, check_probabilities
from crosschannel.evaluation.support import Support, unsupported_mass


@dataclass(frozen=True)
class Comparison:
    """The difference of the values of two policies.

    Attributes:
        estimand: What the difference is, in plain words.
        assumption: What it assumes about the parts of a message, in words; empty where nothing.
        difference: Value of the first policy minus that of the second, per decision with a reward; NaN where not
            identified.
        decisions: Number of decisions with a reward.
        users: Number of their users.
        ess: Effective number of decisions behind the difference of the weights d, :math:`(\\sum |d|)^2 / \\sum d^2`: its
            mean is 0, so that :math:`(\\sum d)^2` counts nothing.
        order: The order of the ladder.
        reason: Why the difference is not identified; empty where it is.
    """

    estimand: str
    assumption: str
    difference: Interval
    decisions: int
    users: int
    ess: float
    order: int
    reason: str = ""

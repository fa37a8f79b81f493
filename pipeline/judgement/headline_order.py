"""How the headline of an evaluation weights decisions, so that what stands beside it is weighted alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crosschannel.core.arrays import FloatArray
from crosschannel.evaluation import Evaluation, LoggedDecisions
from crosschannel.evaluation.ladder import Factors, find_factors, ladder_weights
from crosschannel.evaluation.ladder.design import unsupported_by_factor, unsupported_by_order
from crosschannel.pipeline.configuration import Config


@dataclass(frozen=True)
class HeadlineOrder:
    """How a headline weights decisions.

    Attributes:
        factors: The factors of the interaction ladder.
        order: The order of the headline.
    """

    factors: Factors
    order: int

    @classmethod
    def from_evaluation(cls, config: Config, log: LoggedDecisions, evaluation: Evaluation) -> HeadlineOrder:
        """Return the factors that an evaluation found and the order of its headline, which need not be the one set.

        Without a ladder the headline weights whole messages: one factor for all modules of content, and its order.
        """
        modules, ladder = log.modules, evaluation.ladder
        if ladder is None:
            links = [(1, m) for m in range(2, len(modules))]
            factors = Factors.from_links(modules, links, "There is no ladder.")
            return cls(factors, len(factors.members))
        undeclarable = any(sign in name for name in modules.names for sign in "+,")
        return cls(
            find_factors(log, config.evaluation.factors if undeclarable else ", ".join(ladder.factors)), ladder.order
        )

    def weights(self, log: LoggedDecisions, probabilities: Sequence[FloatArray]) -> FloatArray:
        """Return a policy's weights (n,) at the order."""
        return ladder_weights(log, probabilities, self.factors.members).of_order(self.order)

    def unsupported_mass(self, log: LoggedDecisions, probabilities: Sequence[FloatArray]) -> float:
        """Return the share of a policy's mass that the order lacks in the log."""
        by_factor = unsupported_by_factor(log, probabilities, self.factors)
        return unsupported_by_order(log, probabilities, by_factor)[self.order]


def lacks_propensities(log: LoggedDecisions) -> bool:
    """Return whether the propensity of a module that made a choice is missing."""
    sent = log.propensity[log.modules.sends(log.actions)]
    return bool(np.isnan(log.propensity[:, 0]).any() or np.isnan(sent).any())

"""Propensities that nobody logged: estimated by cross-fitted, calibrated logistic regressions."""

from crosschannel.histories.propensities.estimate import PropensityReport, estimate_propensities

__all__ = ["PropensityReport", "estimate_propensities"]

"""Estimate propensities that were not logged, by cross-fitted and calibrated logistic regressions."""

from crosschannel.histories.propensities.estimate import PropensityReport, estimate_propensities

__all__ = ["PropensityReport", "estimate_propensities"]

"""What is measured around each decision: amounts in windows, limits, seasonality and the outcomes they give."""

from crosschannel.reward.measurement.messages import Messages
from crosschannel.reward.measurement.outcomes import Outcomes, measure, measure_with
from crosschannel.reward.measurement.preprocessing import FittedPreprocessing
from crosschannel.reward.measurement.seasonality import PopulationSeasonality

__all__ = ["FittedPreprocessing", "Messages", "Outcomes", "PopulationSeasonality", "measure", "measure_with"]

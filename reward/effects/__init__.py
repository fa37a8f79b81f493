"""Average effects of the logged messages: estimates, influence functions, event study, diagnostics and the report.

Training does not need this package.
"""

from crosschannel.reward.effects.action_effects import ActionEffect, action_effects, action_effects_by_window
from crosschannel.reward.effects.diagnostics import Check, Diagnostics, diagnose
from crosschannel.reward.effects.estimates import (
    GROUPINGS,
    Effect,
    TreatmentEffects,
    attribute_groups,
    average_effect,
    effects_by,
    effects_table,
)
from crosschannel.reward.effects.event_study import EventStudy, EventTimes, event_study
from crosschannel.reward.effects.panels import HistoryPanel, panel_from_history
from crosschannel.reward.effects.plots import draw_event_study, event_study_figure, save_figure
from crosschannel.reward.effects.report import AUTO, DEFAULT_GROUPINGS, EffectsRequest, effects_report, picture
from crosschannel.reward.effects.staggered import GroupTimeEffects, Panel, aggregate, group_time_effects

__all__ = [
    "AUTO",
    "DEFAULT_GROUPINGS",
    "GROUPINGS",
    "ActionEffect",
    "Check",
    "Diagnostics",
    "Effect",
    "EffectsRequest",
    "EventStudy",
    "EventTimes",
    "GroupTimeEffects",
    "HistoryPanel",
    "Panel",
    "TreatmentEffects",
    "action_effects",
    "action_effects_by_window",
    "aggregate",
    "attribute_groups",
    "average_effect",
    "diagnose",
    "draw_event_study",
    "effects_by",
    "effects_report",
    "effects_table",
    "event_study",
    "event_study_figure",
    "group_time_effects",
    "panel_from_history",
    "picture",
    "save_figure",
]

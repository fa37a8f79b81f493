from .action_effects import ActionEffect as ActionEffect
from .action_effects import action_effects as action_effects
from .action_effects import action_effects_by_window as action_effects_by_window
from .diagnostics import Check as Check
from .diagnostics import Diagnostics as Diagnostics
from .diagnostics import diagnose as diagnose
from .diagnostics import explain_pre_trends as explain_pre_trends
from .diagnostics import pre_trend_check as pre_trend_check
from .estimates import GROUPINGS as GROUPINGS
from .estimates import Effect as Effect
from .estimates import TreatmentEffects as TreatmentEffects
from .estimates import average_effect as average_effect
from .estimates import effects_by as effects_by
from .estimates import effects_table as effects_table
from .event_study import EventStudy as EventStudy
from .event_study import EventTimes as EventTimes
from .event_study import event_study as event_study
from .groups import attribute_groups as attribute_groups
from .panels import HistoryPanel as HistoryPanel
from .panels import panel_from_history as panel_from_history
from .plots import event_study_figure as event_study_figure
from .plots import plot_action_effects as plot_action_effects
from .plots import plot_effects as plot_effects
from .plots import plot_event_study as plot_event_study
from .plots import plot_group_time_effects as plot_group_time_effects
from .plots import save_figure as save_figure
from .report import AUTO as AUTO
from .report import DEFAULT_GROUPINGS as DEFAULT_GROUPINGS
from .report import EffectsRequest as EffectsRequest
from .report import effects_report as effects_report
from .report import picture as picture
from .staggered import GroupTimeEffects as GroupTimeEffects
from .staggered import Panel as Panel
from .staggered import aggregate as aggregate
from .staggered import group_time_effects as group_time_effects

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
    "effects_by",
    "effects_report",
    "effects_table",
    "event_study",
    "event_study_figure",
    "explain_pre_trends",
    "group_time_effects",
    "panel_from_history",
    "picture",
    "plot_action_effects",
    "plot_effects",
    "plot_event_study",
    "plot_group_time_effects",
    "pre_trend_check",
    "save_figure",
]

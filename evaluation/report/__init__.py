"""An evaluation as text, as plain values for JSON, and as an HTML page."""

from crosschannel.evaluation.report.html_report import render_html, write_html
from crosschannel.evaluation.report.sentences import caveats, headline, module_effects, verdict
from crosschannel.evaluation.report.serialization import to_dict
from crosschannel.evaluation.report.text import text_table

__all__ = [
    "caveats",
    "headline",
    "module_effects",
    "render_html",
    "text_table",
    "to_dict",
    "verdict",
    "write_html",
]

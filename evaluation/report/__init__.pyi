from .html_report import render_html as render_html
from .html_report import write_html as write_html
from .page import Card as Card
from .page import ReportSection as ReportSection
from .page import ReportTable as ReportTable
from .pictures import Picture as Picture
from .sentences import caveats as caveats
from .sentences import headline as headline
from .sentences import module_effects as module_effects
from .sentences import verdict as verdict
from .serialization import from_dict as from_dict
from .serialization import to_dict as to_dict
from .text import headline_text as headline_text
from .text import text_table as text_table

__all__ = [
    "Card",
    "Picture",
    "ReportSection",
    "ReportTable",
    "caveats",
    "from_dict",
    "headline",
    "headline_text",
    "module_effects",
    "render_html",
    "text_table",
    "to_dict",
    "verdict",
    "write_html",
]

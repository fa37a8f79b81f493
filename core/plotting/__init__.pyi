from .axes import AFTER as AFTER
from .axes import BEFORE as BEFORE
from .axes import INK as INK
from .axes import label_axes as label_axes
from .axes import own_axes as own_axes
from .axes import plain as plain
from .axes import write_note as write_note
from .charts import Mark as Mark
from .charts import draw_courses as draw_courses
from .charts import draw_marks as draw_marks
from .charts import draw_pairs as draw_pairs

__all__ = [
    "AFTER",
    "BEFORE",
    "INK",
    "Mark",
    "draw_courses",
    "draw_marks",
    "draw_pairs",
    "label_axes",
    "own_axes",
    "plain",
    "write_note",
]

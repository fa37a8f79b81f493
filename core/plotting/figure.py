"""A figure that pyplot does not know, and that a notebook shows all the same."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class PlotFigure(Figure):
    """A figure outside of pyplot: nothing has to close it, and no setting of pyplot changes with it."""

    @classmethod
    def build(cls, width: float, height: float) -> PlotFigure:
        """Return an empty figure of a size in inches."""
        figure = cls(figsize=(width, height), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        return figure

    def _repr_png_(self) -> bytes:
        """Return the picture for a notebook, which shows `axes.figure` as the last line of a cell."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()

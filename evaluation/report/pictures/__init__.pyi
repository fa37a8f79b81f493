from .charts import Row as Row
from .charts import row_chart as row_chart
from .evaluations import module_picture as module_picture
from .evaluations import order_picture as order_picture
from .evaluations import waterfall_picture as waterfall_picture
from .picture import Picture as Picture

__all__ = [
    "Picture",
    "Row",
    "module_picture",
    "order_picture",
    "row_chart",
    "waterfall_picture",
]

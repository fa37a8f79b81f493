from .charts import Row as Row
from .charts import row_chart as row_chart
from .evaluations import module_picture as module_picture
from .evaluations import order_picture as order_picture
from .evaluations import waterfall_picture as waterfall_picture
from .lines import Lines as Lines
from .lines import line_chart as line_chart
from .pairs import Pair as Pair
from .pairs import pair_chart as pair_chart
from .picture import Picture as Picture

__all__ = [
    "Lines",
    "Pair",
    "Picture",
    "Row",
    "line_chart",
    "module_picture",
    "order_picture",
    "pair_chart",
    "row_chart",
    "waterfall_picture",
]

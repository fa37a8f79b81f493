from .learning import extend_funnel_of as extend_funnel_of
from .learning import fit_funnel_of as fit_funnel_of
from .learning import has_funnel as has_funnel
from .leaves import Leaves as Leaves
from .leaves import leaves_per_task as leaves_per_task
from .rows import LeafRows as LeafRows
from .rows import opened as opened

__all__ = ["LeafRows", "Leaves", "extend_funnel_of", "fit_funnel_of", "has_funnel", "leaves_per_task", "opened"]

from .breakdown import breakdown_point as breakdown_point
from .comparison import Comparison as Comparison
from .comparison import compare_policies as compare_policies
from .comparison import difference_of_values as difference_of_values
from .dependence import DependenceTest as DependenceTest
from .dependence import dependence_tests as dependence_tests
from .factors import Factors as Factors
from .factors import check_factors as check_factors
from .factors import find_factors as find_factors
from .joint import JointReplicates as JointReplicates
from .results import Interaction as Interaction
from .results import Ladder as Ladder
from .results import WaterfallStep as WaterfallStep
from .values import interaction_values as interaction_values
from .values import ladder_values as ladder_values
from .values import pair_interactions as pair_interactions
from .weights import LadderWeights as LadderWeights
from .weights import elementary_symmetric as elementary_symmetric
from .weights import ladder_weights as ladder_weights

__all__ = [
    "Comparison",
    "DependenceTest",
    "Factors",
    "Interaction",
    "JointReplicates",
    "Ladder",
    "LadderWeights",
    "WaterfallStep",
    "breakdown_point",
    "check_factors",
    "compare_policies",
    "dependence_tests",
    "difference_of_values",
    "elementary_symmetric",
    "find_factors",
    "interaction_values",
    "ladder_values",
    "ladder_weights",
    "pair_interactions",
]

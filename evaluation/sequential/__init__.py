"""The value of a policy that chooses at several slots of a user in a row, where effects outlast a slot.

index = first_slots(decisions.user, decisions.time, horizon=12, churned=churned)
print(evaluate_trajectories(log, probabilities, rewards, index, rng=rng, context=context))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""The interaction ladder: a policy's value if the parts of a message interact in at most k, for every k.

Given the channel, the content modules are divided into factors that are drawn independently (`find_factors`). The value
of order k weighs by how much more often the policy chooses up to k of them together than the log does, so that its
effective sample size is far above that of the whole action. What order 1 assumes is tested, and the breakdown point
is how large interactions would have to be to overturn the conclusion.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Size of a randomised trial with two arms: for two rates, and for two means."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.special import nctdtr, ndtri, stdtrit

from crosschannel.core.errors import ConfigError

#: Largest arm of a trial that is searched for.
MAX_USERS_PER_ARM = 1e12


def users_per_arm_of_rates(base_rate: float, lift: float, power: float = 0.8, level: float = 0.95) -> float:
    r"""Return the users per arm of a randomised trial with two arms that compares two proportions, two-sided.

    .. math::
        n = \frac{\left( z_{1 - \alpha/2} \sqrt{2 \bar p (1 - \bar p)} + z_{power}
        \sqrt{p_0 (1 - p_0) + p_1 (1 - p_1)} \right)^2}{(p_1 - p_0)^2}, \qquad \bar p = (p_0 + p_1) / 2

    Assumption: users are independent, and n is large enough for the normal approximation. Fleiss, Levin & Paik (2003),
    "Statistical methods for rates and proportions", equation 4.14, without the continuity correction.

    Args:
        base_rate: Share of the users of the first arm with the event, :math:`p_0`.
        lift: Relative change in the second arm: :math:`p_1 = p_0 (1 + \text{lift})`.
        power: Probability of finding the lift.
        level: Confidence level of the test.

    Returns:
        Users per arm; round it up.

    Raises:
        ConfigError: If a rate is not between 0 and 1, the lift is 0, or power or level are not between 0 and 1.
    """
    _check_test(power, level)
    new_rate = base_rate * (1.0 + lift)
    for name, rate in (("base rate", base_rate), ("base rate after the lift", new_rate)):
        if not 0 < rate < 1:
            raise ConfigError(f"the {name} is {rate:g}: a rate lies between 0 and 1")
    if lift == 0:
        raise ConfigError("the lift is 0: no trial finds it")
    mean = (base_rate + new_rate) / 2
    under_null = math.sqrt(2 * mean * (1 - mean))
    under_lift = math.sqrt(base_rate * (1 - base_rate) + new_rate * (1 - new_rate))
    root = ndtri((1 + level) / 2) * under_null + ndtri(power) * under_lift
    return float((root / (new_rate - base_rate)) ** 2)


def users_per_arm_of_means(difference: float, sd: float, power: float = 0.8, level: float = 0.95) -> float:
    r"""Return the users per arm of a randomised trial with two arms that compares two means, two-sided.

    The smallest n at which a t-test of equal arms has the power, by the noncentral t distribution:

    .. math::
        \text{power} = P(|T| > t_{1 - \alpha/2, \, 2n - 2}), \qquad
        T \sim t_{2n - 2}\left( \frac{|\delta|}{\sigma} \sqrt{n / 2} \right)

    Assumption: users are independent, with the same standard deviation in both arms. Cohen (1988), "Statistical power
    analysis for the behavioral sciences", chapter 2.

    Args:
        difference: Difference of the means to be found, :math:`\delta`, in the unit of the standard deviation.
        sd: Standard deviation of one user's value, :math:`\sigma`.
        power: Probability of finding the difference.
        level: Confidence level of the test.

    Returns:
        Users per arm; round it up.

    Raises:
        ConfigError: If the difference is 0, the deviation is not positive, or power or level are not between 0 and 1.
    """
    _check_test(power, level)
    if not 0 < sd < math.inf:
        raise ConfigError(f"the standard deviation is {sd:g}: it must be a number above 0")
    if not 0 < abs(difference) < math.inf:
        raise ConfigError(f"the difference is {difference:g}: no trial finds it")

    def missing(n: float) -> float:
        freedom, shift = 2 * n - 2, abs(difference) / sd * math.sqrt(n / 2)
        critical = stdtrit(freedom, (1 + level) / 2)
        # SciPy gives NaN where the probability of the other side is too small for a number.
        other_side = np.nan_to_num(nctdtr(freedom, shift, -critical))
        return float(1.0 - nctdtr(freedom, shift, critical) + other_side - power)

    normal = 2 * ((ndtri((1 + level) / 2) + ndtri(power)) * sd / difference) ** 2
    if normal > MAX_USERS_PER_ARM:
        raise ConfigError(
            f"a trial needs more than {MAX_USERS_PER_ARM:.0e} users per arm: look for a larger difference"
        )
    least = 2.0  # a standard deviation needs two users in each arm
    # From about 50 users on the normal approximation is short by about a quarter of the squared normal quantile.
    return least if missing(least) >= 0 else float(brentq(missing, least, 2 * normal + 50, xtol=1e-9, rtol=1e-12))


def _check_test(power: float, level: float) -> None:
    for name, share in (("power", power), ("level", level)):
        if not 0 < share < 1:
            raise ConfigError(f"{name} {share:g} is not between 0 and 1")

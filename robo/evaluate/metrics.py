"""Statistics of an evaluation."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def wilson(hits: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a rate, without continuity correction.

    Args:
        hits: Number of successes, 0..trials.
        trials: Number of trials; none gives (0, 1).
        z: Quantile of the normal distribution; the default gives 95 %.

    Returns:
        Lower and upper end, each in 0..1.

    Raises:
        ValueError: Not ``0 <= hits <= trials``.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    rate = hits / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    # At the ends the bound is 0 or 1 exactly; rounding must not push it past the rate.
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == trials else centre + half
    return low, high

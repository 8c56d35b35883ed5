"""Which days stand out of a series."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from statistics import median

# Modified z-scores (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993): from there on a value is an
# outlier; the factor makes the median absolute deviation comparable with a standard deviation.
_THRESHOLD = Decimal("3.5")
_FACTOR = Decimal("0.6745")
_FEWEST = 10  # values; of fewer, no typical spread can be told


def unusual(values: Sequence[Decimal]) -> list[int]:
    """The positions of the values that lie far from the median, the farthest first; none of a short or flat series."""
    if len(values) < _FEWEST:
        return []
    middle = median(values)
    distances = [abs(value - middle) for value in values]
    if (spread := median(distances)) == 0:
        return []
    far = [place for place, distance in enumerate(distances) if _FACTOR * distance / spread > _THRESHOLD]
    return sorted(far, key=lambda place: -distances[place])

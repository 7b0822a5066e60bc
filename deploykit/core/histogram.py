"""Sparse histograms of latency with log-spaced buckets: 2% wide, so any quantile is right to about 1%.

Bucket ``b`` holds the latencies from ``GROWTH**b`` up to ``GROWTH**(b+1)`` milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

GROWTH = 1.02
FLOOR_MS = 0.5  # nginx's clock ticks in milliseconds, so 0 means "less than one"
_LOG_GROWTH = math.log(GROWTH)


def bucket(seconds: float) -> int:
    """The bucket of a latency in seconds; what is below half a millisecond shares one bucket."""
    return math.floor(math.log(max(seconds * 1000.0, FLOOR_MS)) / _LOG_GROWTH + 1e-9)


def seconds_of(index: int) -> float:
    """The middle (geometric) of a bucket, in seconds."""
    return float(GROWTH ** (index + 0.5)) / 1000.0


def quantile_bucket(histogram: Mapping[int, int], q: float) -> int | None:
    """The bucket that holds the ``q`` quantile (nearest rank: the smallest with at least ``q`` of the counts)."""
    total = sum(histogram.values())
    if not total:
        return None
    rank = max(1, math.ceil(q * total - 1e-9))
    seen = 0
    for index in sorted(histogram):
        seen += histogram[index]
        if seen >= rank:
            return index
    return max(histogram)


def quantile(histogram: Mapping[int, int], q: float) -> float | None:
    """The ``q`` quantile in seconds, or None where nothing was counted."""
    index = quantile_bucket(histogram, q)
    return None if index is None else seconds_of(index)


def above(histogram: Mapping[int, int], index: int) -> int:
    """How many counts lie in buckets strictly above ``index``."""
    return sum(count for b, count in histogram.items() if b > index)


def merge(into: dict[int, int], other: Mapping[int, int], sign: int = 1) -> None:
    """Add (or, with ``sign=-1``, take away) the counts of ``other`` in place; a bucket at zero is dropped."""
    for index, count in other.items():
        total = into.get(index, 0) + sign * count
        if total:
            into[index] = total
        else:
            into.pop(index, None)

"""Latencies in a bounded number of buckets, each 2% wide."""

from __future__ import annotations

import math

FLOOR_MS = 0.05
CEILING_MS = 3_600_000.0
_WIDTH = math.log(1.02)


class Histogram:
    """Counts latencies in milliseconds; a percentile is right within 2% and never above the largest one seen."""

    __slots__ = ("buckets", "count", "largest")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.largest = 0.0

    def add(self, ms: float) -> None:
        ms = min(max(ms, FLOOR_MS), CEILING_MS)
        bucket = math.ceil(math.log(ms / FLOOR_MS) / _WIDTH)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.largest = max(self.largest, ms)

    def percentile(self, share: float) -> float | None:
        """The latency in ms that ``share`` (0 to 1) of the requests stayed within; None where there are none."""
        if not self.count:
            return None
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return round(min(FLOOR_MS * math.exp(bucket * _WIDTH), self.largest), 2)
        return round(self.largest, 2)

    @property
    def max(self) -> float | None:
        return round(self.largest, 2) if self.count else None

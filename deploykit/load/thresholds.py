"""What a load run must keep to. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploykit.errors import UsageError
from deploykit.load.job import LoadResult
from deploykit.load.shape import parse_duration


@dataclass(frozen=True)
class Thresholds:
    """``max_failed`` is a ratio from 0 to 1; ``p95_ms`` and ``p99_ms`` are milliseconds. None is not looked at."""

    max_failed: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None

    @property
    def any(self) -> bool:
        return self != Thresholds()


def parse_ratio(text: str) -> float:
    """A ratio from ``1%``, ``0.5%`` or ``0.01``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    ratio = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= ratio <= 1:
        raise UsageError(f"{text!r} is not a share of requests", hint="Write it like 1% or 0.01.")
    return ratio


def parse_ms(text: str) -> float:
    """Milliseconds from ``300ms``, ``0.3s`` or a bare ``300``."""
    return float(text) if re.fullmatch(r"\d+(\.\d+)?", text.strip()) else parse_duration(text) * 1000


def check(result: LoadResult, thresholds: Thresholds) -> list[str]:
    """What was missed, one sentence each: first that there were requests at all, then failures, then percentiles."""
    if not thresholds.any:
        return []
    if result.requests <= 0:
        return ["no request was answered, so no threshold can hold"]
    missed = []
    if thresholds.max_failed is not None and result.failed > thresholds.max_failed * result.requests:
        missed.append(
            f"{result.failed} of {result.requests} requests failed ({result.failure_ratio:.2%}), "
            f"at most {thresholds.max_failed:.2%} may"
        )
    for name, limit, found in (
        ("p95", thresholds.p95_ms, result.p95_ms),
        ("p99", thresholds.p99_ms, result.p99_ms),
    ):
        if limit is not None and (found is None or found > limit):
            missed.append(
                f"{name} is {'unknown' if found is None else f'{found:g} ms'}, at most {limit:g} ms is allowed"
            )
    return missed

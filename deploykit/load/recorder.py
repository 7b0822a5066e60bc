"""Adds up what the users of a run report. Memory stays flat however long it runs."""

from __future__ import annotations

from typing import Any

from deploykit.load.histogram import Histogram
from deploykit.load.job import LoadResult, Second

MAX_LABELS = 50
MAX_REASONS = 50
OTHER = "(other)"
CEILING_PERCENT = 90.0
CEILING_LAG_MS = 250.0


class _Version:
    def __init__(self) -> None:
        self.requests = 0
        self.failed = 0
        self.latency = Histogram()


class Recorder:
    """Totals and the second under way. Latencies are milliseconds, CPU is percent of one core."""

    def __init__(self) -> None:
        self.offered = self.requests = self.failed = self.dropped = 0
        self.latency = Histogram()
        self.versions: dict[str, _Version] = {}
        self.errors: dict[str, int] = {}
        self.max_lag_ms = 0.0
        self.max_cpu_percent = 0.0
        self._seen = (0, 0, 0, 0)
        self._second = Histogram()
        self._second_versions: dict[str, list[int]] = {}

    def arrived(self, lag_ms: float) -> None:
        """An arrival was due ``lag_ms`` ago."""
        self.offered += 1
        self.max_lag_ms = max(self.max_lag_ms, lag_ms)

    def answered(self, ms: float, reason: str | None, version: str | None) -> None:
        """A request ended after ``ms``; ``reason`` says why it failed, None where it did not."""
        failed = 1 if reason is not None else 0
        self.requests += 1
        self.failed += failed
        self.latency.add(ms)
        self._second.add(ms)
        if reason is not None:
            key = reason if reason in self.errors or len(self.errors) < MAX_REASONS else OTHER
            self.errors[key] = self.errors.get(key, 0) + 1
        if version:
            label = version if version in self.versions or len(self.versions) < MAX_LABELS else OTHER
            total = self.versions.setdefault(label, _Version())
            total.requests += 1
            total.failed += failed
            total.latency.add(ms)
            second = self._second_versions.setdefault(label, [0, 0])
            second[0] += 1
            second[1] += failed

    def second(self, t: float, in_flight: int, cpu_percent: float = 0.0) -> Second:
        """Close the second that ends now, ``t`` seconds after the start."""
        now = (self.offered, self.requests, self.failed, self.dropped)
        offered, requests, failed, dropped = (after - before for after, before in zip(now, self._seen, strict=True))
        record = Second(
            t=round(t, 2),
            offered=offered,
            requests=requests,
            failed=failed,
            in_flight=in_flight,
            p50_ms=self._second.percentile(0.5),
            p95_ms=self._second.percentile(0.95),
            by_version={label: {"requests": n, "failed": f} for label, (n, f) in self._second_versions.items()},
            dropped=dropped,
        )
        self._seen, self._second, self._second_versions = now, Histogram(), {}
        self.max_cpu_percent = max(self.max_cpu_percent, cpu_percent)
        return record

    def result(self, *, loop: str, sending_s: float, total_s: float, cpu_percent: float) -> LoadResult:
        """The run so far: arrivals went on for ``sending_s`` seconds, the last answer came at ``total_s``."""
        reached = max(cpu_percent, self.max_cpu_percent) > CEILING_PERCENT or self.max_lag_ms > CEILING_LAG_MS
        return LoadResult(
            offered_rps=_per_second(self.offered, sending_s),
            achieved_rps=_per_second(self.requests, total_s),
            requests=self.requests,
            failed=self.failed,
            dropped=self.dropped,
            p50_ms=self.latency.percentile(0.5),
            p95_ms=self.latency.percentile(0.95),
            p99_ms=self.latency.percentile(0.99),
            max_ms=self.latency.max,
            loop=loop,
            by_version={label: _version(self.versions[label]) for label in sorted(self.versions)},
            errors=tuple(
                {"reason": reason, "count": count}
                for reason, count in sorted(self.errors.items(), key=lambda item: (-item[1], item[0]))
            ),
            generator_ceiling={
                "reached": reached,
                "cpu_percent": round(cpu_percent, 1),
                "max_cpu_percent": round(self.max_cpu_percent, 1),
                "max_lag_ms": round(self.max_lag_ms, 1),
            },
            seconds=round(total_s, 2),
        )


def _version(version: _Version) -> dict[str, Any]:
    return {
        "requests": version.requests,
        "failed": version.failed,
        "p50_ms": version.latency.percentile(0.5),
        "p95_ms": version.latency.percentile(0.95),
    }


def _per_second(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 else 0.0

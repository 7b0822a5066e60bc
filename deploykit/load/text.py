"""A load run in words: the live line and the closing summary. Pure."""

from __future__ import annotations

from deploykit.load.job import LoadResult, Second


def ms(value: float | None) -> str:
    """A latency for people: ``-`` where there is none, seconds from 10,000 ms on."""
    if value is None:
        return "-"
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms"


def live_line(second: Second, duration: float | None) -> str:
    """One second in one line."""
    clock = f"{second.t:.0f}s" if duration is None else f"{min(second.t, duration):.0f}/{duration:g}s"
    parts = [
        clock,
        f"offered {second.offered}/s",
        f"answered {second.requests}/s",
        f"failed {second.failed}/s",
        f"in flight {second.in_flight}",
        f"p50 {ms(second.p50_ms)}",
        f"p95 {ms(second.p95_ms)}",
    ]
    if second.dropped:
        parts.append(f"dropped {second.dropped}/s")
    versions = versions_line(second)
    return "  ".join([*parts, versions] if versions else parts)


def versions_line(second: Second) -> str:
    """``blue 95%, green 5%`` of this second's answers that named a version."""
    total = sum(counts["requests"] for counts in second.by_version.values())
    shares = sorted((label, counts["requests"] / total) for label, counts in second.by_version.items()) if total else []
    return ", ".join(f"{label} {share:.0%}" for label, share in shares)


def summary(result: LoadResult) -> list[str]:
    """The whole run, line by line."""
    loop = "open loop (arrivals follow the clock)" if result.loop == "open" else "closed loop (users wait for answers)"
    lines = [
        f"Ran        {result.seconds:.1f} s, {loop}",
        f"Offered    {result.offered_rps:g} requests/s",
        f"Achieved   {result.achieved_rps:g} requests/s",
        f"Requests   {result.requests}, failed {result.failed} ({result.failure_ratio:.2%}), dropped {result.dropped}",
        f"Latency    p50 {ms(result.p50_ms)}, p95 {ms(result.p95_ms)}, "
        f"p99 {ms(result.p99_ms)}, max {ms(result.max_ms)}",
    ]
    for label, version in result.by_version.items():
        lines.append(
            f"  {label}: {version['requests']} requests, {version['failed']} failed, "
            f"p50 {ms(version['p50_ms'])}, p95 {ms(version['p95_ms'])}"
        )
    if result.errors:
        lines.append("Failures")
        lines += [f"  {error['count']} x {error['reason']}" for error in result.errors]
    lines.append(generator_line(result))
    return lines


def generator_line(result: LoadResult) -> str:
    """Whether the generator itself was the limit."""
    ceiling = result.generator_ceiling
    if not ceiling:
        return "Generator  unknown"
    measured = f"{ceiling['cpu_percent']:g}% of a core, at most {ceiling['max_lag_ms']:g} ms behind the clock"
    if ceiling["reached"]:
        return f"Generator  AT ITS CEILING: {measured}; the latencies are partly its own. Ask for a lower rate."
    return f"Generator  {measured}"

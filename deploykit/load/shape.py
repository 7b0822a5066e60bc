"""How the arrival rate moves over time: pure functions of t, parsed from short strings.

constant               the base rate throughout
ramp:FROM-TO           straight line from FROM to TO over the run (over 60 s where the run has no end), then TO
ramp:FROM-TO@30s       the same, over 30 s
step:R1@10s,R2@20s     the base rate, R1 from 10 s on, R2 from 20 s on
spike                  the base rate, five times as much for the middle tenth of the run
spike:500              the same, up to 500/s (without an end: 6 s out of every 60 s)
sine                   half to one and a half times the base rate, one wave a minute
sine:10-90@30s         between 10/s and 90/s, one wave every 30 s

Rates are requests per second, times are seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from deploykit.errors import UsageError

KINDS = ("constant", "ramp", "step", "spike", "sine")
DEFAULT_PERIOD = 60.0
SPIKE_FACTOR = 5.0
SLICE = 0.01
MAX_RATE = 1_000_000.0

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds from ``30``, ``30s``, ``1m30s``, ``250ms`` or ``1h``."""
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not text or _DURATION.sub("", text):
        raise UsageError(f"{text!r} is not a duration", hint="Write it like 30s, 250ms, 2m or 1m30s.")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


@dataclass(frozen=True)
class Shape:
    """``points`` holds (start in seconds, rate) for step and (low, high) in the first pair for ramp and sine.

    ``period`` is the length of a ramp or of one wave in seconds; None means the kind's default.
    """

    text: str = "constant"
    kind: str = "constant"
    points: tuple[tuple[float, float], ...] = ()
    period: float | None = None

    def rate(self, t: float, base: float, duration: float | None = None) -> float:
        """Arrivals per second at ``t`` seconds, for a base rate and a run of ``duration`` seconds (None: no end)."""
        if self.kind == "ramp":
            low, high = self.points[0]
            length = self.period or duration or DEFAULT_PERIOD
            return low + (high - low) * min(1.0, max(0.0, t / length))
        if self.kind == "step":
            return next((rate for start, rate in reversed(self.points) if t >= start), base)
        if self.kind == "spike":
            length = duration or DEFAULT_PERIOD
            peak = self.points[0][1] if self.points else base * SPIKE_FACTOR
            return peak if 0.45 <= (t % length) / length < 0.55 else base
        if self.kind == "sine":
            low, high = self.points[0] if self.points else (base * 0.5, base * 1.5)
            wave = math.sin(2 * math.pi * t / (self.period or DEFAULT_PERIOD))
            return min(high, max(low, (low + high) / 2 + (high - low) / 2 * wave))
        return base


CONSTANT = Shape()


def parse_shape(text: str) -> Shape:
    """A Shape from its string (see the top of this file); UsageError where it is not one."""
    kind, _, rest = text.strip().partition(":")
    try:
        if kind == "constant" and not rest:
            return Shape(text=kind)
        if kind == "ramp":
            span, _, period = rest.partition("@")
            return Shape(text, kind, (_pair(span),), _length(period))
        if kind == "step":
            return Shape(text, kind, _steps(rest))
        if kind == "spike":
            return Shape(text, kind, ((0.0, _rate(rest)),) if rest else ())
        if kind == "sine":
            span, _, period = rest.partition("@")
            return Shape(text, kind, (_pair(span),) if span else (), _length(period))
    except ValueError:
        pass
    raise UsageError(
        f"{text!r} is not a load shape",
        hint="Known: constant, ramp:10-200, step:50@10s,100@20s, spike[:500], sine[:10-90@30s].",
    )


def arrivals(shape: Shape, base: float, duration: float | None = None) -> Iterator[float]:
    """The moments of arrival in seconds from the start: evenly spaced under the curve of the rate.

    A constant rate r over d seconds gives r*d arrivals, the first at half a gap. Endless where duration is None.
    """
    mass, due, index = 0.0, 0.5, 0
    while duration is None or index * SLICE < duration:
        start = index * SLICE
        length = SLICE if duration is None else min(SLICE, duration - start)
        step = max(0.0, shape.rate(start + length / 2, base, duration)) * length
        while step > 0 and mass + step >= due:
            yield start + length * max(0.0, (due - mass) / step)
            due += 1
        mass += step
        index += 1


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate <= MAX_RATE:
        raise ValueError(text)
    return rate


def _pair(text: str) -> tuple[float, float]:
    low, dash, high = text.partition("-")
    if not dash:
        raise ValueError(text)
    return _rate(low), _rate(high)


def _length(text: str) -> float | None:
    if not text:
        return None
    length = parse_duration(text)
    if length <= 0:
        raise ValueError(text)
    return length


def _steps(text: str) -> tuple[tuple[float, float], ...]:
    steps = []
    for part in text.split(","):
        rate, at, start = part.partition("@")
        if not at:
            raise ValueError(part)
        steps.append((parse_duration(start), _rate(rate)))
    if steps != sorted(steps, key=lambda step: step[0]):
        raise ValueError(text)
    return tuple(steps)

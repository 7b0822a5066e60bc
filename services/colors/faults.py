"""Faults that user endpoints show: from the environment at start, changed at run time over ``/fault``."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

# The highest value of each field; the lowest is 0.
LIMITS = {"error_rate": 1.0, "latency_ms": 60_000.0, "latency_jitter_ms": 60_000.0}
LONGEST_S = 86_400.0


class BadFault(ValueError):
    """A value that is no number, out of range, or of an unknown name."""


@dataclass(frozen=True)
class Fault:
    """``error_rate`` is a share of requests, 0 to 1; latency is ``latency_ms`` ± ``latency_jitter_ms``."""

    error_rate: float = 0.0
    latency_ms: float = 0.0
    latency_jitter_ms: float = 0.0


def from_environment(environment: Mapping[str, str]) -> Fault:
    """ERROR_RATE, LATENCY_MS and LATENCY_JITTER_MS. Raises BadFault, which ends the program at its start."""
    values = {}
    for field in fields(Fault):
        text = environment.get(field.name.upper(), "").strip() or "0"
        try:
            value: object = float(text)
        except ValueError:
            value = text
        values[field.name] = _number(field.name.upper(), value, LIMITS[field.name])
    return Fault(**values)


def _number(name: str, value: object, highest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadFault(f"{name} must be a number")
    if not 0 <= value <= highest:
        raise BadFault(f"{name} must lie between 0 and {highest:g}")
    return float(value)


class Faults:
    """The faults in force. Safe to use from several threads."""

    def __init__(self, initial: Fault) -> None:
        self._initial = initial
        self._current = initial
        self._until = math.inf  # time.monotonic()
        self._lock = threading.Lock()
        self._random = random.SystemRandom()  # replicas must not fail in step

    def current(self) -> Fault:
        with self._lock:
            if time.monotonic() >= self._until:
                self._current, self._until = self._initial, math.inf
            return self._current

    def show(self) -> dict[str, float | None]:
        """The fields of `Fault`, and ``left_s``: seconds until the reset, None where there is none."""
        current = self.current()
        with self._lock:
            left = None if math.isinf(self._until) else max(0.0, self._until - time.monotonic())
        return {**asdict(current), "left_s": left}

    def change(self, wanted: object) -> None:
        """Take the fields named in `wanted`; the others stay. ``for_s`` seconds later (0: never) all are reset."""
        if not isinstance(wanted, dict) or not wanted:
            raise BadFault("an object with error_rate, latency_ms, latency_jitter_ms or for_s is expected")
        if unknown := sorted(set(wanted) - {*LIMITS, "for_s"}):
            raise BadFault(f"unknown: {', '.join(unknown)}")
        values = {name: _number(name, wanted[name], limit) for name, limit in LIMITS.items() if name in wanted}
        lasting = _number("for_s", wanted.get("for_s", 0), LONGEST_S) or math.inf
        current = self.current()
        with self._lock:
            self._current = replace(current, **values)
            self._until = time.monotonic() + lasting

    def reset(self) -> None:
        """Back to what the environment said at the start."""
        with self._lock:
            self._current, self._until = self._initial, math.inf

    def strike(self) -> bool:
        """Wait as long as the latency says; True where this request is to fail."""
        fault = self.current()
        wait = fault.latency_ms + self._random.uniform(-1, 1) * fault.latency_jitter_ms
        if wait > 0:
            time.sleep(wait / 1000)
        return self._random.random() < fault.error_rate

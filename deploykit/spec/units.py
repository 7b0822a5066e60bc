"""Durations (``1m30s``) in seconds, sizes (``64m``) in bytes, and the typed reading of single values.

Each reader raises `SpecError` at the value's place and says what was expected.
"""

from __future__ import annotations

import math
import re

from deploykit.spec.model import Position
from deploykit.spec.nodes import Map, Node, Scalar, fail, kind, scalar_text

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h|d|w)")
_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?)(i?b)?\Z", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
LONGEST = 100 * 365 * 86400.0
DURATION_HINT = "a duration is written like 250ms, 10s or 1m30s"


def seconds(text: str) -> float | None:
    """``1m30s`` in seconds; None where it is no duration. ``0`` needs no unit."""
    text = text.strip()
    if text in ("0", "0.0"):
        return 0.0
    total, index = 0.0, 0
    while index < len(text):
        found = _DURATION.match(text, index)
        if not found:
            return None
        total += float(found[1]) * _SECONDS[found[2]]
        index = found.end()
    return round(total, 9) if text and total <= LONGEST else None


def go_duration(value: float) -> str:
    """Seconds as Compose prints them: ``1m30s``, ``250ms``, ``1h0m0s``."""
    nanos = round(value * 1e9)
    if nanos == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanos < (size * 1000 if unit != "ms" else 1_000_000_000):
            return f"{_trim(nanos / size)}{unit}"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_trim(rest / 1e9)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _trim(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def size_in_bytes(text: str) -> int | None:
    """``64m`` in bytes (k, m, g, t, p are powers of 1024); None where it is no size."""
    found = _SIZE.match(text.strip())
    if not found:
        return None
    value = float(found[1]) * 1024 ** _POWERS[found[2].lower()]
    return int(value) if value < 2**63 else None


def text_of(node: Node, what: str) -> str:
    if not isinstance(node, Scalar):
        raise fail(node.at, f"{what} must be a string, not {kind(node)}")
    return scalar_text(node.value)


def duration(node: Node, what: str) -> float:
    """Seconds."""
    value = seconds(text_of(node, what))
    if value is None:
        raise fail(node.at, f"{what} must be a duration, not '{text_of(node, what)}'", DURATION_HINT)
    return value


def size(node: Node, what: str) -> int:
    """Bytes."""
    value = size_in_bytes(text_of(node, what))
    if value is None:
        raise fail(node.at, f"{what} must be a size, not '{text_of(node, what)}'", "a size is written like 64m or 1g")
    return value


def boolean(node: Node, what: str) -> bool:
    text = text_of(node, what).lower()
    if text in ("true", "yes", "on", "y", "1"):
        return True
    if text in ("false", "no", "off", "n", "0"):
        return False
    raise fail(node.at, f"{what} must be true or false, not '{text_of(node, what)}'")


def integer(node: Node, what: str, low: int | None = None, high: int | None = None) -> int:
    text = text_of(node, what)
    try:
        value = int(text)
    except ValueError:
        raise fail(node.at, f"{what} must be an integer, not '{text}'") from None
    _in_range(node.at, what, value, low, high, text)
    return value


def number(node: Node, what: str, low: float | None = None, high: float | None = None) -> float:
    text = text_of(node, what)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise fail(node.at, f"{what} must be a number, not '{text}'")
    _in_range(node.at, what, value, low, high, text)
    return value


def fraction(node: Node, what: str) -> float:
    """0-1, written as ``0.005`` or ``0.5%``."""
    text = text_of(node, what)
    bare = text.strip().removesuffix("%")
    try:
        value = float(bare) / (100 if bare != text.strip() else 1)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise fail(node.at, f"{what} must be a fraction, not '{text}'", "a fraction is written like 0.5% or 0.005")
    _in_range(node.at, what, value, 0, 1, text)
    return value


def choice(node: Node, what: str, allowed: tuple[str, ...]) -> str:
    text = text_of(node, what)
    if text not in allowed:
        raise fail(node.at, f"{what} must be one of {', '.join(allowed)}, not '{text}'")
    return text


def mapping(node: Node, what: str) -> Map:
    if not isinstance(node, Map):
        raise fail(node.at, f"{what} must be a mapping, not {kind(node)}")
    return node


def _in_range(at: Position, what: str, value: float, low: float | None, high: float | None, text: str) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        span = f"at least {low}" if high is None else f"{low} to {high}"
        raise fail(at, f"{what} must be {span}, not {text}")

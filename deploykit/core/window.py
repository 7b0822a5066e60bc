"""One second of one service's traffic on one track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Window:
    """``requests``/``failed`` count what users got; ``attempts``/``errors`` what the track's replicas answered.

    They differ where nginx retried. A failure is a 5xx answer or none at all. ``latency`` maps a bucket (see
    `core.histogram`) to a count of attempts. ``forced`` counts requests sent to the track by a header; they are
    in no other field. ``second`` is Unix time, whole seconds.
    """

    second: int
    service: str
    track: str
    requests: int = 0
    failed: int = 0
    attempts: int = 0
    errors: int = 0
    forced: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

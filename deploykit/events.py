"""Something that happened, with its cause. The terminal, JSON lines and reports all read these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    """``kind`` is dotted and stable (``replica.started``, ``rollout.weight``); ``text`` is for people.

    ``cause`` says why it happened; ``data`` holds JSON-ready fields; ``at`` is Unix time in seconds.
    """

    kind: str
    text: str
    at: float
    service: str = ""
    cause: str = ""
    data: dict[str, Any] = field(default_factory=dict)


Sink = Callable[[Event], None]


def quiet(event: Event) -> None:
    """The sink that shows nothing."""

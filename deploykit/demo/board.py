"""What the demo knows at any moment; written by the acts, read by the screen and the report."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from deploykit.core.rollout import Rollout
from deploykit.events import Event
from deploykit.load.job import Second


@dataclass
class Act:
    """One act. Times are seconds since the demo began; ``hurt`` is what the rollout counted, if there was one."""

    number: int
    title: str
    started: float
    ended: float | None = None
    outcome: str = ""
    hurt: int = 0
    detected: float | None = None


@dataclass(frozen=True)
class Sample:
    """One second of the demo, for the plots."""

    at: float
    second: Second
    weight: float
    replicas: dict[str, int]
    abort: float
    promote: float


@dataclass
class Board:
    """Safe to use from several threads for what they each do: append, replace, read."""

    clock: Callable[[], float] = time.monotonic
    acts: list[Act] = field(default_factory=list)
    events: list[tuple[float, Event]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    recent: deque[Event] = field(default_factory=lambda: deque(maxlen=8))
    rollout: Rollout | None = None
    replicas: Callable[[], dict[str, int]] = dict
    requests: int = 0
    failed: int = 0
    canary_since: float | None = None
    began: float = 0.0
    on_act: Callable[[Act], None] | None = None

    def __post_init__(self) -> None:
        self.began = self.clock()
        self._lock = threading.Lock()

    @property
    def now(self) -> float:
        return self.clock() - self.began

    def begin(self, title: str) -> Act:
        act = Act(len(self.acts) + 1, title, self.now)
        self.acts.append(act)
        if self.on_act is not None:
            self.on_act(act)
        return act

    def end(self, outcome: str) -> None:
        act = self.acts[-1]
        act.ended, act.outcome = self.now, outcome
        self.rollout = None

    def event(self, event: Event) -> None:
        with self._lock:
            self.events.append((self.now, event))
            if event.kind != "image.progress":
                self.recent.append(event)

    def look(self, rollout: Rollout) -> None:
        """Where the rollout stands; notes when its canary first had traffic and when it was caught."""
        self.rollout = rollout
        act = self.acts[-1]
        act.hurt = rollout.counts.hurt
        if rollout.phase == "aborted" and act.detected is None and self.canary_since is not None:
            act.detected = self.now - self.canary_since

    def second(self, second: Second) -> None:
        rollout = self.rollout
        self.requests += second.requests
        self.failed += second.failed
        self.samples.append(
            Sample(
                self.now,
                second,
                rollout.weight if rollout else 0.0,
                self.replicas(),
                rollout.evidence_abort if rollout else 0.0,
                rollout.evidence_promote if rollout else 0.0,
            )
        )

    def totals(self, act: Act) -> tuple[int, int]:
        """Requests and failures of an act, by the load generator's own seconds."""
        end = act.ended if act.ended is not None else self.now
        mine = [s.second for s in self.samples if act.started < s.at <= end]
        return sum(s.requests for s in mine), sum(s.failed for s in mine)

"""What is being answered right now: counted for ``/metrics``, and watched while the replica drains."""

from __future__ import annotations

import threading
import time
from collections import Counter

QUIET_S = 0.25  # without a request for so long, a draining replica has nothing more to expect
LONGEST_DRAIN_S = 5.0  # then no new requests are taken; those in flight still finish


class Traffic:
    """User requests by status and in flight; probes do not count. Safe to use from several threads."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.draining = False
        self.in_flight = 0
        self._by_status: Counter[int] = Counter()
        self._last = 0.0
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            self.in_flight += 1
            self._last = time.monotonic()

    def end(self, status: int) -> None:
        with self._lock:
            self.in_flight -= 1
            self._last = time.monotonic()
            self._by_status[status] += 1

    def by_status(self) -> dict[int, int]:
        with self._lock:
            return dict(sorted(self._by_status.items()))

    def quiet(self) -> bool:
        with self._lock:
            return self.in_flight == 0 and time.monotonic() - self._last > QUIET_S

    def drain(self) -> None:
        """Return when nothing is in flight and nothing more comes, or when that takes too long."""
        self.draining = True
        deadline = time.monotonic() + LONGEST_DRAIN_S
        while not self.quiet() and time.monotonic() < deadline:
            time.sleep(0.02)

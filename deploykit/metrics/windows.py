"""Access-log lines into one `Window` for each second, service and track, as they come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deploykit.core.histogram import bucket
from deploykit.core.window import Window
from deploykit.metrics.access_log import Hit, parse

LAG = 0.4  # seconds a second stays open after its end: nginx flushes its log buffer every 100 ms
AHEAD = 2  # seconds a line's clock may run ahead of ours
LONGEST_GAP = 60  # silent seconds reported one by one; a longer gap (the machine slept) is skipped


@dataclass(frozen=True)
class Second:
    """One closed second. ``addresses`` maps an upstream address to its (requests, errors), counted per attempt."""

    second: int
    windows: Mapping[tuple[str, str], Window] = field(default_factory=dict)
    addresses: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def window(self, service: str, track: str) -> Window:
        """The window of a service's track, empty where it had no traffic."""
        return self.windows.get((service, track)) or Window(self.second, service, track)


class _Tally:
    __slots__ = ("attempts", "errors", "failed", "forced", "latency", "requests")

    def __init__(self) -> None:
        self.requests = self.failed = self.attempts = self.errors = self.forced = 0
        self.latency: dict[int, int] = {}


class _Open:
    """A second still being counted."""

    __slots__ = ("addresses", "tallies")

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str], _Tally] = {}
        self.addresses: dict[str, list[int]] = {}

    def tally(self, service: str, track: str) -> _Tally:
        key = (service, track)
        found = self.tallies.get(key)
        if found is None:
            found = self.tallies[key] = _Tally()
        return found

    def close(self, second: int) -> Second:
        windows = {
            key: Window(second, *key, t.requests, t.failed, t.attempts, t.errors, t.forced, t.latency)
            for key, t in self.tallies.items()
        }
        return Second(second, windows, {a: (n, e) for a, (n, e) in self.addresses.items()})


class WindowAggregator:
    """Feed it lines, get closed seconds. Memory is bounded by the few seconds that are open.

    ``tracks`` maps an upstream address to its track, where known; it can be replaced at any time. Without it, attempts
    after nginx went on to another upstream block (the shield) are stable's. A line later than the lag is counted in the
    oldest second still open, so that no request is lost. ``malformed`` counts lines that could not be read.
    """

    def __init__(self, tracks: Mapping[str, str] | None = None, lag: float = LAG) -> None:
        self.tracks: Mapping[str, str] = tracks or {}
        self.lag = lag
        self.lines = self.malformed = self.late = 0
        self._open: dict[int, _Open] = {}
        self._next: int | None = None  # the oldest second not yet closed
        self._newest = 0.0

    def feed(self, lines: Iterable[bytes], now: float | None = None) -> list[Second]:
        """Count ``lines`` and return the seconds that closed, oldest first, silent ones too.

        ``now`` is Unix time in seconds: with it, seconds close although no line comes. Without it, the log's clock.
        """
        for line in lines:
            self.lines += 1
            hit = parse(line)
            if hit is None:
                self.malformed += 1
            else:
                self._count(hit, now)
        return self._close((self._newest if now is None else now) - self.lag)

    def flush(self) -> list[Second]:
        """Close all that is open."""
        return self._close(max(self._open) + 1.0) if self._open else []

    def _count(self, hit: Hit, now: float | None) -> None:
        second = int(hit.at)
        if now is not None and second > now + AHEAD:
            second = int(now)
        elif hit.at > self._newest:
            self._newest = hit.at
        if self._next is None:
            self._next = second
        elif second < self._next:
            self.late += 1
            second = self._next
        slot = self._open.get(second)
        if slot is None:
            slot = self._open[second] = _Open()
        tally = slot.tally(hit.service, hit.track)
        if hit.forced:
            tally.forced += 1
            return
        tally.requests += 1
        if hit.status >= 500:
            tally.failed += 1
        for address, error, seconds, moved in hit.attempts:
            track = self.tracks.get(address)
            if track is None:
                track = "stable" if moved else hit.track
            tally = slot.tally(hit.service, track)
            tally.attempts += 1
            seen = slot.addresses.get(address)
            if seen is None:
                seen = slot.addresses[address] = [0, 0]
            seen[0] += 1
            if error:
                tally.errors += 1
                seen[1] += 1
            if seconds is not None:
                index = bucket(seconds)
                tally.latency[index] = tally.latency.get(index, 0) + 1

    def _close(self, until: float) -> list[Second]:
        closed: list[Second] = []
        if self._next is None:
            return closed
        end = int(until)  # seconds before this one are over
        while self._next < end:
            if end - self._next > LONGEST_GAP and self._next not in self._open:
                self._next = min([*self._open, end - LONGEST_GAP])
            slot = self._open.pop(self._next, None)
            closed.append(slot.close(self._next) if slot else Second(self._next))
            self._next += 1
        return closed

"""What a load run is told, what it tells every second, and what it tells at the end. Plain data, cheap to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deploykit.load.shape import CONSTANT, Shape, parse_shape

DEFAULT_RATE = 50.0
DEFAULT_MAX_IN_FLIGHT = 1000
DEFAULT_CLOSED_USERS = 10
DEFAULT_TIMEOUT = 10.0
VERSION_HEADER = "X-Deploykit-Version"


@dataclass(frozen=True)
class LoadJob:
    """One load run.

    ``target`` is the base URL. ``rate`` is requests per second (in a closed loop it paces the users; 0: unpaced).
    ``users`` bounds the requests in flight in an open loop, and is the number of users in a closed one.
    ``duration`` is in seconds, None runs until stopped. ``paths`` are asked in turn. ``timeout`` is in seconds.
    With ``locustfile`` the users of that file run, in a closed loop.
    """

    target: str
    rate: float = DEFAULT_RATE
    users: int = DEFAULT_MAX_IN_FLIGHT
    duration: float | None = None
    shape: Shape = CONSTANT
    paths: tuple[str, ...] = ("/",)
    locustfile: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    timeout: float = DEFAULT_TIMEOUT
    closed: bool = False

    @property
    def loop(self) -> str:
        return "closed" if self.closed or self.locustfile else "open"

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "shape": self.shape.text, "paths": list(self.paths), "headers": dict(self.headers)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> LoadJob:
        return LoadJob(**{**data, "shape": parse_shape(data["shape"]), "paths": tuple(data["paths"])})


@dataclass(frozen=True)
class Second:
    """What happened in the second that ended ``t`` seconds after the start.

    ``offered`` counts arrivals, ``requests`` answers (failed ones included), ``dropped`` arrivals that were not sent
    because too many were in flight. Latencies are None where nothing was answered.
    ``by_version`` maps a version label to ``{requests, failed}``.
    """

    t: float
    offered: int
    requests: int
    failed: int
    in_flight: int
    p50_ms: float | None
    p95_ms: float | None
    by_version: Mapping[str, Mapping[str, int]]
    dropped: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Second:
        return Second(**data)


@dataclass(frozen=True)
class LoadResult:
    """The whole run. ``requests`` counts every answer and every failure; ``failed`` 4xx, 5xx and no answer at all.

    Rates are per second over ``seconds``. Latencies are milliseconds from the intended start, None without requests.
    ``errors`` is a list of ``{reason, count}``, the most frequent first. ``generator_ceiling`` says whether the
    generator itself was the limit: ``{reached, cpu_percent, max_cpu_percent, max_lag_ms}``.
    """

    offered_rps: float = 0.0
    achieved_rps: float = 0.0
    requests: int = 0
    failed: int = 0
    dropped: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    loop: str = "open"
    by_version: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[Mapping[str, Any], ...] = ()
    generator_ceiling: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def failure_ratio(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "errors": [dict(error) for error in self.errors]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> LoadResult:
        return LoadResult(**{**data, "errors": tuple(data["errors"])})

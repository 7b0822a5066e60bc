"""Who gets which part of the traffic: services to tracks, tracks to weights and replicas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deploykit.core.replica import Replica
from deploykit.spec.model import Port, Service

TrackName = Literal["stable", "canary"]


@dataclass(frozen=True)
class Server:
    """One replica as nginx sees it. ``label`` is its version's human name."""

    address: str
    label: str


@dataclass(frozen=True)
class Track:
    name: TrackName
    weight: float
    servers: tuple[Server, ...]


@dataclass(frozen=True)
class Route:
    """A service's published ports and the tracks behind them. Weights are percent and sum to 100."""

    service: str
    ports: tuple[Port, ...]
    tracks: tuple[Track, ...]

    def describe(self) -> str:
        parts = [f"{t.name} {t.weight:g}% of {len(t.servers)}" for t in self.tracks if t.servers]
        return f"{self.service}: " + (", ".join(parts) if parts else "no replica")


def route(
    service: Service,
    replicas: Iterable[Replica],
    *,
    stable: frozenset[str],
    canary: str | None = None,
    weight: float = 0.0,
) -> Route:
    """The route of `service` over its routable `replicas`.

    ``stable`` names the versions that get the stable track (two while one replaces the other), ``canary`` the one
    that gets ``weight`` percent. A track without a replica gives its share to the other, so that nobody gets a 502.
    """
    ordered = sorted((r for r in replicas if r.running and r.address), key=lambda r: r.number)
    on_stable = tuple(Server(r.address or "", r.label) for r in ordered if r.version in stable and r.version != canary)
    on_canary = tuple(Server(r.address or "", r.label) for r in ordered if canary is not None and r.version == canary)
    share = min(100.0, max(0.0, weight)) if on_canary else 0.0
    if on_canary and not on_stable:
        share = 100.0
    tracks = [Track("stable", 100.0 - share, on_stable)]
    if on_canary:
        tracks.append(Track("canary", share, on_canary))
    return Route(service.name, tuple(p for p in service.ports if p.protocol == "tcp"), tuple(tracks))

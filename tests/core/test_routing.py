from __future__ import annotations

from deploykit.core.replica import Replica
from deploykit.core.routing import route
from deploykit.spec.model import Port, Position, Service

WEB = Service("web", Position("compose.yaml", 1, 1), ports=(Port(8000, 8080),))


def replica(number: int, version: str, state: str = "running") -> Replica:
    return Replica(str(number), f"p-web-{number}", "p", "web", version, version, number, state, address=f"h:{number}")  # type: ignore[arg-type]


def test_each_version_on_its_track() -> None:
    made = route(WEB, [replica(2, "b"), replica(1, "a")], stable=frozenset({"a"}), canary="b", weight=25)
    assert made.describe() == "web: stable 75% of 1, canary 25% of 1"


def test_a_dead_canary_gives_its_share_back() -> None:
    made = route(WEB, [replica(1, "a"), replica(2, "b", "exited")], stable=frozenset({"a"}), canary="b", weight=25)
    assert made.describe() == "web: stable 100% of 1"


def test_without_stable_the_canary_serves_all() -> None:
    made = route(WEB, [replica(2, "b")], stable=frozenset({"a"}), canary="b", weight=25)
    assert made.describe() == "web: canary 100% of 1"

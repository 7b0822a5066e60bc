from __future__ import annotations

from dataclasses import replace

import pytest

from deploykit.control.health import ask, await_ready
from deploykit.core.replica import Replica, ReplicaSpec, check_command
from deploykit.errors import ReplicaFailed
from deploykit.runtimes.memory import MemoryRuntime
from deploykit.spec.model import Extension, Healthcheck, HealthProbe, Position, Service

CHECKED = Service(
    "db", Position("compose.yaml", 1, 1), healthcheck=Healthcheck(("CMD", "true"), interval=0.05, retries=2)
)


def started(runtime: MemoryRuntime, service: Service) -> Replica:
    return runtime.start(ReplicaSpec("p", service, "aaa", "v1", 1, "image", 0))


def test_a_compose_healthcheck_decides() -> None:
    runtime = MemoryRuntime()
    replica = started(runtime, CHECKED)
    assert await_ready(runtime, replica, CHECKED) == replica
    runtime.unhealthy.add("aaa")
    assert ask(runtime, replica, CHECKED).reason == "its healthcheck fails"
    assert not ask(runtime, replica, CHECKED).ready


def test_what_the_engine_has_just_found_is_not_asked_again() -> None:
    runtime = MemoryRuntime()
    replica = replace(started(runtime, CHECKED), health="healthy")
    runtime.unhealthy.add("aaa")
    assert ask(runtime, replica, CHECKED).ready


def test_our_own_probe_comes_first() -> None:
    runtime = MemoryRuntime()
    service = replace(CHECKED, extension=Extension(HealthProbe("/readyz", deadline=0.2)), expose=(1,))
    replica = replace(started(runtime, service), address="127.0.0.1:1")
    with pytest.raises(ReplicaFailed, match=r"was not ready within 0\.2s: GET /readyz got no answer"):
        await_ready(runtime, replica, service)


def test_none_switches_it_off() -> None:
    runtime = MemoryRuntime()
    service = replace(CHECKED, healthcheck=Healthcheck(("NONE",)))
    replica = started(runtime, service)
    runtime.unhealthy.add("aaa")
    assert ask(runtime, replica, service).ready


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (("CMD", "a", "b"), ("a", "b")),
        (("CMD-SHELL", "a b"), ("/bin/sh", "-c", "a b")),
        (("NONE",), None),
        ((), None),
    ],
)
def test_the_command_of_a_test(test: tuple[str, ...], command: tuple[str, ...] | None) -> None:
    assert check_command(test) == command


def test_without_a_test_the_port_still_has_to_answer() -> None:
    runtime = MemoryRuntime()
    service = replace(CHECKED, healthcheck=Healthcheck(()), expose=(1,))
    replica = replace(started(runtime, service), address="127.0.0.1:1")
    assert "does not accept connections" in ask(runtime, replica, service).reason


def test_asked_at_once_then_at_least_every_second(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, waits = MemoryRuntime(), list[float]()
    service = replace(CHECKED, healthcheck=Healthcheck(("CMD", "true"), interval=30.0))
    replica = started(runtime, service)
    runtime.unhealthy.add("aaa")

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 10:
            runtime.unhealthy.clear()

    monkeypatch.setattr("deploykit.control.health.time.sleep", sleep)
    await_ready(runtime, replica, service)
    assert waits[0] == pytest.approx(0.1)
    assert waits == sorted(waits)
    assert waits[-1] == 1.0

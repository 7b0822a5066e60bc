"""Is a replica ready? Asked by deploykit itself, several times a second."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from deploykit.core.replica import Replica
from deploykit.errors import ReplicaFailed
from deploykit.runtimes.base import Runtime
from deploykit.spec.model import Healthcheck, HealthProbe, Service

_BODY_LIMIT = 1 << 20


@dataclass(frozen=True)
class Answer:
    ready: bool
    reason: str


def port_of(service: Service) -> int:
    """The port a replica of `service` listens on: what nginx publishes, else the first exposed one, else 0."""
    published = service.http_port or next(iter(service.ports), None)
    if published is not None:
        return published.target
    return service.expose[0] if service.expose else 0


def ask(runtime: Runtime, replica: Replica, service: Service) -> Answer:
    """One look at a replica.

    `x-deploykit.health` asks over HTTP (ready below 400); else a Compose healthcheck is run, unless the engine has
    just found the replica healthy; else a published HTTP service is ready when it answers at all, a TCP one when it
    accepts a connection, and any other when it runs. A healthcheck without a `test` may have nothing to run (the
    image need not have one), so what comes after it is asked too.
    """
    probe = service.extension.health
    if probe is None and checked(service.healthcheck):
        assert service.healthcheck is not None
        if not replica.running or replica.health == "healthy":
            return Answer(replica.running, f"it is {replica.state}")
        passed = runtime.check(replica, service.healthcheck)
        if not passed or service.healthcheck.test:
            return Answer(passed, "its healthcheck passes" if passed else "its healthcheck fails")
    if replica.address is None or not port_of(service):
        return Answer(replica.running, f"it is {replica.state}")
    host, _, port = replica.address.rpartition(":")
    if probe is None and service.http_port is None:
        return _connects(host, int(port))
    return _http(host, int(port), probe)


def checked(healthcheck: Healthcheck | None) -> bool:
    """Whether there is a healthcheck to run."""
    return healthcheck is not None and healthcheck.test[:1] != ("NONE",)


def _patience(service: Service) -> tuple[float, float, float]:
    """Seconds until a replica must be ready, and the first and the longest wait between two looks."""
    probe, check = service.extension.health or HealthProbe(), service.healthcheck
    if service.extension.health is None and check is not None and checked(check):
        longest = max(0.02, min(x for x in (1.0, check.interval, check.start_interval) if x > 0))
        patience = max(probe.deadline, check.start_period + check.interval * check.retries)
        return patience, min(0.1, longest), longest
    return probe.deadline, 0.02, probe.interval


def _connects(host: str, port: int) -> Answer:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return Answer(True, "accepts connections")
    except OSError as error:
        return Answer(False, f"port {port} does not accept connections ({error.strerror or error})")


def _http(host: str, port: int, probe: HealthProbe | None) -> Answer:
    path, timeout = (probe.path, probe.timeout) if probe else ("/", 1.0)
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"User-Agent": "deploykit-probe", "Connection": "close"})
        response = connection.getresponse()
        status = response.status
        response.read(_BODY_LIMIT)  # hanging up on an answer would put an error in the app's own log
    except (OSError, http.client.HTTPException) as error:
        return Answer(False, f"GET {path} got no answer ({error or type(error).__name__})")
    finally:
        connection.close()
    return Answer(probe is None or status < 400, f"GET {path} answered {status}")


def await_ready(
    runtime: Runtime, replica: Replica, service: Service, *, cancelled: Callable[[], bool] = lambda: False
) -> Replica:
    """Ask until `replica` is ready. Raises ReplicaFailed, with its last log lines, when it dies or never gets there."""
    patience, waited, longest = _patience(service)
    deadline = time.monotonic() + patience
    looked = time.monotonic()
    while True:
        answer = ask(runtime, replica, service)
        if answer.ready:
            return replica
        now = time.monotonic()
        if now - looked > 0.4:
            looked = now
            replica = _look(runtime, replica)
        if now > deadline:
            raise _failed(runtime, replica, f"was not ready within {patience:g}s: {answer.reason}")
        if cancelled():
            raise ReplicaFailed(f"{replica.name}: no longer waited for")
        time.sleep(waited)
        waited = min(longest, waited * 1.5)


def _look(runtime: Runtime, replica: Replica) -> Replica:
    seen = next((r for r in runtime.observe(replica.project) if r.id == replica.id), None)
    if seen is None:
        raise ReplicaFailed(f"{replica.name} disappeared while it was starting")
    if seen.state in ("exited", "dead"):
        code = "" if seen.exit_code is None else f" with exit code {seen.exit_code}"
        raise _failed(runtime, seen, f"ended{code} before it was ready")
    return seen


def _failed(runtime: Runtime, replica: Replica, what: str) -> ReplicaFailed:
    lines = tuple(runtime.logs(replica, tail=10))
    return ReplicaFailed(
        f"{replica.name} (version {replica.label}) {what}",
        hint="Its last log lines are above."
        if lines
        else "It wrote nothing to its log. Check its command and its port.",
        details=lines,
    )

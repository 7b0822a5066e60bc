"""The contract every runtime fulfils. One test suite (`tests/runtimes/contract.py`) holds all of them to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploykit.core.replica import Replica, ReplicaSpec
from deploykit.spec.model import Healthcheck, Project, Service

Lines = Callable[[str], None]


@dataclass(frozen=True)
class Listen:
    """A port that nginx owns on the host."""

    host_ip: str
    port: int


@dataclass(frozen=True)
class ProxyPaths:
    """Where nginx, as this runtime runs it, keeps its files: absolute paths as nginx itself sees them.

    ``log_buffer`` is the access log's buffer in bytes (a pipe wants at most 4096 so that lines stay whole).
    ``bind_ip`` is what `listen` lines use; None means the Listen's own host_ip.
    """

    run: str
    access_log: str
    log_buffer: int
    bind_ip: str | None


class ProxyHost(Protocol):
    """A place for one nginx per project."""

    def paths(self, project: str) -> ProxyPaths: ...

    def ensure(self, project: Project, listens: tuple[Listen, ...], config: str) -> None:
        """Have nginx running with `config`, owning exactly `listens`. Raises PortInUse, ProxyFailed."""
        ...

    def install(self, project: str, config: str) -> None:
        """Check `config` (nginx -t), put it in place atomically and reload. Raises ProxyFailed; the old one stays."""
        ...

    def running(self, project: str) -> bool: ...

    def old_workers(self, project: str) -> int:
        """How many workers of earlier configurations still finish requests."""
        ...

    def follow(self, project: str, stop: Callable[[], bool]) -> Iterator[bytes]:
        """Access log lines written from now on, without newline, until `stop()` is true or nginx is gone.

        Yields b"" at least every 0.5 s while nothing arrives.
        """
        ...

    def address(self, listen: Listen) -> tuple[str, int]:
        """Where a client on this machine reaches `listen`."""
        ...

    def remove(self, project: str) -> None:
        """Stop nginx and remove all it left. Nothing to remove is fine."""
        ...


class Runtime(Protocol):
    """Runs replicas. Every method may be called from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def proxy(self) -> ProxyHost: ...

    def ping(self) -> str:
        """One line that says what answers (for `doctor`, `version`). Raises RuntimeUnavailable with what to do."""
        ...

    def prepare(self, project: Project) -> None:
        """Networks, volumes and whatever replicas need around them. Idempotent."""
        ...

    def build(self, project: Project, service: Service, on_line: Lines) -> str:
        """Make the service's image from its Dockerfile; returns its content-addressed name. Raises BuildFailed."""
        ...

    def resolve(self, service: Service, on_line: Lines) -> str:
        """The reference of `service.image`, fetched where it is missing. Raises NotFound."""
        ...

    def observe(self, project: str) -> tuple[Replica, ...]:
        """Every replica of the project that exists, by service and number. `exited` ones too."""
        ...

    def start(self, spec: ReplicaSpec) -> Replica:
        """Create and start one replica; returns once the process runs (not: is ready). Raises ReplicaFailed."""
        ...

    def check(self, replica: Replica, healthcheck: Healthcheck) -> bool:
        """Run the healthcheck's test once where the replica runs: true when it exits with 0 within its timeout.

        An empty `test` is the image's own. On plain processes the replica listens on $PORT, which the test may use.
        """
        ...

    def stop(self, replica: Replica, grace: float) -> None:
        """Send the stop signal, give `grace` seconds, then kill. Already gone is fine."""
        ...

    def remove(self, replica: Replica) -> None:
        """Remove it and its own files. Already gone is fine."""
        ...

    def logs(self, replica: Replica, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """Its output lines, oldest first."""
        ...

    def teardown(self, project: str, *, volumes: bool = False) -> None:
        """Remove everything of the project: replicas, proxy, networks, supervisor, and its volumes if asked."""
        ...

    def projects(self) -> tuple[str, ...]:
        """Names of the projects that have something running here."""
        ...

    def state_dir(self, project: str) -> Path:
        """A private folder (0700) on this machine for the project's state."""
        ...

    def close(self) -> None: ...

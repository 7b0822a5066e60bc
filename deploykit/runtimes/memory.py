"""A runtime that runs nothing: for tests, `--dry-run` and simulations of thousands of replicas."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from deploykit.core.replica import Replica, ReplicaSpec
from deploykit.errors import BuildFailed, NotFound, PortInUse, ProxyFailed, ReplicaFailed
from deploykit.runtimes.base import Lines, Listen, ProxyPaths
from deploykit.spec.model import Healthcheck, Project, Service

_WAIT_SECONDS = 0.02


class MemoryProxy:
    """Remembers every configuration installed, in ``configs`` (project, text), and gives out the log lines it is fed.

    A configuration for which ``refuses(text)`` is true is refused, as nginx would one with a mistake in it; ports in
    ``taken`` belong to somebody else.
    """

    def __init__(self) -> None:
        self.configs: list[tuple[str, str]] = []
        self.taken: set[int] = set()
        self.refuses: Callable[[str], bool] = lambda config: config.count("{") != config.count("}")
        self._listens: dict[str, tuple[Listen, ...]] = {}
        self._lines: dict[str, list[bytes]] = defaultdict(list)
        self._old: dict[str, int] = defaultdict(int)
        self._lock = threading.RLock()

    def paths(self, project: str) -> ProxyPaths:
        run = f"/memory/{project}"
        return ProxyPaths(run=run, access_log=f"{run}/access.log", log_buffer=65536, bind_ip=None)

    def ensure(self, project: Project, listens: tuple[Listen, ...], config: str) -> None:
        with self._lock:
            others = {x.port: n for n, owned in self._listens.items() if n != project.name for x in owned}
            for listen in listens:
                if listen.port in self.taken or listen.port in others:
                    owner = others.get(listen.port, "another program")
                    raise PortInUse(f"port {listen.port} is in use by {owner}", hint="publish another port")
            self._accept(project.name, config)
            self._listens[project.name] = listens

    def install(self, project: str, config: str) -> None:
        with self._lock:
            if project not in self._listens:
                raise ProxyFailed(f"nginx of {project} does not run", hint="run `deploykit up`")
            self._accept(project, config)

    def _accept(self, project: str, config: str) -> None:
        if self.refuses(config):
            raise ProxyFailed("nginx refuses the configuration: it was told to")
        self.configs.append((project, config))

    def config(self, project: str) -> str | None:
        """The configuration in force."""
        return next((text for name, text in reversed(self.configs) if name == project), None)

    def listens(self, project: str) -> tuple[Listen, ...]:
        return self._listens.get(project, ())

    def running(self, project: str) -> bool:
        return project in self._listens

    def old_workers(self, project: str) -> int:
        return self._old[project]

    def set_old_workers(self, project: str, count: int) -> None:
        self._old[project] = count

    def write(self, project: str, *lines: bytes) -> None:
        """Have nginx log these lines."""
        with self._lock:
            self._lines[project] += lines

    def follow(self, project: str, stop: Callable[[], bool]) -> Iterator[bytes]:
        return self._follow(project, len(self._lines[project]), stop)

    def _follow(self, project: str, at: int, stop: Callable[[], bool]) -> Iterator[bytes]:
        while not stop():
            with self._lock:
                new = self._lines[project][at:]
            at += len(new)
            yield from new
            if new:
                continue
            yield b""
            if not self.running(project):
                return
            time.sleep(_WAIT_SECONDS)

    def address(self, listen: Listen) -> tuple[str, int]:
        return ("127.0.0.1" if listen.host_ip in {"", "0.0.0.0", "::"} else listen.host_ip, listen.port)  # noqa: S104

    def remove(self, project: str) -> None:
        with self._lock:
            self._listens.pop(project, None)
            self._old.pop(project, None)


class MemoryRuntime:
    """Instantaneous, and as wrong as it is told to be.

    ``fail_start`` holds versions whose replicas never start, ``unhealthy`` those that start and are `unhealthy`;
    `crash` ends a running one. ``clock`` gives Unix time. Replicas have addresses nothing listens on.
    """

    name = "memory"

    def __init__(self, clock: Callable[[], float] = time.time, root: Path | None = None) -> None:
        self.clock = clock
        self.proxy = MemoryProxy()
        self.fail_start: set[str] = set()
        self.unhealthy: set[str] = set()
        self.stopped: list[tuple[str, float]] = []  # (replica's name, grace in seconds)
        self._root = root
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._replicas: dict[str, dict[str, Replica]] = defaultdict(dict)
        self._logs: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._started = 0
        self._lock = threading.RLock()

    def ping(self) -> str:
        return "memory: replicas that are only remembered"

    def prepare(self, project: Project) -> None:
        pass

    def build(self, project: Project, service: Service, on_line: Lines) -> str:
        """The reference is the hash of the Dockerfile and what is beside it. Raises BuildFailed without one."""
        if service.build is None:
            raise BuildFailed(f"service {service.name} has no `build`")
        dockerfile = service.build.context / service.build.dockerfile
        if not dockerfile.is_file():
            raise BuildFailed(f"service {service.name}: there is no {dockerfile}")
        first = [x for x in dockerfile.read_text(encoding="utf-8").split("\n") if x.strip() and not x.startswith("#")]
        if not first or not first[0].upper().startswith(("FROM ", "ARG ")):
            raise BuildFailed(f"{service.build.dockerfile}:1: there is no FROM line")
        whole = hashlib.sha256()
        for path in sorted(p for p in service.build.context.rglob("*") if p.is_file()):
            whole.update(str(path.relative_to(service.build.context)).encode() + b"\0" + path.read_bytes())
        on_line(f"{service.name}: remembered")
        return f"memory:{service.name}:{whole.hexdigest()[:12]}"

    def resolve(self, service: Service, on_line: Lines) -> str:
        if not service.image:
            raise NotFound(f"service {service.name} has no image")
        return service.image

    def observe(self, project: str) -> tuple[Replica, ...]:
        with self._lock:
            found = list(self._replicas[project].values()) if project in self._replicas else []
        return tuple(sorted(found, key=lambda r: (r.service, r.number)))

    def start(self, spec: ReplicaSpec) -> Replica:
        with self._lock:
            if spec.name in self._replicas[spec.project]:
                raise ReplicaFailed(f"{spec.name} exists already", hint="remove it first")
            if spec.version in self.fail_start:
                raise ReplicaFailed(f"{spec.name} cannot be started: it was told to fail", details=("told to fail",))
            self._started += 1
            n = self._started
            address = f"127.{1 + (n >> 16) % 250}.{(n >> 8) & 255}.{n & 255}:{spec.port}" if spec.port else None
            replica = Replica(
                id=f"memory-{n}",
                name=spec.name,
                project=spec.project,
                service=spec.service.name,
                version=spec.version,
                label=spec.label,
                number=spec.number,
                state="running",
                health="unhealthy" if spec.version in self.unhealthy else "none",
                address=address,
                image=spec.image,
                started_at=self.clock(),
            )
            self._replicas[spec.project][spec.name] = replica
            self._logs[spec.project, spec.name] = [f"{spec.name} started"]
            return replica

    def crash(self, project: str, name: str, exit_code: int = 1) -> None:
        """Have a replica die of itself."""
        self._end(project, name, exit_code, f"{name} crashed")

    def check(self, replica: Replica, healthcheck: Healthcheck) -> bool:
        return healthcheck.test[:1] == ("NONE",) or replica.version not in self.unhealthy

    def stop(self, replica: Replica, grace: float) -> None:
        self.stopped.append((replica.name, grace))
        self._end(replica.project, replica.name, 143, f"{replica.name} stopped")

    def _end(self, project: str, name: str, exit_code: int, line: str) -> None:
        with self._lock:
            found = self._replicas.get(project, {}).get(name)
            if found and found.running:
                self._replicas[project][name] = replace(found, state="exited", exit_code=exit_code, health="none")
                self._logs[project, name].append(line)

    def remove(self, replica: Replica) -> None:
        with self._lock:
            self._replicas.get(replica.project, {}).pop(replica.name, None)
            self._logs.pop((replica.project, replica.name), None)

    def logs(self, replica: Replica, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """``follow`` ends at once: nothing is written while one waits."""
        lines = list(self._logs.get((replica.project, replica.name), ()))
        yield from lines if tail is None else lines[max(0, len(lines) - tail) :]

    def teardown(self, project: str, *, volumes: bool = False) -> None:
        with self._lock:
            for replica in self.observe(project):
                self.remove(replica)
            self._replicas.pop(project, None)
            self.proxy.remove(project)

    def projects(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted({p for p, found in self._replicas.items() if found} | set(self.proxy._listens)))

    def state_dir(self, project: str) -> Path:
        with self._lock:
            if self._root is None:
                self._own = tempfile.TemporaryDirectory(prefix="deploykit-memory-")
                self._root = Path(self._own.name)
        folder = self._root / project
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def close(self) -> None:
        with self._lock:
            if self._own is not None:
                self._own.cleanup()
                self._own, self._root = None, None

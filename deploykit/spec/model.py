"""A Compose project as frozen values: defaults applied, durations in seconds, sizes in bytes.

Names follow the Compose specification; what stands under ``x-deploykit`` is `Extension`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Position:
    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Warning:
    position: Position
    message: str

    def __str__(self) -> str:
        return f"{self.position}: {self.message}"


@dataclass(frozen=True)
class Build:
    context: Path
    dockerfile: str = "Dockerfile"
    args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None


@dataclass(frozen=True)
class Port:
    """One published port. ``published`` is None where the engine may choose one."""

    target: int
    published: int | None
    host_ip: str = "127.0.0.1"
    protocol: Literal["tcp", "udp"] = "tcp"
    app_protocol: Literal["http", "tcp"] = "http"


@dataclass(frozen=True)
class Dependency:
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = "service_started"
    required: bool = True
    restart: bool = False


@dataclass(frozen=True)
class Healthcheck:
    """Compose's own healthcheck. ``test`` starts with NONE, CMD or CMD-SHELL; times are seconds."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


@dataclass(frozen=True)
class UpdateConfig:
    parallelism: int = 1
    order: Literal["start-first", "stop-first"] = "start-first"
    delay: float = 0.0
    monitor: float = 5.0
    failure_action: Literal["rollback", "pause", "continue"] = "rollback"
    max_failure_ratio: float = 0.0


@dataclass(frozen=True)
class Resources:
    """Limits: ``cpus`` in cores, ``memory`` in bytes, ``pids`` a count; None is unlimited."""

    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None


@dataclass(frozen=True)
class Mount:
    """One entry of ``volumes:``. ``source`` is a host path (bind), a volume's name, or None (anonymous)."""

    type: Literal["bind", "volume", "tmpfs"]
    source: str | None
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class HealthProbe:
    """Asked by deploykit over HTTP: ready when ``path`` answers below 400. Times are seconds."""

    path: str = "/"
    interval: float = 0.25
    timeout: float = 1.0
    deadline: float = 60.0


@dataclass(frozen=True)
class Step:
    """One step of a canary: either ``weight`` (percent, 0-100) or ``pause`` (seconds; inf waits for `promote`)."""

    weight: float | None = None
    pause: float | None = None


@dataclass(frozen=True)
class Metric:
    name: Literal["success-rate", "latency"] = "success-rate"
    quantiles: tuple[float, ...] = (0.5, 0.9, 0.99)
    tolerance: float = 0.1


@dataclass(frozen=True)
class Analysis:
    """``false_alarm`` and ``error_budget`` are fractions (0-1)."""

    mode: Literal["sequential", "threshold"] = "sequential"
    false_alarm: float = 0.01
    error_budget: float = 0.005
    metrics: tuple[Metric, ...] = (Metric("success-rate"), Metric("latency"))
    min_requests: int = 0
    initial_delay: float = 0.0
    on_inconclusive: Literal["pause", "promote", "abort"] = "pause"


@dataclass(frozen=True)
class RolloutPolicy:
    strategy: Literal["rolling", "canary"] = "rolling"
    steps: tuple[Step, ...] = ()
    analysis: Analysis | None = None
    progress_deadline: float = 600.0


@dataclass(frozen=True)
class Extension:
    """What stands under a service's ``x-deploykit``. ``drain`` is seconds."""

    health: HealthProbe | None = None
    drain: float = 10.0
    rollout: RolloutPolicy = RolloutPolicy()


@dataclass(frozen=True)
class Service:
    name: str
    position: Position
    image: str | None = None
    build: Build | None = None
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    expose: tuple[int, ...] = ()
    depends_on: Mapping[str, Dependency] = field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    replicas: int = 1
    resources: Resources = Resources()
    update_config: UpdateConfig = UpdateConfig()
    restart: str = "no"
    volumes: tuple[Mount, ...] = ()
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_grace_period: float = 10.0
    stop_signal: str = "SIGTERM"
    user: str | None = None
    working_dir: str | None = None
    read_only: bool = False
    cap_drop: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    extension: Extension = Extension()

    @property
    def http_port(self) -> Port | None:
        """The published port that nginx serves over HTTP, or None."""
        return next((p for p in self.ports if p.app_protocol == "http" and p.protocol == "tcp"), None)


@dataclass(frozen=True)
class Project:
    """``networks`` and ``volumes`` map a key to its engine name; ``config`` is the merged model as plain JSON data."""

    name: str
    directory: Path
    services: Mapping[str, Service]
    networks: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    external_networks: frozenset[str] = frozenset()
    external_volumes: frozenset[str] = frozenset()
    warnings: tuple[Warning, ...] = ()
    files: tuple[Path, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def service(self, name: str) -> Service:
        return self.services[name]

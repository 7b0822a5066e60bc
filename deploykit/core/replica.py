"""What runs: replicas as the runtimes report them, and the recipe to start one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deploykit.spec.model import Service

State = Literal["created", "running", "paused", "restarting", "exited", "dead"]
Health = Literal["none", "starting", "healthy", "unhealthy"]


def check_command(test: tuple[str, ...]) -> tuple[str, ...] | None:
    """The command of a Compose healthcheck's `test` (NONE, CMD or CMD-SHELL first); None where there is none."""
    match test:
        case ("CMD", *words) if words:
            return tuple(words)
        case ("CMD-SHELL", text):
            return ("/bin/sh", "-c", text)
        case _:
            return None


@dataclass(frozen=True)
class ReplicaSpec:
    """The recipe of one replica.

    ``version`` is the config hash (12 hex digits), ``label`` its human name, ``number`` is unique in the service,
    ``image`` a reference the runtime's `build` or `resolve` returned, ``port`` the port the app listens on (0 if none).
    ``networks``/``volumes`` map the spec's keys to the engine's names.
    """

    project: str
    service: Service
    version: str
    label: str
    number: int
    image: str
    port: int
    networks: tuple[tuple[str, str], ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.project}-{self.service.name}-{self.number}"


@dataclass(frozen=True)
class Replica:
    """One observed replica. ``address`` is ``host:port`` as nginx and probes reach it; ``started_at`` Unix time."""

    id: str
    name: str
    project: str
    service: str
    version: str
    label: str
    number: int
    state: State
    health: Health = "none"
    address: str | None = None
    image: str = ""
    started_at: float | None = None
    exit_code: int | None = None

    @property
    def running(self) -> bool:
        return self.state == "running"

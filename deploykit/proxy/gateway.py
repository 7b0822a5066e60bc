"""The project's nginx: routes go in, a checked configuration and a reload come out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from deploykit.core.nginx import Settings, render
from deploykit.core.routing import Route
from deploykit.metrics.access_log import LOG_FORMAT
from deploykit.runtimes.base import Listen, ProxyHost
from deploykit.spec.model import Project


class Gateway:
    """Holds the routes of all services, since one nginx serves them all. Safe to use from several threads."""

    def __init__(self, host: ProxyHost, project: Project, *, internal: bool, drain: float = 30.0) -> None:
        self.host = host
        self._project = project
        self._internal = internal
        self._drain = drain
        self._routes: dict[str, Route] = {}
        self._installed: str | None = None
        self._listens: tuple[Listen, ...] | None = None
        self._lock = threading.Lock()

    def route(self, service: str) -> Route | None:
        return self._routes.get(service)

    def remember(self, routes: Iterable[Route]) -> None:
        """Take routes as given without telling nginx: what an earlier command has set up."""
        with self._lock:
            self._routes.update({r.service: r for r in routes})

    def put(self, routes: Iterable[Route]) -> bool:
        """Send traffic by `routes` (other services stay as they are). True when nginx had to change.

        Raises PortInUse, ProxyFailed; nginx then goes on with what it had.
        """
        with self._lock:
            return self._tell({**self._routes, **{r.service: r for r in routes}})

    def forget(self, service: str) -> None:
        """Take a service's route and ports out of nginx. A service that was never routed is fine."""
        with self._lock:
            if service in self._routes:
                self._tell({name: r for name, r in self._routes.items() if name != service})

    def _tell(self, merged: dict[str, Route]) -> bool:
        text = render([merged[name] for name in sorted(merged)], self._settings())
        listens = self._wanted(merged.values())
        if not listens:
            self._routes = merged
            return False
        if listens != self._listens:
            self.host.ensure(self._project, listens, text)
        elif text != self._installed:
            self.host.install(self._project.name, text)
        else:
            return False
        self._routes, self._installed, self._listens = merged, text, listens
        return True

    def config(self) -> str:
        """The configuration nginx was last given."""
        return self._installed or ""

    def _settings(self) -> Settings:
        paths = self.host.paths(self._project.name)
        return Settings(
            run=paths.run,
            access_log=paths.access_log,
            log_format=LOG_FORMAT,
            log_buffer=paths.log_buffer,
            bind_ip=paths.bind_ip,
            drain=self._drain,
            internal=self._internal,
        )

    @staticmethod
    def _wanted(routes: Iterable[Route]) -> tuple[Listen, ...]:
        return tuple(
            sorted(
                {Listen(p.host_ip, p.published) for r in routes for p in r.ports if p.published is not None},
                key=lambda listen: (listen.port, listen.host_ip),
            )
        )

    def drain(self, seconds: float) -> bool:
        """Wait until workers of earlier configurations are gone, at most `seconds`. True when they are."""
        deadline = time.monotonic() + seconds
        while self.host.old_workers(self._project.name) > 0:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

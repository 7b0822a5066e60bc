"""Carries a Plan out. It takes no decisions: what it does is what the plan's text says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event as Flag

from deploykit.control.health import await_ready, port_of
from deploykit.control.store import Store, Version
from deploykit.core import routing
from deploykit.core.plan import Action, Plan
from deploykit.core.replica import Replica, ReplicaSpec
from deploykit.errors import DeployError, NotFound
from deploykit.events import Event, Sink
from deploykit.proxy.gateway import Gateway
from deploykit.runtimes.base import Runtime
from deploykit.spec.model import Project, Service

PARALLEL = 11  # ten replicas and the route


class Executor:
    """Effects of one project on one runtime. ``started`` holds the replicas that this executor has started."""

    def __init__(self, runtime: Runtime, project: Project, store: Store, gateway: Gateway, emit: Sink) -> None:
        self.runtime = runtime
        self.project = project
        self.store = store
        self.gateway = gateway
        self._emit = emit
        self._replicas: dict[tuple[str, int], Replica] = {}
        self.interrupted = Flag()  # set by a person's Ctrl-C: whoever waits for a replica stops waiting

    def observe(self) -> tuple[Replica, ...]:
        """Ask the runtime once; what it says is what the next plan is made from."""
        seen = self.runtime.observe(self.project.name)
        self._replicas = {(r.service, r.number): r for r in seen}
        return seen

    def counts(self) -> dict[str, int]:
        """Running replicas by version label, as last seen or started."""
        found: dict[str, int] = {}
        for replica in list(self._replicas.values()):
            if replica.running:
                found[replica.label] = found.get(replica.label, 0) + 1
        return found

    def run(self, plan: Plan, *, undo: bool = False) -> None:
        """Stage by stage; the actions of a stage side by side, at most eleven at once.

        Raises the first failure of a stage, after its siblings have ended; `undo` goes on though interrupted.
        """
        failed = Flag()

        def cancelled() -> bool:
            return failed.is_set() or (self.interrupted.is_set() and not undo)

        for stage in plan.stages:
            if cancelled():
                raise DeployError("interrupted")
            self._stage(stage.actions, failed, cancelled)
            if stage.pause:
                self.interrupted.wait(stage.pause)

    def _stage(self, actions: tuple[Action, ...], failed: Flag, cancelled: Callable[[], bool]) -> None:
        drains = [a for a in actions if a.kind == "drain"]
        if drains:
            self._drain(drains)
        others = [a for a in actions if a.kind != "drain"]
        if len(others) == 1:
            self._act(others[0], cancelled)
            return
        if not others:
            return
        with ThreadPoolExecutor(PARALLEL) as pool:
            futures = [pool.submit(self._act, action, cancelled) for action in others]
            try:
                _first_failure(futures)
            except BaseException:
                failed.set()
                for future in futures:
                    future.cancel()
                raise

    def _act(self, action: Action, cancelled: Callable[[], bool]) -> None:
        handlers: dict[str, Callable[[Action], None]] = {
            "start": self._start,
            "await": lambda _: self._await(action, cancelled),
            "route": self._route,
            "stop": self._stop,
            "remove": self._remove,
            "keep": lambda _: None,
        }
        handlers[action.kind](action)

    def version(self, service: str, version: str) -> Version:
        found = self.store.version(service, version)
        if found is None:
            raise NotFound(
                f"{service}: version {version} is not in the project's state any more",
                hint="Run `deploykit up`: it makes the version of the Compose file anew.",
            )
        return found

    def service(self, name: str) -> Service:
        """The service as its stable version was defined, or as the Compose file says."""
        size = self.store.size(name)
        known = self.store.version(name, size.stable) if size else None
        if name in self.project.services:
            return self.project.services[name]
        if known is not None:
            return known.spec
        raise NotFound(f"no service {name!r} in this project")

    def _start(self, action: Action) -> None:
        version = self.version(action.service, action.version)
        spec = ReplicaSpec(
            project=self.project.name,
            service=version.spec,
            version=version.version,
            label=version.label,
            number=action.number,
            image=version.image,
            port=port_of(version.spec),
            networks=tuple(self.project.networks.items()),
            volumes=tuple(self.project.volumes.items()),
        )
        replica = self.runtime.start(spec)
        self._replicas[action.service, action.number] = replica
        self._say("replica.started", f"{replica.name} started ({version.label})", action, replica)

    def _await(self, action: Action, cancelled: Callable[[], bool]) -> None:
        replica = self._replicas[action.service, action.number]
        spec = self.version(action.service, action.version).spec
        ready = await_ready(self.runtime, replica, spec, cancelled=cancelled)
        self._replicas[action.service, action.number] = ready
        self._say("replica.ready", f"{ready.name} is ready", action, ready)

    def _route(self, action: Action) -> None:
        route = self.route_of(action)
        if self.gateway.put([route]):
            self._emit(
                Event(
                    "route.changed",
                    route.describe(),
                    time.time(),
                    action.service,
                    action.cause,
                    {"weight": action.weight},
                )
            )

    def route_of(self, action: Action) -> routing.Route:
        service = self.service(action.service)
        mine = [
            r for (name, n), r in list(self._replicas.items()) if name == action.service and n not in action.without
        ]
        return routing.route(service, mine, stable=action.stable, canary=action.canary, weight=action.weight)

    def _drain(self, actions: Iterable[Action]) -> None:
        names = {a.service for a in actions}
        seconds = max(self.service(name).extension.drain for name in names)
        if not self.gateway.drain(seconds):
            for name in names:
                text = f"{name}: some requests did not finish within {seconds:g}s of draining"
                self._emit(Event("drain.timeout", text, time.time(), name))

    def _stop(self, action: Action) -> None:
        replica = self._replicas[action.service, action.number]
        version = self.store.version(action.service, replica.version)
        self.runtime.stop(replica, version.spec.stop_grace_period if version else 10.0)
        self._say("replica.stopped", f"{replica.name} stopped ({replica.label})", action, replica)

    def _remove(self, action: Action) -> None:
        replica = self._replicas.pop((action.service, action.number), None)
        if replica is not None:
            self.runtime.remove(replica)

    def _say(self, kind: str, text: str, action: Action, replica: Replica) -> None:
        data = {"replica": replica.name, "version": replica.version, "label": replica.label}
        self._emit(Event(kind, text, time.time(), action.service, action.cause, data))


def _first_failure(futures: list[Future[None]]) -> None:
    """Wait for all; raise the first failure at once so that siblings can be called off."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            error = future.exception()
            if isinstance(error, DeployError):
                raise error
            if error is not None:
                raise error

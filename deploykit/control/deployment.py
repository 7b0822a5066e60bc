"""A project on a runtime: brought up, scaled, rolled to a new version, taken down."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from difflib import get_close_matches

from deploykit.control import versions
from deploykit.control.executor import Executor
from deploykit.control.store import Size, Store, Version
from deploykit.core import rollout as rollouts
from deploykit.core.order import levels
from deploykit.core.plan import Desired, Plan, Want, reconcile, roll
from deploykit.core.replica import Replica
from deploykit.core.rollout import Rollout
from deploykit.core.routing import Route, route
from deploykit.errors import DeployError, NotFound, ReplicaFailed
from deploykit.events import Event, Sink
from deploykit.proxy.gateway import Gateway
from deploykit.runtimes.base import Runtime
from deploykit.spec.model import Project, Service


class Deployment:
    """All that commands do to one project. Not for use by several commands at once: hold the lock (`control.lock`)."""

    def __init__(self, runtime: Runtime, project: Project, emit: Sink, *, repair: bool = False) -> None:
        self.runtime = runtime
        self.project = project
        self.store = Store(runtime.state_dir(project.name) / "state.db", repair=repair)
        self._sink = emit
        self.gateway = Gateway(runtime.proxy, project, internal=runtime.name == "docker")
        self.executor = Executor(runtime, project, self.store, self.gateway, self.emit)
        if self.store.repaired:
            self.say("state.repaired", "the state file was broken: a new one begins, the old one is state.db.broken")

    def close(self) -> None:
        self.store.close()

    def emit(self, event: Event) -> None:
        if event.kind != "image.progress":
            self.store.add_event(event)
        self._sink(event)

    def say(self, kind: str, text: str, service: str = "", cause: str = "") -> None:
        self.emit(Event(kind, text, time.time(), service, cause))

    # looking

    def observe(self) -> tuple[Replica, ...]:
        """What runs, and the routes that follow from it, so that one service's change leaves the others routed."""
        seen = self.executor.observe()
        self.gateway.remember(self._routes(seen))
        return seen

    def _routes(self, seen: Iterable[Replica]) -> list[Route]:
        replicas = list(seen)
        routes = []
        for size in self.store.sizes():
            service = self._spec_of(size.service, size.stable)
            if service is None or not service.ports:
                continue
            mine = [r for r in replicas if r.service == size.service]
            active = self.active_rollout(size.service)
            if active is not None:
                made = route(
                    service, mine, stable=frozenset({active.stable}), canary=active.canary, weight=active.weight
                )
            else:
                made = route(service, mine, stable=frozenset(r.version for r in mine))
            routes.append(made)
        return routes

    def _spec_of(self, name: str, version: str) -> Service | None:
        known = self.store.version(name, version)
        return self.project.services.get(name) or (known.spec if known else None)

    def active_rollout(self, service: str) -> Rollout | None:
        newest = self.store.rollout(service)
        return newest if newest is not None and not newest.over else None

    # changing

    def make_version(self, service: Service, *, build: bool = True) -> Version:
        return versions.make(self.runtime, self.project, service, self.store, self.emit, build=build)

    def plan_up(self, made: Version, replicas: int, seen: Iterable[Replica]) -> Plan:
        """What `up` would do to one service: nothing, reconcile, or a rolling update. (A canary is a rollout.)"""
        desired = Desired(made.service, Want(made.version, replicas))
        update = made.spec.update_config
        return roll(
            desired,
            seen,
            parallelism=update.parallelism,
            start_first=update.order == "start-first",
            delay=update.delay,
        )

    def up(
        self, *, scale: Mapping[str, int] | None = None, build: bool = True, only: Iterable[str] = ()
    ) -> list[Rollout]:
        """Bring the project to what the file says. Returns the canary rollouts that are now to be run.

        Services start in the order of ``depends_on``; independent ones side by side. A service that fails is taken
        back to what it was; where nothing ran before, nothing does after. Raises BuildFailed, ReplicaFailed,
        PortInUse, NotFound.
        """
        chosen = set(self.known(only)) or set(self.project.services)
        self.known(scale or {})
        first = not self.store.sizes() and not self.runtime.observe(self.project.name)
        try:
            return self._up(chosen, scale or {}, build)
        except (DeployError, KeyboardInterrupt):
            if first:
                self.runtime.teardown(self.project.name)
                self.store.forget_services()
            raise

    def known(self, services: Iterable[str]) -> tuple[str, ...]:
        """`services`, every one of them in the Compose file or up. Raises NotFound."""
        names = {*self.project.services, *(size.service for size in self.store.sizes())}
        for name in services:
            if name not in names:
                near = get_close_matches(name, names, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(sorted(names)) or 'none'}."
                raise NotFound(f"no service {name!r} in {self.project.name}", hint=hint)
        return tuple(services)

    def _up(self, chosen: set[str], scale: Mapping[str, int], build: bool) -> list[Rollout]:
        self.runtime.prepare(self.project)
        order = levels({n: s.depends_on for n, s in self.project.services.items()}, chosen)
        made = {name: self.make_version(self.project.services[name], build=build) for level in order for name in level}
        self.observe()
        pending: list[Rollout] = []
        for level in order:
            with ThreadPoolExecutor(4) as pool:
                try:
                    results = list(pool.map(lambda name: self._up_service(made[name], scale.get(name)), level))
                except KeyboardInterrupt:
                    self.executor.interrupted.set()
                    raise
            pending += [r for r in results if r is not None]
            self._await_completion(level)
        return pending

    def _up_service(self, made: Version, scale: int | None) -> Rollout | None:
        before = self.store.size(made.service)
        replicas = made.spec.replicas if scale is None else scale
        seen = [r for r in self.executor.observe() if r.service == made.service]
        running_old = any(r.running and r.version != made.version for r in seen)
        self._no_rollout(made.service)
        if made.spec.extension.rollout.strategy == "canary" and running_old and before is not None:
            return self.begin_rollout(made)
        plan = self.plan_up(made, replicas, seen)
        self._run_or_undo(plan, before, Size(made.service, made.version, replicas))
        return None

    def _await_completion(self, names: Iterable[str]) -> None:
        wanted = {
            dependency
            for service in self.project.services.values()
            for dependency, how in service.depends_on.items()
            if how.condition == "service_completed_successfully"
        }
        for name in sorted(wanted & set(names)):
            self._completed(name)

    def _completed(self, name: str, *, limit: float = 600.0) -> None:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            mine = [r for r in self.executor.observe() if r.service == name]
            if mine and all(r.state in ("exited", "dead") for r in mine):
                bad = next((r for r in mine if r.exit_code != 0), None)
                if bad is None:
                    return
                raise ReplicaFailed(
                    f"{bad.name} ended with exit code {bad.exit_code}; other services wait for its success",
                    details=tuple(self.runtime.logs(bad, tail=10)),
                )
            time.sleep(0.1)
        raise ReplicaFailed(f"{name} did not complete within {limit:g}s")

    def _run_or_undo(self, plan: Plan, before: Size | None, after: Size) -> None:
        """The new size is noted once it is reached: a command that is killed half-way leaves the old one in force."""
        service = after.service
        if before is None:
            self.store.set_size(after)
        there = {r.id for r in self.executor.observe()}
        try:
            self.executor.run(plan)
            self.store.set_size(after)
        except (DeployError, KeyboardInterrupt) as error:
            stopped = self.executor.interrupted.is_set() or not isinstance(error, DeployError)
            reason = "interrupted" if stopped else str(error)
            self.say("change.undone", f"{service}: taken back to what it was", service, reason)
            try:
                self._undo(service, before)
            except DeployError as another:  # such as the very port that was refused
                self.say("undo.failed", f"{service}: the new replicas are removed", service, another.message)
                for replica in self.runtime.observe(self.project.name):
                    if replica.service == service and replica.id not in there:
                        self.runtime.stop(replica, 0.0)
                        self.runtime.remove(replica)
            raise

    def _undo(self, service: str, before: Size | None) -> None:
        if before is None:
            self.store.forget_service(service)
            self.gateway.forget(service)
            for replica in self.executor.observe():
                if replica.service == service:
                    self.runtime.stop(replica, self.project.services[service].stop_grace_period)
                    self.runtime.remove(replica)
            return
        wanted = Desired(service, Want(before.stable, before.replicas))
        self.executor.run(reconcile(wanted, self.executor.observe()), undo=True)

    def plan_scale(self, service: str, replicas: int, seen: Iterable[Replica]) -> Plan:
        size = self._size(service)
        return reconcile(Desired(service, Want(size.stable, replicas)), seen)

    def _size(self, service: str) -> Size:
        size = self.store.size(service)
        if size is None:
            self.known([service])
            raise NotFound(f"service {service!r} is not up", hint="Run `deploykit up -d` first.")
        return size

    def scale(self, service: str, replicas: int) -> None:
        """Give a service `replicas` replicas; new ones get traffic when ready, old ones go when drained."""
        size = self._size(service)
        self._no_rollout(service)
        plan = self.plan_scale(service, replicas, self.observe())
        self.say("service.scaled", f"{service}: {size.replicas} -> {replicas} replicas", service, "asked")
        self._run_or_undo(plan, size, Size(service, size.stable, replicas))

    # rollouts

    def begin_rollout(self, made: Version) -> Rollout:
        """Note a rollout of `made` (nothing is started yet). Raises when there is nothing to move from or to."""
        size = self._changed(made)
        labels = self.store.labels(made.service)
        begun = rollouts.begin(
            id=uuid.uuid4().hex[:8],
            service=made.service,
            stable=size.stable,
            canary=made.version,
            stable_label=labels.get(size.stable, size.stable),
            canary_label=made.label,
            replicas=size.replicas,
            policy=made.spec.extension.rollout,
            now=time.time(),
        )
        self.store.save_rollout(begun)
        self.store.asked(made.service)
        text = f"{made.service}: rollout {begun.stable_label} -> {begun.canary_label} begins"
        self.say("rollout.started", text, made.service, "a new version")
        return begun

    def _no_rollout(self, service: str) -> None:
        """Raises when a rollout of `service` is under way: only one change at a time."""
        active = self.active_rollout(service)
        if active is not None:
            raise DeployError(
                f"{service}: a rollout to {active.canary_label} is under way",
                hint=f"Let it go on (`deploykit rollout resume {service}`) or end it: `deploykit rollout promote --full"
                f" {service}` or `deploykit rollout abort {service}`.",
            )

    def _changed(self, made: Version) -> Size:
        self._no_rollout(made.service)
        size = self._size(made.service)
        if made.version == size.stable:
            raise DeployError(
                f"{made.service} already runs this version ({made.label})",
                hint="Change something first: `--env KEY=VALUE`, `--image REF`, or the service's files.",
            )
        return size

    def rolling(self, made: Version) -> None:
        """Move a running service to `made` by its update_config; back to the old version when a replica fails."""
        size = self._changed(made)
        plan = self.plan_up(made, size.replicas, self.observe())
        self._run_or_undo(plan, size, Size(made.service, made.version, size.replicas))

    def apply(self, rollout: Rollout) -> None:
        """Bring the replicas and routes to what the rollout wants now."""
        if rollout.phase == "promoted":
            self.store.set_size(Size(rollout.service, rollout.canary, rollout.replicas))
        self.executor.run(reconcile(rollouts.desired(rollout), self.executor.observe()))

    # ending

    def down(self, *, volumes: bool = False) -> None:
        """Stop and remove everything of the project; its history stays."""
        for name in [s.service for s in self.store.sizes()]:
            with suppress(DeployError):  # a record that cannot be read must not keep the project up
                active = self.active_rollout(name)
                if active is not None:
                    self.store.save_rollout(rollouts.command(active, "abort", time.time()))
        self.runtime.teardown(self.project.name, volumes=volumes)
        self.store.forget_services()
        self.say("project.down", f"{self.project.name} is down", cause="asked")

    def url(self, service: str) -> str:
        """Where a client on this machine reaches `service`. Raises NotFound when it publishes no HTTP port."""
        spec = self.executor.service(service)
        port = spec.http_port
        if port is None or port.published is None:
            raise NotFound(f"{service} publishes no HTTP port", hint='Give it one: `ports: ["8080:8000"]`.')
        host = "127.0.0.1" if port.host_ip in ("0.0.0.0", "") else port.host_ip  # noqa: S104
        return f"http://{host}:{port.published}"

"""The Docker runtime: what to do is decided elsewhere, here it is done."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, DockerException

from deploykit.core.replica import Replica, ReplicaSpec, check_command
from deploykit.errors import BuildFailed, DeployError, NotFound, ReplicaFailed, RuntimeUnavailable
from deploykit.runtimes.base import Lines
from deploykit.runtimes.docker import images, labels, networks, translate
from deploykit.runtimes.docker.engine import Engine, missing, reason, status, translated
from deploykit.runtimes.docker.proxyhost import DockerProxy
from deploykit.spec.model import Healthcheck, Project, Service

THREADS = 10  # containers removed at a time


class DockerRuntime:
    """Fulfils `deploykit.runtimes.base.Runtime` with a Docker Engine (API 1.41 or later), local or remote.

    Parameters: ``root`` is the `.deploykit` folder; ``client`` a `docker.DockerClient`, else made from the
    environment at the first call.
    """

    name = "docker"

    def __init__(self, root: Path, client: Any = None) -> None:
        self.root = root
        self.engine = Engine(client)
        self.proxy = DockerProxy(self.engine)
        self._known: dict[str, Project] = {}
        self._preparing = threading.Lock()

    def ping(self) -> str:
        with translated(RuntimeUnavailable, "the Docker Engine refuses"):
            said = self.engine.api.version()
        return f"Docker Engine {said['Version']} (API {said['ApiVersion']}) at {self.engine.url}"

    # -- around the replicas ------------------------------------------------------------------------------------

    def prepare(self, project: Project) -> None:
        """Raises NotFound for an external network or volume that is not there."""
        self._known[project.name] = project
        with self._preparing, translated(DeployError, f"cannot prepare project {project.name}"):
            networks.ensure(self.engine, project)
            if project.volumes:
                self._volumes(project)

    def _volumes(self, project: Project) -> None:
        api = self.engine.api
        there = {entry["Name"] for entry in api.volumes()["Volumes"] or ()}
        for key, name in project.volumes.items():
            if name in there:
                continue
            if key in project.external_volumes:
                raise NotFound(f"the external volume {name} is not there", hint=f"docker volume create {name}")
            api.create_volume(name, labels=labels.of_volume(project.name, key))

    def build(self, project: Project, service: Service, on_line: Lines) -> str:
        if service.build is None:
            raise BuildFailed(f"{service.position}: service {service.name} has no `build:`")
        return images.build(self.engine, service.build, f"{project.name}-{service.name}:latest", on_line)

    def resolve(self, service: Service, on_line: Lines) -> str:
        if not service.image:
            raise NotFound(f"{service.position}: service {service.name} names no image")
        return images.resolve(self.engine, service.image, on_line)

    # -- replicas -------------------------------------------------------------------------------------------------

    def observe(self, project: str) -> tuple[Replica, ...]:
        """One call, however many replicas there are."""
        with translated(DeployError, f"cannot list the containers of {project}"):
            found = self._containers(f"{labels.PROJECT}={project}", f"{labels.ROLE}={labels.REPLICA}")
        return tuple(sorted(map(translate.listed, found), key=lambda replica: (replica.service, replica.number)))

    def _containers(self, *said: str, running: bool = False) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.engine.api.containers(all=not running, filters={"label": list(said)})
        return found

    def start(self, spec: ReplicaSpec) -> Replica:
        """Three calls: create, start, inspect (one more for each network beyond the first).

        A container that cannot start is removed again, so that the next try is not refused its name.
        """
        known = self._known.get(spec.project)
        body = translate.create_body(spec, known.directory if known else None, known.files if known else ())
        container = self._create(spec, body)
        try:
            with translated(ReplicaFailed, f"{spec.name} cannot start"):
                for key, name in translate.networks_of(spec)[1:]:
                    aliases = translate.endpoint(spec, key)["Aliases"]
                    self.engine.api.connect_container_to_network(container, name, aliases=aliases)
                self.engine.api.start(container)
                return translate.inspected(self.engine.api.inspect_container(container))
        except DeployError:
            self._discard(container)
            raise

    def _create(self, spec: ReplicaSpec, body: dict[str, Any]) -> str:
        api = self.engine.api
        try:
            return str(api.create_container_from_config(body, spec.name)["Id"])
        except APIError as error:
            said = f"{spec.name} cannot be created: {reason(error)}"
            if status(error) == 409:
                raise ReplicaFailed(said, hint=f"Remove it with `docker rm -f {spec.name}`.") from error
            if missing(error):
                raise ReplicaFailed(said, hint=f"Build or pull the image of {spec.service.name} first.") from error
            raise ReplicaFailed(said) from error
        except (DockerException, requests.RequestException, OSError):
            with translated(ReplicaFailed, spec.name):
                raise
        raise AssertionError("unreachable")

    def _discard(self, container: str) -> None:
        try:
            self.engine.api.remove_container(container, force=True, v=True)
        except (APIError, DockerException, requests.RequestException):
            return

    def stop(self, replica: Replica, grace: float) -> None:
        """The engine counts whole seconds: `grace` is rounded up."""
        with translated(DeployError, f"cannot stop {replica.name}"):
            try:
                if replica.state == "paused":
                    self.engine.api.unpause(replica.id)
                self.engine.api.stop(replica.id, timeout=max(0, math.ceil(grace)))
            except APIError as error:
                if not missing(error):
                    raise

    def remove(self, replica: Replica) -> None:
        """Its anonymous volumes go with it."""
        self._remove(replica.id, replica.name)

    def _remove(self, container: str, name: str) -> None:
        with translated(DeployError, f"cannot remove {name}"):
            try:
                self.engine.api.remove_container(container, force=True, v=True)
            except APIError as error:
                if not missing(error) and "already in progress" not in reason(error):
                    raise

    def check(self, replica: Replica, healthcheck: Healthcheck) -> bool:
        """The test runs inside the container, asked for by us: nobody waits for the engine's own next tick."""
        api = self.engine.api
        deadline = time.monotonic() + healthcheck.timeout
        try:
            with translated(ReplicaFailed, f"{replica.name}: its healthcheck cannot be run"):
                test = healthcheck.test or _test_of(api.inspect_container(replica.id))
                command = check_command(test)
                if command is None:
                    return True
                run = api.exec_create(replica.id, list(command), stdout=False, stderr=False)["Id"]
                api.exec_start(run, detach=True)
                while time.monotonic() < deadline:
                    seen = api.exec_inspect(run)
                    if not seen["Running"]:
                        return bool(seen["ExitCode"] == 0)
                    time.sleep(0.02)
        except ReplicaFailed:  # it is gone, or has no such program
            return False
        return False

    def logs(self, replica: Replica, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """stdout and stderr as they came; nothing when the container is gone."""
        with translated(DeployError, f"no logs of {replica.name}"):
            try:
                stream = self.engine.api.logs(
                    replica.id, stream=True, follow=follow, tail="all" if tail is None else max(0, tail)
                )
            except APIError as error:
                if missing(error) or status(error) == 409:  # 409: it is being removed
                    return
                raise
            try:
                yield from lines(stream)
            finally:
                stream.close()

    # -- the project ------------------------------------------------------------------------------------------------

    def teardown(self, project: str, *, volumes: bool = False) -> None:
        api = self.engine.api
        ours = {"label": [f"{labels.PROJECT}={project}"]}
        with translated(DeployError, f"cannot take {project} down"):
            found = self._containers(f"{labels.PROJECT}={project}", labels.ROLE)
            in_parallel(lambda entry: self._remove(entry["Id"], entry["Names"][0].lstrip("/")), found)
            in_parallel(lambda entry: self._drop(api.remove_network, entry["Id"]), api.networks(filters=ours))
            if volumes:
                for entry in api.volumes(filters=ours)["Volumes"] or ():
                    self._drop(api.remove_volume, entry["Name"])
        self._known.pop(project, None)

    def _drop(self, remove: Callable[[str], Any], name: str) -> None:
        """Gone already is fine; a network or volume that others still use stays."""
        try:
            remove(name)
        except APIError as error:
            if not missing(error) and status(error) not in (403, 409):
                raise

    def projects(self) -> tuple[str, ...]:
        with translated(DeployError, "cannot list containers"):
            return tuple(sorted({e["Labels"][labels.PROJECT] for e in self._containers(labels.ROLE, running=True)}))

    def state_dir(self, project: str) -> Path:
        folder = self.root / project
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        return folder

    def close(self) -> None:
        self.engine.close()


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines out of chunks that end anywhere; the last one may lack its newline."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def in_parallel(act: Callable[[dict[str, Any]], None], entries: list[dict[str, Any]]) -> None:
    """`act` on each entry, a few at a time; the first failure is raised once all were tried."""
    if not entries:
        return
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(act, entry) for entry in entries]:
            done.result()


def _test_of(container: dict[str, Any]) -> tuple[str, ...]:
    return tuple(((container["Config"].get("Healthcheck") or {}).get("Test")) or ())

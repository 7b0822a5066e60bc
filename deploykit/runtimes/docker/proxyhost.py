"""One nginx container for each project, configured without a bind mount, so that a remote engine will do.

The configuration lives in the container's anonymous volume on /etc/nginx, written by `put_archive`: that works
on a running container and beside a read-only root, where a tmpfs cannot be written to from outside.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import queue
import socket
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import requests
from docker.errors import APIError, DockerException

from deploykit.errors import PortInUse, ProxyFailed
from deploykit.runtimes.base import Listen, ProxyPaths
from deploykit.runtimes.docker import labels, networks, proxyimage, translate
from deploykit.runtimes.docker.engine import Engine, missing, reason, translated
from deploykit.spec.model import Project

RUN = "/run/nginx"
CONFIG = "nginx.conf"
NEXT = "next.conf"
SERVICE = "deploykit-proxy"
START = 5.0  # seconds nginx has to bring its workers up
RELOAD = 2.0  # seconds until workers of a new configuration must be there
POLL = 0.01  # seconds between looks
IDLE = 0.25  # seconds after which `follow` says that nothing came
_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - recognised here, not bound
_WORKER = "nginx: worker process"


class DockerProxy:
    """Fulfils `deploykit.runtimes.base.ProxyHost`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._locks: defaultdict[str, threading.RLock] = defaultdict(threading.RLock)
        self._installed: dict[str, bytes] = {}  # by container: what to go back to

    def paths(self, project: str) -> ProxyPaths:
        return ProxyPaths(run=RUN, access_log="/dev/stdout", log_buffer=4096, bind_ip="0.0.0.0")  # noqa: S104

    def ensure(self, project: Project, listens: tuple[Listen, ...], config: str) -> None:
        """A container that already owns `listens` is kept and reloaded; any other is replaced."""
        with self._locks[project.name], translated(ProxyFailed, f"cannot run the proxy of {project.name}"):
            image = proxyimage.ensure(self.engine)
            networks.ensure(self.engine, project)
            wanted = signature(listens, image)
            there = self._find(project.name)
            if there and there["State"] == "running" and there["Labels"].get(labels.LISTENS) == wanted:
                self._join(there, endpoints(project))
                self.install(project.name, config)
                return
            self._check_free(listens, there)
            if there:
                self.remove(project.name)
            self._create(project, listens, image, wanted, config)

    def install(self, project: str, config: str) -> None:
        """Returns once workers with the new configuration run, 2 s at most."""
        with self._locks[project], translated(ProxyFailed, f"cannot configure the proxy of {project}"):
            container = self._running(project)
            self._put(container, NEXT, config.encode())
            self._check(container)
            before = self._installed.get(container) or self._read(container)
            old = workers(self._processes(container))
            self._put(container, CONFIG, config.encode())
            self.engine.api.kill(container, "HUP")
            if not self._await(container, RELOAD, lambda now: bool(now - old) and not (now & old)):
                self._put(container, CONFIG, before)
                raise ProxyFailed(
                    f"nginx of {project} did not take the new configuration in {RELOAD:g} s",
                    details=self._last_words(container),
                )
            self._installed[container] = config.encode()

    def running(self, project: str) -> bool:
        with translated(ProxyFailed, f"cannot look at the proxy of {project}"):
            there = self._find(project)
        return there is not None and there["State"] == "running"

    def old_workers(self, project: str) -> int:
        with translated(ProxyFailed, f"cannot look at the proxy of {project}"):
            there = self._find(project)
            if there is None or there["State"] != "running":
                return 0
            return sum(f"{_WORKER} is shutting down" in line for line in self._processes(there["Id"]).values())

    def follow(self, project: str, stop: Callable[[], bool]) -> Iterator[bytes]:
        """Reads the engine's log, not nginx's pipe: a reader that stalls never makes nginx wait."""
        with translated(ProxyFailed, f"cannot follow the proxy of {project}"):
            container = self._running(project)
            stream = self.engine.api.logs(container, stdout=True, stderr=False, stream=True, follow=True, tail=0)
        return _followed(stream, stop)

    def address(self, listen: Listen) -> tuple[str, int]:
        if self.engine.host not in ("127.0.0.1", "localhost"):
            return self.engine.host, listen.port
        return ("127.0.0.1" if listen.host_ip in _ANY else listen.host_ip), listen.port

    def remove(self, project: str) -> None:
        with self._locks[project], translated(ProxyFailed, f"cannot remove the proxy of {project}"):
            there = self._find(project)
            if there is None:
                return
            self._installed.pop(there["Id"], None)
            try:
                self.engine.api.remove_container(there["Id"], force=True, v=True)
            except APIError as error:
                if not missing(error) and "already in progress" not in reason(error):
                    raise

    # -- the container ------------------------------------------------------------------------------------------------

    def _find(self, project: str) -> dict[str, Any] | None:
        said = [f"{labels.PROJECT}={project}", f"{labels.ROLE}={labels.PROXY}"]
        found: list[dict[str, Any]] = self.engine.api.containers(all=True, filters={"label": said})
        return found[0] if found else None

    def _running(self, project: str) -> str:
        there = self._find(project)
        if there is None or there["State"] != "running":
            raise ProxyFailed(f"nginx of {project} does not run", hint="`deploykit up` starts it.")
        return str(there["Id"])

    def _create(self, project: Project, listens: tuple[Listen, ...], image: str, wanted: str, config: str) -> None:
        api = self.engine.api
        name = f"{project.name}-proxy-1"
        joins = endpoints(project)
        try:
            container = api.create_container_from_config(body(project, listens, image, wanted), name)["Id"]
        except APIError as error:
            raise ProxyFailed(f"{name} cannot be created: {reason(error)}") from error
        try:
            for network, aliases in list(joins.items())[1:]:
                api.connect_container_to_network(container, network, aliases=list(aliases))
            self._put(container, CONFIG, config.encode())
            self._start(container, name)
            if not self._await(container, START, bool):
                said = self._last_words(container)
                raise ProxyFailed(f"nginx of {project.name} did not start: {said[-1] if said else '?'}", details=said)
        except BaseException:
            api.remove_container(container, force=True, v=True)
            raise

    def _start(self, container: str, name: str) -> None:
        try:
            self.engine.api.start(container)
        except APIError as error:
            said = reason(error)
            if "port is already allocated" in said or "address already in use" in said:
                raise self._taken(said) from error
            raise ProxyFailed(f"{name} cannot start: {said}") from error

    def _join(self, there: Mapping[str, Any], wanted: Mapping[str, tuple[str, ...]]) -> None:
        """Join networks that came with a change of the spec; a new alias needs the network left and joined again."""
        api = self.engine.api
        joined = api.inspect_container(there["Id"])["NetworkSettings"]["Networks"]
        for network, aliases in wanted.items():
            if network in joined:
                if set(aliases) <= set(joined[network].get("Aliases") or ()):
                    continue
                api.disconnect_container_from_network(there["Id"], network)
            api.connect_container_to_network(there["Id"], network, aliases=list(aliases))

    # -- configuration ------------------------------------------------------------------------------------------------

    def _put(self, container: str, name: str, content: bytes) -> None:
        self.engine.api.put_archive(container, proxyimage.CONFIG_DIR, proxyimage.archive({name: content}))

    def _read(self, container: str) -> bytes:
        chunks, _ = self.engine.api.get_archive(container, f"{proxyimage.CONFIG_DIR}/{CONFIG}")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            file = tar.extractfile(CONFIG)
            return file.read() if file else b""

    def _check(self, container: str) -> None:
        command = ["/nginx", "-p", RUN, "-e", "stderr", "-t", "-c", f"{proxyimage.CONFIG_DIR}/{NEXT}"]
        job = self.engine.api.exec_create(container, command)["Id"]
        said = self.engine.api.exec_start(job).decode(errors="replace").splitlines()
        if self.engine.api.exec_inspect(job)["ExitCode"] != 0:
            why = next((line for line in said if "[emerg]" in line), said[0] if said else "no reason given")
            raise ProxyFailed(f"nginx refuses the configuration: {why}", details=tuple(said))

    def _processes(self, container: str) -> dict[str, str]:
        """Process id to command line, as the engine's host sees them."""
        top = self.engine.api.top(container)
        pid, command = top["Titles"].index("PID"), len(top["Titles"]) - 1
        return {row[pid]: row[command] for row in top["Processes"]}

    def _await(self, container: str, limit: float, ready: Callable[[set[str]], bool]) -> bool:
        """Look until `ready(workers)`; False after `limit` seconds or when nginx is gone."""
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            try:
                if ready(workers(self._processes(container))):
                    return True
            except APIError:
                state = self.engine.api.inspect_container(container)
                if state["RestartCount"] or not state["State"]["Running"]:
                    return False
            time.sleep(POLL)
        return False

    def _last_words(self, container: str) -> tuple[str, ...]:
        said: bytes = self.engine.api.logs(container, stdout=False, stderr=True, tail=20)
        return tuple(said.decode(errors="replace").splitlines())

    # -- ports --------------------------------------------------------------------------------------------------------

    def _check_free(self, listens: tuple[Listen, ...], there: Mapping[str, Any] | None) -> None:
        """Ask this machine before the engine does: its own error comes late. Raises PortInUse."""
        if not self.engine.local:
            return
        ours = {port.get("PublicPort") for port in (there or {}).get("Ports") or ()}
        for listen in listens:
            if listen.port not in ours and not free(listen):
                raise self._taken(f"{listen.host_ip}:{listen.port}", listen.port)

    def _taken(self, said: str, port: int | None = None) -> PortInUse:
        if port is None:
            digits = [word for word in said.replace(":", " ").split() if word.isdigit()]
            port = int(digits[-1]) if digits else 0
        for entry in self.engine.api.containers():
            if any(held.get("PublicPort") == port for held in entry.get("Ports") or ()):
                name = entry["Names"][0].lstrip("/")
                return PortInUse(
                    f"port {port} is in use by the container {name}",
                    hint=f"Stop it with `docker stop {name}`, or publish another port.",
                )
        return PortInUse(
            f"port {port} is in use by another program on {self.engine.host}",
            hint=f"`ss -ltnp sport = :{port}` shows which; or publish another port.",
        )


def endpoints(project: Project) -> dict[str, tuple[str, ...]]:
    """Engine network to the names nginx answers to there: each HTTP service's, so that internal calls are balanced."""
    found: dict[str, list[str]] = {}
    names_of = translate.project_networks(project)
    home = "default" if "default" in names_of else next(iter(names_of))
    for service in project.services.values():
        if not service.ports:
            continue
        for key, aliases in (service.networks or {home: ()}).items():
            names = found.setdefault(names_of.get(key, key), [])
            if service.http_port is not None:
                names += [service.name, *aliases]
    if not found:
        found[names_of[home]] = []
    return {network: tuple(dict.fromkeys(names)) for network, names in found.items()}


def signature(listens: tuple[Listen, ...], image: str) -> str:
    """What a running proxy must match, or be replaced. Order does not matter."""
    ports = sorted(f"{listen.host_ip}:{listen.port}" for listen in listens)
    return json.dumps([image, *ports], separators=(",", ":"))


def body(project: Project, listens: tuple[Listen, ...], image: str, wanted: str) -> dict[str, Any]:
    """The body of ``POST /containers/create``: no privilege that nginx can do without."""
    network, aliases = next(iter(endpoints(project).items()))
    bindings: dict[str, list[dict[str, str]]] = {}
    for listen in listens:
        bindings.setdefault(f"{listen.port}/tcp", []).append({"HostIp": listen.host_ip, "HostPort": str(listen.port)})
    return {
        "Image": image,
        "User": f"{proxyimage.UID}:{proxyimage.UID}",
        "Cmd": ["-p", RUN, "-e", "stderr", "-c", f"{proxyimage.CONFIG_DIR}/{CONFIG}", "-g", "daemon off;"],
        "ExposedPorts": {port: {} for port in bindings},
        "Labels": {
            **labels.of_project(project.name, project.directory, project.files),
            labels.SERVICE: SERVICE,
            labels.NUMBER: "1",
            labels.CONFIG_HASH: hashlib.sha256(wanted.encode()).hexdigest(),
            labels.ROLE: labels.PROXY,
            labels.LISTENS: wanted,
        },
        "HostConfig": {
            "NetworkMode": network,
            "PortBindings": bindings,
            "RestartPolicy": {"Name": "unless-stopped"},
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": 128,
            "Memory": 512 << 20,
            "Tmpfs": {RUN: f"rw,noexec,nosuid,nodev,size=256m,mode=0700,uid={proxyimage.UID},gid={proxyimage.UID}"},
            "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "0"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "32m", "max-file": "2"}},
        },
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": list(aliases)}}},
    }


def workers(processes: Mapping[str, str]) -> set[str]:
    """The process ids of workers that take new connections."""
    return {pid for pid, line in processes.items() if _WORKER in line and "shutting down" not in line}


def free(listen: Listen) -> bool:
    """Whether this machine lets the address be bound. What we may not try (port below 1024) counts as free."""
    family = socket.AF_INET6 if ":" in listen.host_ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host_ip, listen.port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def _followed(stream: Any, stop: Callable[[], bool]) -> Iterator[bytes]:
    """The lines of a log stream; a thread reads it, so that silence can be told from the end."""
    chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=4096)
    over = threading.Event()

    def put(chunk: bytes | None) -> None:
        while not over.is_set():
            try:
                chunks.put(chunk, timeout=IDLE)
            except queue.Full:
                continue
            return

    def read() -> None:
        # Closed from this side, or the engine went away: both are the end.
        with suppress(DockerException, requests.RequestException, OSError, ValueError, AttributeError):
            for chunk in stream:
                put(chunk)
                if over.is_set():
                    return
        put(None)

    reader = threading.Thread(target=read, name="deploykit-follow", daemon=True)
    reader.start()
    rest = b""
    try:
        while not stop():
            try:
                chunk = chunks.get(timeout=IDLE)
            except queue.Empty:
                yield b""
                continue
            if chunk is None:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
    finally:
        over.set()
        stream.close()

"""The process runtime: replicas as plain processes, where there is no Docker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploykit.core.replica import Replica, ReplicaSpec, check_command
from deploykit.errors import BuildFailed, DeployError, NotFound, ReplicaFailed, RuntimeUnavailable
from deploykit.runtimes.base import Lines
from deploykit.runtimes.process import dockerfile as dockerfiles
from deploykit.runtimes.process import launch, toolchain
from deploykit.runtimes.process.check import succeeds
from deploykit.runtimes.process.context import Context
from deploykit.runtimes.process.ports import Ports
from deploykit.runtimes.process.proxyhost import ProcessProxy
from deploykit.runtimes.process.recipe import compose
from deploykit.runtimes.process.records import Record, Records
from deploykit.runtimes.process.release import Release, Releases
from deploykit.runtimes.process.supervisor import Fault, Program, Supervisor
from deploykit.spec.model import Healthcheck, Project, Service

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
_FOLLOW_SECONDS = 0.1


class ProcessRuntime:
    """Replicas as supervised processes, images as release folders, everything below ``root`` (the `.deploykit` folder).

    ``root/.images`` holds the releases (they stay, as images do); ``root/PROJECT/run`` all that runs. Not honoured
    here, and said at build time: limits on cpu, memory and pids, `user`, `read_only` and capabilities. Mounts are
    refused: a plain process sees the machine's own files.
    """

    name = "process"

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.releases = Releases(self.root / ".images")
        self._ports = Ports()
        self._lock = threading.Lock()
        self._supervisors: dict[str, Supervisor] = {}
        self._locks: dict[str, threading.Lock] = {}
        self.proxy = ProcessProxy(self._supervisor, self._ready)

    def ping(self) -> str:
        """Raises RuntimeUnavailable."""
        if sys.platform == "win32":
            raise RuntimeUnavailable("the process runtime needs Linux or macOS", hint="use WSL, or --runtime docker")
        try:
            from supervisor.options import VERSION
        except ImportError as error:
            raise RuntimeUnavailable(f"Supervisor cannot be loaded: {error}", hint="pip install supervisor") from None
        return f"processes under Supervisor {VERSION}, Python {'{}.{}.{}'.format(*sys.version_info)}"

    def state_dir(self, project: str) -> Path:
        if not _NAME.match(project):
            raise DeployError(f"{project!r} is no project name", hint="lower-case letters, digits, - and _")
        folder = self.root / project
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        return folder

    def prepare(self, project: Project) -> None:
        """Raises DeployError when a service mounts something."""
        for service in project.services.values():
            for mount in service.volumes:
                if mount.type == "tmpfs":
                    continue  # each replica has a TMPDIR of its own
                raise DeployError(
                    f"service {service.name}: the mount {mount.source or 'volume'}:{mount.target} needs Docker: "
                    "a plain process sees the machine's own files",
                    hint="run with --runtime docker, or take the mount out",
                )
        self.state_dir(project.name)

    # Images

    def build(self, project: Project, service: Service, on_line: Lines) -> str:
        """Raises BuildFailed."""
        if service.build is None:
            raise BuildFailed(f"service {service.name} has no `build`")
        context = service.build.context
        file = context / service.build.dockerfile
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BuildFailed(f"service {service.name}: {file} cannot be read: {error}") from None
        name = service.build.dockerfile
        recipe = compose(dockerfiles.parse(text, name), service.build.args, service.build.target)
        for what in _not_enforced(service):
            on_line(f"{service.name}: {what} is not enforced on plain processes")
        return self.releases.make(service.name, recipe, Context(context, file), name, on_line)

    def resolve(self, service: Service, on_line: Lines) -> str:
        """Raises NotFound: there is nothing to fetch here, but a reference that `build` returned is found again."""
        reference = service.image or ""
        if reference.startswith("process:"):
            self.releases.load(reference)
            return reference
        raise NotFound(
            f"service {service.name}: image {reference or '(none)'} cannot run as a plain process: the process runtime "
            "runs what it can build from a Dockerfile on a Python or Node.js base",
            hint="run with --runtime docker, or give the service a `build`",
        )

    # Replicas

    def observe(self, project: str) -> tuple[Replica, ...]:
        records = Records(self._supervisor(project).folder / "replicas").all()
        infos = self._supervisor(project).all() if records else {}
        return tuple(record.replica(infos.get(record.name)) for record in records)

    def start(self, spec: ReplicaSpec) -> Replica:
        """Returns once the process was made; a program that cannot be found is told at once. Raises ReplicaFailed."""
        self._ready(spec.project)
        supervisor = self._supervisor(spec.project)
        records = Records(supervisor.folder / "replicas")
        if spec.name in supervisor.all():
            raise ReplicaFailed(f"{spec.name} exists already", hint="remove it first")
        release = self.releases.load(spec.image)
        port = self._ports.take({r.port for r in records.all()}) if spec.port else 0
        home = supervisor.folder / "tmp" / spec.name
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        environment = _environment(release, spec, port, home)
        workdir = release.locate(spec.service.working_dir or release.workdir)
        record = Record(
            spec.name, spec.project, spec.service.name, spec.version, spec.label, spec.number, spec.image, port,
            time.time(), spec.service.restart, _stop_signal(spec.service, release), spec.service.stop_grace_period,
        )  # fmt: skip
        try:
            command = _command(release, spec, environment["PATH"], workdir)
            if not workdir.is_dir():
                raise ReplicaFailed(f"{spec.name}: working_dir {spec.service.working_dir} is not in the release")
            records.save(record, {"command": command, "workdir": str(workdir), "environment": environment})
            supervisor.start(
                Program(
                    spec.name, f"./python -I -S launch.py replicas/{spec.name}.json", f"logs/{spec.name}.log",
                    record.restart, record.stop_signal, max(60, int(record.stop_grace) + 1),
                )
            )  # fmt: skip
        except (Fault, DeployError) as error:
            self._forget(supervisor, spec.name)
            if isinstance(error, DeployError):
                raise
            raise ReplicaFailed(f"{spec.name} cannot be started: {error}") from None
        finally:
            self._ports.give_back(port)
        return record.replica(supervisor.info(spec.name))

    def check(self, replica: Replica, healthcheck: Healthcheck) -> bool:
        """The test runs with the replica's own environment and folder; with all it started it is ended in time."""
        command = check_command(healthcheck.test)
        run = Records(self._supervisor(replica.project).folder / "replicas").run(replica.name)
        if command is None or run is None:
            return command is None
        return succeeds(command, run["workdir"], run["environment"], healthcheck.timeout)

    def stop(self, replica: Replica, grace: float) -> None:
        supervisor = self._supervisor(replica.project)
        if supervisor.pid() is not None:
            supervisor.stop(replica.name, grace)

    def remove(self, replica: Replica) -> None:
        supervisor = self._supervisor(replica.project)
        if supervisor.pid() is not None:
            supervisor.stop(replica.name, 0)
            supervisor.remove(replica.name)
        self._forget(supervisor, replica.name)

    def logs(self, replica: Replica, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """Output lines, oldest first; at most about 15 MB are kept. Following ends when the replica does."""
        log = self._supervisor(replica.project).folder / "logs" / f"{replica.name}.log"
        older = [p for n in (2, 1) if (p := log.with_name(f"{log.name}.{n}")).exists()]
        lines: deque[str] = deque(maxlen=tail)
        offset = 0
        for path in [*older, log]:
            try:
                data = path.read_bytes()
            except OSError:
                continue
            if follow and path is log and not data.endswith(b"\n"):
                data = data[: data.rfind(b"\n") + 1]
            offset = len(data)
            lines.extend(data.decode(errors="replace").splitlines())
        yield from lines
        if follow:
            yield from self._follow(replica, log, offset)

    def _follow(self, replica: Replica, log: Path, offset: int) -> Iterator[str]:
        supervisor = self._supervisor(replica.project)
        try:
            file = log.open("rb")
        except OSError:
            return
        rest = b""
        file.seek(offset)
        try:
            while True:
                info = supervisor.info(replica.name)  # asked before reading, so that last words are not missed
                data = file.read()
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace").rstrip("\r")
                if data:
                    continue
                if info is None or not (info.pid or info.state in {"STARTING", "BACKOFF"}):
                    break
                if log.exists() and log.stat().st_ino != _inode(file.fileno()):
                    file.close()
                    file = log.open("rb")
                    continue
                time.sleep(_FOLLOW_SECONDS)
            if rest:
                yield rest.decode(errors="replace")
        finally:
            file.close()

    # Projects

    def teardown(self, project: str, *, volumes: bool = False) -> None:
        supervisor = self._supervisor(project)
        records = Records(supervisor.folder / "replicas").all()
        if records:
            infos = supervisor.all()
            with ThreadPoolExecutor(min(32, len(records))) as pool:
                list(pool.map(lambda r: self.stop(r.replica(infos.get(r.name)), r.stop_grace), records))
        self.proxy.remove(project)
        supervisor.shutdown()
        shutil.rmtree(supervisor.folder, ignore_errors=True)
        state = self.root / project
        if state.is_dir() and not any(state.iterdir()):
            state.rmdir()

    def projects(self) -> tuple[str, ...]:
        found = (p.parent.parent.name for p in self.root.glob("*/run/supervisord.pid"))
        return tuple(sorted(n for n in found if _NAME.match(n) and self._supervisor(n).pid() is not None))

    def close(self) -> None:
        """Nothing is held open: what runs goes on running."""

    # Inside

    def _supervisor(self, project: str) -> Supervisor:
        if not _NAME.match(project):
            raise DeployError(f"{project!r} is no project name", hint="lower-case letters, digits, - and _")
        with self._lock:
            self._locks.setdefault(project, threading.Lock())
            return self._supervisors.setdefault(project, Supervisor(self.root / project / "run"))

    def _ready(self, project: str) -> None:
        """Have the project's supervisor running, with the files it needs. Raises RuntimeUnavailable."""
        supervisor = self._supervisor(project)
        with self._locks[project]:
            folder = supervisor.folder
            self.state_dir(project)
            for each in (folder, folder / "replicas", folder / "logs", folder / "tmp"):
                each.mkdir(exist_ok=True, mode=0o700)
            python = folder / "python"
            if not python.exists():
                python.unlink(missing_ok=True)
                python.symlink_to(toolchain.python("").program)
            if not (folder / "launch.py").exists():
                shutil.copy2(Path(launch.__file__), folder / "launch.py")
            supervisor.ensure()

    @staticmethod
    def _forget(supervisor: Supervisor, name: str) -> None:
        Records(supervisor.folder / "replicas").remove(name)
        for log in (supervisor.folder / "logs").glob(f"{name}.log*"):
            log.unlink(missing_ok=True)
        shutil.rmtree(supervisor.folder / "tmp" / name, ignore_errors=True)


def _not_enforced(service: Service) -> list[str]:
    limits = service.resources
    found = [f"the limit on {n}" for n in ("cpus", "memory", "pids") if getattr(limits, n) is not None]
    found += [n for n in ("user", "read_only", "cap_drop", "cap_add", "security_opt") if getattr(service, n)]
    return found


def _stop_signal(service: Service, release: Release) -> str:
    """Without SIG. The service's, or the image's where the service has the default."""
    chosen = service.stop_signal
    if chosen == "SIGTERM" and release.stop_signal:
        chosen = release.stop_signal
    name = signal.Signals(int(chosen)).name if chosen.isdigit() else chosen.upper()
    return name.removeprefix("SIG")


def _environment(release: Release, spec: ReplicaSpec, port: int, home: Path) -> dict[str, str]:
    """What the program sees: the image's and the service's variables over a small base, never the user's own."""

    def placed(values: Mapping[str, str]) -> dict[str, str]:
        return {k: ":".join(release.translate(part) for part in v.split(":")) for k, v in values.items()}

    environment = {
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        **placed(release.environment),
        **placed(spec.service.environment),
        "HOSTNAME": spec.name,
        "REPLICA": spec.name,
        "HOST": "127.0.0.1",
    }
    given = environment.get("PATH", "")
    environment["PATH"] = ":".join([*release.path, *([given] if given else []), toolchain.SYSTEM_PATH])
    if port:
        environment["PORT"] = str(port)
    return environment


def _command(release: Release, spec: ReplicaSpec, path: str, workdir: Path) -> list[str]:
    """As in Docker: the service's entrypoint replaces the image's and of its command. Raises ReplicaFailed."""
    service = spec.service
    entrypoint = release.entrypoint if service.entrypoint is None else service.entrypoint
    command = service.command
    if command is None:
        shell = (
            service.entrypoint is None and release.entrypoint[:2] == ("/bin/sh", "-c") and len(release.entrypoint) == 3
        )
        command = release.command if service.entrypoint is None and not shell else ()
    words = [release.translate(word) for word in (*entrypoint, *command)]
    if not words:
        raise ReplicaFailed(f"{spec.name} has no command", hint="add CMD to the Dockerfile or `command` to the service")
    program = workdir / words[0] if "/" in words[0] and not words[0].startswith("/") else words[0]
    found = shutil.which(program, path=path)
    if found is None:
        raise ReplicaFailed(
            f"{spec.name}: {words[0]} is not there",
            hint="install it in the Dockerfile (pip install, npm ci), or check the spelling",
        )
    return [str(found), *words[1:]]


def _inode(descriptor: int) -> int:

    return os.fstat(descriptor).st_ino

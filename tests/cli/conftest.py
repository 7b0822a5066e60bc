"""A tiny project on real processes and a real nginx. Whatever a test does, `down` ends it and nothing is left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

DOCKERFILE = 'FROM deploykit/python:3\nWORKDIR /app\nCOPY app.py .\nEXPOSE 8000\nCMD ["python", "app.py"]\n'
APP = """
import os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if os.environ.get("DIE"):
    sys.exit("cannot find the moon")

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = os.environ.get("COLOR", "blue").encode()
        self.send_response(503 if os.environ.get("SICK") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

print("the app is up", flush=True)
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.02)
    return False


class Tiny:
    """The project `tiny` with the service `web`, published on ``port``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "Dockerfile").write_text(DOCKERFILE)
        (folder / "app.py").write_text(APP)
        self.state = folder / ".deploykit" / "tiny" / "state.db"
        self.web()

    def web(self, environment: dict[str, str] | None = None, *, replicas: int = 2, **extension: Any) -> None:
        """Write the Compose file anew."""
        web = {
            "build": ".",
            "ports": [f"{self.port}:8000"],
            "environment": environment or {},
            "deploy": {"replicas": replicas},
            "x-deploykit": extension,
        }
        self.compose({"name": "tiny", "services": {"web": web}})

    def compose(self, content: dict[str, Any] | str) -> None:
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (self.folder / "compose.yaml").write_text(text)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deploykit", *arguments],
            cwd=self.folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "DEPLOYKIT_RUNTIME": "process", **environment},
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> Said:
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in out + err, err
        return Said(process.returncode, out, err)

    def run(self, *arguments: str, **environment: str) -> Said:
        return self.finish(self.start(*arguments, **environment))

    def ok(self, *arguments: str) -> Said:
        said = self.run(*arguments)
        assert said.code == 0, said
        return said

    def replicas(self) -> list[tuple[str, str]]:
        """(name, version) of what `ps` says runs."""
        rows = yaml.safe_load(self.ok("ps", "--format", "json").out)
        return [(r["replica"], r["version"]) for r in rows if r["state"] == "running"]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def processes(self) -> list[psutil.Process]:
        """Processes of this user that work in the folder or name it, this test's own commands apart."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.pid == os.getpid() or process.uids().real != os.getuid():
                    continue
                if any(str(self.folder) in word for word in [process.cwd(), *process.cmdline()]):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def nothing_left(self) -> bool:
        return until(lambda: not self.processes(), 5)


class Hammer:
    """One request after another while the block runs; ``failed`` counts what was not a 200."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.count = 0
        self.failed: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True)

    def _go(self) -> None:
        while not self._stop.is_set():
            try:
                with urllib.request.urlopen(self.url, timeout=5) as answer:
                    answer.read()
                self.count += 1
            except OSError as error:
                self.failed[str(error)] += 1
            self._stop.wait(0.002)

    def __enter__(self) -> Hammer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = Tiny(tmp_path)
    yield made
    if not (tmp_path / ".deploykit").exists():
        assert not made.processes()
        return
    made.web()
    said = made.run("down")
    left = [] if made.nothing_left() else made.processes()
    names = [" ".join(p.cmdline()) for p in left if p.is_running()]
    for process in left:
        process.kill()
    assert said.code == 0, said
    assert not names


@pytest.fixture
def hammer(tiny: Tiny) -> Hammer:
    return Hammer(tiny.url)

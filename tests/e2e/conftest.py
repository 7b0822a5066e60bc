"""The real thing, as a user runs it: the command line in a process of its own, real nginx, real Locust."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

REPO = Path(__file__).resolve().parents[2]


def engine_answers() -> bool:
    import docker

    try:
        docker.from_env(timeout=5).close()
        return True
    except docker.errors.DockerException:
        return False


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def runtime(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "docker" and not engine_answers():
        if os.environ.get("DEPLOYKIT_REQUIRE_DOCKER") == "1":
            pytest.fail("a Docker Engine is required and none answers")
        pytest.skip("no Docker Engine answers")
    return name


@dataclass
class Kit:
    """deploykit in `folder` on `runtime`."""

    folder: Path
    runtime: str
    files: list[str] = field(default_factory=list)
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *words: str) -> list[str]:
        files = [word for name in self.files for word in ("-f", name)]
        return [sys.executable, "-m", "deploykit", "--runtime", self.runtime, "--progress", "plain", *files, *words]

    def run(self, *words: str, code: int = 0, timeout: float = 200) -> str:
        """Run to the end; assert the exit code and that no traceback is shown; return stdout."""
        done = subprocess.run(
            self.command(*words), cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.stderr = done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--format", "json"))

    def begin(self, *words: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            self.command(*words), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.children.append(child)
        return child


def eventually(condition: Callable[[], Any], what: str, limit: float = 30.0) -> Any:
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {limit:g}s: {what}")


def processes_in(folder: Path) -> list[str]:
    """Processes that work in `folder` or name it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [process.cwd(), *process.cmdline()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(folder) in word for word in words):
            found.append(f"{process.pid} {' '.join(words)}")
    return found


def containers_of(project: str) -> list[str]:
    import docker

    client = docker.from_env()
    filters = {"label": f"com.docker.compose.project={project}"}
    found = [c.name for c in client.containers.list(all=True, filters=filters)]
    found += [n.name for n in client.networks.list(filters=filters)]
    client.close()
    return found


@pytest.fixture
def kit(tmp_path: Path, runtime: str) -> Iterator[Kit]:
    made = Kit(tmp_path, runtime)
    try:
        yield made
    finally:
        for child in made.children:
            if child.poll() is None:
                child.terminate()
            child.communicate(timeout=60)
        if made.files:
            made.run("down")
    assert processes_in(tmp_path) == []

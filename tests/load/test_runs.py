"""Real runs: a child process, Locust, a server on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploykit.errors import LoadFailed
from deploykit.load.client import LoadRun, run
from deploykit.load.job import LoadJob, Second

GONE_WITHIN_S = 3.0


def gone(pid: int) -> bool:
    """Whether the process ended, reaped or not."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return true()


def test_open_loop_sends_what_the_clock_says(target: Any) -> None:
    seconds: list[Second] = []
    result = run(LoadJob(target.url, rate=200, duration=1.5, paths=("/", "/version")), seconds.append)
    assert (result.requests, result.failed, result.dropped, result.loop) == (300, 0, 0, "open")
    assert result.offered_rps == pytest.approx(200, rel=0.05)
    assert {label: version["requests"] for label, version in result.by_version.items()} == {"blue": 75, "green": 75}
    assert sum(second.requests for second in seconds) == 300
    assert result.p50_ms is not None
    assert result.p50_ms < 200


def test_a_frozen_server_shows(target: Any) -> None:
    """The coordinated omission test: 2 s of standstill within 3 s."""

    def freeze() -> None:
        target.gate.clear()
        threading.Timer(2.0, target.gate.set).start()

    def freeze_once(second: Second) -> None:
        if second.t < 1.5:
            freeze()

    result = run(LoadJob(target.url, rate=50, duration=4), freeze_once)
    assert result.requests == 200
    assert result.failed == 0
    assert result.p95_ms is not None
    assert result.p95_ms > 1000


def test_a_closed_loop_hides_the_freeze(target: Any) -> None:
    """Why open is the default."""

    def freeze_once(second: Second) -> None:
        if second.t < 1.5:
            target.gate.clear()
            threading.Timer(1.0, target.gate.set).start()

    result = run(LoadJob(target.url, rate=0, users=2, duration=3, closed=True), freeze_once)
    assert result.loop == "closed"
    assert result.requests > 50
    assert result.p95_ms is not None
    assert result.p95_ms < 500
    assert result.max_ms is not None
    assert result.max_ms > 800


def test_what_does_not_fit_in_flight_is_dropped(target: Any) -> None:
    with LoadRun() as load:
        load.start(LoadJob(target.url, rate=100, users=5))
        assert until(lambda: load.snapshot() is not None, 10)
        target.gate.clear()
        assert until(lambda: any(second.dropped > 50 for second in load.history), 10)
        assert load.history[-1].in_flight == 5
        target.gate.set()
        result = load.stop()
    assert result.dropped > 50
    assert result.failed == 0
    assert result.offered_rps == pytest.approx(100, rel=0.15)


def test_failures_are_named_and_never_hidden(target: Any) -> None:
    paths = ("/", "/bad", "/missing", "/hangup")
    result = run(LoadJob(target.url, rate=80, duration=1, paths=paths))
    assert (result.requests, result.failed) == (80, 60)
    reasons = {str(error["reason"]): error["count"] for error in result.errors}
    assert reasons.pop("HTTP 503") == 20
    assert reasons.pop("HTTP 404") == 20
    assert sum(reasons.values()) == 20
    # a kept-alive connection that breaks is tried again, a fresh one never
    assert target.seen["/hangup"] <= 3 * 20


def test_a_refusal_at_the_start_is_one_clear_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with LoadRun() as load, pytest.raises(LoadFailed, match="refuses connections"):
            load.start(LoadJob(url, duration=1))
        assert load.pid is None


def test_a_target_that_answers_500_is_loaded_all_the_same(target: Any) -> None:
    result = run(LoadJob(target.url, rate=20, duration=0.5, paths=("/bad",)))
    assert (result.requests, result.failed) == (10, 10)


def test_stopping_a_frozen_run_is_bounded_and_counts_what_hangs(target: Any) -> None:
    with LoadRun() as load:
        load.start(LoadJob(target.url, rate=50))
        assert until(lambda: load.snapshot() is not None, 10)
        target.gate.clear()
        assert until(lambda: (load.snapshot() or load.history[0]).in_flight > 10, 10)
        began = time.monotonic()
        result = load.stop()
        assert time.monotonic() - began < 6
    assert result.failed > 10
    assert result.errors[0]["reason"] == "no answer before the run ended"


def test_stopping_at_once_gives_an_empty_result(target: Any) -> None:
    with LoadRun() as load:
        load.start(LoadJob(target.url, rate=10))
        result = load.stop()
    assert result.failed == 0
    assert load.pid is not None
    assert gone(load.pid)


@pytest.mark.parametrize("name", ["colors.py", "greeter.py"])
def test_a_locustfile_runs_in_a_closed_loop(target: Any, name: str) -> None:
    file = Path(__file__).parents[2] / "loadtests" / name
    result = run(LoadJob(target.url, users=3, duration=1.0, locustfile=str(file)))
    assert result.loop == "closed"
    assert result.requests > 3
    assert result.failed == 0


def test_a_broken_locustfile_is_named(target: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    with pytest.raises(LoadFailed, match="ZeroDivisionError"):
        run(LoadJob(target.url, duration=1, locustfile=str(broken)))
    broken.write_text("x = 1\n")
    with pytest.raises(LoadFailed, match="no Locust user"):
        run(LoadJob(target.url, duration=1, locustfile=str(broken)))


def test_a_broken_watcher_does_not_break_the_run(target: Any) -> None:
    def broken(second: Second) -> None:
        raise RuntimeError(f"cannot show {second.t}")

    assert run(LoadJob(target.url, rate=50, duration=1.2), broken).requests == 60


def test_the_context_manager_leaves_no_child_behind(target: Any) -> None:
    with contextlib.suppress(ZeroDivisionError), LoadRun() as load:
        load.start(LoadJob(target.url, rate=10))
        raise ZeroDivisionError
    assert load.pid is not None
    assert gone(load.pid)


def test_a_killed_parent_takes_its_child_along(target: Any) -> None:
    code = """
        import sys, threading
        from deploykit.load.client import LoadRun
        from deploykit.load.job import LoadJob
        run = LoadRun().start(LoadJob(sys.argv[1], rate=20))
        print(run.pid, flush=True)
        threading.Event().wait(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), target.url], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert until(lambda: target.seen.get("/", 0) > 3, 15)
        parent.kill()
    assert until(lambda: gone(child), GONE_WITHIN_S)


def test_the_child_speaks_json_lines_and_stops_on_sigint(target: Any) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "deploykit.load.runner"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(LoadJob(target.url, rate=30).to_json()).encode() + b"\n")
        child.stdin.flush()
        assert "second" in json.loads(child.stdout.readline())
        os.kill(child.pid, signal.SIGINT)
        last = json.loads(child.stdout.read().splitlines()[-1])
    assert child.returncode == 0
    assert last["result"]["requests"] >= 30

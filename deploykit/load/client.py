"""A load run as its parent sees it: start, watch, stop. Locust lives in the child only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from deploykit.errors import LoadFailed
from deploykit.load.job import LoadJob, LoadResult, Second
from deploykit.load.target import await_answer

HISTORY_SECONDS = 3600
STOP_WAIT_S = 8.0
KILL_WAIT_S = 2.0
START_MARGIN_S = 30.0
STDERR_LINES = 20


class LoadRun:
    """One child process. Use as a context manager: leaving it never leaves the child behind.

    ``on_second`` is called on a thread for every `Second`. ``history`` keeps the last hour of them.
    """

    def __init__(self, on_second: Callable[[Second], None] | None = None) -> None:
        self.history: deque[Second] = deque(maxlen=HISTORY_SECONDS)
        self._on_second = on_second
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._result: LoadResult | None = None
        self._failure = ""
        self._stderr: deque[str] = deque(maxlen=STDERR_LINES)
        self._done = threading.Event()
        self._loop = "open"

    def start(self, job: LoadJob) -> LoadRun:
        """Check that the target answers (any HTTP status will do), else LoadFailed; then start the child."""
        if self._process is not None:
            raise LoadFailed("this load run was already started")
        self._loop = job.loop
        await_answer(job.target, job.paths[0] if job.paths else "/", job.timeout)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploykit.load.runner"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=_environment(job),
                start_new_session=True,
            )
        except OSError as error:
            raise LoadFailed(f"the load generator could not be started: {error}") from error
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(job.to_json()).encode() + b"\n")
            self._process.stdin.flush()
        for target in (self._read_stdout, self._read_stderr):
            thread = threading.Thread(target=target, daemon=True, name=f"load-{target.__name__}")
            thread.start()
            self._threads.append(thread)
        return self

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def snapshot(self) -> Second | None:
        """The latest second, or None before the first has passed."""
        return self.history[-1] if self.history else None

    def wait(self, timeout: float | None = None) -> bool:
        """True once the run is over; waits at most ``timeout`` seconds."""
        return self._done.wait(timeout)

    def result(self) -> LoadResult:
        """The result of a run that is over; LoadFailed where the generator broke."""
        self._done.wait()
        if self._result is None:
            raise LoadFailed(self._failure or "the load generator ended without a result", details=tuple(self._stderr))
        return self._result

    def stop(self) -> LoadResult:
        """End the run now and return the result so far."""
        self._signal(signal.SIGTERM)
        if not self._done.wait(STOP_WAIT_S):
            self.close()
        if self._result is None and not self._failure and self._killed_by(signal.SIGTERM):
            self._result = LoadResult(loop=self._loop)  # stopped before it was up: nothing was sent
        return self.result()

    def close(self) -> None:
        """Make sure that the child is gone. Safe to call more than once."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(KILL_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(KILL_WAIT_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        self._done.set()

    def __enter__(self) -> LoadRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _killed_by(self, number: signal.Signals) -> bool:
        if self._process is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(KILL_WAIT_S) == -number
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.send_signal(number)

    def _read_stdout(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._take(line)
        except ValueError:
            pass  # closed under us
        finally:
            self._done.set()

    def _take(self, line: bytes) -> None:
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            self._stderr.append(line.decode(errors="replace").rstrip())  # a locustfile that prints
            return
        if "second" in message:
            second = Second.from_json(message["second"])
            self.history.append(second)
            if self._on_second is not None:
                try:
                    self._on_second(second)
                except Exception as error:
                    # a broken watcher must not stop the reading, or the child would hang on a full pipe
                    self._on_second = None
                    self._stderr.append(f"on_second failed: {type(error).__name__}: {error}")
        elif "result" in message:
            self._result = LoadResult.from_json(message["result"])
        elif "failed" in message:
            self._failure = str(message["failed"])

    def _read_stderr(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):
            for line in self._process.stderr:
                self._stderr.append(line.decode(errors="replace").rstrip())


def run(job: LoadJob, on_second: Callable[[Second], None] | None = None) -> LoadResult:
    """A whole run with an end, from start to result."""
    with LoadRun(on_second) as load:
        load.start(job)
        load.wait(None if job.duration is None else job.duration + job.timeout + START_MARGIN_S)
        return load.result() if load.wait(0) else load.stop()


def _environment(job: LoadJob) -> dict[str, str]:
    """The parent's environment, with the target kept off any proxy."""
    host = urlsplit(job.target).hostname or ""
    known = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    value = ",".join(part for part in (known, host) if part)
    return {**os.environ, "NO_PROXY": value, "no_proxy": value, "PYTHONUNBUFFERED": "1"}

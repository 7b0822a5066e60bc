"""The run itself, inside the child process: Locust users, open or closed loop. Importing this patches the process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.event import Event
from geventhttpclient.response import HTTPConnectionClosed
from locust import FastHttpUser, constant, constant_throughput, task
from locust.contrib.fasthttp import FastResponse, LocustUserAgent
from locust.env import Environment
from locust.exception import StopUser
from locust.util.load_locustfile import load_locustfile

from deploykit.errors import LoadFailed
from deploykit.load.job import VERSION_HEADER, LoadJob, LoadResult, Second
from deploykit.load.recorder import Recorder
from deploykit.load.shape import arrivals

STOP_GRACE = 2.0
DRAIN_MARGIN = 1.0
YIELD_EVERY = 50
CLEAR_EVERY = 60
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
UNANSWERED = "no answer before the run ended"


class Agent(LocustUserAgent):
    """Locust's client, one request per call: every status is an answer, no redirect is followed, no cookie is kept.

    Only a kept-alive connection that the server had already closed is tried again, as a browser does; a fresh
    connection that breaks is a failure.
    """

    valid_response_codes = frozenset(range(100, 600))
    redirect_response_codes = frozenset[int]()

    def _urlopen(self, request: Any) -> Any:
        client = self.clientpool.get_client(request.url_split)
        pool = client._connection_pool
        # geventhttpclient tries again as often as its pool is large; that would hide broken answers
        pool.size = -1
        while True:
            reused = not pool._socket_queue.empty()
            try:
                answer = client.request(
                    request.method, request.url_split.quoted_uri, body=request.payload, headers=request.headers
                )
            except (HTTPConnectionClosed, ConnectionResetError, BrokenPipeError):
                if reused and request.method in IDEMPOTENT:
                    continue
                raise
            return FastResponse(answer, request=request, sent_request=answer._sent_request)


class OneRequest(FastHttpUser):
    """A user that can send one request and judge it; ``job`` and ``turn`` (the paths in turn) are set by `Run`."""

    abstract = True
    job: LoadJob
    turn: Iterator[str]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.client.client = Agent(
            cookiejar=None,
            network_timeout=self.job.timeout,
            connection_timeout=self.job.timeout,
            concurrency=self.concurrency,
            insecure=True,
            max_retries=0,
            max_redirects=0,
            headers=dict(self.job.headers),
        )

    def ask(self, intended: float | None = None) -> None:
        """One request; its latency counts from ``intended`` (monotonic seconds), or from now where that is None."""
        path = next(self.turn)
        with self.client.request(self.job.method, path, catch_response=True) as response:
            if intended is not None:
                response.request_meta["response_time"] = (time.monotonic() - intended) * 1000
            if response.status_code >= 400:
                response.failure(f"HTTP {response.status_code}")


class Run:
    """One load run. `go` blocks until the duration is over or `stop` was called, and returns the result."""

    def __init__(self, job: LoadJob, emit: Callable[[Second], None]) -> None:
        self.job = job
        self.emit = emit
        self.recorder = Recorder()
        self.stopping = Event()
        self.sent_all = Event()
        self.in_flight: dict[int, float] = {}
        self.started = 0.0
        self.sending_s = 0.0
        self.last_answer = 0.0

    def stop(self) -> None:
        self.stopping.set()

    def go(self) -> LoadResult:
        classes = self._classes()
        environment = Environment(user_classes=classes, host=self.job.target, stop_timeout=STOP_GRACE)
        environment.events.request.add_listener(self._on_request)  # type: ignore[no-untyped-call]
        runner = environment.create_local_runner()
        users = 1 if self.job.loop == "open" else self.job.users
        self.started = time.monotonic()
        cpu_started = time.process_time()
        ticker = gevent.spawn(self._tick, environment, runner)
        runner.start(users, spawn_rate=users)
        if self.job.loop == "open":
            self.sent_all.wait()
            self._drain()
        else:
            self.stopping.wait(self.job.duration)
            self.sending_s = time.monotonic() - self.started
        cpu = 100 * (time.process_time() - cpu_started) / max(1e-6, time.monotonic() - self.started)
        runner.quit()
        ticker.kill()
        self._give_up_on_the_rest()
        ended = max(self.sending_s, self.last_answer - self.started)
        self._close_second(ended)
        return self.recorder.result(
            loop=self.job.loop, sending_s=self.sending_s, total_s=ended, cpu_percent=min(cpu, 100.0)
        )

    def _classes(self) -> list[Any]:
        job = self.job
        if job.locustfile:
            try:
                found, _ = load_locustfile(job.locustfile)
            except Exception as error:
                raise LoadFailed(f"{job.locustfile} cannot be loaded: {type(error).__name__}: {error}") from error
            if not found:
                raise LoadFailed(f"{job.locustfile} holds no Locust user class")
            return list(found.values())
        run, turn = self, itertools.cycle(job.paths)

        class Arrivals(OneRequest):
            """The one user of an open loop: its task is the clock."""

            concurrency = job.users

            @task
            def arrive(self) -> None:
                run._arrive(self)
                raise StopUser()

        class Loop(OneRequest):
            """A user of a closed loop: asks again when answered."""

            wait_time = constant_throughput(job.rate / job.users) if job.rate > 0 else constant(0)

            @task
            def loop(self) -> None:
                self.ask()

        chosen = Arrivals if job.loop == "open" else Loop
        chosen.job, chosen.turn = job, turn
        return [chosen]

    def _arrive(self, user: OneRequest) -> None:
        """Follow the clock: one greenlet per arrival, none of them waits for another."""
        job, recorder = self.job, self.recorder
        since_yield = 0
        for number, at in enumerate(arrivals(job.shape, job.rate, job.duration)):
            intended = self.started + at
            wait = intended - time.monotonic()
            while wait > 0 and not self.stopping.is_set():
                self.stopping.wait(wait) if wait > 0.05 else gevent.sleep(wait)
                wait = intended - time.monotonic()
                since_yield = 0
            if self.stopping.is_set():
                break
            since_yield += 1
            if since_yield >= YIELD_EVERY:
                gevent.sleep(0)
                since_yield = 0
            recorder.arrived(max(0.0, -wait * 1000))
            if len(self.in_flight) >= job.users:
                recorder.dropped += 1
                continue
            self.in_flight[number] = intended
            gevent.spawn(self._one, user, number, intended)
        else:
            if job.duration is not None:
                self.stopping.wait(max(0.0, self.started + job.duration - time.monotonic()))
        self.sending_s = time.monotonic() - self.started
        self.sent_all.set()

    def _one(self, user: OneRequest, number: int, intended: float) -> None:
        try:
            user.ask(intended)
        finally:
            self.in_flight.pop(number, None)

    def _drain(self) -> None:
        """Wait for what is in flight: as long as a request may take, or a short grace once stopped."""
        deadline = time.monotonic() + self.job.timeout + DRAIN_MARGIN
        while self.in_flight:
            if self.stopping.is_set():
                deadline = min(deadline, time.monotonic() + STOP_GRACE)
            if time.monotonic() >= deadline:
                return
            gevent.sleep(0.01)

    def _give_up_on_the_rest(self) -> None:
        now = time.monotonic()
        for intended in self.in_flight.values():
            self.recorder.answered((now - intended) * 1000, UNANSWERED, None)
            self.last_answer = now
        self.in_flight.clear()

    def _on_request(self, response_time: float, response: Any = None, exception: Any = None, **_: Any) -> None:
        headers = getattr(response, "headers", None)
        version = headers.get(VERSION_HEADER) if headers else None
        reason = None if exception is None else _reason(exception, response, self.job.timeout)
        if self.job.loop == "closed":
            self.recorder.arrived(0.0)
        self.last_answer = time.monotonic()
        self.recorder.answered(response_time or 0.0, reason, version)

    def _close_second(self, t: float, in_flight: int = 0, cpu: float = 0.0) -> None:
        self.emit(self.recorder.second(t, in_flight, cpu))

    def _tick(self, environment: Any, runner: Any) -> None:
        before, cpu_before = self.started, time.process_time()
        for number in itertools.count(1):
            gevent.sleep(max(0.0, self.started + number - time.monotonic()))
            now, cpu_now = time.monotonic(), time.process_time()
            cpu = 100 * (cpu_now - cpu_before) / max(1e-6, now - before)
            before, cpu_before = now, cpu_now
            in_flight = len(self.in_flight) if self.job.loop == "open" else runner.user_count
            self._close_second(now - self.started, in_flight, min(cpu, 100.0))
            if number % CLEAR_EVERY == 0:
                environment.stats.clear_all()


def _reason(exception: Any, response: Any, timeout: float) -> str:
    """Why a request failed, in few words and few variants."""
    status = getattr(response, "status_code", 0) or 0
    if status >= 400:
        return f"HTTP {status}"
    if isinstance(exception, (TimeoutError, gevent.Timeout)):
        return f"no answer within {timeout:g} s"
    if isinstance(exception, ConnectionRefusedError):
        return "connection refused"
    if isinstance(exception, ConnectionResetError):
        return "connection reset"
    if isinstance(exception, HTTPConnectionClosed):
        return "connection closed without an answer"
    return f"{type(exception).__name__}: {exception}"[:160]

"""A plain closed-loop HTTP client, for machines without `wrk`: two processes, blocking keep-alive sockets, epoll."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from multiprocessing import get_context

Load = Callable[[int, float], float]
_PROCESSES = 2


def run(port: int, seconds: float, connections: int) -> float:
    """Requests/s answered with 200. Raises RuntimeError on any other answer."""
    each = max(1, connections // _PROCESSES)
    with get_context("spawn").Pool(_PROCESSES) as pool:
        return sum(pool.starmap(_drive, [(port, seconds, each)] * _PROCESSES))


def _drive(port: int, seconds: float, connections: int) -> float:
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port), timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ)
        sock.sendall(request)
    done = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for key, _ in selector.select(1):
            sock = key.fileobj  # type: ignore[assignment]
            if not sock.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("an answer other than 200")
            done += 1
            sock.sendall(request)
    took = time.perf_counter() - began
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return done / took

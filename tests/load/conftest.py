"""A real server on a free port of 127.0.0.1 that can freeze, fail, name a version and hang up."""

from __future__ import annotations

import contextlib
import http.server
import itertools
import threading
from collections.abc import Iterator

import pytest


class Target:
    """``url`` is where it listens; ``gate`` cleared freezes every answer; ``seen`` counts requests per path."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.seen: dict[str, int] = {}
        self.first = threading.Event()
        turn = itertools.cycle(("blue", "green"))
        target = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                target.gate.wait()
                path = self.path.partition("?")[0]
                target.seen[path] = target.seen.get(path, 0) + 1
                target.first.set()
                if path == "/hangup":
                    self.close_connection = True
                    return
                self.send_response({"/bad": 503, "/missing": 404}.get(path, 200))
                if path == "/version":
                    self.send_header("X-Deploykit-Version", next(turn))
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"\xff\xfe\n" if path == "/bad" else b"ok\n")

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # a client that left
                    super().handle()

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def target() -> Iterator[Target]:
    found = Target()
    yield found
    found.close()

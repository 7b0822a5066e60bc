"""Ports for replicas on 127.0.0.1."""

from __future__ import annotations

import secrets
import socket
import threading
from pathlib import Path

from deploykit.errors import ReplicaFailed

_LOWEST = 20000
_TRIES = 200


class Ports:
    """Free ports, none given twice by one process.

    They are taken from below the range the kernel uses for outgoing connections: a replica that is restarted must find
    its port as it left it, and nginx opens thousands of connections that would otherwise take it in the meantime.
    """

    def __init__(self) -> None:
        self._given: set[int] = set()
        self._lock = threading.Lock()
        self._highest = _ephemeral_start()

    def take(self, known: set[int]) -> int:
        """A port that is free now, and not in ``known``. Raises ReplicaFailed when none can be found."""
        with self._lock:
            for _ in range(_TRIES):
                port = _LOWEST + secrets.randbelow(self._highest - _LOWEST)
                if port not in known and port not in self._given and _free(port):
                    self._given.add(port)
                    return port
        raise ReplicaFailed("no free port could be found on 127.0.0.1", hint="stop some replicas")

    def give_back(self, port: int) -> None:
        with self._lock:
            self._given.discard(port)


def _ephemeral_start() -> int:
    try:
        start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        start = 32768
    return start if start > _LOWEST + 2000 else 65000


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
        return True

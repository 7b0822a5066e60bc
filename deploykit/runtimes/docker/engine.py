"""The connection to the Docker Engine, and its errors in our words."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException

from deploykit.errors import DeployError, RuntimeUnavailable

POOL = 64  # connections kept: one for each thread that starts, stops or follows
TIMEOUT = 60  # seconds a call may be silent
HINT = "Start Docker (Docker Desktop, or `sudo systemctl start docker`), check DOCKER_HOST, or use --runtime process."


class Engine:
    """A lazily made, shared connection. `api` is the SDK's low-level client; any thread may use it."""

    def __init__(self, client: Any = None) -> None:
        self._client = client
        self._lock = threading.Lock()

    @property
    def api(self) -> Any:
        """The low-level client. Raises RuntimeUnavailable where no engine answers."""
        return self.client.api

    @property
    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                try:
                    self._client = docker.from_env(max_pool_size=POOL, timeout=TIMEOUT)
                except (DockerException, requests.RequestException, OSError) as error:
                    raise RuntimeUnavailable(f"no Docker Engine answers at {self.url}", hint=HINT) from error
            return self._client

    @property
    def url(self) -> str:
        return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    @property
    def local(self) -> bool:
        """True where the engine's ports are this machine's own, so that a bind test tells the truth."""
        return sys.platform == "linux" and urlsplit(self.url).scheme == "unix"

    @property
    def host(self) -> str:
        """Where published ports are reached: this machine, or the one DOCKER_HOST names."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1" if parts.scheme in ("tcp", "ssh", "http", "https") else "127.0.0.1"

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None


@contextmanager
def translated(kind: type[DeployError], what: str) -> Iterator[None]:
    """Turn the SDK's errors into `kind` (``what: the engine's reason``), a lost engine into RuntimeUnavailable."""
    try:
        yield
    except APIError as error:
        raise kind(f"{what}: {reason(error)}") from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise RuntimeUnavailable(f"the Docker Engine does not answer: {error}", hint=HINT) from error


def reason(error: APIError) -> str:
    """The engine's own sentence, without the HTTP around it."""
    text = error.explanation
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return str(text or error).strip()


def missing(error: APIError) -> bool:
    return status(error) == 404


def status(error: APIError) -> int:
    """The HTTP status of the engine's answer, 0 where there is none."""
    return int(getattr(error.response, "status_code", 0) or 0)

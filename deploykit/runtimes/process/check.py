"""One run of a healthcheck's test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence


def succeeds(command: Sequence[str], folder: str, environment: Mapping[str, str], timeout: float) -> bool:
    """Whether `command` exits with 0 within `timeout` seconds; its output is not kept, its children do not stay."""
    try:
        child = subprocess.Popen(  # noqa: S603
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    try:
        return child.wait(timeout) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

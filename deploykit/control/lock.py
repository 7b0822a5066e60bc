"""One writer a project at a time. The refusal says who holds it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deploykit.errors import Busy


def holder(folder: Path) -> str:
    """Who holds the lock in `folder`, as a phrase; empty when nobody does."""
    lock = FileLock(folder / "lock")
    try:
        with lock.acquire(timeout=0):
            return ""
    except Timeout:
        return _who(folder)


def _who(folder: Path) -> str:
    try:
        who = json.loads((folder / "holder.json").read_text())
        return f"`deploykit {who['command']}` (process {who['pid']}, for {time.time() - who['since']:.0f}s)"
    except (OSError, ValueError, KeyError):
        return "another deploykit command"


@contextmanager
def writing(folder: Path, command: str, *, wait: float = 10.0) -> Iterator[None]:
    """Hold the project in `folder` for writing; wait up to `wait` seconds for another command. Raises Busy."""
    lock = FileLock(folder / "lock", mode=0o600)
    try:
        lock.acquire(timeout=wait, poll_interval=0.1)
    except Timeout as error:
        raise Busy(
            f"{_who(folder)} is changing this project",
            hint="Wait for it to end, or stop it with Ctrl-C in its terminal.",
        ) from error
    try:
        path = folder / "holder.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"pid": os.getpid(), "command": command, "since": time.time()}))
        yield
    finally:
        (folder / "holder.json").unlink(missing_ok=True)
        lock.release()

"""Nothing a runtime's test starts may outlive it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes of this user that work in ``folder`` or name it in their command."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            words = [process.cwd(), *process.cmdline()]
        except psutil.Error:
            continue
        if any(str(folder) in word for word in words):
            found.append(process)
    return found


@pytest.fixture
def no_process_left(tmp_path: Path) -> Iterator[None]:
    """Fail when a process of the test's folder is left, and end it."""
    yield
    left = processes_of(tmp_path)
    said = [f"{p.pid} {p.name()}" for p in left if p.is_running()]
    for process in left:
        try:
            process.kill()
            process.wait(5)
        except psutil.Error:
            continue
    assert not said, f"left behind: {said}"

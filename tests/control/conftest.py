"""Deployments on the memory runtime, whose replicas are ready when they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.control import health
from deploykit.control.deployment import Deployment
from deploykit.core.replica import Replica
from deploykit.events import Event
from deploykit.runtimes.memory import MemoryRuntime
from deploykit.spec.load import load
from deploykit.spec.model import Project, Service


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryRuntime:
    def ask(_runtime: MemoryRuntime, replica: Replica, _: Service) -> health.Answer:
        return health.Answer(replica.running and replica.health != "unhealthy", f"it is {replica.health}")

    monkeypatch.setattr(health, "ask", ask)
    return MemoryRuntime(root=tmp_path / "state")


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], Project]:
    """A project from a Compose text."""

    def made(text: str) -> Project:
        file = tmp_path / "compose.yaml"
        file.write_text(text)
        return load([file], directory=None, project_name="shop", environ={})

    return made


@pytest.fixture
def deploy(runtime: MemoryRuntime, project: Callable[[str], Project]) -> Iterator[Any]:
    """A Deployment of a Compose text; ``said`` on it collects its events."""
    opened: list[Deployment] = []

    def made(text: str) -> Deployment:
        said: list[Event] = []
        deployment = Deployment(runtime, project(text), said.append)
        vars(deployment)["said"] = said
        opened.append(deployment)
        return deployment

    yield made
    for deployment in opened:
        deployment.close()

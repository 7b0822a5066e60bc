from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import PortInUse, ReplicaFailed
from deploykit.runtimes.base import Listen, Runtime
from deploykit.runtimes.memory import MemoryRuntime
from deploykit.spec.model import Healthcheck, Project
from tests.runtimes.contract import VERSION, RuntimeContract


class TestMemory(RuntimeContract):
    real = False

    def make(self, tmp_path: Path) -> Runtime:
        return MemoryRuntime()

    def test_told_to_fail(self, runtime: MemoryRuntime, project: Project, image: str) -> None:
        runtime.fail_start.add(VERSION)
        with pytest.raises(ReplicaFailed):
            runtime.start(self.spec(project, image))
        assert runtime.observe(project.name) == ()

    def test_told_to_be_unhealthy(self, runtime: MemoryRuntime, project: Project, image: str) -> None:
        runtime.unhealthy.add(VERSION)
        assert runtime.start(self.spec(project, image)).health == "unhealthy"

    def test_check_is_told_what_to_say(self, runtime: MemoryRuntime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image))
        assert runtime.check(replica, Healthcheck(("CMD", "true")))
        runtime.unhealthy.add(VERSION)
        assert not runtime.check(replica, Healthcheck(("CMD", "true")))
        assert runtime.check(replica, Healthcheck(("NONE",)))

    def test_crash(self, runtime: MemoryRuntime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image))
        runtime.crash(project.name, replica.name, 9)
        (seen,) = runtime.observe(project.name)
        assert (seen.state, seen.exit_code) == ("exited", 9)
        assert list(runtime.logs(replica, tail=1)) == [f"{replica.name} crashed"]

    def test_thousands(self, project: Project, image: str, runtime: MemoryRuntime) -> None:
        for number in range(1, 5001):
            runtime.start(self.spec(project, image, number))
        assert len({r.address for r in runtime.observe(project.name)}) == 5000

    def test_proxy_remembers_and_feeds(self, runtime: MemoryRuntime, project: Project) -> None:
        runtime.proxy.ensure(project, (Listen("127.0.0.1", 8080),), "a {}")
        runtime.proxy.install(project.name, "b {}")
        assert [text for _, text in runtime.proxy.configs] == ["a {}", "b {}"]
        lines = runtime.proxy.follow(project.name, lambda: False)
        runtime.proxy.write(project.name, b"one", b"two")
        assert [next(lines), next(lines), next(lines)] == [b"one", b"two", b""]
        runtime.proxy.remove(project.name)
        assert list(lines) == []

    def test_port_taken(self, runtime: MemoryRuntime, project: Project) -> None:
        runtime.proxy.taken.add(8080)
        with pytest.raises(PortInUse, match="8080"):
            runtime.proxy.ensure(project, (Listen("127.0.0.1", 8080),), "")

    def test_clock(self, project: Project, image: str) -> None:
        assert MemoryRuntime(clock=lambda: 5.0).start(self.spec(project, image)).started_at == 5.0

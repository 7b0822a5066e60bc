from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from deploykit.core.nginx import Settings, render
from deploykit.core.routing import Route, Server, Track
from deploykit.metrics.access_log import LOG_FORMAT
from deploykit.runtimes.base import Listen, Runtime
from deploykit.runtimes.process import ProcessRuntime, proxyhost
from deploykit.spec.model import Port, Project
from tests.runtimes.contract import RealRuntimeContract, answers, eventually, fetch


@pytest.mark.usefixtures("no_process_left")
class TestProcess(RealRuntimeContract):
    def make(self, tmp_path: Path) -> Runtime:
        return ProcessRuntime(tmp_path / ".deploykit")

    def test_log_is_renamed_without_losing_a_line(
        self, runtime: Runtime, project: Project, listen: Listen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(proxyhost, "ROTATE_BYTES", 500)
        runtime.proxy.ensure(project, (listen,), self.config(runtime, project, listen, "x"))
        done = threading.Event()
        seen: list[bytes] = []
        lines = runtime.proxy.follow(project.name, done.is_set)
        reader = threading.Thread(target=lambda: seen.extend(x for x in lines if x))
        reader.start()
        try:
            for n in range(400):
                fetch(runtime.proxy.address(listen), f"/{n}")
                time.sleep(0.005)
            assert eventually(lambda: len(seen) >= 400)
        finally:
            done.set()
            reader.join(10)
        assert sorted(seen) == sorted(f"200 /{n}".encode() for n in range(400))
        assert (Path(runtime.proxy.paths(project.name).run) / "access.log.1").exists()

    def test_old_workers_are_counted(self, runtime: Runtime, project: Project, image: str, listen: Listen) -> None:
        replica = runtime.start(self.spec(project, image))
        assert eventually(lambda: answers(replica.address or ""))
        config = self.config(runtime, project, listen, "x")
        slow = config.replace("return 200 'x';", f"location / {{ limit_rate 1; proxy_pass http://{replica.address}; }}")
        runtime.proxy.ensure(project, (listen,), slow)
        waiting = threading.Thread(target=lambda: answers(runtime.proxy.address(listen)))
        waiting.start()
        time.sleep(0.3)
        runtime.proxy.install(project.name, slow)
        assert runtime.proxy.old_workers(project.name) == 1
        assert eventually(lambda: runtime.proxy.old_workers(project.name) == 0, 12)
        waiting.join(10)

    def test_nginx_that_dies_comes_back(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        runtime.proxy.ensure(project, (listen,), self.config(runtime, project, listen, "x"))
        assert isinstance(runtime, ProcessRuntime)
        runtime._supervisor(project.name).signal(proxyhost.NAME, "TERM")
        assert eventually(lambda: runtime.proxy.running(project.name) and answers(runtime.proxy.address(listen)))

    def test_large_body_through_the_private_folder(
        self, runtime: Runtime, project: Project, image: str, listen: Listen
    ) -> None:
        """Workers may write their temporary files, also when deploykit runs as root."""
        replica = runtime.start(self.spec(project, image))
        assert eventually(lambda: answers(replica.address or ""))
        config = self.config(runtime, project, listen, "x").replace(
            "return 200 'x';", f"client_body_buffer_size 1k; location / {{ proxy_pass http://{replica.address}; }}"
        )
        runtime.proxy.ensure(project, (listen,), config)
        address = runtime.proxy.address(listen)
        request = urllib.request.Request(f"http://{address[0]}:{address[1]}/", data=b"x" * 100_000, method="PUT")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        assert caught.value.code == 501  # the app's own answer: nginx passed the body on

    def test_what_core_writes_is_taken(self, runtime: Runtime, project: Project, image: str, listen: Listen) -> None:
        paths = runtime.proxy.paths(project.name)
        replica = runtime.start(self.spec(project, image, GREETING="through"))
        route = Route(
            "web", (Port(8000, listen.port),), (Track("stable", 100.0, (Server(replica.address or "", "v1"),)),)
        )
        config = render((route,), Settings(paths.run, paths.access_log, LOG_FORMAT))
        runtime.proxy.ensure(project, (listen,), config)
        runtime.proxy.install(project.name, config)
        assert eventually(lambda: answers(runtime.proxy.address(listen), "through"))

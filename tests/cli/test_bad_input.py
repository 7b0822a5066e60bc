"""Every mistake: one clear message, the right exit code, no traceback, and the project as it was before."""

from __future__ import annotations

import signal
import socket
import sqlite3
from typing import Any

import pytest

# A fixture's class cannot be imported from a conftest in importlib mode.
Tiny = Any
Hammer = Any


def lines(text: str) -> list[str]:
    return text.rstrip("\n").split("\n")


# What is wrong with the file

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)

BAD_FILES = [
    ("services: [\n", "compose.yaml:2:1: this is not YAML"),
    (BOMB + "services: {web: {image: a, x-it: *g}}\n", "aliases expand to more than"),
    ("services:\n  web:\n    image: a\n    prots: []\n", "4:5: unknown key 'prots' under services.web, did you mean"),
    (
        "services:\n  web:\n    deploy: {replicas: many}\n",
        "services.web.deploy.replicas must be an integer, not 'many'",
    ),
    ("", "compose.yaml:1:1: the file is empty"),
    ("- 1\n", "compose.yaml:1:1: "),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=["yaml", "bomb", "key", "type", "empty", "list"])
def test_a_bad_file_is_wrong_usage(tiny: Tiny, text: str, message: str) -> None:
    tiny.compose(text)
    said = tiny.run("up", "-d")
    assert said.code == 2
    assert lines(said.err)[0].startswith("error: ")
    assert message in lines(said.err)[0]
    assert not (tiny.folder / ".deploykit").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-f", "missing.yaml", "ps"), "there is no file missing.yaml"),
        (("scale", "web=x"), "scale 'web=x' is not SERVICE=NUMBER"),
        (("up", "-d", "--scale", "web"), "--scale 'web' is not SERVICE=NUMBER"),
        (("rollout", "start", "web", "--env", "COLOR"), "--env 'COLOR' is not KEY=VALUE"),
        (("scal", "web=2"), "Did you mean 'scale'?"),
        (("up", "--foo"), "No such option '--foo'."),
        (("--runtime", "abacus", "ps"), "abacus"),
        (("-p", "Bad Name", "ps"), "Bad Name"),
    ],
)
def test_wrong_usage(tiny: Tiny, arguments: tuple[str, ...], message: str) -> None:
    said = tiny.run(*arguments)
    assert said.code == 2
    assert message in said.err
    assert not tiny.processes()


# Where there is nothing


def test_reading_and_ending_what_is_not_up(tiny: Tiny) -> None:
    assert len(lines(tiny.ok("ps").out)) == 1
    assert tiny.ok("ps", "--format", "json").out.strip() == "[]"
    assert tiny.ok("logs").out == ""
    tiny.ok("down")
    for verb in ("status", "abort"):
        said = tiny.run("rollout", verb, "web")
        assert (said.code, lines(said.err)[0]) == (1, "error: web has had no rollout")
    said = tiny.run("scale", "web=2")
    assert (said.code, said.err) == (1, "error: service 'web' is not up\n       Run `deploykit up -d` first.\n")


@pytest.mark.parametrize(
    "arguments",
    [("up", "-d"), ("ps",), ("logs",), ("restart",), ("build",)],
    ids=lambda words: words[0],
)
def test_an_unknown_service(tiny: Tiny, arguments: tuple[str, ...]) -> None:
    said = tiny.run(*arguments, "wep")
    assert said.code == 1
    assert said.err == "error: no service 'wep' in tiny\n       Did you mean 'web'?\n"
    assert not tiny.processes()


def test_an_unknown_service_to_scale(tiny: Tiny) -> None:
    for words in (("scale", "wep=2"), ("up", "-d", "--scale", "wep=2")):
        assert "no service 'wep' in tiny" in tiny.run(*words).err
    assert not tiny.processes()


def test_no_engine(tiny: Tiny) -> None:
    said = tiny.run("--runtime", "docker", "up", "-d", DOCKER_HOST="unix:///nonexistent")
    assert said.code == 1
    assert lines(said.err)[0].startswith("error: no Docker Engine answers")
    assert "--runtime process" in said.err


def test_a_load_target_that_refuses(tiny: Tiny) -> None:
    said = tiny.run("load", tiny.url, "--rate", "5", "--duration", "2s")
    assert said.code == 1
    assert f"error: {tiny.url} refuses connections" in said.err


# A first `up` that fails leaves nothing


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("FROM deploykit/python:3\nCOPY nope.txt .\n", "error: Dockerfile:2: COPY nope.txt: no such file"),
        ("FROM deploykit/python:3\nRUN make moon\n", "error: Dockerfile:2: RUN make moon: "),
        ("", "error: "),
    ],
)
def test_a_dockerfile_that_fails(tiny: Tiny, dockerfile: str, message: str) -> None:
    (tiny.folder / "Dockerfile").write_text(dockerfile)
    said = tiny.run("up", "-d")
    assert said.code == 1
    assert message in said.err
    assert tiny.nothing_left()


def test_a_first_replica_that_dies(tiny: Tiny) -> None:
    tiny.web({"DIE": "1"})
    said = tiny.run("up", "-d")
    assert said.code == 1
    *_, log, error, _ = lines(said.err)
    assert log == "  | cannot find the moon"
    assert "(version v1) ended with exit code 1 before it was ready" in error
    assert tiny.nothing_left()
    assert tiny.replicas() == []


def test_a_first_replica_that_never_gets_ready(tiny: Tiny) -> None:
    tiny.web({"SICK": "1"}, health={"path": "/", "deadline": "1s"})
    said = tiny.run("up", "-d")
    assert said.code == 1
    assert "was not ready within 1s: GET / answered 503" in said.err
    assert "  | the app is up\n" in said.err  # and asking has put nothing of its own into the log
    assert tiny.nothing_left()


def test_a_port_in_use(tiny: Tiny) -> None:
    with socket.create_server(("127.0.0.1", tiny.port)):
        said = tiny.run("up", "-d")
        assert said.code == 1
        assert f"error: port {tiny.port} is in use" in said.err
        assert tiny.nothing_left()
    tiny.ok("up", "-d")
    assert tiny.answers()


def test_one_service_of_two_fails(tiny: Tiny) -> None:
    tiny.compose(
        {
            "name": "tiny",
            "services": {
                "web": {"build": ".", "ports": [f"{tiny.port}:8000"]},
                "next": {"build": ".", "depends_on": ["web"], "environment": {"DIE": "1"}, "expose": [8000]},
            },
        }
    )
    assert tiny.run("up", "-d").code == 1
    assert tiny.nothing_left()


# A change that fails leaves what ran


def test_changes_that_fail(tiny: Tiny, hammer: Hammer) -> None:
    tiny.ok("up", "-d")
    before = tiny.replicas()
    assert [version for _, version in before] == ["v1", "v1"]
    with hammer:
        tiny.web({"DIE": "1"})
        said = tiny.run("up", "-d")  # rolling
        assert (said.code, "  | cannot find the moon" in said.err) == (1, True)
        assert tiny.replicas() == before

        said = tiny.run("rollout", "start", "web", "--env", "DIE=1", "--strategy", "canary")
        assert said.code == 3
        assert "  | cannot find the moon" in said.err
        assert "aborted: web: v2 was taken back to v1: " in said.err
        assert tiny.replicas() == before

        tiny.web({"DIE": "1"}, rollout={"strategy": "canary"})
        assert tiny.run("up", "-d").code == 3
        assert tiny.replicas() == before
    assert hammer.count > 20
    assert not hammer.failed
    said = tiny.run("rollout", "abort", "web")
    assert (said.code, said.err) == (1, "error: web: the last rollout is over (aborted)\n")
    said = tiny.run("rollout", "start", "web")
    assert said.code == 1
    assert "web already runs this version (v1)" in said.err


def test_a_scale_whose_replicas_die(tiny: Tiny, hammer: Hammer) -> None:
    (tiny.folder / "app.py").write_text(
        (tiny.folder / "app.py").read_text().replace('os.environ.get("DIE")', f'os.path.exists("{tiny.folder}/die")')
    )
    tiny.ok("up", "-d")
    before = tiny.replicas()
    (tiny.folder / "die").touch()
    with hammer:
        said = tiny.run("scale", "web=5")
    assert said.code == 1
    assert "  | cannot find the moon" in said.err
    assert tiny.replicas() == before
    assert not hammer.failed
    (tiny.folder / "die").unlink()
    tiny.ok("scale", "web=3")
    assert len(tiny.replicas()) == 3


def test_a_port_that_a_change_cannot_have(tiny: Tiny) -> None:
    tiny.ok("up", "-d")
    before = tiny.replicas()
    first = tiny.port
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        tiny.port = foreign.getsockname()[1]
        tiny.web({"COLOR": "green"})
        said = tiny.run("up", "-d")
        assert said.code == 1
        assert f"port {tiny.port} is in use" in said.err
    tiny.port = first
    assert tiny.replicas() == before
    assert tiny.answers()


# Interrupted, killed, two at once


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_a_first_up_interrupted(tiny: Tiny, what: signal.Signals) -> None:
    tiny.web({"SICK": "1"}, health={"path": "/", "deadline": "60s"})
    process = tiny.start("up", "-d")
    _read_until(process, "started")
    process.send_signal(what)
    said = tiny.finish(process)
    assert said.code == 130
    assert lines(said.err)[-1] == "interrupted"
    assert tiny.nothing_left()


def test_a_change_interrupted_or_killed(tiny: Tiny) -> None:
    tiny.ok("up", "-d")
    before = tiny.replicas()
    tiny.web({"SICK": "1"}, health={"path": "/", "deadline": "60s"})
    for what, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        process = tiny.start("up", "-d")
        _read_until(process, "tiny-web-3 started")
        second = tiny.start("--dry-run", "scale", "web=1") if what == signal.SIGINT else None
        process.send_signal(what)
        assert tiny.finish(process).code == code
        if second is not None:  # it waited for its turn
            assert tiny.finish(second).code == 0
            assert tiny.replicas() == before
    tiny.ok("scale", "web=2")  # what was killed half-way is cleared up, and the old version is still the one
    assert tiny.replicas() == before
    assert tiny.answers()


def test_down_ends_a_rollout_that_goes_on_elsewhere(tiny: Tiny) -> None:
    tiny.ok("up", "-d")
    process = tiny.start("rollout", "start", "web", "--env", "COLOR=green", "--strategy", "canary")
    _read_until(process, "canary 5%")
    tiny.ok("down")
    assert tiny.finish(process).code == 3
    assert tiny.nothing_left()


def test_a_rollout_interrupted(tiny: Tiny) -> None:
    tiny.ok("up", "-d")
    process = tiny.start("rollout", "start", "web", "--env", "COLOR=green", "--strategy", "canary")
    _read_until(process, "canary 5%")
    process.send_signal(signal.SIGINT)
    said = tiny.finish(process)
    assert said.code == 130
    assert "web: the rollout stays where it is" in said.err
    assert "a rollout to v2 is under way" in tiny.run("scale", "web=3").err
    tiny.ok("rollout", "abort", "web")
    assert [version for _, version in tiny.replicas()] == ["v1", "v1"]


def _read_until(process: Any, word: str) -> None:
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"{word!r} was never said")


# The state file


def test_a_broken_state_file_does_not_keep_a_project_up(tiny: Tiny) -> None:
    tiny.ok("up", "-d")
    for more in ("-wal", "-shm"):
        tiny.state.with_name(tiny.state.name + more).unlink(missing_ok=True)
    tiny.state.write_bytes(b"no database " * 400)
    for verb in (("ps",), ("up", "-d"), ("scale", "web=1")):
        said = tiny.run(*verb)
        assert said.code == 1
        assert "state.db: the state file cannot be used: file is not a database" in said.err
        assert "`deploykit down` works all the same" in said.err
    assert tiny.answers()
    assert "state.db.broken" in tiny.ok("down").err
    assert tiny.nothing_left()
    tiny.ok("up", "-d")


def test_a_record_of_another_version_does_not_keep_a_project_up(tiny: Tiny) -> None:
    tiny.ok("up", "-d")
    with sqlite3.connect(tiny.state) as db:
        db.execute("insert into rollout values ('x', 'web', 1e12, 0, '{}')")
    db.close()
    assert "a record of another deploykit version" in tiny.run("up", "-d").err
    tiny.ok("down")
    assert tiny.nothing_left()


def test_a_state_file_that_is_gone(tiny: Tiny) -> None:
    tiny.ok("up", "-d")
    for path in tiny.state.parent.glob("state.db*"):
        path.unlink()
    assert len(tiny.replicas()) == 2
    tiny.ok("up", "-d")
    assert tiny.answers()


def test_a_state_folder_that_is_none(tiny: Tiny) -> None:
    (tiny.folder / ".deploykit").write_text("")
    said = tiny.run("up", "-d")
    assert said.code == 1
    assert ".deploykit: the state folder cannot be used: Not a directory" in said.err
    (tiny.folder / ".deploykit").unlink()

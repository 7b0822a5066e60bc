"""Rollouts from two terminals, on the real thing: verbs, evidence, promotion without restarts, the background."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import REPO, Kit, eventually

pytestmark = pytest.mark.e2e

SPEC = """\
name: {name}
services:
  web:
    build: {services}/colors
    ports: ["{port}:8000"]
    environment: {{COLOR: blue}}
    deploy: {{replicas: 2}}
    x-deploykit:
      health: {{path: /readyz}}
      drain: 5s
      rollout:
        strategy: canary
        steps: [{{set_weight: 20}}, {{pause: null}}, {{set_weight: 50}}, {{pause: null}}]
        analysis: {{false_alarm: 0.01}}
"""


@pytest.fixture
def web(kit: Kit) -> Kit:
    """A service of two replicas that is up; its rollouts wait for `promote`."""
    port = {"process": 18731, "docker": 18732}[kit.runtime]
    name = f"dk-e2e-{kit.runtime}"
    path = Path(kit.folder) / "compose.yaml"
    path.write_text(SPEC.format(name=name, services=REPO / "services", port=port))
    kit.files = [str(path)]
    kit.run("up", "-d")
    return kit


def phase(kit: Kit) -> str:
    return str(kit.json("rollout", "status", "web")["phase"])


def names(kit: Kit, version: str) -> set[str]:
    return {row["replica"] for row in kit.json("ps") if row["version"] == version}


def test_verbs_from_another_terminal(web: Kit) -> None:
    running = web.begin("rollout", "start", "web", "--env", "COLOR=green")
    canary = eventually(lambda: names(web, "v2"), "a canary replica")
    assert {row["track"] for row in web.json("ps")} == {"stable", "canary"}
    web.run("rollout", "pause", "web")
    assert phase(web) == "paused"
    web.run("rollout", "resume", "web")
    web.run("rollout", "promote", "--full", "web")
    _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert canary <= names(web, "v2")
    assert len(names(web, "v2")) == 2
    assert names(web, "v1") == set()
    assert [row["phase"] for row in web.json("rollout", "history", "web")] == ["promoted"]


def test_abort_from_another_terminal(web: Kit) -> None:
    before = names(web, "v1")
    running = web.begin("rollout", "start", "web", "--env", "COLOR=green")
    eventually(lambda: names(web, "v2"), "a canary replica")
    web.run("rollout", "abort", "web")
    _, err = running.communicate(timeout=60)
    assert running.returncode == 3, err
    assert "aborted by hand" in err
    assert (names(web, "v1"), names(web, "v2")) == (before, set())


def test_in_the_background_and_after_its_controller_died(web: Kit) -> None:
    out = web.run("rollout", "start", "web", "--env", "COLOR=green", "-d")
    assert "goes on in the background" in out
    eventually(lambda: names(web, "v2"), "a canary replica")
    web.run("rollout", "abort", "web")
    eventually(lambda: phase(web) == "aborted" and not names(web, "v2"), "the canary to be gone")

    running = web.begin("rollout", "start", "web", "--env", "COLOR=red")
    eventually(lambda: names(web, "v3"), "a canary replica")
    running.kill()
    running.wait(timeout=10)
    web.run("rollout", "promote", "--full", "web")
    assert phase(web) == "promoted"
    assert len(names(web, "v3")) == 2


def test_a_change_in_the_file_is_a_rollout(web: Kit) -> None:
    path = Path(web.files[0])
    path.write_text(path.read_text().replace("COLOR: blue", "COLOR: green"))
    web.run("up", "-d")
    assert "goes on in the background" in web.stderr
    eventually(lambda: names(web, "v2"), "a canary replica")
    assert len(names(web, "v1")) == 2
    web.run("rollout", "promote", "--full", "web")
    eventually(lambda: len(names(web, "v2")) == 2 and not names(web, "v1"), "the new version everywhere")
    path.write_text(path.read_text().replace("strategy: canary", "strategy: rolling").replace("green", "red"))
    web.run("up", "-d")
    assert (len(names(web, "v3")), names(web, "v2")) == (2, set())
    web.run("up", "-d")
    assert len(names(web, "v3")) == 2


def test_a_bad_version_is_caught_under_load(web: Kit) -> None:
    load = web.begin("load", "--rate", "100", "--duration", "60", "--format", "json")
    web.run("rollout", "start", "web", "--env", "COLOR=red", "--env", "ERROR_RATE=0.5", code=3, timeout=60)
    status = web.json("rollout", "status", "web")
    assert (status["phase"], status["verdict"]) == ("aborted", "fail")
    assert status["elapsed_s"] < 15
    assert 0 < status["requests"]["hurt"] <= status["requests"]["failed"]
    load.terminate()
    load.communicate(timeout=20)


def test_scale_under_load_loses_nothing(web: Kit) -> None:
    import json

    load = web.begin("load", "--rate", "100", "--duration", "12", "--format", "json")
    for count in (4, 1, 3):
        web.run("scale", f"web={count}")
    out, err = load.communicate(timeout=60)
    assert load.returncode == 0, err
    result = json.loads(out)
    assert result["failed"] == 0, result
    assert result["requests"] > 1000

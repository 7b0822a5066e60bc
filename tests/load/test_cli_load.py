from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from deploykit.cli.load import _block, load
from deploykit.errors import LoadFailed, ThresholdMissed, UsageError
from deploykit.load.job import Second


def call(*arguments: str, obj: object = None) -> Any:
    return CliRunner().invoke(load, arguments, obj=obj)


def test_json_is_all_that_stands_on_stdout(target: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = call(target.url, "--duration", "1.2s", "--rate", "50", "--format", "json", "--html", str(report))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["requests"] == 60
    assert report.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [report]


def test_a_service_is_resolved_and_a_missed_threshold_is_an_error(target: Any) -> None:
    asked: list[str | None] = []

    def service_url(name: str | None) -> str:
        asked.append(name)
        return str(target.url)

    arguments = ("web", "--duration", "500ms", "--path", "/bad", "--max-failed", "1%", "--p95", "1m")
    done = call(*arguments, obj=SimpleNamespace(service_url=service_url))
    assert asked == ["web"]
    assert isinstance(done.exception, ThresholdMissed)
    assert done.exception.exit_code == 4
    assert "25 of 25 requests failed" in done.exception.message
    assert "25 x HTTP 503" in done.stdout


@pytest.mark.parametrize(
    ("end", "options", "asked"),
    [
        ("/bad", (), "/bad"),
        ("", ("--path", "/missing"), "/missing"),
        ("/a/", ("--path", "/b"), "/a/b"),
        ("?x=1", (), "/"),
    ],
)
def test_the_path_may_stand_in_the_url(target: Any, end: str, options: tuple[str, ...], asked: str) -> None:
    done = call(target.url + end, "--duration", "200ms", *options)
    assert done.exit_code == 0, done.output
    assert set(target.seen) == {asked}


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("web",),
        ("http://203.0.113.9",),
        ("http://127.0.0.1", "--rate", "0"),
        ("http://127.0.0.1", "--closed", "--shape", "spike"),
        ("http://127.0.0.1", "--path", "nope"),
        ("http://127.0.0.1", "--timeout", "0"),
        ("http://127.0.0.1", "--html", "no/such/folder/x.html"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert isinstance(call(*arguments).exception, UsageError)


@pytest.mark.parametrize("option", [("--shape", "nope"), ("--duration", "x"), ("--max-failed", "2"), ("--header", "x")])
def test_a_bad_value_names_its_option(option: tuple[str, str]) -> None:
    done = call("http://127.0.0.1", *option)
    assert done.exit_code == 2
    assert option[0] in done.output


def test_nobody_there() -> None:
    assert isinstance(call("http://127.0.0.1:1").exception, LoadFailed)


def test_help_has_examples() -> None:
    assert "deploykit load http://127.0.0.1:8080\n" in call("--help").output


def test_the_live_block_draws() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(_block(Second(2, 50, 50, 1, 3, 1.0, 2.0, {"[red]": {"requests": 5, "failed": 0}}, dropped=2), 10))
    console.print(_block(None, None))
    text = console.export_text()
    assert "2 of 10 s" in text
    assert "[red] 100%" in text


def test_ctrl_c_prints_the_result_so_far(target: Any) -> None:
    code = "from deploykit.cli.load import load; load(prog_name='deploykit load')"
    arguments = [target.url, "--duration", "0", "--rate", "50", "--format", "json"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        assert "offered 50/s" in process.stderr.readline()
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out)["requests"] >= 50
    assert "result so far" in err

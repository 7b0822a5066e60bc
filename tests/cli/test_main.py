"""The one place that catches errors."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from deploykit.cli import main as entry
from deploykit.cli.app import App
from deploykit.errors import BuildFailed, DeployError, RolloutAborted, SpecError, ThresholdMissed, UsageError


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["deploykit", *arguments])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DeployError("no", hint="do this", details=("a", "b")), 1, "  | a\n  | b\nerror: no\n       do this\n"),
        (BuildFailed("no"), 1, "error: no\n"),
        (UsageError("no"), 2, "error: no\n"),
        (SpecError("a.yaml:1:1: no"), 2, "error: a.yaml:1:1: no\n"),
        (RolloutAborted("no"), 3, "aborted: no\n"),
        (ThresholdMissed("no"), 4, "threshold missed: no\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    text: str,
) -> None:
    def fails(_: App) -> None:
        raise error

    monkeypatch.setattr(App, "project", fails)
    assert run(monkeypatch, "config") == code
    assert capsys.readouterr().err == text


def test_a_mistake_of_ours_is_one_line_and_a_private_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(_: App) -> None:
        raise ValueError("the moon\nis missing")

    monkeypatch.setattr(App, "project", fails)
    assert run(monkeypatch, "-f", str(tmp_path / "compose.yaml"), "config") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: internal error: ValueError: the moon"
    (path,) = (tmp_path / ".deploykit").iterdir()
    assert second == f"       This is a mistake in deploykit; its traceback is in {path}."
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "Traceback" in path.read_text()


def test_the_file_goes_elsewhere_where_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / ".deploykit").write_text("")
    error = entry.crash(ValueError(), tmp_path)
    assert error.message == "internal error: ValueError"
    path = Path(error.hint.removesuffix(".").rpartition(" ")[2])
    assert path.is_file()
    path.unlink()

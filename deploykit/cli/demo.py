"""`deploykit demo`: the whole main job, live, with nothing left behind."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from deploykit.cli.app import App
from deploykit.cli.options import pass_app
from deploykit.control.deployment import Deployment
from deploykit.control.lock import writing
from deploykit.errors import DeployError, UsageError
from deploykit.events import Event

EXAMPLE = Path("compose") / "colors.yaml"


@click.command(epilog="\b\nExamples:\n  deploykit demo\n  deploykit --runtime process demo --rate 100")
@click.option("--rate", type=click.FloatRange(1, 2000), default=200, show_default=True, help="Requests per second.")
@click.option("--settle", type=click.FloatRange(0.5, 60), default=5, show_default=True, help="Seconds between changes.")
@click.option("--report", "report_path", type=click.Path(path_type=Path), help="Where the HTML report goes.")
@pass_app
def demo(app: App, rate: float, settle: float, report_path: Path | None) -> None:
    """Four acts under steady traffic: up, scale, a good version, a bad one.

    Takes about two minutes, publishes on 127.0.0.1 only, and removes all it started, also on Ctrl-C.
    """
    from rich.console import Console

    from deploykit.demo.acts import Play, Script, shortfalls, stage_project
    from deploykit.demo.board import Board
    from deploykit.demo.report import report_data
    from deploykit.demo.screen import Screen, summary
    from deploykit.views.report import render_report

    if not app.files:
        app.files = (_example(),)
    home = Path.cwd()
    project = stage_project(app.project(), home)
    runtime = app.runtime(home / ".deploykit")
    board = Board()
    folder = runtime.state_dir(project.name)
    screen = Screen(board, live=None if app.progress == "auto" else app.progress == "tty")

    def emit(event: Event) -> None:
        board.event(event)
        screen.event(event)

    with writing(folder, "demo"):
        for stale in folder.glob("state.db*"):  # every performance starts at v1
            stale.unlink()
        deployment = Deployment(runtime, project, emit)
        signal.signal(signal.SIGTERM, _interrupt)
        click.echo(f"deploykit demo on {runtime.ping()}", err=True)
        play = Play(deployment, board, Script(rate, settle))
        try:
            if deployment.observe():
                deployment.down()
            with screen:
                play.run()
        finally:
            _leave_nothing(play.load.close, deployment)
    config = deployment.gateway.config()
    path = report_path or folder / "report.html"
    missed = shortfalls(board)
    data = report_data(board, runtime=runtime.name, config=config, missed=missed)
    path.write_text(render_report(data), encoding="utf-8")
    console = Console(file=sys.stdout)
    console.width = max(console.width, 118) if not console.is_terminal else console.width
    console.print(summary(board))
    click.echo(f"Report: {path}")
    runtime.close()
    if missed:
        raise DeployError("the demo did not keep its promises: " + "; ".join(missed), hint=f"See {path}.")
    click.echo("Nothing is left running. Next: deploykit -f compose/colors.yaml up -d")


def _example() -> Path:
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        if (root / EXAMPLE).exists():
            return root / EXAMPLE
    raise UsageError(
        f"{EXAMPLE} is not here",
        hint="Run the demo in a checkout of deploykit, or name a file: `deploykit -f FILE demo`.",
    )


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave_nothing(close_load: Callable[[], None], deployment: Deployment) -> None:
    """Take all down; a second Ctrl-C does not stop this half-way."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        close_load()
        began = time.monotonic()
        deployment.down()
        click.echo(f"All taken down in {time.monotonic() - began:.1f}s.", err=True)
        deployment.close()
    finally:
        signal.signal(signal.SIGINT, before)

"""A rollout run in the foreground: live progress, and the exit that says how it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from deploykit.cli.app import App
from deploykit.control.deployment import Deployment
from deploykit.control.rollouts import RolloutRunner
from deploykit.core.rollout import Rollout
from deploykit.errors import RolloutAborted
from deploykit.views import rollout as view


def run_rollout(app: App, deployment: Deployment, begun: Rollout) -> Rollout:
    """Run it to its end with live progress. Raises RolloutAborted (exit 3) when the new version was taken back."""
    try:
        with _live(app) as show:
            ended = RolloutRunner(deployment, begun, on_look=show).run()
    except KeyboardInterrupt:
        name = begun.service
        click.echo(f"{name}: the rollout stays where it is; `deploykit rollout resume {name}` or `abort` it", err=True)
        raise
    counts = ended.counts
    if ended.phase == "aborted":
        raise RolloutAborted(
            f"{ended.service}: {ended.canary_label} was taken back to {ended.stable_label}: {ended.reason}",
            hint=f"{counts.hurt:,} of {counts.total:,} users' requests were hurt."
            f" `deploykit logs {ended.service}` may say why.",
        )
    return ended


def _live(app: App) -> AbstractContextManager[Any]:
    """A line that is rewritten on a terminal; a line every 2 s elsewhere."""
    if app.progress == "quiet" or app.progress == "json":
        return nullcontext(lambda _: None)
    if app.progress == "tty" or (app.progress == "auto" and sys.stderr.isatty()):
        return _TtyLine()
    last = [0.0]

    def plain(rollout: Rollout) -> None:
        if time.monotonic() - last[0] >= 2 or rollout.over:
            last[0] = time.monotonic()
            click.echo(view.line(rollout), err=True)

    return nullcontext(plain)


class _TtyLine:
    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=False)
        self._live.start()
        return lambda rollout: self._live.update(view.block(rollout))

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def run_in_background(app: App, service: str) -> None:
    """Another process of ours takes the rollout on; it ends by itself when the rollout ends."""
    command = [sys.executable, "-m", "deploykit", "--progress", "quiet", "--runtime", app.runtime_name]
    for path in app.files:
        command += ["-f", str(path)]
    if app.project_name:
        command += ["-p", app.project_name]
    if app.project_directory:
        command += ["--project-directory", str(app.project_directory)]
    for path in app.env_files:
        command += ["--env-file", str(path)]
    for profile in app.profiles:
        command += ["--profile", profile]
    command += ["rollout", "carry-on", service]
    subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ},
    )

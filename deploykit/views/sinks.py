"""Where events go: a terminal with colour, plain lines, JSON lines, nowhere. All write to stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, TextIO

from deploykit.events import Event, Sink, quiet

if TYPE_CHECKING:
    from rich.console import Console

SIGNS = {
    "replica.ready": ("✔", "green"),
    "replica.started": ("+", "cyan"),
    "replica.stopped": ("-", "yellow"),
    "rollout.promoted": ("✔", "bold green"),
    "rollout.aborted": ("✘", "bold red"),
    "rollout.paused": ("‖", "yellow"),
    "change.undone": ("↶", "bold yellow"),
    "drain.timeout": ("!", "yellow"),
    "image.progress": (" ", "dim"),
}


def sink(progress: str, out: TextIO | None = None) -> Sink:
    """The sink for ``--progress``: auto, tty, plain, json or quiet."""
    stream = out or sys.stderr
    if progress == "auto":
        progress = "tty" if stream.isatty() else "plain"
    match progress:
        case "tty":
            return _tty(stream)
        case "json":
            return lambda event: _json(stream, event)
        case "quiet":
            return quiet
        case _:
            return lambda event: _plain(stream, event)


def _json(stream: TextIO, event: Event) -> None:
    fields = {"at": event.at, "kind": event.kind, "service": event.service, "text": event.text, "cause": event.cause}
    stream.write(json.dumps({**fields, "data": event.data}) + "\n")
    stream.flush()


def _plain(stream: TextIO, event: Event) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(event.at))
    cause = f"  ({event.cause})" if event.cause else ""
    stream.write(f"{at}  {event.text}{cause}\n")
    stream.flush()


def _tty(stream: TextIO) -> Sink:
    from rich.console import Console

    console = Console(file=stream, highlight=False, soft_wrap=True)
    return lambda event: show(console, event)


def show(console: Console, event: Event) -> None:
    """One event as a line of a rich console."""
    from rich.text import Text

    sign, style = SIGNS.get(event.kind, ("·", "default"))
    line = Text.assemble((f" {sign} ", style), (event.text, "dim" if event.kind == "image.progress" else ""))
    if event.cause:
        line.append(f"  {event.cause}", style="dim")
    console.print(line)

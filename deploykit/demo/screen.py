"""The demo on a terminal: a live panel, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import threading
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploykit.demo.board import Act, Board
from deploykit.events import Event
from deploykit.views.rollout import bar
from deploykit.views.sinks import SIGNS

STYLES = {"v1": "blue", "v2": "green", "v3": "red"}


class Screen:
    """A context manager that shows the board while it is entered."""

    def __init__(self, board: Board, out: TextIO = sys.stderr, *, live: bool | None = None) -> None:
        self._board = board
        self._out = out
        self._console = Console(file=out, highlight=False)
        self._live = live if live is not None else self._console.is_terminal
        self._stop = threading.Event()
        self._context: Live | None = None
        self._thread: threading.Thread | None = None
        if not self._live:
            board.on_act = self._act

    def __enter__(self) -> Screen:
        if self._live:
            self._context = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True
            )
            self._context.__enter__()
        else:
            self._thread = threading.Thread(target=self._lines, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._stop.set()
        if self._context is not None:
            self._context.__exit__(*problem)
        if self._thread is not None:
            self._thread.join(timeout=3)

    def event(self, event: Event) -> None:
        """Plain mode: one line an event. (The live panel reads the board's own list.)"""
        if not self._live and event.kind != "image.progress":
            cause = f"  ({event.cause})" if event.cause else ""
            self._out.write(f"  {self._board.now:6.1f}s  {event.text}{cause}\n")
            self._out.flush()

    def _act(self, act: Act) -> None:
        self._out.write(f"\nAct {act.number}: {act.title}\n")
        self._out.flush()

    def _lines(self) -> None:
        while not self._stop.wait(0.5):
            board = self._board
            if board.samples and len(board.samples) % 3 == 0:
                self._out.write(f"  {board.now:6.1f}s  {traffic_line(board)}\n")
                self._stop.wait(0.6)
            self._out.flush()

    def _render(self) -> RenderableType:
        board = self._board
        act = board.acts[-1] if board.acts else None
        title = f"Act {act.number} of 4: {act.title}" if act else "deploykit demo"
        return Panel(
            Group(self._traffic(), self._rollout(), self._events()),
            title=title,
            title_align="left",
            subtitle=f"{board.now:.0f}s  Ctrl-C stops and removes everything",
            subtitle_align="right",
        )

    def _traffic(self) -> RenderableType:
        board = self._board
        table = Table(box=None, padding=(0, 2), pad_edge=False)
        for name in ("version", "replicas", "requests/s", "", "failed/s"):
            table.add_column(name, justify="left" if name in ("version", "") else "right")
        last = board.samples[-1].second if board.samples else None
        by_version = dict(last.by_version) if last else {}
        labels = sorted({*by_version, *board.replicas()})
        top = max([1, *(v.get("requests", 0) for v in by_version.values())])
        for label in labels:
            seen = by_version.get(label, {})
            requests, failed = seen.get("requests", 0), seen.get("failed", 0)
            table.add_row(
                Text(label, style=f"bold {STYLES.get(label, 'cyan')}"),
                str(board.replicas().get(label, 0)),
                str(requests),
                Text(bar(requests / top, 24), style=STYLES.get(label, "cyan")),
                Text(str(failed), style="bold red" if failed else "dim"),
            )
        total = Text.assemble(
            ("\nall ", "dim"),
            f"{board.requests:,} requests, ",
            (f"{board.failed:,} failed", "bold red" if board.failed else "green"),
        )
        if last is not None and last.p95_ms is not None:
            total.append(f", p95 {last.p95_ms:.0f} ms", style="dim")
        return Group(table, total)

    def _rollout(self) -> RenderableType:
        rollout = self._board.rollout
        if rollout is None:
            return Text("")
        return Text.assemble(
            f"\ncanary   {rollout.canary_label} at {rollout.weight:g}%  {bar(rollout.weight / 100)}\n",
            ("abort    ", "red"),
            f"{bar(rollout.evidence_abort)} {rollout.evidence_abort:.0%}   ",
            ("promote  ", "green"),
            f"{bar(rollout.evidence_promote)} {rollout.evidence_promote:.0%}\n",
            (f"{rollout.verdict}: {rollout.reason}", "dim"),
        )

    def _events(self) -> RenderableType:
        lines = [Text("")]
        for event in list(self._board.recent):
            sign, style = SIGNS.get(event.kind, ("·", "default"))
            line = Text.assemble((f"{sign} ", style), event.text, no_wrap=True, overflow="ellipsis")
            if event.cause:
                line.append(f"  {event.cause}", style="dim")
            lines.append(line)
        return Group(*lines)


def traffic_line(board: Board) -> str:
    """One second of traffic as a line."""
    second = board.samples[-1].second
    parts = [f"{label} {seen.get('requests', 0)}/s" for label, seen in sorted(second.by_version.items())]
    text = f"{second.requests} requests/s, {second.failed} failed  " + "  ".join(parts)
    if board.rollout is not None:
        rollout = board.rollout
        text += (
            f"  weight {rollout.weight:g}%  evidence: abort {rollout.evidence_abort:.0%},"
            f" promote {rollout.evidence_promote:.0%}"
        )
    return text


def summary(board: Board) -> Table:
    """The table at the end: what each act cost users."""
    table = Table(title="What users felt", title_justify="left")
    for name in ("act", "", "requests", "failed", "hurt by canary", "seconds", "outcome"):
        table.add_column(name, justify="left" if name in ("", "outcome") else "right")
    for act in board.acts:
        requests, failed = board.totals(act)
        seconds = (act.ended if act.ended is not None else board.now) - act.started
        table.add_row(
            str(act.number),
            act.title,
            f"{requests:,}",
            Text(f"{failed:,}", style="red" if failed else "green"),
            f"{act.hurt:,}",
            f"{seconds:.1f}",
            act.outcome or "not ended",
        )
    return table

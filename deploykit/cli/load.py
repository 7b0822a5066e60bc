"""``deploykit load``: send traffic, show what comes back, hold it against thresholds."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploykit.errors import ThresholdMissed, UsageError
from deploykit.load import job as jobs
from deploykit.load.shape import CONSTANT, Shape, parse_duration, parse_shape
from deploykit.load.thresholds import Thresholds, check, parse_ms, parse_ratio

if TYPE_CHECKING:
    from deploykit.load.client import LoadRun
    from deploykit.load.job import LoadJob, LoadResult, Second

INTERRUPTED = 130
PLAIN_EVERY_S = 2.0
POLL_S = 0.2
DEFAULT_DURATION = "30s"

HELP = """Send traffic to TARGET, a URL or a service, and report what came back.

Arrivals follow the clock (open loop): a slow server does not slow them down, and latency counts from the moment a
request was due. With --closed, users wait for their answer before they ask again.

\b
Examples:
  deploykit load http://127.0.0.1:8080
  deploykit load web --rate 200 --duration 1m
  deploykit load web --shape ramp:10-500 --duration 2m --html report.html
  deploykit load web --rate 100 --max-failed 1% --p95 300ms --format json
  deploykit load web --locustfile loadtests/colors.py --users 20

\b
Shapes: constant, ramp:10-200, step:50@10s,100@20s (rates from these moments on), spike, spike:500,
  sine, sine:10-90@30s. Rates are requests per second.

Exit code: 0 done, 1 the target does not answer, 4 a threshold was missed, 130 interrupted.
"""


class _Parsed(click.ParamType[Any]):
    """A click type around one of the pure parsers."""

    def __init__(self, name: str, parse: Any) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(f"{error.message}. {error.hint}", param, ctx)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or "\n" in text or "\r" in text:
        raise UsageError(f"{text!r} is not a header", hint="Write it like 'X-Canary: always'.")
    return name.strip(), value.strip()


@click.command("load", help=HELP, short_help="Send traffic to a service and report what came back.")
@click.argument("target", required=False)
@click.option("--rate", type=click.FloatRange(min=0), help="Requests per second.  [default: 50]")
@click.option(
    "--users",
    type=click.IntRange(min=1),
    help="Most requests in flight (default 1000); with --closed or --locustfile the number of users (default 10).",
)
@click.option(
    "--duration", type=_Parsed("duration", parse_duration), default=DEFAULT_DURATION, show_default=True,
    help="How long; 0 runs until Ctrl-C.",
)  # fmt: skip
@click.option("--shape", type=_Parsed("shape", parse_shape), default=CONSTANT, help="How the rate moves, see above.")
@click.option("--closed", is_flag=True, help="Users wait for their answer before they ask again.")
@click.option("--path", "paths", multiple=True, help="Path to ask for, repeatable, taken in turn.  [default: /]")
@click.option("--method", default="GET", show_default=True, help="HTTP method.")
@click.option("--header", "headers", multiple=True, type=_Parsed("header", _header), help="'Name: value', repeatable.")
@click.option(
    "--timeout", type=_Parsed("duration", parse_duration), default="10s", show_default=True,
    help="A request without an answer for so long has failed.",
)  # fmt: skip
@click.option("--max-failed", type=_Parsed("share", parse_ratio), help="Threshold: share that may fail, like 1%.")
@click.option("--p95", type=_Parsed("duration", parse_ms), help="Threshold: 95th percentile, like 300ms.")
@click.option("--p99", type=_Parsed("duration", parse_ms), help="Threshold: 99th percentile, like 1s.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a report with charts to this file."
)
@click.option(
    "--locustfile",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run the users of this Locust file (closed loop).",
)
@click.option("--allow-remote", is_flag=True, help="Allow a target that is not on this machine.")
@click.pass_context
def load(
    ctx: click.Context,
    target: str | None,
    rate: float | None,
    users: int | None,
    duration: float,
    shape: Shape,
    closed: bool,
    paths: tuple[str, ...],
    method: str,
    headers: tuple[tuple[str, str], ...],
    timeout: float,
    max_failed: float | None,
    p95: float | None,
    p99: float | None,
    form: str,
    html: Path | None,
    locustfile: Path | None,
    allow_remote: bool,
) -> None:
    from deploykit.load.client import LoadRun
    from deploykit.load.target import require_local

    closed = closed or locustfile is not None
    _refuse_nonsense(shape, closed, rate, timeout, paths)
    url, path = _resolve(ctx, target)
    require_local(url, allow_remote=allow_remote)
    job = jobs.LoadJob(
        target=url,
        rate=rate if rate is not None else 0.0 if closed else jobs.DEFAULT_RATE,
        users=users or (jobs.DEFAULT_CLOSED_USERS if closed else jobs.DEFAULT_MAX_IN_FLIGHT),
        duration=duration or None,
        shape=shape,
        paths=tuple(path.partition("?")[0].rstrip("/") + each for each in paths) or (_rooted(path),),
        locustfile=str(locustfile.resolve()) if locustfile else None,
        headers=dict(headers),
        method=method.upper(),
        timeout=timeout,
        closed=closed,
    )
    if html is not None and not html.parent.is_dir():
        raise UsageError(f"{html.parent} is not a folder", hint="--html needs a folder that is there.")
    thresholds = Thresholds(max_failed=max_failed, p95_ms=p95, p99_ms=p99)
    with LoadRun() as run:
        result, interrupted = _watch(run, job)
        missed = check(result, thresholds)
        _show(result, form)
        if html is not None:
            from deploykit.load.html import render

            _write(html, render(job, result, tuple(run.history), missed))
    if interrupted:
        ctx.exit(INTERRUPTED)
    if missed:
        raise ThresholdMissed("The load test missed its threshold: " + "; ".join(missed))


def _refuse_nonsense(shape: Shape, closed: bool, rate: float | None, timeout: float, paths: tuple[str, ...]) -> None:
    if closed and shape.kind != "constant":
        raise UsageError("--shape moves the arrival rate, and a closed loop has none", hint="Leave out --closed.")
    if not closed and rate == 0 and shape.kind == "constant":
        raise UsageError("--rate 0 sends nothing", hint="Give a rate above 0, or --closed for unpaced users.")
    if timeout <= 0:
        raise UsageError("--timeout must be above 0")
    bad = [path for path in paths if not path.startswith("/") or path.startswith("//") or not path.isprintable()]
    if bad:
        raise UsageError(f"{bad[0]!r} is not a path", hint="A path starts with one slash, like /healthz.")


def _rooted(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def _resolve(ctx: click.Context, target: str | None) -> tuple[str, str]:
    """Origin and path of TARGET: a URL, or what the project says of a service (None: its first published one)."""
    from deploykit.load.target import split_url

    find = getattr(ctx.obj, "service_url", None)
    if target is not None and "://" in target:
        return split_url(target)
    if find is not None:
        return split_url(str(find(target)))
    if target is None:
        raise UsageError("No load target was given", hint="Give a URL like http://127.0.0.1:8080.")
    raise UsageError(f"{target!r} is not a URL", hint="Give a URL like http://127.0.0.1:8080.")


def _watch(run: LoadRun, job: LoadJob) -> tuple[LoadResult, bool]:
    """The result, and whether Ctrl-C ended the run."""
    try:
        run.start(job)
        with _progress(job.duration) as show:
            while not run.wait(POLL_S):
                show(run.snapshot())
        return run.result(), False
    except KeyboardInterrupt:
        if run.pid is None:
            raise click.exceptions.Exit(INTERRUPTED) from None
        click.echo("Stopping; the result so far:", err=True)
        return run.stop(), True


@contextlib.contextmanager
def _progress(duration: float | None) -> Iterator[Any]:
    """A function that shows a second: a live block on a terminal, else a plain line now and then. On stderr."""
    from deploykit.load.text import live_line

    if not sys.stderr.isatty():
        shown = 0.0

        def plain(second: Second | None) -> None:
            nonlocal shown
            if second is not None and second.t >= shown + PLAIN_EVERY_S - 0.5:
                shown = second.t
                click.echo(live_line(second, duration), err=True)

        yield plain
        return

    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        yield lambda second: live.update(_block(second, duration))


def _block(second: Second | None, duration: float | None) -> Any:
    """The live block: a small table of this second."""
    from rich.table import Table
    from rich.text import Text

    from deploykit.load.text import ms, versions_line

    if second is None:
        return Text("Starting the load generator ...")
    table = Table(show_header=False, box=None, pad_edge=False)
    clock = f"{second.t:.0f} s" if duration is None else f"{min(second.t, duration):.0f} of {duration:g} s"
    table.add_row("Load", Text(clock, style="bold"))
    table.add_row("Offered", f"{second.offered}/s")
    table.add_row("Answered", Text(f"{second.requests}/s", style="bold green" if second.requests else "bold red"))
    table.add_row("Failed", Text(f"{second.failed}/s", style="bold red" if second.failed else "dim"))
    if second.dropped:
        table.add_row("Dropped", Text(f"{second.dropped}/s", style="bold red"))
    table.add_row("In flight", str(second.in_flight))
    table.add_row("Latency", f"p50 {ms(second.p50_ms)}  p95 {ms(second.p95_ms)}")
    versions = versions_line(second)
    if versions:
        table.add_row("Versions", Text(versions))
    return table


def _show(result: LoadResult, form: str) -> None:
    from deploykit.load.text import summary

    click.echo(json.dumps(result.to_json(), indent=2) if form == "json" else "\n".join(summary(result)))


def _write(path: Path, text: str) -> None:
    """Write by temporary name and rename."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    click.echo(f"Report: {path}", err=True)

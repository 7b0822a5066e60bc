"""A rollout or a demo as one HTML file that can be mailed, printed and kept: no script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader

WIDTH, HEIGHT = 900, 190
LEFT, RIGHT, TOP, BOTTOM = 62, 884, 10, 160
COLOURS = 6  # Okabe & Ito's palette, told apart by dashes too
DASHES = ("", "6 3", "2 3", "10 3 2 3", "1 2", "12 4")

GOOD = ("promoted", "passed", "pass")
BAD = ("aborted", "failed", "fail", "error")


@dataclass(frozen=True)
class Act:
    """One row of the summary. ``failed`` counts attempts, ``hurt`` users that saw a failure."""

    name: str
    requests: int
    failed: int
    hurt: int
    seconds: float
    outcome: str


@dataclass(frozen=True)
class Moment:
    """One event; ``at`` is seconds since the start. ``mark`` draws it as a line in the plots."""

    at: float
    text: str
    cause: str = ""
    mark: bool = False


@dataclass(frozen=True)
class Series:
    """Columns of equal length, one entry a second. ``t`` is seconds since the start; None leaves a gap.

    ``requests`` and ``failed`` are a second's counts for each label; ``weight`` and evidence are 0-1.
    """

    t: Sequence[float] = ()
    requests: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    failed: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    weight: Sequence[float | None] = ()
    replicas: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    evidence_abort: Sequence[float | None] = ()
    evidence_promote: Sequence[float | None] = ()


@dataclass(frozen=True)
class ReportData:
    """All a report shows. ``verdict`` is one word or a short line (promoted, aborted, ...)."""

    title: str
    verdict: str
    reason: str = ""
    subtitle: str = ""
    acts: Sequence[Act] = ()
    series: Series = Series()
    events: Sequence[Moment] = ()
    config: str = ""


@dataclass(frozen=True)
class _Line:
    name: str
    path: str
    area: str
    colour: int
    dash: str


@dataclass(frozen=True)
class _Plot:
    title: str
    description: str
    lines: Sequence[_Line]
    rows: Sequence[tuple[float, str]]
    columns: Sequence[tuple[float, str]]
    marks: Sequence[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM


def render_report(data: ReportData) -> str:
    """The whole HTML document. Every text in ``data`` is escaped."""
    environment = Environment(
        loader=PackageLoader("deploykit", "views"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(d=data, tone=_tone(data.verdict), plots=_plots(data))


def _tone(verdict: str) -> str:
    words = verdict.lower().replace(",", " ").replace(":", " ").split()
    if any(word in BAD for word in words):
        return "bad"
    return "good" if any(word in GOOD for word in words) else ""


def _plots(data: ReportData) -> list[_Plot]:
    s = data.series
    labels = list(dict.fromkeys([*s.requests, *s.failed, *s.replicas]))  # a label keeps its colour in every plot
    marks = [m for m in data.events if m.mark]
    evidence = {"toward abort": s.evidence_abort, "toward promotion": s.evidence_promote}
    # Colours by place: 0 stable, 1 canary and what speaks against it, 2 what speaks for it.
    wanted: list[tuple[str, Mapping[str, Sequence[float | None]], Sequence[str], float | None, bool]] = [
        ("Requests per second", s.requests, labels, None, False),
        ("Failures per second", s.failed, labels, None, False),
        ("Canary weight", {"canary weight": s.weight}, ["", "canary weight"], 1.0, True),
        ("Replicas", s.replicas, labels, None, True),
        ("Evidence (100% decides)", evidence, ["", *evidence], 1.0, False),
    ]
    plots = (_plot(title, s.t, lines, order, top, step, marks) for title, lines, order, top, step in wanted)
    return [plot for plot in plots if plot]


def _plot(
    title: str,
    t: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    order: Sequence[str],
    top: float | None,
    step: bool,
    marks: Sequence[Moment],
) -> _Plot | None:
    series = {name: values for name, values in series.items() if any(v is not None for v in values)}
    if not series or not t:
        return None
    share = top is not None
    peak = max(v for values in series.values() for v in values if v is not None)
    unit = _tidy((top or max(peak, 1.0)) / 4, whole=not share)
    limit = top or unit * max(1, math.ceil(peak / unit - 1e-9))
    begin, span = t[0], max(t[-1] - t[0], 1.0)

    def x(at: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (at - begin) / span, 1)

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * min(value, limit) / limit, 1)

    lines, said = [], []
    for position, (name, values) in enumerate(series.items()):
        index = order.index(name) if name in order else position
        path, area = _path([(x(a), None if v is None else y(v)) for a, v in zip(t, values, strict=False)], step)
        dash = DASHES[index % COLOURS] if len(series) > 1 else ""
        lines.append(_Line(name, path, area, index % COLOURS, dash))
        seen = [v for v in values if v is not None]
        said.append(f"{name}: from {_amount(min(seen), share)} to {_amount(max(seen), share)}")
    count = round(limit / unit)
    return _Plot(
        title,
        f"{title} over {span:g} seconds. " + "; ".join(said) + ".",
        lines,
        [(y(i * unit), _amount(i * unit, share)) for i in range(count + 1)],
        _columns(begin, span, x),
        [(x(m.at), m.text) for m in marks if begin <= m.at <= begin + span],
    )


def _columns(begin: float, span: float, x: Callable[[float], float]) -> list[tuple[float, str]]:
    every = _tidy(span / 8, whole=True)
    first = math.ceil(begin / every)
    last = math.floor((begin + span) / every + 1e-9)
    return [(x(i * every), f"{i * every:g} s") for i in range(first, last + 1)]


def _path(points: Sequence[tuple[float, float | None]], step: bool) -> tuple[str, str]:
    """The line, and the area under it; a gap starts a new stroke."""
    runs: list[list[tuple[float, float]]] = [[]]
    for px, py in points:
        if py is None:
            runs.append([])
        else:
            if step and runs[-1]:
                runs[-1].append((px, runs[-1][-1][1]))
            runs[-1].append((px, py))
    runs = [run for run in runs if run]
    strokes = ["M" + "L".join(f"{px:g} {py:g}" for px, py in run) for run in runs]
    areas = [f"{s}L{run[-1][0]:g} {BOTTOM}L{run[0][0]:g} {BOTTOM}Z" for s, run in zip(strokes, runs, strict=True)]
    return "".join(strokes), "".join(areas)


def _tidy(raw: float, *, whole: bool) -> float:
    """The next of 1, 2, 2.5 (not for whole numbers), 5, 10 times a power of ten at or above ``raw``."""
    if whole and raw <= 1.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    choices = (1.0, 2.0, 5.0, 10.0) if whole else (1.0, 2.0, 2.5, 5.0, 10.0)
    return next(c * power for c in choices if c * power >= raw * (1 - 1e-9))


def _amount(value: float, share: bool) -> str:
    return f"{value * 100:.3g}%" if share else f"{value:,.10g}"

"""A load run as one HTML file that needs nothing else. Pure: data in, text out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from deploykit.load.job import LoadJob, LoadResult, Second
from deploykit.load.text import generator_line, ms

WIDTH, HEIGHT = 720, 190
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 26
MAX_POINTS = 600

Line = tuple[str, str, Callable[[Second], float | None]]

CHARTS: tuple[tuple[str, str, tuple[Line, ...]], ...] = (
    (
        "Requests per second",
        "/s",
        (("offered", "c3", lambda s: float(s.offered)), ("answered", "c1", lambda s: float(s.requests))),
    ),
    (
        "Failures per second",
        "/s",
        (("failed", "c2", lambda s: float(s.failed)), ("dropped", "c3", lambda s: float(s.dropped))),
    ),
    (
        "Latency from the intended start",
        " ms",
        (("p50", "c1", lambda s: s.p50_ms), ("p95", "c2", lambda s: s.p95_ms)),
    ),
)

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#5b6570;--line:#d5dae0;--c1:#1f6feb;--c2:#c9372c;
--c3:#8a6d00}
@media (prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#e6eaef;--soft:#9aa5b1;--line:#333b45;--c1:#6cb0ff;
--c2:#ff8b80;--c3:#e0b53a}}
body{margin:2rem auto;max-width:800px;padding:0 1rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2rem 0 .3rem}p,figcaption{color:var(--soft)}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}figure{margin:0}
svg{width:100%;height:auto}svg text{fill:var(--soft);font-size:11px}.grid{stroke:var(--line)}
polyline{fill:none;stroke-width:2}
.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3);stroke-dasharray:5 3}
i{display:inline-block;width:1.4em;border-top:3px solid;vertical-align:middle;margin:0 .4em 0 1em}
i.c1{border-color:var(--c1)}i.c2{border-color:var(--c2)}i.c3{border-color:var(--c3);border-top-style:dashed}
.bad{color:var(--c2);font-weight:600}
@media print{:root{--bg:#fff;--fg:#000;--soft:#333;--line:#bbb;--c1:#1f6feb;--c2:#c9372c;--c3:#8a6d00}
body{margin:0;max-width:none}figure,table{break-inside:avoid}}
"""


def render(job: LoadJob, result: LoadResult, history: Sequence[Second], missed: Sequence[str] = ()) -> str:
    """The report: what was asked for, what came of it, three charts over time, versions and failures."""
    title = f"Load on {job.target}"
    asked = f"{result.loop} loop, {job.shape.text} shape, {job.rate:g} requests/s, {', '.join(job.paths)}"
    figures = [_chart(name, unit, lines, history) for name, unit, lines in CHARTS] if len(history) > 1 else []
    verdict = "".join(f'<p class="bad">Missed: {escape(line)}</p>' for line in missed)
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1><p>{escape(asked)}</p>{verdict}",
            _numbers(result),
            *figures,
            _versions(result),
            _errors(result),
            f"<p>{escape(generator_line(result))}</p></body></html>\n",
        ]
    )


def _numbers(result: LoadResult) -> str:
    rows = (
        ("Offered", f"{result.offered_rps:g}/s"),
        ("Achieved", f"{result.achieved_rps:g}/s"),
        ("Requests", str(result.requests)),
        ("Failed", f"{result.failed} ({result.failure_ratio:.2%})"),
        ("Dropped", str(result.dropped)),
        ("Latency p50 / p95 / p99 / max", " / ".join(map(ms, _latencies(result)))),
        ("Time", f"{result.seconds:.1f} s"),
    )
    return _table(("", ""), rows)


def _latencies(result: LoadResult) -> tuple[float | None, ...]:
    return (result.p50_ms, result.p95_ms, result.p99_ms, result.max_ms)


def _versions(result: LoadResult) -> str:
    if not result.by_version:
        return ""
    rows = [
        (label, str(found["requests"]), str(found["failed"]), ms(found["p50_ms"]), ms(found["p95_ms"]))
        for label, found in result.by_version.items()
    ]
    return "<h2>Versions</h2>" + _table(("version", "requests", "failed", "p50", "p95"), rows)


def _errors(result: LoadResult) -> str:
    if not result.errors:
        return ""
    rows = [(str(error["reason"]), str(error["count"])) for error in result.errors]
    return "<h2>Failures</h2>" + _table(("reason", "count"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        first, *others = values
        scope = ' scope="col"' if tag == "th" else ""
        return f"<tr><{tag}{scope}>{escape(first)}</{tag}>" + "".join(
            f'<{tag}{scope} class="n">{escape(value)}</{tag}>' for value in others
        )

    top = f"<thead>{cells('th', head)}</thead>" if any(head) else ""
    return f"<table>{top}<tbody>{''.join(cells('td', row) for row in rows)}</tbody></table>"


def _chart(name: str, unit: str, lines: Sequence[Line], history: Sequence[Second]) -> str:
    points = _thin(history)
    top = max((value(s) or 0.0 for _, _, value in lines for s in points), default=0.0) or 1.0
    start, end = points[0].t, points[-1].t
    span = (end - start) or 1.0

    def x(t: float) -> float:
        return LEFT + (t - start) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    body = []
    for share in (0.0, 0.5, 1.0):
        level = y(share * top)
        body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
        body.append(f'<text x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{share * top:.4g}</text>')
    for t, anchor in ((start, "start"), (end, "end")):
        body.append(f'<text x="{x(t):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{t:.0f} s</text>')
    for _, style, value in lines:
        for part in _unbroken(points, value):
            joined = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in part)
            body.append(f'<polyline class="{style}" points="{joined}"/>')
    legend = "".join(f'<i class="{style}"></i>{escape(label)}' for label, style, _ in lines)
    spoken = f"{name} over time, at most {top:.4g}{unit}"
    return (
        f"<h2>{escape(name)}</h2><figure>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}">{"".join(body)}</svg>'
        f"<figcaption>{legend}</figcaption></figure>"
    )


def _thin(history: Sequence[Second]) -> Sequence[Second]:
    """At most `MAX_POINTS` seconds, evenly picked; a leftover shorter than half a second would look like a dip."""
    points = list(history)
    if len(points) > 2 and points[-1].t - points[-2].t < 0.5:
        points.pop()
    every = -(-len(points) // MAX_POINTS)
    return points[::every]


def _unbroken(points: Sequence[Second], value: Callable[[Second], float | None]) -> list[list[tuple[float, float]]]:
    """The line's pieces between seconds without a value."""
    parts: list[list[tuple[float, float]]] = [[]]
    for second in points:
        found = value(second)
        if found is None:
            parts.append([])
        else:
            parts[-1].append((second.t, found))
    return [part for part in parts if part]

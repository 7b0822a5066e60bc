"""The board as the data of an HTML report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deploykit.demo.board import Board, Sample
from deploykit.views.report import Act, Moment, ReportData, Series

MARKED = ("rollout.started", "rollout.promoted", "rollout.aborted", "service.scaled")


def report_data(board: Board, *, runtime: str, config: str, missed: Sequence[str] = ()) -> ReportData:
    """All that the report shows; times are seconds since the demo began. ``missed``: promises that were not kept."""
    acts = []
    for act in board.acts:
        requests, failed = board.totals(act)
        seconds = (act.ended if act.ended is not None else board.now) - act.started
        acts.append(Act(f"{act.number}. {act.title}", requests, failed, act.hurt, round(seconds, 1), act.outcome))
    total, failed = board.requests, board.failed
    return ReportData(
        title="deploykit demo",
        verdict="failed" if missed else "passed",
        reason="; ".join(missed) or f"{failed:,} of {total:,} requests failed, all acts together",
        subtitle=f"runtime {runtime}, {len(board.samples)} seconds of traffic",
        acts=acts,
        series=_series(board.samples),
        events=[
            Moment(round(at, 1), event.text, event.cause, event.kind in MARKED)
            for at, event in board.events
            if event.kind != "image.progress"
        ],
        config=config,
    )


def _series(samples: list[Sample]) -> Series:
    labels = sorted({label for s in samples for label in (*s.second.by_version, *s.replicas)})

    def column(read: Callable[[Sample, str], float]) -> dict[str, list[float | None]]:
        return {label: [read(s, label) for s in samples] for label in labels}

    return Series(
        t=[s.at for s in samples],
        requests=column(lambda s, label: s.second.by_version.get(label, {}).get("requests", 0)),
        failed=column(lambda s, label: s.second.by_version.get(label, {}).get("failed", 0)),
        weight=[s.weight / 100 for s in samples],
        replicas=column(lambda s, label: s.replicas.get(label, 0)),
        evidence_abort=[s.abort for s in samples],
        evidence_promote=[s.promote for s in samples],
    )

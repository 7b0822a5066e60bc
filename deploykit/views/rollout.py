"""A rollout as people and scripts see it."""

from __future__ import annotations

import time
from typing import Any

from deploykit.core.rollout import Rollout


def as_json(rollout: Rollout) -> dict[str, Any]:
    """The fields of `rollout status --format json`."""
    counts = rollout.counts
    return {
        "service": rollout.service,
        "phase": rollout.phase,
        "step": rollout.step,
        "steps": len(rollout.steps),
        "weight": rollout.weight,
        "stable": rollout.stable_label,
        "canary": rollout.canary_label,
        "verdict": rollout.verdict,
        "reason": rollout.reason,
        "evidence": {"abort": round(rollout.evidence_abort, 4), "promote": round(rollout.evidence_promote, 4)},
        "requests": {
            "total": counts.total,
            "canary": counts.canary,
            "failed": counts.failed,
            "failed_on_canary": counts.failed_on_canary,
            "hurt": counts.hurt,
        },
        "started_at": rollout.started_at,
        "elapsed_s": round((rollout.ended_at or time.time()) - rollout.started_at, 1),
    }


def bar(fraction: float, width: int = 20) -> str:
    full = round(max(0.0, min(1.0, fraction)) * width)
    return "█" * full + "░" * (width - full)


def line(rollout: Rollout) -> str:
    """One line about where it stands."""
    counts = rollout.counts
    return (
        f"{rollout.service} {rollout.stable_label} -> {rollout.canary_label}  {rollout.phase}"
        f"  step {min(rollout.step + 1, len(rollout.steps))}/{len(rollout.steps)}  weight {rollout.weight:g}%"
        f"  canary {counts.canary:,} requests, {counts.failed_on_canary:,} failed, {counts.hurt:,} hurt"
        f"  evidence: abort {rollout.evidence_abort:.0%}, promote {rollout.evidence_promote:.0%}"
    )


def block(rollout: Rollout) -> str:
    """Several lines for `rollout status`."""
    data = as_json(rollout)
    steps = "  ".join(
        (f"[{text}]" if i == rollout.step and not rollout.over else text)
        for i, text in enumerate(
            f"{s.weight:g}%" if s.weight is not None else f"pause {s.pause:g}s" for s in rollout.steps
        )
    )
    requests = data["requests"]
    return "\n".join(
        [
            f"Service   {rollout.service}",
            f"Rollout   {rollout.stable_label} -> {rollout.canary_label}",
            f"Phase     {rollout.phase}",
            f"Steps     {steps}",
            f"Weight    {bar(rollout.weight / 100)} {rollout.weight:g}% canary",
            f"Requests  {requests['total']:,} in all, {requests['canary']:,} on the canary",
            f"Failed    {requests['failed']:,} in all, {requests['failed_on_canary']:,} on the canary,"
            f" {requests['hurt']:,} users hurt by it",
            f"Evidence  abort   {bar(rollout.evidence_abort)} {rollout.evidence_abort:.0%}",
            f"          promote {bar(rollout.evidence_promote)} {rollout.evidence_promote:.0%}",
            f"Verdict   {rollout.verdict}: {rollout.reason}",
            f"Elapsed   {data['elapsed_s']:g}s",
        ]
    )

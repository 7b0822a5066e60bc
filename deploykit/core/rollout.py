"""A service on its way from one version to another, as a value that is advanced once a second.

The words are Argo Rollouts': steps set a weight or pause; a pause without a time waits for `promote`. With an
analysis a weight is left only when the judge says that the next one is safe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from deploykit.core.judge import Verdict
from deploykit.core.plan import Desired, Want
from deploykit.spec.model import RolloutPolicy, Step

Phase = Literal["progressing", "paused", "promoted", "aborted"]
Command = Literal["pause", "resume", "promote", "promote-full", "abort"]

DEFAULT_STEPS = (Step(weight=5), Step(weight=25), Step(weight=50))


@dataclass(frozen=True)
class Counts:
    """Requests since the rollout began. ``hurt`` are those whose user got a failure because of the canary."""

    total: int = 0
    canary: int = 0
    failed: int = 0
    failed_on_canary: int = 0
    hurt: int = 0


@dataclass(frozen=True)
class Rollout:
    """``step`` counts from 0 and equals ``len(steps)`` when all are done. Times are Unix seconds.

    ``replicas`` is the size of the service; ``analysis`` says whether the judge must agree before a weight is left.
    """

    id: str
    service: str
    stable: str
    canary: str
    stable_label: str
    canary_label: str
    replicas: int
    steps: tuple[Step, ...]
    started_at: float
    entered_at: float
    step: int = 0
    weight: float = 0.0
    phase: Phase = "progressing"
    analysis: bool = True
    on_inconclusive: Literal["pause", "promote", "abort"] = "pause"
    progress_deadline: float = 600.0
    verdict: str = "inconclusive"
    reason: str = "no traffic on the canary yet"
    evidence_abort: float = 0.0
    evidence_promote: float = 0.0
    counts: Counts = Counts()
    ended_at: float | None = None

    @property
    def over(self) -> bool:
        return self.phase in ("promoted", "aborted")

    @property
    def waits_for_promote(self) -> bool:
        """Whether the current step is a pause that only a person ends."""
        step = self.current
        return step is not None and step.pause is not None and math.isinf(step.pause)

    @property
    def current(self) -> Step | None:
        return self.steps[self.step] if self.step < len(self.steps) else None

    @property
    def next_weight(self) -> float:
        """Percent that the canary gets after the current step."""
        for step in self.steps[self.step + 1 :]:
            if step.weight is not None:
                return step.weight
        return 100.0


def begin(
    *,
    id: str,
    service: str,
    stable: str,
    canary: str,
    stable_label: str,
    canary_label: str,
    replicas: int,
    policy: RolloutPolicy,
    now: float,
) -> Rollout:
    """The rollout at its first step. Without steps in the policy: 5, 25, 50 percent."""
    rollout = Rollout(
        id=id,
        service=service,
        stable=stable,
        canary=canary,
        stable_label=stable_label,
        canary_label=canary_label,
        replicas=replicas,
        steps=policy.steps or DEFAULT_STEPS,
        started_at=now,
        entered_at=now,
        analysis=policy.analysis is not None,
        on_inconclusive=policy.analysis.on_inconclusive if policy.analysis else "promote",
        progress_deadline=policy.progress_deadline,
    )
    return _enter(rollout, now)


def _enter(rollout: Rollout, now: float) -> Rollout:
    step = rollout.current
    if step is None:
        return _promoted(rollout, now, "all steps are done" + (" and the judge agrees" if rollout.analysis else ""))
    weight = step.weight if step.weight is not None else rollout.weight
    return replace(rollout, weight=weight, entered_at=now)


def _promoted(rollout: Rollout, now: float, reason: str) -> Rollout:
    return replace(
        rollout, phase="promoted", weight=100.0, step=len(rollout.steps), reason=reason, entered_at=now, ended_at=now
    )


def _aborted(rollout: Rollout, now: float, reason: str) -> Rollout:
    return replace(rollout, phase="aborted", weight=0.0, reason=reason, entered_at=now, ended_at=now)


def _forward(rollout: Rollout, now: float) -> Rollout:
    return _enter(replace(rollout, step=rollout.step + 1), now)


def advance(rollout: Rollout, now: float, verdict: Verdict | None) -> Rollout:
    """The rollout one look later. A failing verdict aborts, also while paused; nothing else moves a paused one."""
    if rollout.over:
        return rollout
    if verdict is not None:
        rollout = replace(
            rollout,
            verdict=verdict.kind,
            reason=verdict.reason,
            evidence_abort=verdict.evidence.abort,
            evidence_promote=verdict.evidence.promote,
        )
        if verdict.kind == "fail":
            return _aborted(rollout, now, verdict.reason)
    if rollout.phase == "paused":
        return rollout
    step = rollout.current
    if step is not None and step.pause is not None:
        if now - rollout.entered_at < step.pause:
            return rollout
        following = rollout.steps[rollout.step + 1] if rollout.step + 1 < len(rollout.steps) else None
        if following is not None and following.pause is not None:
            return _forward(rollout, now)
    elif _next_is_pause(rollout):
        return _forward(rollout, now)
    if not rollout.analysis or (verdict is not None and verdict.kind == "pass"):
        return _forward(rollout, now)
    if now - rollout.entered_at >= rollout.progress_deadline:
        return _deadline(rollout, now)
    return rollout


def _next_is_pause(rollout: Rollout) -> bool:
    index = rollout.step + 1
    return index < len(rollout.steps) and rollout.steps[index].pause is not None


def _deadline(rollout: Rollout, now: float) -> Rollout:
    why = f"no decision within {rollout.progress_deadline:g}s ({rollout.reason})"
    if rollout.on_inconclusive == "promote":
        return _forward(replace(rollout, reason=why), now)
    if rollout.on_inconclusive == "abort":
        return _aborted(rollout, now, why)
    return replace(rollout, phase="paused", reason=why)


def command(rollout: Rollout, verb: Command, now: float) -> Rollout:
    """What a person asked for. A verb that does not apply leaves the rollout as it is."""
    if rollout.over:
        return rollout
    match verb:
        case "abort":
            return _aborted(rollout, now, "aborted by hand")
        case "promote-full":
            return _promoted(rollout, now, "promoted in full by hand")
        case "promote":
            return _forward(replace(rollout, phase="progressing", reason="step promoted by hand"), now)
        case "pause":
            return replace(rollout, phase="paused", reason="paused by hand")
        case "resume":
            return replace(rollout, phase="progressing", reason="resumed by hand", entered_at=now)


def canary_replicas(rollout: Rollout) -> int:
    """Replicas of the canary: its share of the service, rounded up, at least one."""
    return max(1, math.ceil(rollout.weight / 100 * rollout.replicas))


def desired(rollout: Rollout) -> Desired:
    """What the service should look like now. Stable keeps its full size until the promotion."""
    match rollout.phase:
        case "promoted":
            return Desired(rollout.service, Want(rollout.canary, rollout.replicas))
        case "aborted":
            return Desired(rollout.service, Want(rollout.stable, rollout.replicas))
        case _:
            return Desired(
                rollout.service,
                Want(rollout.stable, rollout.replicas),
                Want(rollout.canary, canary_replicas(rollout)),
                rollout.weight,
            )


def failed_to_start(rollout: Rollout, now: float, reason: str) -> Rollout:
    """The new version never became ready: back to the old one."""
    return _aborted(rollout, now, reason)

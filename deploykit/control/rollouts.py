"""A rollout under control: every second the traffic is judged, the rollout advanced, the replicas brought along."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import cast

from deploykit.control.deployment import Deployment
from deploykit.control.traffic import Traffic
from deploykit.core import judge
from deploykit.core import rollout as rollouts
from deploykit.core.rollout import Counts, Rollout
from deploykit.core.window import Window
from deploykit.errors import DeployError, RolloutAborted
from deploykit.events import Event
from deploykit.metrics.windows import Second
from deploykit.spec.model import Analysis

OnLook = Callable[[Rollout], None]


class RolloutRunner:
    """Runs one rollout to its end. `on_look` is called after every second and every change."""

    def __init__(self, deployment: Deployment, rollout: Rollout, *, on_look: OnLook = lambda _: None) -> None:
        self._deployment = deployment
        self._rollout = rollout
        self._on_look = on_look
        spec = deployment.executor.version(rollout.service, rollout.canary).spec
        self._analysis = spec.extension.rollout.analysis
        self._judge = judge.start(self._analysis or Analysis())
        self._seconds: SimpleQueue[Second] = SimpleQueue()
        self._since = time.time()

    def enter(self) -> None:
        """Bring up what the current step needs, judged by nobody yet. Raises RolloutAborted when it cannot start."""
        self._deployment.observe()
        self._apply()

    def run(self) -> Rollout:
        """Until promoted or aborted. A failure to start the new version aborts it, with the reason."""
        deployment, service = self._deployment, self._rollout.service
        deployment.observe()
        with Traffic(deployment.runtime.proxy, deployment.project.name, self._seconds.put):
            self._apply()
            self._since = time.time()
            while not self._rollout.over:
                changed = self._commands(service)
                changed = self._looks() or changed
                if changed:
                    self._apply()
            self._last_counts()
        return self._rollout

    def _last_counts(self) -> None:
        """Requests that ended before the last routing change but whose seconds had not closed yet count as well."""
        ended = int(time.time())
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            try:
                second = self._seconds.get(timeout=0.2)
            except Empty:
                continue
            service = self._rollout.service
            canary, stable = second.window(service, "canary"), second.window(service, "stable")
            self._rollout = replace(self._rollout, counts=_count(self._rollout.counts, canary, stable))
            if second.second >= ended:
                break
        self._deployment.store.save_rollout(self._rollout)
        self._on_look(self._rollout)

    def feed(self, second: Second) -> None:
        """Take in a second from elsewhere (a recording)."""
        self._seconds.put(second)

    def _commands(self, service: str) -> bool:
        before = self._rollout
        for verb in self._deployment.store.asked(service):
            self._move(rollouts.command(self._rollout, cast(rollouts.Command, verb), time.time()))
        return self._rollout != before

    def _looks(self) -> bool:
        """Wait shortly for a closed second; judge it. True when step, weight or phase changed."""
        before = (self._rollout.step, self._rollout.phase)
        try:
            second = self._seconds.get(timeout=0.2)
        except Empty:
            return False
        service = self._rollout.service
        canary, stable = second.window(service, "canary"), second.window(service, "stable")
        if second.second < int(self._since):
            return False
        self._judge = judge.observe(self._judge, canary, stable)
        said = judge.verdict(self._judge, next_weight=self._rollout.next_weight / 100)
        counted = replace(self._rollout, counts=_count(self._rollout.counts, canary, stable))
        verdict = said if self._analysis is not None else None
        self._move(rollouts.advance(counted, time.time(), verdict))
        return (self._rollout.step, self._rollout.phase) != before

    def _move(self, new: Rollout) -> None:
        old, self._rollout = self._rollout, new
        self._deployment.store.save_rollout(new)
        if (new.step, new.phase, new.weight) != (old.step, old.phase, old.weight):
            if new.weight != old.weight:
                self._judge = judge.new_step(self._judge)
            self._announce(old, new)
        self._on_look(new)

    def _announce(self, old: Rollout, new: Rollout) -> None:
        kind, text = f"rollout.{new.phase}", f"{new.service}: {new.phase} {new.canary_label}"
        if new.phase == "progressing":
            kind, text, cause = _progress(old, new)
        else:
            cause = new.reason
        data = {"weight": new.weight, "step": new.step, "phase": new.phase, "verdict": new.verdict}
        self._deployment.emit(Event(kind, text, time.time(), new.service, cause, data))

    def _apply(self) -> None:
        """Bring replicas and routes along; a canary that cannot start is taken back."""
        try:
            self._deployment.apply(self._rollout)
        except DeployError as error:
            if self._rollout.over:
                raise
            self._move(rollouts.failed_to_start(self._rollout, time.time(), error.message))
            self._deployment.apply(self._rollout)
            raise RolloutAborted(
                f"{self._rollout.service}: {self._rollout.canary_label} was taken back to"
                f" {self._rollout.stable_label}: {error.message}",
                hint=error.hint,
                details=error.details,
            ) from error
        self._on_look(self._rollout)


def _progress(old: Rollout, new: Rollout) -> tuple[str, str, str]:
    """Kind, text and cause of an event about a rollout that goes on."""
    if new.weight != old.weight:
        return "rollout.weight", f"{new.service}: {new.canary_label} gets {new.weight:g}%", new.reason
    step = new.current
    if step is not None and step.pause is not None:
        how_long = "until promoted" if new.waits_for_promote else f"for {step.pause:g}s at least"
        return "rollout.hold", f"{new.service}: holds at {new.weight:g}% {how_long}", "a pause step"
    return "rollout.progressing", f"{new.service}: goes on at {new.weight:g}%", new.reason


def _count(counts: Counts, canary: Window, stable: Window) -> Counts:
    return Counts(
        total=counts.total + canary.requests + stable.requests,
        canary=counts.canary + canary.requests,
        failed=counts.failed + canary.failed + stable.failed,
        failed_on_canary=counts.failed_on_canary + canary.errors,
        hurt=counts.hurt + canary.failed,
    )

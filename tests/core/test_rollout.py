from __future__ import annotations

import math
from dataclasses import replace

import pytest

from deploykit.core.judge import Evidence, Verdict
from deploykit.core.plan import Want
from deploykit.core.rollout import Rollout, advance, begin, canary_replicas, command, desired
from deploykit.spec.model import Analysis, RolloutPolicy, Step

PASS = Verdict("pass", "safe", Evidence(0.0, 1.0))
FAIL = Verdict("fail", "20% failed", Evidence(1.0, 0.0))
UNSURE = Verdict("inconclusive", "not yet", Evidence(0.1, 0.1))


def rollout(*steps: Step, analysis: Analysis | None = Analysis(), replicas: int = 4) -> Rollout:
    policy = RolloutPolicy("canary", steps, analysis, progress_deadline=60)
    return begin(id="r", service="web", stable="aaa", canary="bbb", stable_label="v1", canary_label="v2",
                 replicas=replicas, policy=policy, now=0.0)  # fmt: skip


def test_default_steps() -> None:
    begun = rollout()
    assert [s.weight for s in begun.steps] == [5, 25, 50]
    assert begun.weight == 5
    assert begun.next_weight == 25


def test_a_weight_is_left_only_when_the_judge_agrees() -> None:
    begun = rollout(Step(weight=5), Step(weight=50))
    assert advance(begun, 1.0, UNSURE).weight == 5
    assert advance(begun, 1.0, PASS).weight == 50


def test_the_last_step_promotes() -> None:
    end = advance(rollout(Step(weight=5)), 1.0, PASS)
    assert (end.phase, end.weight, end.ended_at) == ("promoted", 100.0, 1.0)
    assert desired(end).stable == Want("bbb", 4)


@pytest.mark.parametrize("phase", ["progressing", "paused"])
def test_a_failing_verdict_aborts_also_while_paused(phase: str) -> None:
    end = advance(replace(rollout(Step(weight=5)), phase=phase), 1.0, FAIL)  # type: ignore[arg-type]
    assert (end.phase, end.weight, end.reason) == ("aborted", 0.0, "20% failed")
    assert desired(end).canary is None


def test_a_pause_holds_for_its_time_even_when_the_judge_agrees() -> None:
    begun = rollout(Step(weight=5), Step(pause=10), Step(weight=50))
    paused = advance(begun, 1.0, PASS)
    assert paused.current == Step(pause=10)
    assert paused.weight == 5
    assert advance(paused, 5.0, PASS).current == Step(pause=10)
    assert advance(paused, 11.0, PASS).weight == 50
    assert advance(paused, 11.0, UNSURE).weight == 5


def test_an_endless_pause_waits_for_promote() -> None:
    paused = advance(rollout(Step(weight=5), Step(pause=math.inf), Step(weight=50)), 1.0, None)
    assert paused.waits_for_promote
    assert advance(paused, 1e9, PASS) == replace(
        paused, verdict="pass", reason="safe", evidence_abort=0.0, evidence_promote=1.0
    )
    assert command(paused, "promote", 2.0).weight == 50


def test_without_analysis_time_alone_moves_it() -> None:
    begun = rollout(Step(weight=5), Step(pause=10), analysis=None)
    assert advance(advance(begun, 1.0, None), 12.0, None).phase == "promoted"


@pytest.mark.parametrize(("then", "phase"), [("pause", "paused"), ("abort", "aborted"), ("promote", "promoted")])
def test_the_deadline(then: str, phase: str) -> None:
    begun = rollout(Step(weight=5), analysis=Analysis(on_inconclusive=then))  # type: ignore[arg-type]
    end = advance(begun, 60.0, UNSURE)
    assert end.phase == phase
    if phase == "paused":
        assert end.reason == "no decision within 60s (not yet)"


def test_verbs() -> None:
    begun = rollout(Step(weight=5), Step(weight=50))
    assert command(begun, "abort", 1.0).phase == "aborted"
    assert command(begun, "promote-full", 1.0).phase == "promoted"
    paused = command(begun, "pause", 1.0)
    assert advance(paused, 2.0, PASS).weight == 5
    assert command(paused, "resume", 2.0).phase == "progressing"
    over = command(begun, "abort", 1.0)
    assert command(over, "promote", 2.0) == over


@pytest.mark.parametrize(("weight", "replicas", "want"), [(1, 4, 1), (25, 4, 1), (26, 4, 2), (50, 3, 2), (100, 3, 3)])
def test_the_canary_follows_the_weight(weight: float, replicas: int, want: int) -> None:
    assert canary_replicas(rollout(Step(weight=weight), replicas=replicas)) == want

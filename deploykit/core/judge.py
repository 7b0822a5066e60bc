"""Is the canary worse than stable? A test that may be looked at every second (design: docs/judge.md).

`start` gives a `JudgeState`, `observe` advances it by one second of both tracks, `verdict` reads it. All are pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from deploykit.core import histogram
from deploykit.core.judge_math import ALTERNATIVES, harm_steps, log_safe, logmeanexp
from deploykit.core.judge_threshold import Threshold, ThresholdState
from deploykit.core.window import Window
from deploykit.spec.model import Analysis, Metric

Kind = Literal["pass", "fail", "inconclusive", "error"]

BASELINE_SECONDS = 60  # how far back the baseline's latency quantiles look
BASELINE_MINIMUM = 50  # attempts of stable before its quantiles mean anything
RESOLUTION = 0.001  # seconds; nginx's clock: a difference in latency within it is none
POOL_ATTEMPTS = 20  # thin traffic: seconds are pooled until both tracks together have this many attempts
POOL_SECONDS = 10  # ... or for this long, where both have at least one
CAUTION = 0.5  # power of the latency bets: slow answers come in bursts, so each is believed by half
LARGEST_RATE = 0.5  # the rate to rule out is never taken above this, so that one lucky request promotes nothing


@dataclass(frozen=True)
class Evidence:
    """How far the evidence has come, 0 to 1: ln E over ln(1/false_alarm). 1 is enough to decide."""

    abort: float = 0.0
    promote: float = 0.0


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    reason: str
    evidence: Evidence = Evidence()


@dataclass(frozen=True)
class Counts:
    """``n`` attempts of which ``e`` were bad (failed, or slow), on canary (c) and baseline (b)."""

    n_c: int = 0
    e_c: int = 0
    n_b: int = 0
    e_b: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.n_c + other.n_c, self.e_c + other.e_c, self.n_b + other.n_b, self.e_b + other.e_b)


@dataclass(frozen=True)
class Process:
    """One harm e-process: log M_k of each alternative, what it has seen, and what waits to be pooled."""

    log_m: tuple[float, ...] = (0.0,) * len(ALTERNATIVES)
    seen: Counts = Counts()
    waiting: Counts = Counts()
    waited: int = 0

    @property
    def log_e(self) -> float:
        return logmeanexp(self.log_m)

    def advance(self, window: Counts, power: float = 1.0) -> Process:
        """Take in one second. Whether to test now depends on the n's alone, never on the e's: so it stays valid.

        A ``power`` below 1 keeps the expectation at most 1 (Jensen's inequality) and dampens bursts.
        """
        seen, pool, waited = self.seen + window, self.waiting + window, self.waited + 1
        both = pool.n_c > 0 and pool.n_b > 0
        if not both or (pool.n_c + pool.n_b < POOL_ATTEMPTS and waited < POOL_SECONDS):
            return replace(self, seen=seen, waiting=pool, waited=waited)
        steps = harm_steps(pool.n_c, pool.e_c, pool.n_b, pool.e_b)
        log_m = tuple(m + power * s for m, s in zip(self.log_m, steps, strict=True)) if steps else self.log_m
        return Process(log_m, seen)


@dataclass(frozen=True)
class Slow:
    """The latency test at one quantile of the baseline. ``limit`` is that quantile when last used, in seconds."""

    q: float
    process: Process = Process()
    limit: float | None = None


@dataclass(frozen=True)
class JudgeState:
    """All the judge remembers. ``peak`` is the largest log E for harm so far: once across the line, it stays there."""

    analysis: Analysis
    seconds: int = 0
    last_second: int | None = None
    canary: int = 0  # attempts on the canary in all
    safe: Counts = Counts()  # what the promote test has seen since `new_step`
    harm: Process = Process()
    slow: tuple[Slow, ...] = ()
    history: tuple[tuple[int, Mapping[int, int]], ...] = ()  # the baseline's latency, second by second
    recent: Mapping[int, int] = field(default_factory=dict)  # ... and summed
    peak: float = -math.inf
    peak_reason: str = ""
    threshold: ThresholdState | None = None
    problem: str = ""


def start(analysis: Analysis, threshold: Threshold | None = None) -> JudgeState:
    """A judge that has seen nothing. ``threshold`` sets the plain mode; unsaid, it follows from ``analysis``."""
    latency = _metric(analysis, "latency")
    plain = None
    if analysis.mode == "threshold":
        plain = ThresholdState(threshold or Threshold(max_failure_ratio=analysis.error_budget))
    quantiles = latency.quantiles if latency else ()
    return JudgeState(analysis, slow=tuple(Slow(q) for q in quantiles), threshold=plain)


def new_step(state: JudgeState) -> JudgeState:
    """Forget what spoke for the canary at the last weight, keep what spoke against it.

    Carrying it on is valid as well where a failure rate does not depend on load; this is the careful choice.
    """
    return replace(state, safe=Counts())


def observe(state: JudgeState, canary: Window, baseline: Window) -> JudgeState:
    """Take in one second of both tracks. Seconds must rise; the counts are of attempts, so retries hide nothing."""
    problem = _problem(state, canary, baseline)
    if problem:
        return replace(state, problem=problem)
    warm = state.seconds >= state.analysis.initial_delay
    counts = Counts(canary.attempts, canary.errors, baseline.attempts, baseline.errors)
    new = replace(state, seconds=state.seconds + 1, last_second=canary.second, problem="")
    if warm:
        judged = _metric(state.analysis, "success-rate") is not None
        new = replace(
            new,
            canary=state.canary + canary.attempts,
            safe=state.safe + counts,
            harm=state.harm.advance(counts) if judged else state.harm,
            slow=tuple(_slower(state, slow, canary, baseline) for slow in state.slow),
            threshold=state.threshold.advance(canary.attempts, canary.errors) if state.threshold else None,
        )
    if state.slow:
        new = _remember(new, baseline)
    log_e = log_harm(new)
    if log_e > new.peak:
        new = replace(new, peak=log_e, peak_reason=_against(new, log_e) if log_e >= _line(new) else "")
    return new


def log_harm(state: JudgeState) -> float:
    """ln E for harm: the mean over metrics, latency being the mean over its quantiles."""
    parts = []
    if _metric(state.analysis, "success-rate"):
        parts.append(state.harm.log_e)
    if state.slow:
        parts.append(logmeanexp([slow.process.log_e for slow in state.slow]))
    return logmeanexp(parts) if parts else 0.0


def rate_to_rule_out(analysis: Analysis, next_weight: float) -> float:
    """p1: at this failure rate the canary, given ``next_weight`` (0-1), would just spend the error budget."""
    if next_weight <= 0.0:
        return LARGEST_RATE
    return min(max(analysis.error_budget / next_weight, 1e-6), LARGEST_RATE)


def verdict(state: JudgeState, *, next_weight: float) -> Verdict:
    """What can be said now. ``next_weight`` is the share of traffic (0-1) the canary would be given next."""
    if state.problem:
        return Verdict("error", state.problem)
    if state.threshold is not None:
        kind, reason, abort, promote = state.threshold.verdict()
        return Verdict(kind, reason, Evidence(abort, promote))
    line = _line(state)
    p1 = rate_to_rule_out(state.analysis, next_weight)
    log_good = log_safe(state.safe.n_c, state.safe.e_c, p1)
    failed = state.peak >= line
    evidence = Evidence(1.0 if failed else _share(log_harm(state), line), _share(log_good, line))
    if failed:
        return Verdict("fail", state.peak_reason, evidence)
    if not state.safe.n_c:
        if state.seconds < state.analysis.initial_delay:
            why = f"waiting out the initial delay of {state.analysis.initial_delay:g} s"
        else:
            why = "canary has had no requests yet, so there is nothing to judge"
        return Verdict("inconclusive", why, evidence)
    if state.canary < state.analysis.min_requests:
        why = f"canary has had {state.canary:,} of the {state.analysis.min_requests:,} requests asked for"
        return Verdict("inconclusive", why, evidence)
    facts = f"canary failed {_of(state.safe.e_c, state.safe.n_c)}, stable {_of(state.safe.e_b, state.safe.n_b, '')}"
    budget = f"budget {_percent(state.analysis.error_budget)} at {_percent(next_weight)} weight"
    rate = f"a failure rate of {_percent(p1)} ({budget})"
    if log_good >= line:
        return Verdict("pass", f"{facts}: evidence {_odds(log_good)} against {rate}", evidence)
    asked = _odds(line)
    why = f"{facts}: evidence {_odds(log_good)} of {asked} against {rate}, {_odds(log_harm(state))} of {asked} for harm"
    if state.safe.n_b and state.safe.e_b / state.safe.n_b >= p1:
        why += "; stable itself fails more than that"
    return Verdict("inconclusive", why, evidence)


def _line(state: JudgeState) -> float:
    return -math.log(state.analysis.false_alarm)


def _share(log_e: float, line: float) -> float:
    return min(max(log_e / line, 0.0), 1.0)


def _metric(analysis: Analysis, name: str) -> Metric | None:
    return next((m for m in analysis.metrics if m.name == name), None)


def _problem(state: JudgeState, canary: Window, baseline: Window) -> str:
    if canary.second != baseline.second:
        return f"the windows are of different seconds: canary {canary.second}, stable {baseline.second}"
    if state.last_second is not None and canary.second <= state.last_second:
        return f"second {canary.second} came after {state.last_second}; it was not counted"
    for name, w in (("canary", canary), ("stable", baseline)):
        if not 0 <= w.errors <= w.attempts:
            return f"the {name} window counts {w.errors} errors in {w.attempts} attempts"
    return ""


def _slower(state: JudgeState, slow: Slow, canary: Window, baseline: Window) -> Slow:
    """Count what is slower than the baseline's quantile *before* this second, then test as for failures.

    The limit is fixed before the second starts, so within it the counts are of one hypergeometric law as before.
    The canary is given ``tolerance`` and the clock's resolution on top: under "no worse" that can only lower e_c.
    """
    if sum(state.recent.values()) < BASELINE_MINIMUM:
        return slow
    metric = _metric(state.analysis, "latency") or Metric("latency")
    index = histogram.quantile_bucket(state.recent, slow.q)
    if index is None:
        return slow
    limit = histogram.seconds_of(index)
    allowed = histogram.bucket(limit * (1.0 + metric.tolerance) + RESOLUTION)
    counts = Counts(
        sum(canary.latency.values()),
        histogram.above(canary.latency, max(index, allowed)),
        sum(baseline.latency.values()),
        histogram.above(baseline.latency, index),
    )
    return Slow(slow.q, slow.process.advance(counts, CAUTION), limit)


def _remember(state: JudgeState, baseline: Window) -> JudgeState:
    recent = dict(state.recent)
    histogram.merge(recent, baseline.latency)
    kept = [*state.history, (baseline.second, baseline.latency)]
    while kept and kept[0][0] <= baseline.second - BASELINE_SECONDS:
        histogram.merge(recent, kept.pop(0)[1], sign=-1)
    return replace(state, history=tuple(kept), recent=recent)


def _against(state: JudgeState, log_e: float) -> str:
    """The sentence for a canary found worse, naming the metric that weighs most."""
    worst = max(state.slow, key=lambda s: s.process.log_e, default=None)
    odds = f"evidence {_odds(log_e)} for harm"
    if worst is None or (_metric(state.analysis, "success-rate") and state.harm.log_e >= worst.process.log_e):
        c = state.harm.seen
        return f"canary failed {_of(c.e_c, c.n_c)}, stable {_of(c.e_b, c.n_b, '')}: {odds}"
    c = worst.process.seen
    metric = _metric(state.analysis, "latency") or Metric("latency")
    limit = f"stable's p{worst.q * 100:g} of {(worst.limit or 0.0) * 1000:.3g} ms by over {metric.tolerance:.0%}"
    return f"canary exceeded {limit} in {_of(c.e_c, c.n_c)}, stable exceeded it in {_of(c.e_b, c.n_b, '')}: {odds}"


def _of(part: int, whole: int, noun: str = " requests") -> str:
    return f"{part:,} of {whole:,}{noun} ({_percent(part / whole)})" if whole else f"0 of 0{noun}"


def _percent(fraction: float) -> str:
    return f"{fraction * 100.0:.3g}%"


def _odds(log_e: float) -> str:
    """E as odds: 143:1, 1:20, 1e9:1."""
    if log_e > math.log(1e6):
        return f"over 10^{int(log_e / math.log(10))}:1"
    if log_e >= 0.0:
        value = math.exp(log_e)
        return f"{value:,.0f}:1" if value >= 10 else f"{value:.2g}:1"
    inverse = math.exp(min(-log_e, 700.0))
    return f"1:{inverse:,.0f}" if 10 <= inverse < 1e6 else f"1:{inverse:.2g}" if inverse < 10 else "under 1:10^6"

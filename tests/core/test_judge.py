"""The judge: exact where it can be, fixed seeds elsewhere."""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.core import histogram, judge
from deploykit.core.judge_math import ALTERNATIVES, harm_steps, log_comb, log_safe, log_z, logmeanexp
from deploykit.core.judge_threshold import Threshold, ThresholdState
from deploykit.core.window import Window
from deploykit.spec.model import Analysis, Metric

ERRORS_ONLY = Analysis(metrics=(Metric("success-rate"),))


def windows(
    at: int, n_c: int, e_c: int, n_b: int, e_b: int, slow_c: float = 0.02, slow_b: float = 0.02
) -> tuple[Window, Window]:
    def one(track: str, n: int, e: int, seconds: float) -> Window:
        return Window(at, "web", track, n, e, n, e, 0, {histogram.bucket(seconds): n} if n else {})

    return one("canary", n_c, e_c, slow_c), one("stable", n_b, e_b, slow_b)


def binomial(rng: random.Random, n: int, p: float) -> int:
    return sum(rng.random() < p for _ in range(n))


def brute_z(n_c: int, n_b: int, e: int, w: float) -> float:
    terms = range(max(0, e - n_b), min(e, n_c) + 1)
    return math.fsum(math.comb(n_c, u) * math.comb(n_b, e - u) * w**u for u in terms)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60), st.integers(1, 120), st.data(), st.sampled_from((1.0, *ALTERNATIVES)))
def test_z_is_the_sum_it_says(n_c: int, n_b: int, data: st.DataObject, w: float) -> None:
    e = data.draw(st.integers(0, n_c + n_b))
    assert log_z(n_c, n_b, e, w) == pytest.approx(math.log(brute_z(n_c, n_b, e, w)), abs=1e-11)


@pytest.mark.parametrize(
    ("n_c", "n_b", "e"),
    [(10**6, 10**6, 10), (5 * 10**5, 5 * 10**5, 5 * 10**5), (10**6, 10, 5 * 10**5), (9, 10**6, 4 * 10**5)],
)
def test_z_is_right_and_quick_for_a_million_requests(n_c: int, n_b: int, e: int) -> None:
    assert log_z(n_c, n_b, e, 1.0) == pytest.approx(log_comb(n_c + n_b, e), abs=1e-8)  # Vandermonde
    began = time.perf_counter()
    assert all(math.isfinite(step) for step in harm_steps(n_c, e * n_c // (n_c + n_b), n_b, e - e * n_c // (n_c + n_b)))
    assert time.perf_counter() - began < 0.05


def test_the_strided_sum_agrees_with_the_full_one() -> None:
    n_c, n_b, e, w = 20_000, 30_000, 25_000, 3.0
    top = max(log_comb(n_c, u) + log_comb(n_b, e - u) + u * math.log(w) for u in range(n_c + 1))
    full = math.fsum(math.exp(log_comb(n_c, u) + log_comb(n_b, e - u) + u * math.log(w) - top) for u in range(n_c + 1))
    assert log_z(n_c, n_b, e, w) == pytest.approx(top + math.log(full), abs=1e-9)


@pytest.mark.parametrize(("n_c", "n_b", "e"), [(5, 95, 1), (5, 95, 7), (50, 50, 20), (1, 1, 1), (30, 3, 31)])
def test_a_harm_step_has_expectation_one_when_the_tracks_are_alike(n_c: int, n_b: int, e: int) -> None:
    for k in range(len(ALTERNATIVES)):
        mean = 0.0
        for u in range(max(0, e - n_b), min(e, n_c) + 1):
            chance = math.exp(log_comb(n_c, u) + log_comb(n_b, e - u) - log_comb(n_c + n_b, e))
            steps = harm_steps(n_c, u, n_b, e - u)
            assert steps is not None
            mean += chance * math.exp(steps[k])
        assert mean == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("truth", [0.3, 0.8, 1.0, 1.3])
def test_a_better_or_tolerated_canary_gives_an_expectation_of_at_most_one(truth: float) -> None:
    n_c, n_b, e, w0 = 20, 80, 12, 1.3
    z = brute_z(n_c, n_b, e, truth)
    for k in range(len(ALTERNATIVES)):
        mean = 0.0
        for u in range(min(e, n_c) + 1):
            steps = harm_steps(n_c, u, n_b, e - u, w0)
            assert steps is not None
            mean += math.comb(n_c, u) * math.comb(n_b, e - u) * truth**u / z * math.exp(steps[k])
        assert mean <= 1.0 + 1e-9


@pytest.mark.parametrize("truth", [0.02, 0.05, 0.5])
def test_the_promote_evidence_has_expectation_at_most_one_when_the_canary_is_too_bad(truth: float) -> None:
    n, p1 = 60, 0.02
    mean = sum(math.comb(n, e) * truth**e * (1 - truth) ** (n - e) * math.exp(log_safe(n, e, p1)) for e in range(n + 1))
    assert mean <= 1.0 + 1e-9


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.integers(1, 400), st.data())
def test_one_more_canary_failure_never_speaks_for_the_canary(n_c: int, n_b: int, data: st.DataObject) -> None:
    """With the failures in all held fixed; and promote evidence falls with every failure."""
    e = data.draw(st.integers(1, n_c + n_b - 1))
    u = data.draw(st.integers(max(0, e - n_b), min(e, n_c)))
    if u < min(e, n_c):
        less, more = harm_steps(n_c, u, n_b, e - u), harm_steps(n_c, u + 1, n_b, e - u - 1)
        assert less is not None
        assert more is not None
        assert logmeanexp(more) > logmeanexp(less)
    if u < n_c:
        assert log_safe(n_c, u + 1, 0.1) < log_safe(n_c, u, 0.1)
    assert log_safe(n_c + 1, min(u, n_c), 0.1) > log_safe(n_c, min(u, n_c), 0.1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(10, 100))
def test_ten_times_the_same_traffic_is_more_evidence(e_c: int, e_b: int, n: int) -> None:
    n_c = e_c + 5
    if e_c / n_c <= 3 * e_b / (n + 50):
        return
    once, tenfold = harm_steps(n_c, e_c, n + 50, e_b), harm_steps(10 * n_c, 10 * e_c, 10 * (n + 50), 10 * e_b)
    assert once is not None
    assert tenfold is not None
    assert max(tenfold) > max(once)


def test_false_aborts_stay_below_false_alarm_in_a_over_a() -> None:
    runs, alpha, false = 300, 0.05, 0
    analysis = Analysis(false_alarm=alpha, metrics=(Metric("success-rate"),))
    for seed in range(runs):
        rng, state = random.Random(seed), judge.start(analysis)
        for at in range(60):
            n_c, n_b = binomial(rng, 10, 0.5), 45
            state = judge.observe(state, *windows(at, n_c, binomial(rng, n_c, 0.05), n_b, binomial(rng, n_b, 0.05)))
            if judge.verdict(state, next_weight=0.25).kind == "fail":
                false += 1
                break
    assert false / runs <= alpha


def test_noisy_latency_that_is_alike_raises_no_alarm() -> None:
    def noisy(rng: random.Random, at: int, track: str, n: int) -> Window:
        slots: dict[int, int] = {}
        for _ in range(n):
            index = histogram.bucket(round(0.03 * rng.lognormvariate(0, 0.7), 3))
            slots[index] = slots.get(index, 0) + 1
        return Window(at, "web", track, n, 0, n, 0, 0, slots)

    false = 0
    for seed in range(40):
        rng, state = random.Random(seed), judge.start(Analysis(false_alarm=0.05))
        for at in range(60):
            state = judge.observe(state, noisy(rng, at, "canary", 10), noisy(rng, at, "stable", 40))
        false += judge.verdict(state, next_weight=0.5).kind == "fail"
    assert false <= 2


def detection(p: float, seeds: int = 20, n_c: int = 5) -> list[int]:
    times = []
    for seed in range(seeds):
        rng, state = random.Random(seed), judge.start(Analysis())
        for at in range(200):
            state = judge.observe(state, *windows(at, n_c, binomial(rng, n_c, p), 95, binomial(rng, 95, 0.002)))
            if judge.verdict(state, next_weight=0.25).kind == "fail":
                break
        times.append(at + 1)
    return sorted(times)


def test_how_fast_a_bad_canary_is_caught_at_five_requests_a_second() -> None:
    assert detection(1.0)[-1] == 1
    assert detection(0.2)[10] <= 4
    assert detection(0.05)[10] <= 25


@pytest.mark.parametrize(("weight", "next_weight", "limit"), [(5, 0.25, 65), (25, 0.5, 30), (50, 1.0, 40)])
def test_a_healthy_canary_moves_on_within_tens_of_seconds(weight: int, next_weight: float, limit: int) -> None:
    state = judge.start(Analysis())
    for at in range(limit):
        state = judge.observe(state, *windows(at, weight, 0, 100 - weight, 0))
        said = judge.verdict(state, next_weight=next_weight)
        if said.kind == "pass":
            break
    assert said.kind == "pass", said
    assert said.evidence.promote == 1.0
    assert said.evidence.abort == 0.0


def test_an_outage_that_both_share_accuses_nobody() -> None:
    state = judge.start(Analysis())
    for at in range(60):
        rate = 0.9 if at % 3 else 0.1
        state = judge.observe(state, *windows(at, 20, round(20 * rate), 80, round(80 * rate)))
    assert judge.verdict(state, next_weight=0.5).kind == "inconclusive"


def test_a_slow_canary_fails_and_the_reason_says_so() -> None:
    state = judge.start(Analysis())
    for at in range(10):
        state = judge.observe(state, *windows(at, 0, 0, 95, 0))
    for at in range(10, 20):
        state = judge.observe(state, *windows(at, 5, 0, 95, 0, slow_c=0.06))
    said = judge.verdict(state, next_weight=0.25)
    assert said.kind == "fail"
    assert said.reason.startswith("canary exceeded stable's p")
    assert "by over 10% in " in said.reason


def test_a_difference_within_tolerance_or_the_clock_is_none() -> None:
    for slow_b, slow_c in ((0.1, 0.108), (0.001, 0.002)):
        state = judge.start(Analysis())
        for at in range(60):
            state = judge.observe(state, *windows(at, 50, 0, 50, 0, slow_c, slow_b))
        assert judge.log_harm(state) <= 1e-9


def test_the_reason_of_a_failure_is_a_sentence() -> None:
    state = judge.start(ERRORS_ONLY)
    state = judge.observe(state, *windows(1, 61, 12, 1204, 3))
    said = judge.verdict(state, next_weight=0.25)
    assert said.kind == "fail"
    assert said.reason == (
        "canary failed 12 of 61 requests (19.7%), stable 3 of 1,204 (0.249%): evidence over 10^12:1 for harm"
    )
    state = judge.observe(state, *windows(2, 500, 0, 100, 50))
    assert judge.verdict(state, next_weight=0.25).kind == "fail", "a line once crossed stays crossed"


def test_without_requests_it_is_inconclusive() -> None:
    state = judge.start(Analysis())
    assert "no requests yet" in judge.verdict(state, next_weight=0.05).reason
    state = judge.observe(state, *windows(1, 0, 0, 100, 2))
    said = judge.verdict(state, next_weight=0.05)
    assert (said.kind, said.evidence) == ("inconclusive", judge.Evidence(0.0, 0.0))


def test_a_stable_worse_than_the_budget_is_named() -> None:
    state = judge.start(ERRORS_ONLY)
    for at in range(20):
        state = judge.observe(state, *windows(at, 50, 3, 50, 3))
    said = judge.verdict(state, next_weight=1.0)
    assert said.kind == "inconclusive"
    assert "stable itself fails more" in said.reason


def test_delay_minimum_and_new_step() -> None:
    state = judge.start(Analysis(initial_delay=5, min_requests=500, metrics=(Metric("success-rate"),)))
    for at in range(5):
        state = judge.observe(state, *windows(at, 50, 50, 50, 0))
        assert judge.verdict(state, next_weight=0.5).kind == "inconclusive"
    for at in range(5, 14):
        state = judge.observe(state, *windows(at, 50, 0, 50, 0))
    assert "450 of the 500 requests" in judge.verdict(state, next_weight=0.1).reason
    state = judge.observe(state, *windows(14, 50, 0, 50, 0))
    assert judge.verdict(state, next_weight=0.1).kind == "pass"
    assert judge.verdict(judge.new_step(state), next_weight=0.1).kind == "inconclusive"


def test_windows_that_cannot_be_are_an_error_and_pass() -> None:
    state = judge.observe(judge.start(Analysis()), *windows(5, 5, 0, 5, 0))
    assert judge.verdict(judge.observe(state, *windows(5, 5, 0, 5, 0)), next_weight=0.1).kind == "error"
    assert judge.verdict(judge.observe(state, *windows(6, 5, 9, 5, 0)), next_weight=0.1).kind == "error"
    assert judge.verdict(judge.observe(state, *windows(6, 5, 0, 5, 0)), next_weight=0.1).kind == "inconclusive"


def test_thin_traffic_is_pooled_until_it_can_say_something() -> None:
    state = judge.start(ERRORS_ONLY)
    for at in range(120):
        state = judge.observe(state, *windows(at, at % 5 == 0, at % 5 == 0, at % 5 != 0, 0))
    assert judge.verdict(state, next_weight=0.25).kind == "fail"


def test_a_tick_costs_less_than_a_millisecond_or_so() -> None:
    rng, state = random.Random(1), judge.start(Analysis())
    spread = {histogram.bucket(0.01 * rng.lognormvariate(0, 1)): 1 for _ in range(300)}
    n = sum(spread.values())
    began = time.perf_counter()
    for at in range(200):
        canary = Window(at, "web", "canary", n, 1, n, 1, 0, spread)
        state = judge.observe(state, canary, Window(at, "web", "stable", n, 1, n, 1, 0, spread))
        judge.verdict(state, next_weight=0.5)
    assert (time.perf_counter() - began) / 200 < 0.005  # measured: under 1 ms; room for a busy machine


def test_the_plain_threshold() -> None:
    rule = ThresholdState(Threshold(interval=2, count=2, max_failure_ratio=0.05, failure_limit=1))
    assert rule.verdict()[0] == "inconclusive"
    one_bad = rule.advance(10, 0).advance(10, 5)
    assert one_bad.verdict()[0] == "inconclusive"
    assert one_bad.advance(10, 0).advance(10, 0).verdict()[0] == "pass"
    assert one_bad.advance(10, 5).advance(10, 5).verdict()[0] == "fail"
    silent = ThresholdState(Threshold(interval=1, inconclusive_limit=2))
    for _ in range(3):
        silent = silent.advance(0, 0)
    assert silent.verdict()[0] == "error"
    state = judge.start(Analysis(mode="threshold"), Threshold(interval=1, count=1))
    assert judge.verdict(judge.observe(state, *windows(1, 10, 1, 90, 0)), next_weight=0.5).kind == "fail"


def test_quantiles_of_a_histogram_are_right_to_two_percent() -> None:
    slots: dict[int, int] = {}
    for ms in range(1, 1001):
        histogram.merge(slots, {histogram.bucket(ms / 1000): 1})
    for q in (0.5, 0.9, 0.99):
        assert histogram.quantile(slots, q) == pytest.approx(q, rel=0.02)
    assert histogram.quantile({}, 0.5) is None
    assert histogram.bucket(0.0) == histogram.bucket(0.0005)
    histogram.merge(slots, dict(slots), sign=-1)
    assert slots == {}

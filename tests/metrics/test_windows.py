"""Lines as nginx writes them, and the seconds made of them."""

from __future__ import annotations

import pytest

from deploykit.core.histogram import bucket
from deploykit.core.window import Window
from deploykit.metrics.access_log import Attempt, parse
from deploykit.metrics.windows import WindowAggregator

A, B = "127.0.0.1:9001", "127.0.0.1:9002"


def line(
    at: float = 100.5,
    track: str = "stable",
    status: int | str = 200,
    ua: str = A,
    us: str = "200",
    ut: str = "0.010",
    forced: str = "",
    service: str = "web",
) -> bytes:
    return (
        f'{{"t":{at:.3f},"s":"{service}","k":"{track}","c":{status},"rt":0.012,"m":"GET","f":"{forced}",'
        f'"ua":"{ua}","us":"{us}","ut":"{ut}"}}\n'
    ).encode()


def test_a_plain_line() -> None:
    hit = parse(line())
    assert hit is not None
    assert (hit.at, hit.service, hit.track, hit.status, hit.forced) == (100.5, "web", "stable", 200, False)
    assert hit.attempts == (Attempt(A, False, 0.01, False),)


def test_lists_of_attempts() -> None:
    hit = parse(line(ua=f"{A}, {B} : {B}", us="502, 500 : 200", ut="0.001, - : 0.010"))
    assert hit is not None
    assert hit.attempts == (
        Attempt(A, True, 0.001, False),
        Attempt(B, True, None, False),
        Attempt(B, False, 0.01, True),
    )


@pytest.mark.parametrize(
    ("status", "us", "error"),
    [
        (200, "200", False),
        (404, "404", False),
        (500, "500", True),
        (502, "-", True),
        (499, "-", False),
        (499, "", False),
    ],
)
def test_what_is_an_error(status: int, us: str, error: bool) -> None:
    hit = parse(line(status=status, us=us))
    assert hit is not None
    assert hit.attempts[0].error is error


def test_a_client_that_left_during_a_retry_accuses_only_the_first_try() -> None:
    hit = parse(line(status=499, ua=f"{A}, {B}", us="502, -", ut="0.001, 0.5"))
    assert hit is not None
    assert [a.error for a in hit.attempts] == [True, False]


@pytest.mark.parametrize("ua", ["", "-"])
def test_no_upstream_no_attempt(ua: str) -> None:
    hit = parse(line(ua=ua, us=ua, ut=ua))
    assert hit is not None
    assert hit.attempts == ()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b'{"t":1}', line()[:-20], line(ua=f"{A}, {B}", us="200")])
def test_what_is_not_ours(text: bytes) -> None:
    assert parse(text) is None


def test_the_status_that_is_not_json() -> None:
    hit = parse(line(status="000"))
    assert hit is not None
    assert hit.status == 0


def test_seconds_close_after_the_lag_and_in_order() -> None:
    aggregator = WindowAggregator(lag=1.0)
    assert aggregator.feed([line(100.2), line(100.9)], now=101.5) == []
    assert aggregator.feed([line(100.95), line(101.0)], now=101.9) == []
    (first,) = aggregator.feed([], now=102.0)
    assert first.second == 100
    assert first.window("web", "stable") == Window(100, "web", "stable", 3, 0, 3, 0, 0, {bucket(0.01): 3})
    assert first.window("web", "canary") == Window(100, "web", "canary")
    assert first.addresses == {A: (3, 0)}
    assert [s.second for s in aggregator.feed([], now=105.0)] == [101, 102, 103]


def test_without_a_clock_the_log_rules() -> None:
    aggregator = WindowAggregator(lag=1.0)
    assert [s.second for s in aggregator.feed([line(100.2), line(103.5)])] == [100, 101]
    assert [s.second for s in aggregator.flush()] == [102, 103]


def test_a_late_line_is_counted_not_lost() -> None:
    aggregator = WindowAggregator(lag=1.0)
    aggregator.feed([line(100.2)], now=102.0)
    aggregator.feed([line(100.3)], now=102.5)
    assert sum(s.window("web", "stable").requests for s in aggregator.flush()) == 1
    assert aggregator.late == 1


def test_a_long_silence_is_skipped() -> None:
    aggregator = WindowAggregator()
    aggregator.feed([line(100.2)], now=100.5)
    closed = aggregator.feed([], now=100_000.0)
    assert closed[0].second == 100
    assert len(closed) == 61


def test_a_clock_that_runs_ahead_is_held_back() -> None:
    aggregator = WindowAggregator()
    aggregator.feed([line(9_000_000.0)], now=100.5)
    assert [s.second for s in aggregator.feed([], now=102.0)] == [100]


def test_the_shield_counts_for_both() -> None:
    aggregator = WindowAggregator()
    aggregator.feed([line(track="canary", ua=f"{A} : {B}", us="500 : 200", ut="0.001 : 0.002")])
    (second,) = aggregator.flush()
    canary, stable = second.window("web", "canary"), second.window("web", "stable")
    assert (canary.requests, canary.failed, canary.attempts, canary.errors) == (1, 0, 1, 1)
    assert (stable.requests, stable.attempts, stable.errors) == (0, 1, 0)
    assert second.addresses == {A: (1, 1), B: (1, 0)}


def test_a_known_address_decides_the_track() -> None:
    aggregator = WindowAggregator({A: "canary", B: "stable"})
    aggregator.feed([line(track="canary", ua=f"{A}, {B}", us="500, 200", ut="0.001, 0.002")])
    (second,) = aggregator.flush()
    assert second.window("web", "canary").errors == 1
    assert second.window("web", "stable").attempts == 1


def test_failures_forced_and_malformed() -> None:
    aggregator = WindowAggregator()
    aggregator.feed([line(status=500, us="500"), line(status=499, us="-"), line(forced="1"), b"nonsense\n"])
    window = aggregator.flush()[0].window("web", "stable")
    assert (window.requests, window.failed, window.attempts, window.errors, window.forced) == (2, 1, 2, 1, 1)
    assert (aggregator.lines, aggregator.malformed) == (4, 1)

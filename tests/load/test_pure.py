"""Thresholds, histogram, recorder, report and the rule for local targets: no server, no child."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UsageError
from deploykit.load.histogram import Histogram
from deploykit.load.html import render
from deploykit.load.job import LoadJob, LoadResult, Second
from deploykit.load.recorder import MAX_LABELS, MAX_REASONS, OTHER, Recorder
from deploykit.load.shape import parse_shape
from deploykit.load.target import is_local, require_local, split_url
from deploykit.load.text import live_line, summary
from deploykit.load.thresholds import Thresholds, check, parse_ms, parse_ratio


def result(**fields: object) -> LoadResult:
    return LoadResult(**{"requests": 100, "failed": 0, "p95_ms": 50.0, "p99_ms": 80.0, **fields})  # type: ignore[arg-type]


def test_thresholds_need_requests_first() -> None:
    assert len(check(result(requests=0, p95_ms=None), Thresholds(max_failed=1.0, p95_ms=1.0))) == 1


@pytest.mark.parametrize(
    ("failed", "p95", "missed"), [(0, 50.0, 0), (1, 50.0, 0), (2, 50.0, 1), (0, 301.0, 1), (2, 301.0, 2), (0, 300.0, 0)]
)
def test_thresholds(failed: int, p95: float, missed: int) -> None:
    found = check(result(failed=failed, p95_ms=p95), Thresholds(max_failed=0.01, p95_ms=300.0))
    assert len(found) == missed
    if failed == 2:
        assert "failed" in found[0]


def test_without_thresholds_nothing_is_missed() -> None:
    assert check(result(requests=0), Thresholds()) == []


@pytest.mark.parametrize(("text", "ratio"), [("1%", 0.01), ("0.5%", 0.005), ("0.01", 0.01), ("0", 0), ("100%", 1)])
def test_ratios(text: str, ratio: float) -> None:
    assert parse_ratio(text) == pytest.approx(ratio)


@pytest.mark.parametrize("text", ["", "101%", "2", "-1%", "x"])
def test_what_is_no_ratio_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ratio(text)


@pytest.mark.parametrize(("text", "ms"), [("300ms", 300), ("0.3s", 300), ("300", 300)])
def test_milliseconds(text: str, ms: float) -> None:
    assert parse_ms(text) == pytest.approx(ms)


@given(st.lists(st.floats(min_value=0.05, max_value=100_000), min_size=1, max_size=300), st.floats(0.01, 1))
def test_a_percentile_is_right_within_two_percent(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(1, -int(-share * len(values) // 1)) - 1]
    found = histogram.percentile(share)
    assert found is not None
    assert exact - 0.01 <= found <= exact * 1.021 + 0.01


def test_memory_stays_flat() -> None:
    recorder = Recorder()
    for number in range(20_000):
        recorder.answered(number % 7000 + number / 20_000, f"reason {number}", f"v{number}")
    assert len(recorder.latency.buckets) < 700
    assert len(recorder.errors) == MAX_REASONS + 1
    assert len(recorder.versions) == MAX_LABELS + 1
    assert recorder.errors[OTHER] == 20_000 - MAX_REASONS


def test_seconds_add_up_to_the_result() -> None:
    recorder = Recorder()
    seconds = []
    for number in range(5):
        for _ in range(10):
            recorder.arrived(0)
            recorder.answered(number + 1, "HTTP 500" if number == 3 else None, "blue")
        seconds.append(recorder.second(number + 1, 0))
    total = recorder.result(loop="open", sending_s=5, total_s=5, cpu_percent=1)
    assert sum(s.requests for s in seconds) == total.requests == 50
    assert sum(s.failed for s in seconds) == total.failed == 10
    assert total.offered_rps == total.achieved_rps == 10
    assert seconds[3].by_version == {"blue": {"requests": 10, "failed": 10}}
    assert total.by_version["blue"]["failed"] == 10
    assert total.errors == ({"reason": "HTTP 500", "count": 10},)


def test_a_busy_generator_is_said_aloud() -> None:
    recorder = Recorder()
    recorder.second(1, 0, 97.0)
    total = recorder.result(loop="open", sending_s=1, total_s=1, cpu_percent=50)
    assert total.generator_ceiling["reached"]
    assert "CEILING" in "\n".join(summary(total))


def test_everything_survives_json() -> None:
    job = LoadJob("http://127.0.0.1:1", shape=parse_shape("ramp:1-2"), paths=("/a",), headers={"X": "y"})
    assert LoadJob.from_json(job.to_json()) == job
    second = Second(1, 2, 3, 1, 0, None, 2.5, {"v": {"requests": 1, "failed": 0}}, 4)
    assert Second.from_json(second.to_json()) == second
    whole = result(errors=({"reason": "x", "count": 1},))
    assert LoadResult.from_json(whole.to_json()) == whole
    assert {"offered_rps", "achieved_rps", "requests", "failed", "dropped", "p50_ms", "p95_ms", "p99_ms", "max_ms"} | {
        "loop",
        "by_version",
        "errors",
        "generator_ceiling",
        "seconds",
    } == set(whole.to_json())


def test_the_report_escapes_and_needs_nothing_else() -> None:
    evil = '<script>alert("1")</script>'
    history = [
        Second(t, 5, 5, 1, 0, None if t == 3 else 1.0, 2.0, {evil: {"requests": 5, "failed": 1}}) for t in range(9)
    ]
    version = {"requests": 5, "failed": 1, "p50_ms": 1.0, "p95_ms": None}
    found = result(by_version={evil: version}, errors=({"reason": evil, "count": 1},))
    text = render(LoadJob(f"http://127.0.0.1/{evil}", paths=(evil,)), found, history, [evil])
    assert "<script" not in text
    assert text.count("<svg") == 3
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text
    assert " src=" not in text
    assert "<link" not in text
    assert "<td></td>" not in text


def test_the_report_of_a_long_run_stays_small() -> None:
    history = [Second(t, 5, 5, 0, 0, 1.0, 2.0, {}) for t in range(3600)]
    assert len(render(LoadJob("http://127.0.0.1"), result(), history)) < 100_000


def test_the_live_line_names_the_versions() -> None:
    counts = {"blue": {"requests": 95, "failed": 0}, "green": {"requests": 5, "failed": 0}}
    line = live_line(Second(3, 100, 100, 0, 2, 1.0, 2.0, counts, dropped=1), 10)
    assert "3/10s" in line
    assert "blue 95%, green 5%" in line
    assert "dropped 1/s" in line


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.168.7.2", True),
        ("172.17.0.5", True),
        ("192.168.7.3", False),
        ("10.0.0.1", False),
        ("203.0.113.9", False),
    ],
)
def test_only_this_machine_is_local(address: str, local: bool) -> None:
    own = [ipaddress.ip_address("192.168.7.2")]
    networks = [ipaddress.ip_network("172.17.0.0/16")]
    assert is_local(ipaddress.ip_address(address), own, networks) is local


def test_a_stranger_needs_allow_remote() -> None:
    with pytest.raises(UsageError, match="not on this machine") as caught:
        require_local("http://203.0.113.9:80")
    assert "--allow-remote" in caught.value.hint
    require_local("http://203.0.113.9:80", allow_remote=True)
    require_local("http://127.0.0.1:80")


@pytest.mark.parametrize("text", ["", "web", "ftp://127.0.0.1", "http://", "http://127.0.0.1:99999"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        split_url(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("http://127.0.0.1:8080", ("http://127.0.0.1:8080", "")),
        ("http://127.0.0.1:8080/", ("http://127.0.0.1:8080", "")),
        ("http://[::1]:80/a/b?c=d#e", ("http://[::1]:80", "/a/b?c=d")),
    ],
)
def test_a_url_is_split(text: str, parts: tuple[str, str]) -> None:
    assert split_url(text) == parts


def test_the_job_and_the_client_load_no_heavy_module() -> None:
    code = (
        "import sys, deploykit.load.job, deploykit.load.client, deploykit.cli.load\n"
        "print([m for m in ('locust', 'gevent', 'rich', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"

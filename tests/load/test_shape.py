from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UsageError
from deploykit.load.shape import CONSTANT, Shape, arrivals, parse_duration, parse_shape

rates = st.floats(min_value=0, max_value=500)
shapes = st.one_of(
    st.just("constant"),
    st.just("spike"),
    st.just("sine"),
    st.builds("ramp:{:.2f}-{:.2f}".format, rates, rates),
    st.builds("sine:{:.2f}-{:.2f}@5s".format, rates, rates),
    st.builds("step:{:.2f}@1s,{:.2f}@2s".format, rates, rates),
    st.builds("spike:{:.2f}".format, rates),
).map(parse_shape)


@given(shapes, rates, st.floats(min_value=0, max_value=10_000), st.one_of(st.none(), st.floats(1, 600)))
def test_a_rate_is_never_negative_nor_beyond_what_was_named(
    shape: Shape, base: float, t: float, duration: float | None
) -> None:
    named = [value for pair in shape.points for value in pair]
    assert 0 <= shape.rate(t, base, duration) <= max([base * 5, *named]) + 1e-6


@given(shapes, rates, st.floats(min_value=0.1, max_value=5))
def test_arrivals_follow_the_curve(shape: Shape, base: float, duration: float) -> None:
    moments = list(arrivals(shape, base, duration))
    assert moments == sorted(moments)
    assert all(0 <= moment <= duration for moment in moments)
    steps = 2000
    area = sum(shape.rate((i + 0.5) * duration / steps, base, duration) for i in range(steps)) * duration / steps
    assert abs(len(moments) - area) <= 1 + 0.02 * area + 5


@given(st.integers(1, 2000), st.integers(1, 5))
def test_a_constant_rate_gives_exactly_rate_times_duration(rate: int, duration: int) -> None:
    moments = list(arrivals(CONSTANT, rate, duration))
    assert len(moments) == rate * duration
    gaps = [after - before for before, after in pairwise(moments)]
    assert all(abs(gap - 1 / rate) < 1e-6 for gap in gaps)


def test_arrivals_without_an_end_go_on() -> None:
    assert len(list(islice(arrivals(parse_shape("sine"), 10), 2000))) == 2000


@pytest.mark.parametrize(
    ("text", "t", "rate"),
    [
        ("ramp:0-100", 5, 50),
        ("ramp:0-100", 99, 100),
        ("ramp:100-0@2s", 1, 50),
        ("step:20@2s,30@4s", 1, 10),
        ("step:20@2s,30@4s", 2, 20),
        ("step:20@2s,30@4s", 9, 30),
        ("spike", 5, 50),
        ("spike:500", 5, 500),
        ("spike", 1, 10),
        ("sine:0-100@4s", 1, 100),
        ("sine:0-100@4s", 3, 0),
        ("constant", 7, 10),
    ],
)
def test_rates(text: str, t: float, rate: float) -> None:
    assert parse_shape(text).rate(t, 10, 10) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["", "nope", "ramp", "ramp:1", "ramp:a-b", "step:", "step:5", "step:5@9s,6@1s", "constant:3", "sine:1-2@0s"]
)
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_shape(text)


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("250ms", 0.25), ("1m30s", 90), ("1h", 3600), ("0.5s", 0.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "10x", "-5s", "5 apples"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)

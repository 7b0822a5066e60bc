"""The report: complete, escaped, readable by machines that read pages aloud."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from deploykit.views.report import Act, Moment, ReportData, Series, render_report

EVIL = "<script>alert('x')</script>&\""
VOID = {"meta", "br", "path", "link"}


class Page(HTMLParser):
    """Collects tags and checks that they are nested as they should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.seen if name == tag]


def full() -> ReportData:
    t = list(range(10))
    return ReportData(
        title=EVIL,
        subtitle=EVIL,
        verdict="aborted",
        reason=EVIL,
        acts=[Act(EVIL, 1234, 5, 1, 3.25, EVIL)],
        series=Series(
            t,
            {EVIL: t, "v2": t},
            {EVIL: [0] * 10},
            [0.05] * 10,
            {"v2": [1] * 10},
            [0.0] * 9 + [1.0],
            [None] * 3 + [0.5] * 7,
        ),
        events=[Moment(1.5, EVIL, EVIL, mark=True)],
        config=EVIL,
    )


def test_everything_is_escaped_and_well_formed() -> None:
    text = render_report(full())
    page = Page(text)
    assert not page.all("script")
    assert "&lt;script&gt;" in text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.S).lower()


def test_nothing_is_fetched() -> None:
    text = render_report(full())
    assert not re.search(r"(src|href)=|url\(|@import|https?://", text)


def test_it_can_be_read_aloud() -> None:
    page = Page(render_report(full()))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert all(th.get("scope") in {"col", "row"} for th in page.all("th"))
    plots = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(plots) == 5
    assert all(svg.get("role") == "img" and svg.get("aria-labelledby") for svg in plots)
    ids = [attrs["id"] for _, attrs in page.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {i for svg in plots for i in (svg["aria-labelledby"] or "").split()}
    assert named <= set(ids)


def test_an_empty_report_has_no_empty_sections() -> None:
    text = render_report(ReportData("Nothing", "inconclusive"))
    assert "<table" not in text
    assert "<figure" not in text
    Page(text)


@pytest.mark.parametrize(
    ("verdict", "tone"), [("promoted", "good"), ("Aborted: too many errors", "bad"), ("paused", ""), ("failed", "bad")]
)
def test_the_verdict_has_its_tone(verdict: str, tone: str) -> None:
    assert f'class="verdict {tone}"' in render_report(ReportData("x", verdict))


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [1e6, 3.5], [None, 1.0], [0.3, None, 7.0]])
def test_odd_series_are_drawn(values: list[float | None]) -> None:
    series = Series(range(len(values)), {"v1": values})
    assert "Requests per second" in render_report(ReportData("x", "promoted", series=series))

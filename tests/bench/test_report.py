"""Reports: written and read back without loss, and shown on a page that needs nothing but itself."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from penstock.bench.latency import LatencyHistogram
from penstock.bench.report import (
    Judgement,
    Latency,
    Line,
    Machine,
    Report,
    Series,
    Table,
    read_report,
    this_machine,
)
from penstock.bench.report_chart import histogram_chart, linear_axis, log_axis, number, time_chart
from penstock.bench.report_html import render, write_html
from penstock.errors import RunError

MACHINE = Machine(2, "x86_64", "Linux", 16_000, 0.5, "CPython 3.11", {"penstock": "0.1.0"})


def latency_of(values_us: list[int]) -> Latency:
    histogram = LatencyHistogram()
    histogram.add(np.array(values_us))
    return Latency.of("event", "Event latency", "from send to result", histogram)


def report() -> Report:
    return Report(
        "Clicks",
        "2026-09-21T14:13:20Z",
        Judgement("right", "4 events, each counted once."),
        MACHINE,
        {"rate": 2.5, "job": "run", "total": None, "flush": True},
        {"sent": 4},
        {"events_per_s": 1234.5},
        (latency_of([1_000, 2_000, 3_000, 400_000]),),
        (Series("throughput", "Throughput", "events/s", 1.0, (Line("sent", (1.0, None, 3.0)),), "log", "A note."),),
        (Table("windows", "Windows", ("window", "lost"), (("14:13", 0), ("14:14", 1)), (1,), "Per window."),),
        ("A closing note.",),
    )


class Page(HTMLParser):
    """What a page is made of: tags with their attributes, and its text outside of style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "path":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_figures_of_a_latency() -> None:
    found = latency_of([100] * 90 + [200] * 9 + [255])
    assert (found.count, found.mean_ms) == (100, (100 * 90 + 200 * 9 + 255) / 100 / 1e3)
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.p999_ms, found.max_ms) == (0.1, 0.1, 0.2, 0.255, 0.255)
    assert found.bins == ((100, 100, 90), (200, 200, 9), (255, 255, 1))


def test_a_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    report().write_json(path)
    assert read_report(path) == report()
    assert read_report(path).latency("event") == report().latencies[0]
    assert read_report(path).latency("other") is None


@pytest.mark.parametrize("damage", ['{"format": "other", "version": 1}', "[1]", "{", '{"version": 1}'])
def test_what_is_no_report_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(damage)
    with pytest.raises(RunError, match="PS-BENCH-004"):
        read_report(path)
    with pytest.raises(RunError, match="PS-BENCH-004"):
        read_report(tmp_path / "missing.json")


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report().write_json(path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2', 1))
    with pytest.raises(RunError, match="version"):
        read_report(path)


def test_this_machine_is_described() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_mb > 100
    assert machine.packages["duckdb"]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    write_html(report(), tmp_path / "made" / "report.html")
    page = Page((tmp_path / "made" / "report.html").read_text())
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "a", "object")
        assert not {"src", "href", "srcset"} & attributes.keys()
    assert ("html", {"lang": "en"}) in page.tags
    text = (tmp_path / "made" / "report.html").read_text()
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in text


def test_the_verdict_comes_first_and_everything_is_there() -> None:
    text = Page(render(report())).text
    order = ["Clicks", "Right.", "Event latency, P50", "Latency", "Over time", "Distribution", "Windows", "Counts"]
    places = [text.index(word) for word in order]
    assert places[:3] == sorted(places[:3])
    assert places[3:] == sorted(places[3:])
    for words in ("from send to result", "A note.", "1,234", "A closing note.", "Per window.", "CPython 3.11", "yes"):
        assert words in text


def test_a_wrong_report_boasts_of_nothing_and_names_the_cell() -> None:
    wrong = replace(
        report(), judgement=Judgement("wrong", "1 lost.", ("campaign 3, window 14:13: 4 expected, 3 found",))
    )
    page = Page(render(wrong))
    assert "Wrong." in page.text
    assert "campaign 3, window 14:13" in page.text
    assert "Event latency, P50" not in page.text
    assert ("tr", {"class": "marked"}) in page.tags
    assert "Void." in Page(render(replace(report(), judgement=Judgement("void", "lagged")))).text


def test_text_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    nasty = replace(
        report(),
        title=evil,
        settings={evil: evil},
        latencies=(replace(report().latencies[0], title=evil, definition=evil),),
        series=(Series("x", evil, evil, 1.0, (Line(evil, (1.0,)),), note=evil),),
        tables=(Table("x", evil, (evil,), ((evil,),), note=evil),),
        notes=(evil,),
        judgement=Judgement("void", evil, (evil,)),
    )
    assert render(nasty).count("<script>") == 1


def test_an_empty_report_is_a_page_too() -> None:
    bare = Report("Nothing", "2026-09-21T14:13:20Z", Judgement("void", "nothing was measured"), MACHINE)
    assert Page(render(bare)).open == []


def test_lines_of_a_chart_lie_where_their_values_are() -> None:
    chart = time_chart(Series("x", "X", "events/s", 0.5, (Line("a", (0.0, 50.0, None, 100.0)),)))
    drawn = re.findall(r'<path class="line line-0" d="(M[^"]*)"/>', chart)
    # Middles of four steps of 250 units; the axis reaches from 0 (300) to 100 (0); the gap begins a new line.
    assert drawn[-1] == "M125.0 300.0h.1L375.0 150.0M875.0 0.0h.1"
    assert re.findall(r"<td>([^<]*)</td>", chart) == ["0", "0", "0.5", "50.0", "1", "-", "1.5", "100"]


def test_bars_of_a_histogram_have_the_share_as_height() -> None:
    chart = histogram_chart(latency_of([1_000] * 3 + [100_000]))
    shapes = re.findall(r'class="bars" d="([^"]*)"', chart)[0]
    heights = [300 - float(height) for height in re.findall(r"M[\d.]+ 300V([\d.]+)", shapes)]
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.3)
    assert "75.000%" in chart
    assert "P99.9 100 ms" in chart
    # A value of 1 ms lies on the tick of 1 ms, 100 ms on that of 100 ms.
    starts = [float(x) for x in re.findall(r"M([\d.]+) 300V", shapes)]
    tick = {label: float(left) * 10 for left, label in re.findall(r'<span style="left:([\d.]+)%">(\d+)</span>', chart)}
    assert starts == pytest.approx([tick["1"], tick["100"]], abs=0.2)


def test_very_small_values_share_the_first_bar() -> None:
    chart = histogram_chart(latency_of([0, 3, 9, 50]))
    assert "under 0.0112" in chart
    assert "75.000%" in chart


@pytest.mark.parametrize("high", [0.0, 0.3, 1, 7, 9.99, 43_210, 1e9])
def test_linear_axes_reach_far_enough_and_have_few_ticks(high: float) -> None:
    axis = linear_axis(high)
    assert axis.high >= high
    assert 2 <= len(axis.ticks) <= 8
    assert axis.share(axis.high) == 1.0
    assert axis.share(0) == 0.0


@pytest.mark.parametrize(("low", "high"), [(1, 1), (0.01, 5_000), (3, 40), (999, 1_001), (0.1, 0.3)])
def test_log_axes_hold_what_they_are_for(low: float, high: float) -> None:
    axis = log_axis(low, high)
    assert axis.low <= low <= high <= axis.high
    assert 2 <= len(axis.ticks) <= 9
    assert axis.share(low) <= axis.share(high)


def test_numbers_keep_three_digits() -> None:
    shown = [number(value) for value in (0, 0.0123, 1.2345, 99.95, 100.4, 1234567.8, None, -12.34)]
    assert shown == ["0", "0.0123", "1.23", "100", "100", "1,234,568", "-", "-12.3"]

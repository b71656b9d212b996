"""A report as one HTML file: no network, no build, nothing beside it; dark and light as the reader's system says.

Everything is there without the script, which only adds a cursor to the charts (pointer and arrow keys). All text that
comes from the report is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from penstock.bench.report import Judgement, Latency, Report, Status, Table, Value
from penstock.bench.report_chart import histogram_chart, number, time_chart
from penstock.storage.files import write_atomic

STYLE = Path(__file__).with_name("report_page.css")
SCRIPT = Path(__file__).with_name("report_page.js")
WORDS: Mapping[Status, str] = {"right": "Right", "wrong": "Wrong", "void": "Void"}
SIGNS: Mapping[Status, str] = {"right": "✓", "wrong": "✕", "void": "!"}
# Nothing may be loaded from anywhere, even if a title were to smuggle markup in.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_html(report: Report, path: Path) -> None:
    """Write the report as one self-contained page, whole or not at all; missing folders are made.

    Example:
        >>> import tempfile
        >>> from penstock.bench.report import Judgement, Report, now, this_machine
        >>> path = Path(tempfile.mkdtemp()) / "report.html"
        >>> write_html(Report("My pipeline", now(), Judgement("right", "nothing lost"), this_machine()), path)
        >>> "<h1>My pipeline</h1>" in path.read_text()
        True
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, render(report).encode())


def render(report: Report) -> str:
    """The page as text."""
    judgement = report.judgement
    sections = [
        _section("Latency", _latencies(report.latencies)),
        _section("Over time", "".join(time_chart(series) for series in report.series)),
        _section("Distribution", "".join(histogram_chart(latency) for latency in report.latencies)),
        *(_section(table.title, _table(table)) for table in report.tables),
        _section("Counts", _facts(report.counts)),
        _section("Figures", _facts(report.figures)),
        _section("Settings", _facts(report.settings)),
        _section("Machine", _facts(_machine(report))),
        _section("Notes", "".join(f"<p>{escape(note)}</p>" for note in report.notes)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{WORDS[judgement.status]}: {escape(report.title)}</title>"
        f"<style>{STYLE.read_text()}</style></head><body><header>{_when(report)}"
        f"<h1>{escape(report.title)}</h1>{_verdict(report.judgement)}{_headline(report)}</header><main>"
        + "".join(sections)
        + f"</main><script>{SCRIPT.read_text()}</script></body></html>"
    )


def _when(report: Report) -> str:
    moment = escape(report.created)
    shown = moment.replace("T", " ").replace("Z", " UTC")
    version = escape(report.machine.packages.get("penstock", ""))
    return f'<p class="when">Penstock {version}, <time datetime="{moment}">{shown}</time></p>'


def _verdict(judgement: Judgement) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in judgement.reasons)
    sign = f'<span class="sign" aria-hidden="true">{SIGNS[judgement.status]}</span>'
    return (
        f'<div class="verdict {judgement.status}" role="status"><p>{sign}<strong>{WORDS[judgement.status]}.</strong>'
        f" {escape(judgement.headline)}</p>{f'<ul>{reasons}</ul>' if reasons else ''}</div>"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _headline(report: Report) -> str:
    """The few figures that people come for; none of a report that is wrong."""
    if report.judgement.status == "wrong" or not report.latencies:
        return ""
    main = report.latencies[0]
    figures = [(f"{main.title}, {name}", number(value), "ms") for name, value in _percentiles(main)]
    if "events_per_s" in report.figures:
        figures.append(("Events per second", number(report.figures["events_per_s"]), ""))
    shown = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{value}{f' <small>{unit}</small>' if unit else ''}</dd></div>"
        for name, value, unit in figures
    )
    return f'<dl class="headline">{shown}</dl>'


def _percentiles(latency: Latency) -> tuple[tuple[str, float], ...]:
    return (("P50", latency.p50_ms), ("P90", latency.p90_ms), ("P99", latency.p99_ms))


def _latencies(latencies: tuple[Latency, ...]) -> str:
    if not latencies:
        return ""
    table = Table(
        "latencies",
        "Latency",
        ("milliseconds", "mean", "P50", "P90", "P99", "P99.9", "max", "count"),
        tuple((each.title, *_figures_of(each), each.count) for each in latencies),
    )
    defined = "".join(f"<dt>{escape(each.title)}</dt><dd>{escape(each.definition)}</dd>" for each in latencies)
    return _table(table) + f'<dl class="defined">{defined}</dl>'


def _figures_of(latency: Latency) -> tuple[float, ...]:
    return latency.mean_ms, latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    body = "".join(
        f'<tr class="marked">{_cells(row)}</tr>' if index in table.marked else f"<tr>{_cells(row)}</tr>"
        for index, row in enumerate(table.rows)
    )
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return (
        f'{note}<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(row: tuple[Value, ...]) -> str:
    first, *others = row
    return f'<th scope="row">{escape(_text(first))}</th>' + "".join(
        f"<td>{escape(_text(cell))}</td>" for cell in others
    )


def _text(value: Value) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return number(value)
        case _:
            return value


def _facts(facts: Mapping[str, Value]) -> str:
    if not facts:
        return ""
    rows = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_text(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def _machine(report: Report) -> dict[str, Value]:
    machine = report.machine
    return {
        "cores": machine.cores,
        "architecture": machine.architecture,
        "system": machine.system,
        "memory": f"{machine.memory_mb / 1e3:.1f} GB",
        "load average at the start": machine.load,
        "Python": machine.python,
        **dict(machine.packages),
    }

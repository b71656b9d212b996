"""Epochs give the same rows, letters and counts with the compiled kernel and without it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from penstock.formats import decode
from penstock.formats.compiled import SWITCH, Loader
from penstock.formats.rows import rows_to_batch
from penstock.runtime.runner import RunOptions, Until
from tests.runtime.test_runner import Bench

VISITS = """
CREATE STREAM visits (
    id BIGINT NOT NULL, page VARCHAR NOT NULL REFERENCES pages (page), note VARCHAR, at TIMESTAMP NOT NULL,
    CHECK (id >= 0), CHECK (length(note) < 20), WATERMARK FOR at AS at - INTERVAL '5 seconds'
) WITH (idle_after = '{idle}');
CREATE REFERENCE pages (page VARCHAR PRIMARY KEY);
CREATE VIEW per_page AS SELECT page, count(*) AS n, max(note) AS note FROM visits GROUP BY page;
CREATE VIEW per_minute WITH (emit = 'final') AS
    SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM visits GROUP BY ALL;
CREATE SINK pages_out FROM per_page;
CREATE SINK minutes FROM per_minute;
"""
START = datetime(2026, 1, 1)


def records() -> list[bytes]:
    """Most are plain; others are doubted and right, or dead in a way of their own, or late."""
    made = []
    for n in range(400):
        second = n // 2 - (120 if n % 23 == 0 else 0)
        record: dict[str, object] = {
            "id": n,
            "page": f"/{n % 3}",
            "at": (START + timedelta(seconds=second)).isoformat(),
        }
        if n % 4 == 0:
            record["note"] = f"n{n}"
        match n % 17:
            case 3:
                record["note"] = 'a "quoted" é'
            case 5:
                record["id"] = -1
            case 7:
                record["page"] = "/nowhere"
            case 9:
                record["note"] = "x" * 20
            case 11:
                record["at"] = "2026-02-30T00:00:00"
            case 13:
                record["other"] = n
        text = json.dumps(record)
        made.append(text[:-1].encode() if n % 31 == 0 else text.encode())
    return made


def run(folder: Path, switch: str, monkeypatch: pytest.MonkeyPatch, max_rows: int) -> tuple[object, ...]:
    monkeypatch.setenv(SWITCH, switch)
    monkeypatch.setattr(decode, "loader", Loader())
    folder.mkdir()
    bench = Bench(folder, VISITS, partitions=2)
    schema = next(source.schema for source in bench.pipeline.graph().sources if source.kind == "reference")
    bench.versions.publish([rows_to_batch([{"page": f"/{n}"} for n in range(3)], schema, 0)])
    made = records()
    bench.topic.append(made[:200], partition=0)
    bench.topic.append(made[200:], partition=1)
    with bench.open(RunOptions(until=Until.DRAINED, max_rows=max_rows)) as runner:
        runner.run()
        found = runner.state.dead_letters("visits")
    letters = sorted((x.partition, x.offset, x.rule, x.field, x.got, x.value) for x in found)
    counts = vars(runner.progress.sources["visits"].counts)
    pages = bench.folded(runner, "pages_out", "page", "n")
    return counts, letters, pages, bench.folded(runner, "minutes", "minute", "n"), dict(runner.progress.late)


@pytest.mark.parametrize("max_rows", [60, 1000])
def test_the_kernel_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_rows: int) -> None:
    without = run(tmp_path / "never", "never", monkeypatch, max_rows)
    compiled = run(tmp_path / "now", "now", monkeypatch, max_rows)
    assert compiled == without
    counts, letters = without[0], without[1]
    assert isinstance(counts, dict)
    assert isinstance(letters, list)
    assert counts["rows"] == counts["accepted"] + counts["dead"] == 400
    assert {rule for _, _, rule, *_ in letters} >= {"references", "type"}

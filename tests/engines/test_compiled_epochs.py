"""Epochs give the same rows, letters and counts with the compiled kernel and without it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.connectors.base import RawBatch
from penstock.engines.base import LetterQuery
from penstock.engines.duckdb import ingest
from penstock.engines.duckdb.broken import Aside, Letter
from penstock.engines.duckdb.engine import DuckState
from penstock.formats import decode
from penstock.formats.compiled import SWITCH, Loader, Split
from penstock.formats.rows import rows_to_batch
from penstock.pipeline import Pipeline
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


def bench_with(folder: Path, switch: str, monkeypatch: pytest.MonkeyPatch, pipeline: str, *, pages: int) -> Bench:
    """A bench on which the kernel is loaded as `switch` says, and the reference holds so many pages."""
    monkeypatch.setenv(SWITCH, switch)
    monkeypatch.setattr(decode, "loader", Loader())
    folder.mkdir()
    bench = Bench(folder, pipeline, partitions=2)
    schema = next(source.schema for source in bench.pipeline.graph().sources if source.kind == "reference")
    bench.versions.publish([rows_to_batch([{"page": f"/{n}"} for n in range(pages)], schema, 0)])
    return bench


def run(folder: Path, switch: str, monkeypatch: pytest.MonkeyPatch, max_rows: int) -> tuple[object, ...]:
    bench = bench_with(folder, switch, monkeypatch, VISITS, pages=3)
    made = records()
    bench.topic.append(made[:200], partition=0)
    bench.topic.append(made[200:], partition=1)
    with bench.open(RunOptions(until=Until.DRAINED, max_rows=max_rows)) as runner:
        runner.run()
        found = runner.state.dead_letters(LetterQuery(source="visits"))
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


CLICKS = """
CREATE STREAM clicks (
    page VARCHAR NOT NULL REFERENCES pages (page), kind VARCHAR NOT NULL CHECK (kind IN ('view', 'click')),
    n BIGINT NOT NULL, at BIGINT NOT NULL,
    WATERMARK FOR (make_timestamp_ns(at)) AS (make_timestamp_ns(at)) - INTERVAL '5 seconds'
) WITH (idle_after = '{idle}');
CREATE REFERENCE pages (page VARCHAR PRIMARY KEY);
CREATE VIEW per_page AS
    SELECT page, count(*) FILTER (WHERE kind = 'view') AS n, max(kind) AS note FROM clicks GROUP BY page;
CREATE VIEW per_minute WITH (emit = 'final') AS
    SELECT time_bucket(INTERVAL '1 minute', make_timestamp_ns(at)) AS minute, sum(n) AS n FROM clicks GROUP BY ALL;
CREATE SINK pages_out FROM per_page;
CREATE SINK minutes FROM per_minute;
"""


def clicks(count: int, shift: int) -> list[bytes]:
    """Most are accepted where the kernel leaves them, once those that it doubts (some are right) are set aside; some
    are late, and two break what only SQL checks: then the rows of that epoch are stored."""
    made = []
    for n in range(count):
        at = (START + timedelta(seconds=n // 2 - (120 if n % 23 == 0 else 0))).timestamp()
        record: dict[str, object] = {
            "page": f"/{(n + shift) % 4}",
            "kind": "click" if n % 3 else "view",
            "n": n,
            "at": int(at) * 10**9,
        }
        match n % 17:
            case 3 if n == 37 and not shift:
                record["kind"] = "scroll"
            case 5 if n == 90 and not shift:
                record["at"] = 2**63 - 1
            case 7:
                record["other"] = n
        text = json.dumps(record)
        made.append(text.replace("click", "cl\\u0069ck").encode() if n % 13 == 0 else text.encode())
    return made


def run_clicks(folder: Path, switch: str, monkeypatch: pytest.MonkeyPatch, max_rows: int) -> tuple[object, ...]:
    monkeypatch.setenv(SWITCH, switch)
    monkeypatch.setattr(decode, "loader", Loader())
    folder.mkdir()
    bench = Bench(folder, CLICKS, partitions=2)
    schema = next(source.schema for source in bench.pipeline.graph().sources if source.kind == "reference")
    outcomes = []
    # the second version of the reference has a page more and one less
    for turn, pages in enumerate((range(3), range(1, 4))):
        bench.versions.publish([rows_to_batch([{"page": f"/{n}"} for n in pages], schema, 0)])
        made = clicks(200, turn)
        bench.topic.append(made[:100], partition=0)
        bench.topic.append(made[100:], partition=1)
        with bench.open(RunOptions(until=Until.DRAINED, max_rows=max_rows)) as runner:
            runner.run()
            found = runner.state.dead_letters(LetterQuery(source="clicks"))
            letters = sorted((x.partition, x.offset, x.rule, x.field, x.got, x.value) for x in found)
            outcomes.append((letters, dict(vars(runner.progress.sources["clicks"].counts)), dict(runner.progress.late)))
            outcomes.append((bench.folded(runner, "pages_out", "page", "n"),))
            outcomes.append((bench.folded(runner, "minutes", "minute", "n"),))
    return tuple(outcomes)


@pytest.mark.parametrize("max_rows", [60, 1000])
def test_rows_read_in_place_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_rows: int) -> None:
    in_place = []
    together = ingest._in_place

    def watched(*arguments: Any) -> object:
        in_place.append(together(*arguments))
        return in_place[-1]

    monkeypatch.setattr(ingest, "_in_place", watched)
    # only large epochs read in place
    monkeypatch.setitem(DuckState.__init__.__kwdefaults__, "small_epoch", 0)
    without = run_clicks(tmp_path / "never", "never", monkeypatch, max_rows)
    assert not in_place
    assert run_clicks(tmp_path / "now", "now", monkeypatch, max_rows) == without
    assert any(in_place)
    rules = {rule for _, _, rule, *_ in without[3][0]}  # type: ignore[index]
    assert rules >= {"references", "check_1", "event_time"}
    assert sum(without[3][2].values()) > 0  # type: ignore[index]


def test_a_doubted_row_moves_the_watermark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It alone has the largest event time of its partition; a row that comes after it is late."""
    monkeypatch.setenv(SWITCH, "now")
    monkeypatch.setattr(decode, "loader", Loader())
    monkeypatch.setitem(DuckState.__init__.__kwdefaults__, "small_epoch", 0)
    bench = Bench(tmp_path, CLICKS)
    schema = next(source.schema for source in bench.pipeline.graph().sources if source.kind == "reference")
    bench.versions.publish([rows_to_batch([{"page": "/0"}], schema, 0)])
    seconds = [*range(20), 300, 5, 6]
    made = [
        json.dumps({"page": "/0", "kind": "view", "n": 1, "at": (1767225600 + second) * 10**9}).encode()
        for second in seconds
    ]
    made[20] = made[20].replace(b"view", b"v\\u0069ew")
    bench.topic.append(made)
    with bench.open(RunOptions(until=Until.DRAINED, max_rows=21)) as runner:
        runner.run()
        assert dict(runner.progress.late) == {"per_minute": 2}
        assert list(bench.folded(runner, "minutes", "minute", "n").values()) == [20, 1]


def test_the_dead_are_set_aside_with_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among many records: what is wrong with a few of them is told without a statement, and the same as with one."""
    asked = []

    class Watched(Aside):
        def taken(self, split: Split) -> tuple[Split, list[Letter]]:
            asked.append(super().taken(split))
            return asked[-1]

    monkeypatch.setattr(ingest, "Aside", Watched)
    monkeypatch.setitem(DuckState.__init__.__kwdefaults__, "small_epoch", 0)
    without = run_few_broken(tmp_path / "never", "never", monkeypatch)
    assert not asked
    assert run_few_broken(tmp_path / "now", "now", monkeypatch) == without
    # the event time that is out of range has undone the first attempt
    split, aside = asked[-1]
    assert len(aside) == 3
    assert sum(batch.rows for batch in split.doubtful) == 2
    letters, counts, pages = without
    assert [(rule, key) for rule, key, *_ in letters] == [  # type: ignore[attr-defined]
        ("references", b"k7"),
        ("not_json", b"k11"),
        ("event_time", b"k90"),
        ("type", b"k100"),
    ]
    assert counts["rows"] == 200 == counts["accepted"] + 4  # type: ignore[index]
    assert counts["unknown_fields"] == 1  # type: ignore[index]
    assert sum(pages.values()) == 196  # type: ignore[attr-defined]


def run_few_broken(folder: Path, switch: str, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    bench = bench_with(folder, switch, monkeypatch, CLICKS, pages=4)
    made: list[bytes] = []
    for n in range(200):
        record = {"page": f"/{n % 4}", "kind": "view", "n": n, "at": (1767225600 + n) * 10**9}
        match n:
            case 7:
                record["page"] = "/nowhere"
            case 90:
                record["at"] = 2**63 - 1
            case 100:
                record |= {"n": "many", "other": 1}
            case 110:
                record["other"] = 1
        text = json.dumps(record).encode()
        made.append(text[:-1] if n == 11 else text.replace(b"view", b"v\\u0069ew") if n == 120 else text)
    keys = [f"k{n}".encode() for n in range(200)]
    bench.topic.append(made[:100], keys[:100], partition=0)
    bench.topic.append(made[100:], keys[100:], partition=1)
    with bench.open(RunOptions(until=Until.DRAINED, max_rows=1000)) as runner:
        runner.run()
        found = runner.state.dead_letters(LetterQuery(source="clicks"))
        letters = [(x.rule, x.key, x.partition, x.offset, x.field, x.got, x.reason, x.value) for x in found]
        counts = dict(vars(runner.progress.sources["clicks"].counts))
        return letters, counts, bench.folded(runner, "pages_out", "page", "n")


@pytest.mark.parametrize(("sound", "aside"), [(3, 3), (4, 0)])
def test_nothing_is_set_aside_where_most_doubts_are_about_sound_records(sound: int, aside: int) -> None:
    graph = Pipeline.from_sql(CLICKS.replace("{idle}", "1 second"), name="bench").graph()
    (source,) = (s for s in graph.sources if s.kind == "stream")
    decoder = decode.decoder_for(source.schema, "json")
    text = '{"page":"/0","kind":"v\\u0069ew","n":1,"at":1}'
    values = [text.encode()] * sound + [b"{"] * 2 + [text.encode()]
    places = pa.chunked_array([pa.array(range(sound + 3), pa.int64())])
    batch = RawBatch(0, pa.chunked_array([values], pa.binary()), places, sound + 3)
    # of the last one the kernel would have said that no reference holds its key
    unheld = np.array([-1] * (sound + 2) + [0], np.int16)
    watching = Aside(source, decoder)
    watching.watch(batch, unheld, 1000)
    left, letters = watching.taken(Split(pa.table({}), (batch,), (unheld,)))
    assert [letter.offset for letter in letters] == list(range(sound, sound + 3))[:aside]
    assert sum(each.rows for each in left.doubtful) == sound + 3 - aside


@pytest.mark.parametrize(
    ("broken", "sound", "proven"),
    [(0, 65, 10_000), (30, 35, 10_000), (60, 0, 500)],
    ids=["all are sound", "most are sound", "too many"],
)
def test_what_the_first_doubts_show_ends_the_diagnosis(broken: int, sound: int, proven: int) -> None:
    graph = Pipeline.from_sql(CLICKS.replace("{idle}", "1 second"), name="bench").graph()
    (source,) = (s for s in graph.sources if s.kind == "stream")
    values = [b"{"] * broken + [b'{"page":"/0","kind":"v\\u0069ew","n":1,"at":1}'] * sound
    rows = len(values)
    places = pa.chunked_array([pa.array(range(rows), pa.int64())])
    batch = RawBatch(0, pa.chunked_array([values], pa.binary()), places, rows)
    unheld = np.full(rows, -1, np.int16)
    watching = Aside(source, decode.decoder_for(source.schema, "json"))
    watching.watch(batch, unheld, proven)
    looked_at = len(watching._diagnosis._looked)
    assert looked_at <= 64
    watching.watch(batch, unheld, proven)
    assert len(watching._diagnosis._looked) == looked_at
    split = Split(pa.table({}), (batch, batch), (unheld, unheld))
    assert watching.taken(split) == (split, [])

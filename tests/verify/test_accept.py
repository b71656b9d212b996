"""The oracle's own rules: tables (R1), duplicates (R3), retention (R4), lateness (T1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import duckdb
import pyarrow as pa

from penstock.connectors.base import RawBatch
from penstock.contract.schema import Column, ForeignKey, RowCheck, Rule, Schema
from penstock.errors import Where
from penstock.formats.decode import RecordDecoder
from penstock.formats.judge_sql import Judgement
from penstock.graph import SourceDecl
from penstock.verify.accept import Accepted, accept, counts
from penstock.verify.records import Examined, Journaled, examine_source

T0 = 1_767_225_600_000_000  # 2026-01-01
SCHEMA = Schema(
    "Row",
    (
        Column("k", "BIGINT", rules=(Rule("ge", 0),)),
        Column("v", "VARCHAR", nullable=True),
        Column("at", "TIMESTAMP", nullable=True),
    ),
)


def row(k: object, v: str | None = None, at: float | None = None, op: str | None = None) -> bytes:
    record: dict[str, object] = {"k": k, "v": v}
    if at is not None:
        record["at"] = (datetime(2026, 1, 1) + timedelta(seconds=at)).isoformat()
    return json.dumps(record | ({"_op": op} if op else {})).encode()


class Recorded:
    """A source over lists of records, partition by partition."""

    def __init__(self, partitions: Sequence[Sequence[bytes]]) -> None:
        self.records = partitions

    def partitions(self) -> list[int]:
        return list(range(len(self.records)))

    def start(self, partition: int) -> int:
        return 0

    earliest = start

    def latest(self, partition: int) -> int:
        return len(self.records[partition])

    def read(
        self, partition: int, offset: int, max_rows: int, max_bytes: int, to: int | None = None
    ) -> RawBatch | None:
        values = list(self.records[partition][offset:to])
        if not values:
            return None
        offsets = pa.chunked_array([pa.array(range(offset, offset + len(values)), pa.int64())])
        return RawBatch(partition, pa.chunked_array([pa.array(values)]), offsets, offset + len(values))

    def wait(self, timeout_s: float) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


def source(kind: str = "stream", schema: Schema = SCHEMA, **options: object) -> SourceDecl:
    return SourceDecl("s", kind, schema, Where(), **options)  # type: ignore[arg-type]


def judged(
    declared: SourceDecl,
    partitions: Sequence[Sequence[bytes]],
    epochs: Sequence[Mapping[int, tuple[int, int]]] | None = None,
    connection: duckdb.DuckDBPyConnection | None = None,
) -> tuple[Accepted, list[tuple[object, ...]], Examined]:
    """What the oracle makes of the records, read in these epochs (in one by default)."""
    ranges = epochs or [{p: (0, len(records)) for p, records in enumerate(partitions)}]
    journal = [Journaled(n, T0, {"s": r}, {}) for n, r in enumerate(ranges)]
    judgement = Judgement(declared.schema, declared.kind, declared.key, declared.event_time, declared.max_ahead)
    decoder = RecordDecoder(judgement, "json")
    examined = examine_source("s", Recorded(partitions), declared.schema, decoder, journal)
    own = connection or duckdb.connect()
    event_time = f'"{declared.event_time}"' if declared.event_time else None
    checks = [(c.name, c.sql) for c in declared.schema.checks]
    found = accept(own, declared, examined, event_time=event_time, checks=checks, journal=journal)
    return found, sorted(own.execute("SELECT k, v FROM s").fetchall(), key=repr), examined


def test_broken_records_are_dead_with_their_rule() -> None:
    found, rows, examined = judged(source(), [[row(1), row(-1), b"{", row("x"), row(2)]])
    assert found.dead == {(0, 1): "ge", (0, 2): "not_json", (0, 3): "type"}
    assert rows == [(1, None), (2, None)]
    assert counts(examined, found) == {"rows": 5, "accepted": 2, "duplicate": 0, "dead": 3}


def test_row_checks_and_the_far_future() -> None:
    schema = Schema("Row", SCHEMA.columns, checks=(RowCheck("short", "length(v) < 3"),))
    declared = source(schema=schema, event_time="at", max_ahead=timedelta(seconds=10))
    found, _, _ = judged(declared, [[row(1, "ab", 1), row(2, "abc", 1), row(3, None, 11), row(4, None, 10), row(5)]])
    assert found.dead == {(0, 1): "short", (0, 2): "future", (0, 4): "event_time"}


def test_a_reference_decides() -> None:
    connection = duckdb.connect()
    connection.execute("CREATE TABLE r AS SELECT 1 AS k")
    schema = Schema("Row", SCHEMA.columns, foreign_keys=(ForeignKey(("k",), "r", ("k",)),))
    found, rows, _ = judged(source(schema=schema), [[row(1), row(2)]], connection=connection)
    assert found.dead == {(0, 1): "references"}
    assert rows == [(1, None)]


def test_t1_watermarks_are_per_partition_and_row() -> None:
    declared = source(event_time="at", watermark=timedelta(seconds=5), max_ahead=timedelta(days=1))
    found, _, _ = judged(declared, [[row(1, at=10), row(2, at=3), row(3, at=20), row(4, at=1)], [row(5, at=8)]])
    base = datetime(2026, 1, 1)
    assert found.watermarks == {
        (0, 0): None,
        (0, 1): base + timedelta(seconds=5),
        (0, 2): base + timedelta(seconds=5),
        (0, 3): base + timedelta(seconds=15),
        (1, 0): None,
    }
    assert found.final_watermark == base + timedelta(seconds=3)


def test_t1_a_dead_record_moves_no_watermark() -> None:
    declared = source(event_time="at", watermark=timedelta(0), max_ahead=timedelta(seconds=50))
    found, _, _ = judged(declared, [[row(1, at=1), row(2, at=99), row(-1, at=40), row(3, at=2)]])
    assert found.watermarks[0, 3] == datetime(2026, 1, 1, 0, 0, 1)


def test_t1_a_partition_without_rows_holds_the_watermark() -> None:
    declared = source(event_time="at", watermark=timedelta(0), max_ahead=timedelta(days=1))
    found, _, _ = judged(declared, [[row(1, at=1)], []], [{0: (0, 1), 1: (0, 0)}])
    assert found.final_watermark is None


def test_r1_the_newest_row_of_a_key_wins_by_version_partition_offset() -> None:
    table = source("table", key=("k",), version="v")
    partitions = [[row(1, "b"), row(1, "a"), row(2, "x"), row(3, "n", op="-D"), row(3, "m")], [row(2, "x")]]
    _, rows, _ = judged(table, partitions)
    assert rows == [(1, "b"), (2, "x")]
    _, unversioned, _ = judged(source("table", key=("k",)), partitions)
    assert unversioned == [(1, "a"), (2, "x"), (3, "m")]


def test_r1_a_multiset_gives_only_what_it_holds() -> None:
    records = [[row(1, op="-D"), row(1), row(1), row(1, op="-D"), row(2, op="-D")]]
    found, rows, examined = judged(source("table"), records)
    assert found.dead == {(0, 0): "delete_without_row", (0, 4): "delete_without_row"}
    assert rows == [(1, None)]
    assert counts(examined, found)["accepted"] == 3


def test_r3_the_first_of_a_key_within_its_span_wins() -> None:
    declared = source(unique=("k",), within=timedelta(seconds=10), event_time="at", max_ahead=timedelta(days=1))
    records = [[row(1, "a", 0), row(1, "a", 0), row(1, "b", 5), row(1, "a", 11), row(2, "z", 0)]]
    found, rows, _ = judged(declared, records)
    assert found.duplicate == {(0, 1)}
    assert found.dead == {(0, 2): "key_conflict"}
    assert rows == [(1, "a"), (1, "a"), (2, "z")]


def test_r3_the_first_is_that_of_the_earlier_epoch() -> None:
    declared = source(unique=("k",), within=timedelta(seconds=10), event_time="at", max_ahead=timedelta(days=1))
    partitions = [[row(1, "a", 0)], [row(1, "b", 0)]]
    together, _, _ = judged(declared, partitions)
    assert together.dead == {(1, 0): "key_conflict"}
    apart, _, _ = judged(declared, partitions, [{0: (0, 0), 1: (0, 1)}, {0: (0, 1), 1: (1, 1)}])
    assert apart.dead == {(0, 0): "key_conflict"}


def test_r4_old_rows_leave() -> None:
    declared = source(
        event_time="at", watermark=timedelta(0), retention=timedelta(seconds=5), max_ahead=timedelta(days=1)
    )
    _, rows, _ = judged(declared, [[row(1, at=1), row(2, at=5), row(3, at=10)]])
    assert rows == [(2, None), (3, None)]

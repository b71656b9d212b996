"""Dead letters: the records that broke their contract, kept as they came; there may be millions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import duckdb
import pyarrow as pa

from penstock.engines.base import DeadLetter, LetterQuery
from penstock.engines.duckdb.broken import Letter
from penstock.engines.duckdb.connection import first_row
from penstock.plan.blocks import literal

LETTER_COLUMNS = (
    'id, source, partition, "offset", epoch, append_time, key, value, rule, field, got, reason, status, attempts'
)

_NEW = (0, "")


def letter_id(source: str, partition: int, offset: int) -> str:
    """A dead letter's id: it follows from where the record stands."""
    return hashlib.sha256(f"{source}\0{partition}\0{offset}".encode()).hexdigest()[:16]


def record_dead(connection: duckdb.DuckDBPyConnection, source: str, letters: Sequence[Letter], epoch: int) -> None:
    """Keep the broken records of an epoch; one that was dead before keeps its id and counts an attempt.

    One that was dropped in a state before this one stays so. Those that were kept before are looked for between the
    first and the last offset alone, which DuckDB finds without reading the others: there may be millions.
    """
    offsets = [x.offset for x in letters]
    ids = [letter_id(source, x.partition, x.offset) for x in letters]
    near = f'source = {literal(source)} AND "offset" BETWEEN {min(offsets)} AND {max(offsets)}'
    before = f"{near} AND id IN (SELECT id FROM _ps_letters)"
    connection.register("_ps_letters", pa.table({"id": pa.array(ids, pa.string())}))
    rows = connection.execute(f"SELECT id, attempts, status FROM _ps.dead WHERE {before}").fetchall()
    known = {letter: (attempts, status) for letter, attempts, status in rows}
    if known:
        connection.execute(f"DELETE FROM _ps.dead WHERE {before}")
    verdicts = [x.verdict for x in letters]
    columns = {
        "id": pa.array(ids, pa.string()),
        "source": pa.repeat(pa.scalar(source, pa.string()), len(letters)),
        "partition": pa.array([x.partition for x in letters], pa.int32()),
        "offset": pa.array(offsets, pa.int64()),
        "epoch": pa.repeat(pa.scalar(epoch, pa.int64()), len(letters)),
        "append_time": pa.array([x.append_time for x in letters], pa.timestamp("us")),
        "key": pa.array([x.key for x in letters], pa.binary()),
        "value": pa.array([x.value for x in letters], pa.binary()),
        "rule": pa.array([verdict.rule for verdict in verdicts], pa.string()),
        "field": pa.array([verdict.field for verdict in verdicts], pa.string()),
        "got": pa.array([verdict.got for verdict in verdicts], pa.string()),
        "reason": pa.array([verdict.reason for verdict in verdicts], pa.string()),
        "status": pa.array(["dropped" if known.get(x, _NEW)[1] == "dropped" else "dead" for x in ids], pa.string()),
        "attempts": pa.array([known.get(x, _NEW)[0] + 1 for x in ids], pa.int32()),
    }
    connection.register("_ps_letters", pa.table(columns))
    connection.execute(f"INSERT INTO _ps.dead ({LETTER_COLUMNS}) SELECT {LETTER_COLUMNS} FROM _ps_letters")
    connection.unregister("_ps_letters")


def matching(which: LetterQuery) -> str:
    """The condition for rows of `_ps.dead`."""
    conditions = [
        f"{column} = {literal(value)}"
        for column, value in (("source", which.source), ("status", which.status), ("rule", which.rule))
        if value is not None
    ]
    if which.ids is not None:
        conditions.append(f"id IN (SELECT unnest([{', '.join(map(literal, which.ids))}]::VARCHAR[]))")
    if which.beginning is not None:
        conditions.append(f"starts_with(id, {literal(which.beginning)})")
    return " AND ".join(conditions) or "TRUE"


def dead_letters(
    connection: duckdb.DuckDBPyConnection, which: LetterQuery, *, offset: int = 0, limit: int | None = None
) -> list[DeadLetter]:
    """The kept records, in the order of (epoch, source, partition, offset); limit: None for all from `offset` on."""
    upto = f" LIMIT {limit}" if limit is not None else ""
    rows = connection.execute(
        f'SELECT id, source, partition, "offset", epoch, epoch_us(append_time), key, value, rule, field, got, reason, '
        f"status, attempts FROM _ps.dead WHERE {matching(which)} "
        f'ORDER BY epoch, source, partition, "offset"{upto} OFFSET {offset}'
    ).fetchall()
    return [DeadLetter(*row) for row in rows]


def count(connection: duckdb.DuckDBPyConnection, which: LetterQuery) -> int:
    """How many there are."""
    row = first_row(connection.execute(f"SELECT count(*) FROM _ps.dead WHERE {matching(which)}"))
    return int(row[0]) if row else 0


def drop(connection: duckdb.DuckDBPyConnection, which: LetterQuery) -> int:
    """Mark those that are dead as dropped: they stay counted and kept, and are not replayed by `--all`."""
    row = first_row(
        connection.execute(f"UPDATE _ps.dead SET status = 'dropped' WHERE status = 'dead' AND {matching(which)}")
    )
    return int(row[0]) if row else 0

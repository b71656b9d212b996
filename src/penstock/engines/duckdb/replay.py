"""The way back of dead letters and late rows: a durable source of its own.

A record is judged once when it is read. `dlq replay` and `late apply` write requests into `_ps.replay`; an epoch that
reads them is a correction: its rows pass lateness and its changes carry `_correction`. The original position is a
record's identity: what has been applied once is never applied again (semantics E3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from penstock.connectors.base import RawBatch
from penstock.engines.base import Counts, LetterQuery
from penstock.engines.duckdb.connection import first_row
from penstock.engines.duckdb.letters import letter_id, matching
from penstock.engines.duckdb.outbox import fetch
from penstock.plan.blocks import literal

# Requests that one epoch takes: it stays short however much is asked for.
REQUESTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Replay:
    """What one correction epoch applies. dead: raw records per source; late: positions per source.

    counted: how many of the dead records this state has read itself; those kept from before a reset it has not.
    """

    upto: int
    dead: dict[str, list[RawBatch]]
    late: dict[str, list[tuple[int, int]]]
    counted: Mapping[str, int] = field(default_factory=dict)

    def requests(self) -> list[tuple[str, str, int, int]]:
        """What was asked for, as the journal keeps it."""
        dead = [("dead", s, b.partition, o) for s, bs in self.dead.items() for b in bs for o in b.offsets.to_pylist()]
        return dead + [("late", s, p, o) for s, positions in self.late.items() for p, o in positions]

    @property
    def empty(self) -> bool:
        return not self.dead and not self.late

    def move_counts(self, source: str, counts: Counts, healed: int) -> None:
        """A healed letter is accepted instead of dead; a record that was read here was counted when it was read."""
        counted = self.counted.get(source, 0)
        counts.rows -= counted
        counts.dead -= counted
        counts.replayed += healed


def request_letters(connection: duckdb.DuckDBPyConnection, which: LetterQuery) -> int:
    """Ask for dead letters to be judged again; how many. What a sink refused is no record of a source."""
    return _request(
        connection,
        f"SELECT 'dead' AS kind, source, partition, \"offset\" AS source_offset FROM _ps.dead "
        f"WHERE status = 'dead' AND NOT starts_with(source, 'sink:') AND {matching(which)}",
    )


def request_positions(
    connection: duckdb.DuckDBPyConnection, kind: str, positions: Sequence[tuple[str, int, int]]
) -> int:
    """Ask for the records or rows at (source, partition, offset); how many."""
    rows = pa.table(
        {
            "source": pa.array([p[0] for p in positions], pa.string()),
            "partition": pa.array([p[1] for p in positions], pa.int32()),
            "source_offset": pa.array([p[2] for p in positions], pa.int64()),
        }
    )
    connection.register("_ps_positions", rows)
    written = _request(connection, f"SELECT {literal(kind)} AS kind, * FROM _ps_positions")
    connection.unregister("_ps_positions")
    return written


def _request(connection: duckdb.DuckDBPyConnection, wanted: str) -> int:
    row = first_row(
        connection.execute(
            'INSERT INTO _ps.replay SELECT (SELECT coalesce(max("offset"), -1) FROM _ps.replay) '
            "+ row_number() OVER (ORDER BY source, partition, source_offset), kind, source, partition, source_offset, "
            f"NULL FROM ({wanted})"
        )
    )
    return int(row[0]) if row else 0


def read_replay(connection: duckdb.DuckDBPyConnection, after: int, upto: int | None) -> Replay:
    """The next requests from `after` on, all of one kind: dead letters that are dead, or late rows that are late."""
    end = after + REQUESTS_AT_ONCE if upto is None else upto
    if end <= after:
        return Replay(after, {}, {})
    requests = f'SELECT "offset", kind FROM _ps.replay WHERE "offset" >= {after} AND "offset" < {end}'
    row = first_row(
        connection.execute(
            f'SELECT max("offset") + 1 FROM ({requests}) WHERE "offset" < coalesce((SELECT min("offset") FROM '
            f"({requests}) "
            f'WHERE kind <> (SELECT arg_min(kind, "offset") FROM ({requests}))), 9223372036854775807)'
        )
    )
    if row is None or row[0] is None:
        return Replay(after, {}, {})
    last = int(row[0])
    dead, counted = _letters(connection, f'r."offset" >= {after} AND r."offset" < {last}')
    positions = connection.execute(
        'SELECT DISTINCT l.source, l.partition, l."offset" FROM _ps.replay AS r JOIN _ps.late AS l '
        'ON l.source = r.source AND l.partition = r.partition AND l."offset" = r.source_offset '
        f"WHERE r.kind = 'late' AND l.status = 'late' AND r.\"offset\" >= {after} AND r.\"offset\" < {last} ORDER "
        f"BY ALL"
    ).fetchall()
    late: dict[str, list[tuple[int, int]]] = {}
    for source, partition, offset in positions:
        late.setdefault(source, []).append((partition, offset))
    return Replay(last, dead, late, counted)


def _letters(connection: duckdb.DuckDBPyConnection, asked: str) -> tuple[dict[str, list[RawBatch]], dict[str, int]]:
    """The dead letters that were asked for, by source and partition, and how many of them were counted here."""
    letters = fetch(
        connection,
        'SELECT DISTINCT d.source, d.partition, d."offset", d.append_time, d.key, d.value, d.epoch >= 0 AS counted '
        "FROM _ps.replay AS r JOIN _ps.dead AS d "
        'ON d.source = r.source AND d.partition = r.partition AND d."offset" = r.source_offset '
        f"WHERE r.kind = 'dead' AND d.status = 'dead' AND {asked} ORDER BY 1, 2, 3",
    )
    dead: dict[str, list[RawBatch]] = {}
    counted: dict[str, int] = {}
    places = (
        letters.select(["source", "partition"]).group_by(["source", "partition"]).aggregate([]).sort_by("partition")
    )
    for source, partition in zip(places["source"].to_pylist(), places["partition"].to_pylist(), strict=True):
        here = pc.and_(pc.equal(letters["source"], source), pc.equal(letters["partition"], partition))
        rows = letters.filter(here)
        batch = RawBatch(
            partition,
            rows["value"].cast(pa.binary()),
            rows["offset"],
            rows["offset"][-1].as_py() + 1,
            rows["key"].cast(pa.binary()),
            rows["append_time"],
        )
        dead.setdefault(source, []).append(batch)
        counted[source] = counted.get(source, 0) + pc.sum(rows["counted"]).as_py()
    return dead, counted


def mark_replayed(
    connection: duckdb.DuckDBPyConnection, replay: Replay, failed: set[tuple[str, int, int]]
) -> dict[str, int]:
    """Close the letters that the contract accepts now; their number per source."""
    healed: dict[str, int] = {}
    for source, batches in replay.dead.items():
        ids = [
            letter_id(source, b.partition, offset)
            for b in batches
            for offset in b.offsets.to_pylist()
            if (source, b.partition, offset) not in failed
        ]
        if ids:
            connection.execute("UPDATE _ps.dead SET status = 'replayed' WHERE id IN (SELECT unnest(?))", [ids])
            healed[source] = len(ids)
    return healed

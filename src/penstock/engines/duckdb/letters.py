"""Dead letters, late rows, and their way back.

A record is judged once when it is read. `dlq replay` and `late apply` write into `_ps.replay`, a durable source of its
own; an epoch that reads it is a correction: its rows pass lateness and its changes carry `_correction`. The original
position is a record's identity: what has been applied once is never applied again (semantics E3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from penstock.connectors.base import RawBatch
from penstock.engines.base import Counts, DeadLetter
from penstock.engines.duckdb.broken import Letter
from penstock.engines.duckdb.connection import first_row
from penstock.engines.duckdb.ingest import judge_again
from penstock.engines.duckdb.scope import Delta, EpochScope
from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.times import from_us
from penstock.plan.blocks import HIDDEN, Late, Node, SourceBlock, column_list, content_name, literal, quote
from penstock.plan.late import late_condition
from penstock.plan.plan import Plan

LETTER_COLUMNS = (
    'id, source, partition, "offset", epoch, append_time, key, value, rule, field, got, reason, status, attempts'
)

_NEW = (0, "")


def letter_id(source: str, partition: int, offset: int) -> str:
    """A dead letter's id: it follows from where the record stands."""
    return hashlib.sha256(f"{source}\0{partition}\0{offset}".encode()).hexdigest()[:16]


# -- dead letters ------------------------------------------------------------------------------------------------------


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


def dead_letters(
    connection: duckdb.DuckDBPyConnection, *, source: str | None = None, status: str | None = None
) -> list[DeadLetter]:
    """The kept records, in the order of (epoch, source, partition, offset)."""
    conditions = [f"source = {literal(source)}"] if source else []
    conditions += [f"status = {literal(status)}"] if status else []
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = connection.execute(
        f'SELECT id, source, partition, "offset", epoch, epoch_us(append_time), key, value, rule, field, got, '
        f"reason, status, "
        f'attempts FROM _ps.dead{where} ORDER BY epoch, source, partition, "offset"'
    ).fetchall()
    return [DeadLetter(*row) for row in rows]


def drop(connection: duckdb.DuckDBPyConnection, ids: Iterable[str]) -> int:
    """Mark dead letters as dropped: they stay counted and kept, and are not replayed by `--all`."""
    wanted = list(ids)
    row = first_row(
        connection.execute(
            "UPDATE _ps.dead SET status = 'dropped' WHERE status = 'dead' AND id IN (SELECT unnest(?))", [wanted]
        )
    )
    return int(row[0]) if row else 0


# -- late rows ---------------------------------------------------------------------------------------------------------


def record_late(scope: EpochScope) -> dict[str, int]:
    """Write the epoch's late rows into the ledger; their number per view.

    A row that was late once is stored, and may move again with what it is joined to: it is written once.
    """
    found: dict[str, int] = {}
    for node, late in scope.plan.late_blocks:
        delta = scope.deltas.get(late.relation)
        if delta is None or (late.stream not in scope.late and scope.plan.fresh(late.relation)):
            continue
        count = _record(scope, node, late, delta)
        if count:
            view = scope.plan.owner(node.name)
            found[view] = found.get(view, 0) + count
    return found


def _record(scope: EpochScope, node: Node, late: Late, delta: Delta) -> int:
    view = scope.plan.owner(node.name)
    alias = quote(late.alias)
    arrives = f' AND {alias}."_ps_w" > 0' if delta.weighted else ""
    found = (
        f'SELECT DISTINCT {literal(late.stream)} AS source, {alias}._ps_p AS partition, {alias}._ps_o AS "offset", '
        f"{literal(node.name)} AS block, {literal(view)} AS view, {late.window_start} AS window_start, "
        f"{late.window_end} AS window_end, {alias}._ps_wm AS watermark, {scope.epoch} AS epoch, 'late' AS status "
        f"FROM {delta.sql} AS {alias} WHERE {late_condition(late)}{arrives}"
    )
    row = first_row(
        scope.connection.execute(
            f"INSERT INTO _ps.late SELECT * FROM ({found}) AS n WHERE NOT EXISTS (SELECT 1 FROM _ps.late AS l "
            f"WHERE l.block = n.block AND l.source = n.source AND l.partition = n.partition "
            f'AND l."offset" = n."offset" AND l.window_start = n.window_start AND l.status <> \'kept\')'
        )
    )
    count = int(row[0]) if row else 0
    if count:
        for name in dict.fromkeys((late.stream, late.relation)):
            _keep_rows(scope, late.stream, name)
    return count


def _keep_rows(scope: EpochScope, stream: str, name: str) -> None:
    """Copies of the epoch's late rows as relation `name` has them: what shows them, and what brings them back."""
    if name != stream and not scope.plan.fresh(name):
        return
    relation = scope.plan.node(name).relation
    kept = table(f"l_{name}")
    columns = column_list([*relation.columns, *HIDDEN])
    late = f'SELECT partition, "offset" FROM _ps.late WHERE source = {literal(stream)} AND epoch = {scope.epoch}'
    places = [_whole(scope, name)] if name in scope.deltas else []
    if not scope.plan.fresh(name):
        places.append(content_name(relation))
    rows = " UNION ".join(f"SELECT {columns} FROM {place}" for place in places)
    scope.connection.execute(
        f"INSERT INTO {kept} SELECT {columns} FROM ({rows}) AS r WHERE (_ps_p, _ps_o) IN ({late}) "
        f"AND (_ps_p, _ps_o) NOT IN (SELECT (_ps_p, _ps_o) FROM {kept})"
    )


def _whole(scope: EpochScope, name: str) -> str:
    """A relation's delta with all its columns; of a stream that is built in part, the late rows alone."""
    delta = scope.deltas[name].sql
    block = scope.plan.node(name).block
    if not isinstance(block, SourceBlock) or scope.columns.get(name) is None:
        return delta
    rows = scope.connection.execute(
        f'SELECT DISTINCT partition, "offset" FROM _ps.late WHERE source = {literal(name)} AND epoch = {scope.epoch}'
    ).fetchall()
    positions: dict[int, list[int]] = {}
    for partition, offset in rows:
        positions.setdefault(partition, []).append(offset)
    decoder, batches = scope.records[name]
    whole = judge_again(scope.connection, block.source, decoder, batches, positions)
    return f"(SELECT w.*, d._ps_wm FROM {whole} AS w JOIN {delta} AS d ON d._ps_p = w._ps_p AND d._ps_o = w._ps_o)"


# -- replay ------------------------------------------------------------------------------------------------------------


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


def request_replay(connection: duckdb.DuckDBPyConnection, kind: str, positions: Sequence[tuple[str, int, int]]) -> int:
    """Append to the durable replay source; how many are new. What a sink refused is no record of a source."""
    positions = [p for p in positions if not p[0].startswith("sink:")]
    connection.register(
        "_ps_positions",
        pa.table(
            {
                "source": [p[0] for p in positions],
                "partition": pa.array([p[1] for p in positions], pa.int32()),
                "source_offset": pa.array([p[2] for p in positions], pa.int64()),
            }
        ),
    )
    row = first_row(
        connection.execute(
            f'INSERT INTO _ps.replay SELECT (SELECT coalesce(max("offset"), -1) FROM _ps.replay) '
            f"+ row_number() OVER (ORDER BY source, partition, source_offset), {literal(kind)}, source, partition, "
            f"source_offset, NULL "
            f"FROM _ps_positions"
        )
    )
    connection.unregister("_ps_positions")
    return int(row[0]) if row else 0


def read_replay(connection: duckdb.DuckDBPyConnection, after: int, upto: int | None) -> Replay:
    """The next requests from `after` on, all of one kind: dead letters that are dead, or late rows that are late."""
    if upto is not None and upto <= after:
        return Replay(after, {}, {})
    limit = f' AND "offset" < {upto}' if upto is not None else ""
    requests = f'SELECT "offset", kind FROM _ps.replay WHERE "offset" >= {after}{limit}'
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
    letters = connection.execute(
        'SELECT DISTINCT d.source, d.partition, d."offset", d.append_time, d.key, d.value, d.epoch '
        "FROM _ps.replay AS r "
        'JOIN _ps.dead AS d ON d.source = r.source AND d.partition = r.partition AND d."offset" = r.source_offset '
        f"WHERE r.kind = 'dead' AND d.status = 'dead' AND r.\"offset\" >= {after} AND r.\"offset\" < {last} ORDER "
        f"BY ALL"
    ).fetchall()
    dead: dict[str, list[RawBatch]] = {}
    counted: dict[str, int] = {}
    for source, partition, offset, time, key, value, epoch in letters:
        batch = RawBatch(
            partition,
            pa.chunked_array([pa.array([value], pa.binary())]),
            pa.chunked_array([pa.array([offset], pa.int64())]),
            offset + 1,
            pa.chunked_array([pa.array([key], pa.binary())]),
            pa.chunked_array([pa.array([time], pa.timestamp("us"))]),
        )
        dead.setdefault(source, []).append(batch)
        counted[source] = counted.get(source, 0) + (epoch >= 0)
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


def apply_late(scope: EpochScope, replay: Replay) -> dict[str, Delta]:
    """The rows that come back to each block that they were late for, by block; stored copies stop being late."""
    presets: dict[str, Delta] = {}
    for source, positions in replay.late.items():
        scope.statements.give(
            "_ps_late_given",
            pa.table(
                {
                    "p": pa.array([p for p, _ in positions], pa.int32()),
                    "o": pa.array([o for _, o in positions], pa.int64()),
                }
            ),
        )
        wanted = f"_ps_late_{source}"
        scope.temporary(wanted, "SELECT * FROM _ps_late_given")
        scope.statements.take("_ps_late_given")
        for node in scope.plan.nodes:
            relation = node.relation
            if node.content == "table" and relation.hidden and relation.stream == source:
                scope.connection.execute(
                    f"UPDATE {table('t_' + relation.name)} AS t SET _ps_wm = NULL FROM {quote(wanted)} AS w "
                    f"WHERE t._ps_p = w.p AND t._ps_o = w.o"
                )
        for node, late in scope.plan.late_blocks:
            if late.stream == source:
                presets[node.name] = _late_delta(scope, node, late, wanted)
        scope.connection.execute(
            f"UPDATE _ps.late AS l SET status = 'applied' FROM {quote(wanted)} AS w WHERE l.source = {literal(source)} "
            f"AND l.partition = w.p AND l.\"offset\" = w.o AND l.status = 'late'"
        )
    return presets


def late_counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """How many rows that this state has read are late, and not applied, per view."""
    rows = connection.execute(
        "SELECT view, count(*) FROM _ps.late WHERE status = 'late' AND epoch >= 0 GROUP BY view"
    ).fetchall()
    return {view: int(count) for view, count in rows}


def _late_delta(scope: EpochScope, node: Node, late: Late, wanted: str) -> Delta:
    relation = scope.plan.node(late.relation).relation
    # What is joined may have changed since: then the row comes back as it is now.
    kept = table(f"l_{relation.name}") if scope.plan.fresh(relation.name) else content_name(relation)
    # A row that hopping windows hold may be late for some of them: it comes back for these.
    only = f" WHERE {late_condition(late)}" if scope.plan.fresh(relation.name) else ""
    name = f"_ps_lr_{node.name}"
    alias = quote(late.alias)
    columns = column_list(relation.columns, late.alias)
    weight = "" if relation.append_only else ', 1 AS "_ps_w"'
    rows = scope.temporary(
        name,
        f"SELECT {columns}, {alias}._ps_p, {alias}._ps_o, NULL::TIMESTAMP AS _ps_wm{weight} FROM {kept} AS {alias} "
        f"JOIN {quote(wanted)} AS w ON {alias}._ps_p = w.p AND {alias}._ps_o = w.o "
        f"SEMI JOIN _ps.late AS l ON l.source = {literal(late.stream)} AND l.block = {literal(node.name)} AND "
        f"l.partition = {alias}._ps_p "
        f"AND l.\"offset\" = {alias}._ps_o AND l.status = 'late'{only}",
    )
    return Delta(quote(name), not relation.append_only, rows)


def beyond_horizon(
    connection: duckdb.DuckDBPyConnection, source: str, watermark_us: int | None, horizon_us: int
) -> list[tuple[int, int]]:
    """Positions of late rows whose window's state is gone."""
    if watermark_us is None:
        return []
    cutoff = from_us(watermark_us - horizon_us)
    return connection.execute(
        f"SELECT DISTINCT partition, \"offset\" FROM _ps.late WHERE source = {literal(source)} AND status = 'late' "
        f"AND window_end <= {cutoff} ORDER BY ALL"
    ).fetchall()


def create_late_tables(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """One table per stream, and per relation over it, whose rows can be late; what is there stays."""
    for name in dict.fromkeys(n for late in plan.late_rules for n in (late.stream, late.relation)):
        relation = plan.node(name).relation
        columns = ", ".join(f"{quote(f.name)} {f.type}" for f in relation.fields)
        hidden = "_ps_p INTEGER, _ps_o BIGINT, _ps_wm TIMESTAMP"
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table('l_' + name)} ({columns}, {hidden})")

"""Late rows: the ledger of them, and how they come back.

A row is late for a block whose window the watermark has closed. It is kept as its relation has it; `late apply` brings
it back in a correction epoch (replay.py), once.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from penstock.engines.duckdb.connection import first_row
from penstock.engines.duckdb.ingest import judge_again
from penstock.engines.duckdb.replay import Replay
from penstock.engines.duckdb.scope import Delta, EpochScope
from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.times import from_us
from penstock.plan.blocks import HIDDEN, Late, Node, SourceBlock, column_list, content_name, literal, quote
from penstock.plan.late import late_condition
from penstock.plan.plan import Plan


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

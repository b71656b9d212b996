"""The state file: what tables there are, who wrote them, where the pipeline stands.

Layout (version 3): schema `_ps` holds `meta` (key, value), `journal` (one row an epoch, the last one is where we
stand), `redo` (what small epochs have moved that is not in the other tables yet, see redo.py; since version 2), `dead`,
`late`, `replay` and `applied`, an outbox `o_<sink>` per sink, and each block's state tables as the plan declares them.
Since version 3 the redo log (redo_log.py) stands beside the file: both together are the state.
Views and kept sources are SQL views in `main` under their own names, without hidden columns.
"""

from __future__ import annotations

import json
import uuid

import duckdb

from penstock.engines.base import Counts, PartitionProgress, Progress, SourceProgress
from penstock.engines.duckdb import redo
from penstock.engines.duckdb.connection import first_row
from penstock.engines.duckdb.times import from_us
from penstock.errors import StateError
from penstock.plan import flat, grouped, ranked, union
from penstock.plan.blocks import (
    Field,
    FinalBlock,
    FlatBlock,
    GroupedBlock,
    Node,
    RankedBlock,
    SourceBlock,
    UnionBlock,
    Windowed,
    column_list,
    content_name,
    literal,
    quote,
)
from penstock.plan.change import described
from penstock.plan.plan import Plan

FORMAT = redo.FORMAT
# What the plan was, for a later one to be compared with (plan/change.py).
PROGRAM = "program"
# Key of a relation of which closed windows have been forgotten; the value is until when (microseconds).
FORGOTTEN = "forgotten:"
CHANGE_FIELDS = (
    Field("_op", "VARCHAR", False),
    Field("_epoch", "BIGINT", False),
    Field("_seq", "BIGINT", False),
    Field("_correction", "BOOLEAN", False),
)
LEDGERS = """
CREATE TABLE _ps.journal (epoch BIGINT, entry VARCHAR);
CREATE TABLE _ps.dead (id VARCHAR, source VARCHAR, partition INTEGER, "offset" BIGINT, epoch BIGINT,
    append_time TIMESTAMP, key BLOB, value BLOB, rule VARCHAR, field VARCHAR, got VARCHAR, reason VARCHAR,
    status VARCHAR, attempts INTEGER);
CREATE TABLE _ps.late (source VARCHAR, partition INTEGER, "offset" BIGINT, block VARCHAR, view VARCHAR,
    window_start TIMESTAMP, window_end TIMESTAMP, watermark TIMESTAMP, epoch BIGINT, status VARCHAR);
CREATE TABLE _ps.replay ("offset" BIGINT, kind VARCHAR, source VARCHAR, partition INTEGER, source_offset BIGINT,
    view VARCHAR);
"""


def table(name: str) -> str:
    """The SQL name of a state table."""
    return f"_ps.{quote(name)}"


def create(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """An empty state for `plan`, in the current transaction."""
    connection.execute("CREATE SCHEMA _ps")
    connection.execute("CREATE TABLE _ps.meta (key VARCHAR, value VARCHAR)")
    connection.execute(LEDGERS)
    connection.execute(redo.TABLE)
    for node in plan.nodes:
        create_tables(connection, node)
    for sink in plan.graph.sinks:
        create_outbox(connection, plan, sink.name)
    create_views(connection, plan)
    values = {"format": str(FORMAT), "state_id": uuid.uuid4().hex, "duckdb": duckdb.__version__}
    connection.executemany("INSERT INTO _ps.meta VALUES (?, ?)", list(values.items()))
    sign(connection, plan)


def sign(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """Say which plan the state belongs to."""
    values = {"plan": plan.fingerprint, "pipeline": plan.graph.name, PROGRAM: described(plan).to_json()}
    connection.executemany("INSERT INTO _ps.meta VALUES (?, ?)", list(values.items()))


def create_tables(connection: duckdb.DuckDBPyConnection, node: Node) -> None:
    """The empty state tables of a block."""
    for state in node.state:
        columns = ", ".join(f"{quote(f.name)} {f.type}" for f in state.columns)
        connection.execute(f"CREATE TABLE {table(state.name)} ({columns})")


def create_outbox(connection: duckdb.DuckDBPyConnection, plan: Plan, sink: str) -> None:
    """The empty outbox of a sink."""
    declared = next(s for s in plan.graph.sinks if s.name == sink)
    fields = (*plan.node(plan.node_of(declared.view)).relation.fields, *CHANGE_FIELDS)
    columns = ", ".join(f"{quote(f.name)} {f.type}" for f in fields)
    connection.execute(f"CREATE TABLE {table('o_' + sink)} ({columns})")


def drop_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop the contents' views, before the tables under them change."""
    query = (
        "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal AND schema_name IN ('main', '_ps') "
        "AND database_name = current_database()"
    )
    for schema, name in connection.execute(query).fetchall():
        connection.execute(f"DROP VIEW {quote(schema)}.{quote(name)}")


def create_views(connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
    """The contents of relations by name; `_ps.h_*` with hidden columns, `_ps.k_*` with a group's hidden keys."""
    contents = {n.name: content_name(n.relation) for n in plan.nodes}
    for node in plan.nodes:
        if node.content == "none":
            continue
        for name, sql in _content_views(node, contents):
            connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")


def _content_views(node: Node, contents: dict[str, str]) -> list[tuple[str, str]]:
    relation, block = node.relation, node.block
    columns = column_list(relation.columns)
    name = quote(relation.name)
    stored = table(f"t_{relation.name}")
    match block:
        case GroupedBlock():
            keyed = f"_ps.{quote('k_' + relation.name)}"
            merge = block.strategy == "merge"
            sql = grouped.output_sql(block, table(f"g_{relation.name}")) if merge else f"SELECT * FROM {stored}"
            return [(keyed, sql), (name, f"SELECT {columns} FROM {keyed}")]
        case RankedBlock():
            keyed = f"_ps.{quote('k_' + relation.name)}"
            candidates = ranked.outputs_sql(block, table(f"c_{relation.name}"))
            return [
                (keyed, f"SELECT * FROM {stored}" if block.top is None else candidates),
                (name, f"SELECT {columns} FROM {keyed}"),
            ]
        case FlatBlock() | UnionBlock() if node.content == "view":
            sql = (
                flat.content_sql(block, contents)
                if isinstance(block, FlatBlock)
                else union.content_sql(block, contents)
            )
        case SourceBlock() if block.source.kind == "table" and block.source.key:
            sql = f"SELECT * FROM {stored} WHERE _ps_live"
        case FinalBlock():
            sql = f"SELECT {columns} FROM {stored}"
        case _:
            sql = f"SELECT * FROM {stored}"
    if not relation.hidden:
        return [(name, f"SELECT {columns} FROM ({sql})")]
    hidden = content_name(relation)
    return [(hidden, sql), (name, f"SELECT {columns} FROM {hidden}")]


def check(connection: duckdb.DuckDBPyConnection, plan: Plan) -> str:
    """The state's id.

    Raises:
        StateError: PS-STATE-003 when a newer Penstock wrote it, PS-STATE-004 when it belongs to another plan.
    """
    meta = known(connection)
    if meta["plan"] != plan.fingerprint:
        raise StateError(
            "PS-STATE-004",
            "the state belongs to another plan: sources, contracts or views have changed",
            expected=f"plan {meta['plan']} of pipeline {meta['pipeline']}",
            got=f"plan {plan.fingerprint}",
            hint="penstock plan shows what a run would do with it; penstock reset starts again from the sources",
        )
    return meta["state_id"]


def known(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """What the state says of itself.

    Raises:
        StateError: PS-STATE-003 when a newer Penstock wrote it.
    """
    meta: dict[str, str] = dict(connection.execute("SELECT key, value FROM _ps.meta").fetchall())
    if int(meta["format"]) > FORMAT:
        raise StateError(
            "PS-STATE-003",
            "the state was written by a newer Penstock",
            expected=f"format {FORMAT} or older",
            got=f"format {meta['format']}",
            hint="upgrade Penstock, or run with another --state",
        )
    return meta


def exists(connection: duckdb.DuckDBPyConnection) -> bool:
    query = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = '_ps' AND table_name = 'meta'"
    row = first_row(connection.execute(query))
    return bool(row and row[0])


def forget_closed(
    connection: duckdb.DuckDBPyConnection,
    block: Windowed,
    cutoff_us: int,
    kept_after: tuple[str, ...],
) -> None:
    """Drop the windows that ended at or before the cutoff, and which nothing else needs; remember it."""
    assert block.window is not None
    name, end = block.relation.name, "_ps_end" if isinstance(block, FinalBlock) else block.window.end
    prefix = "g_" if isinstance(block, GroupedBlock) and block.strategy == "merge" else "t_"
    prefix = "c_" if isinstance(block, RankedBlock) and block.top is not None else prefix
    cutoff = from_us(cutoff_us)
    old = " AND ".join(f"{end}{f' + {length}' if length else ''} <= {cutoff}" for length in ("", *kept_after))
    gone = first_row(connection.execute(f"DELETE FROM {table(prefix + name)} WHERE {old}"))
    if gone is not None and gone[0]:
        key = literal(FORGOTTEN + name)
        connection.execute(f"DELETE FROM _ps.meta WHERE key = {key}")
        connection.execute(f"INSERT INTO _ps.meta VALUES ({key}, '{cutoff_us}')")


# -- the journal -------------------------------------------------------------------------------------------------------


def journal_entry(progress: Progress, ranges: dict[str, dict[int, tuple[int, int]]], extra: dict[str, object]) -> str:
    """One epoch as JSON: its input's ranges, and where everything stands after it."""
    sources = {
        name: {
            "ranges": {str(p): list(r) for p, r in ranges.get(name, {}).items()},
            "partitions": {
                str(p): [x.next_offset, x.largest_us, x.floor_us, x.first_offset] for p, x in s.partitions.items()
            },
            "idle": list(s.idle),
            "watermark_us": s.watermark_us,
            "version": s.version,
            "counts": vars(s.counts),
        }
        for name, s in progress.sources.items()
    }
    entry = {
        "epoch": progress.epoch,
        "state_id": progress.state_id,
        "sources": sources,
        "replay": progress.replay_offset,
        "late": progress.late,
        **extra,
    }
    return json.dumps(entry, separators=(",", ":"), sort_keys=True)


def load_progress(connection: duckdb.DuckDBPyConnection, plan: Plan, state_id: str) -> Progress:
    """Where the pipeline stands by the last journal row."""
    progress = Progress(state_id=state_id, sources={s.source.name: SourceProgress() for s in plan.sources})
    row = first_row(connection.execute("SELECT entry FROM _ps.journal ORDER BY epoch DESC LIMIT 1"))
    if row is None:
        return progress
    entry = json.loads(row[0])
    progress.epoch = entry["epoch"]
    progress.replay_offset = entry["replay"]
    progress.late = entry["late"]
    progress.flushed = bool(entry.get("flush"))
    for name, stored in entry["sources"].items():
        if name not in progress.sources:
            continue
        progress.sources[name] = SourceProgress(
            {int(p): PartitionProgress(*values) for p, values in stored["partitions"].items()},
            tuple(stored["idle"]),
            stored["watermark_us"],
            stored["version"],
            Counts(**stored["counts"]),
        )
    return progress

"""The state file: what tables there are, who wrote them, where the pipeline stands.

Layout (version 1): schema `_ps` holds `meta` (key, value), `journal` (one row an epoch, the last one is where we
stand), `dead`, `late`, `replay` and `applied`, an outbox `o_<sink>` per sink, and each block's state tables as the plan
declares them. Views and kept sources are SQL views in `main` under their own names, without hidden columns.
"""

from __future__ import annotations

import json
import uuid

import duckdb

from penstock.engines.base import Counts, PartitionProgress, Progress, SourceProgress
from penstock.engines.duckdb.connection import first_row
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
    column_list,
    content_name,
    quote,
)
from penstock.plan.plan import Plan

FORMAT = 1
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
    for node in plan.nodes:
        for state in node.state:
            columns = ", ".join(f"{quote(f.name)} {f.type}" for f in state.columns)
            connection.execute(f"CREATE TABLE {table(state.name)} ({columns})")
    for sink in plan.graph.sinks:
        fields = (*plan.node(_node_of(plan, sink.view)).relation.fields, *CHANGE_FIELDS)
        columns = ", ".join(f"{quote(f.name)} {f.type}" for f in fields)
        connection.execute(f"CREATE TABLE {table('o_' + sink.name)} ({columns})")
    create_views(connection, plan)
    values = {
        "format": str(FORMAT),
        "state_id": uuid.uuid4().hex,
        "plan": plan.fingerprint,
        "pipeline": plan.graph.name,
        "duckdb": duckdb.__version__,
    }
    connection.executemany("INSERT INTO _ps.meta VALUES (?, ?)", list(values.items()))


def _node_of(plan: Plan, view: str) -> str:
    found = plan.view(view)
    return found.node if found else view


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
    meta = dict(connection.execute("SELECT key, value FROM _ps.meta").fetchall())
    if int(meta["format"]) > FORMAT:
        raise StateError(
            "PS-STATE-003",
            "the state was written by a newer Penstock",
            expected=f"format {FORMAT} or older",
            got=f"format {meta['format']}",
            hint="upgrade Penstock, or run with another --state",
        )
    if meta["plan"] != plan.fingerprint:
        raise StateError(
            "PS-STATE-004",
            "the state belongs to another plan: sources, contracts or views have changed",
            expected=f"plan {meta['plan']} of pipeline {meta['pipeline']}",
            got=f"plan {plan.fingerprint}",
            hint="penstock reset drops the state and starts again from the sources; or run with another --state",
        )
    return str(meta["state_id"])


def exists(connection: duckdb.DuckDBPyConnection) -> bool:
    query = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = '_ps' AND table_name = 'meta'"
    row = first_row(connection.execute(query))
    return bool(row and row[0])


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

"""Duplicates: the first record of each `unique` key within its span is kept (semantics R3)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import duckdb
import pyarrow as pa

from penstock.connectors.base import Batch
from penstock.contract.schema import Verdict
from penstock.engines.duckdb.broken import Letter
from penstock.engines.duckdb.finder import find_records
from penstock.engines.duckdb.ingest import Ingested
from penstock.engines.duckdb.state import table
from penstock.formats.decode import Decoder
from penstock.pipeline import SourceDecl
from penstock.plan.blocks import SourceBlock, column_list, quote


def drop_duplicates(
    connection: duckdb.DuckDBPyConnection,
    block: SourceBlock,
    ingested: Ingested,
    decoder: Decoder,
    batches: Sequence[Batch],
) -> None:
    """Keep the first record of each `unique` key within its span (semantics R3).

    A record repeats an earlier one iff the keys agree, their event times lie at most `within` apart, and the watermark
    before the record has not passed the earlier one's event time by `within`. The same content is a duplicate, another
    one is dead (`key_conflict`). Keys that appear once and are new cost one anti join.
    """
    source = block.source
    accepted = ingested.relation
    seen = table(f"u_{source.name}")
    keys = column_list(source.unique)
    body = (
        f"md5(to_json(struct_pack({', '.join(f'{quote(c)} := {quote(c)}' for c in block.relation.columns)}))::VARCHAR)"
    )
    match = " AND ".join(f"u.{quote(k)} IS NOT DISTINCT FROM a.{quote(k)}" for k in source.unique)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE _ps_unique AS SELECT {keys}, _ps_p, _ps_o, _ps_at, _ps_wm, {body} AS _ps_body, "
        f"(count(*) OVER (PARTITION BY {keys}) > 1 OR EXISTS (SELECT 1 FROM {seen} AS u WHERE {match})) AS _ps_clash "
        f"FROM {accepted} AS a"
    )
    clashing = connection.execute("SELECT * FROM _ps_unique WHERE _ps_clash ORDER BY _ps_p, _ps_o").fetchall()
    verdicts = _resolve_clashes(connection, source, clashing, seen) if clashing else []
    rejected = [v for v in verdicts if v[2] != "accepted"]
    if rejected:
        columns = {"p": [v[0] for v in rejected], "o": [v[1] for v in rejected]}
        connection.register("_ps_rejected", pa.table(columns))
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {quote('_ps_u_' + source.name)} AS SELECT * FROM {accepted} AS a "
            f"ANTI JOIN _ps_rejected AS r ON a._ps_p = r.p AND a._ps_o = r.o"
        )
        connection.execute("DELETE FROM _ps_unique AS a USING _ps_rejected AS r WHERE a._ps_p = r.p AND a._ps_o = r.o")
        connection.unregister("_ps_rejected")
        ingested.relation = quote("_ps_u_" + source.name)
    connection.execute(f"INSERT INTO {seen} SELECT {keys}, _ps_at, _ps_body FROM _ps_unique")
    clashing = [(partition, offset, got) for partition, offset, verdict, got in rejected if verdict != "duplicate"]
    ingested.accepted -= len(rejected)
    ingested.duplicate += len(rejected) - len(clashing)
    records = find_records(batches, [(partition, offset) for partition, offset, _ in clashing])
    for (partition, offset, got), record in zip(clashing, records, strict=True):
        reason = f"({', '.join(source.unique)}) was accepted before with another content"
        letter = Verdict("key_conflict", ", ".join(source.unique), got, reason)
        ingested.letters.append(Letter(partition, offset, record.time, record.key, record.value, letter))


def _resolve_clashes(
    connection: duckdb.DuckDBPyConnection, source: SourceDecl, clashing: list[tuple[object, ...]], seen: str
) -> list[tuple[int, int, str, str]]:
    width = len(source.unique)
    assert source.within is not None
    known: dict[tuple[object, ...], list[tuple[datetime, str]]] = {}
    keys = column_list(source.unique)
    match = " AND ".join(f"u.{quote(k)} IS NOT DISTINCT FROM a.{quote(k)}" for k in source.unique)
    stored = connection.execute(
        f"SELECT {keys}, _ps_at, _ps_body FROM {seen} AS u WHERE EXISTS (SELECT 1 FROM _ps_unique AS a WHERE "
        f"_ps_clash AND {match})"
    ).fetchall()
    for row in stored:
        known.setdefault(tuple(row[:width]), []).append((row[width], row[width + 1]))
    verdicts = []
    for row in clashing:
        key, (partition, offset, at, watermark, body) = tuple(row[:width]), row[width : width + 5]
        earlier = [
            b
            for first, b in known.get(key, [])
            if abs(at - first) <= source.within and (watermark is None or first + source.within > watermark)  # type: ignore[operator]
        ]
        if not earlier:
            known.setdefault(key, []).append((at, body))  # type: ignore[arg-type]
            verdicts.append((partition, offset, "accepted", ""))
        else:
            same = body in earlier
            verdicts.append((partition, offset, "duplicate" if same else "key_conflict", ", ".join(map(str, key))))
    return verdicts  # type: ignore[return-value]

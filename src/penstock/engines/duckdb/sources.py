"""A source's delta in an epoch, by kind: stream, keyed table, multiset, reference.

Every function leaves the source's delta in the scope and moves the stored content; what it must say beyond that
(letters, counts, watermarks, alerts) goes into the source's `Outcome`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as compute

from penstock.contract.schema import Verdict
from penstock.engines.base import PartitionProgress, SourceInput, SourceProgress
from penstock.engines.duckdb.broken import Letter
from penstock.engines.duckdb.connection import first_row
from penstock.engines.duckdb.duplicates import drop_duplicates
from penstock.engines.duckdb.finder import find_records
from penstock.engines.duckdb.ingest import Ingested, Judging, ingest, judged_name
from penstock.engines.duckdb.prepared import unchanged
from penstock.engines.duckdb.scope import Delta, EpochScope, apply_multiset
from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.times import from_us
from penstock.formats.arrow_result import ArrowResult
from penstock.formats.decode import Decoder
from penstock.pipeline import SourceDecl
from penstock.plan import keyed
from penstock.plan.blocks import Field, Node, SourceBlock, column_list, literal, quote, same
from penstock.plan.plan import Plan

_NO_WATERMARK = np.iinfo(np.int64).min


@dataclass
class Outcome:
    """What a source says beyond its delta. letters: its broken records; alerts: sentences for the operator."""

    letters: list[Letter] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    accepted: list[tuple[int, int]] = field(default_factory=list)


def run_source(
    scope: EpochScope,
    node: Node,
    block: SourceBlock,
    decoder: Decoder,
    given: SourceInput,
    progress: SourceProgress,
    *,
    correction: bool,
) -> Outcome:
    """Ingest one source and move its progress."""
    source = block.source
    if not correction:
        _take_offsets(given, progress)
    outcome = Outcome()
    rows = sum(b.rows for b in given.batches)
    if source.kind == "reference":
        if given.version is not None:
            _run_reference(scope, block, decoder, given, progress, outcome)
        return outcome
    scope.records[source.name] = (decoder, given.batches)
    ingested = ingest(scope.statements, block, decoder, given, _judging(scope, source)) if rows else None
    if ingested is not None:
        if source.kind == "stream":
            _run_stream(scope, node, block, decoder, given, progress, ingested, correction=correction)
        elif source.key:
            _run_keyed(scope, block, progress, ingested, outcome)
        else:
            _run_multiset(scope, block, given, ingested)
        outcome.letters = ingested.letters
        _count(progress, ingested)
    _move_watermark(source, given, progress, ingested, correction=correction)
    if source.retention is not None and source.kind == "stream":
        _expire(scope, block, progress)
    return outcome


def _judging(scope: EpochScope, source: SourceDecl) -> Judging:
    keys = {s.source.name: s.source.key for s in scope.plan.sources}
    return Judging(
        source.name in scope.guarded, scope.columns.get(source.name), scope.threads, keys, scope.versions, scope.given
    )


def _take_offsets(given: SourceInput, progress: SourceProgress) -> None:
    seen_before = bool(progress.partitions)
    for partition, (start, upto) in given.offsets.items():
        if partition not in progress.partitions:
            # A partition that appears later must not meet closed windows.
            floor = progress.watermark_us if seen_before else None
            progress.partitions[partition] = PartitionProgress(floor_us=floor, first_offset=start)
        progress.partitions[partition].next_offset = upto


def _count(progress: SourceProgress, ingested: Ingested) -> None:
    counts = progress.counts
    counts.rows += ingested.rows
    counts.accepted += ingested.accepted
    counts.duplicate += ingested.duplicate
    counts.dead += len(ingested.letters)
    counts.unknown_fields += ingested.unknown_fields


# -- streams -----------------------------------------------------------------------------------------------------------


def _run_stream(
    scope: EpochScope,
    node: Node,
    block: SourceBlock,
    decoder: Decoder,
    given: SourceInput,
    progress: SourceProgress,
    ingested: Ingested,
    *,
    correction: bool,
) -> None:
    source, relation = block.source, block.relation
    late = not correction and may_be_late(scope.statements.reader, scope.plan, source, progress, ingested)
    if late:
        scope.late |= {source.name}
    if late or source.unique:
        _place(scope, source, progress, ingested)
    if source.unique:
        drop_duplicates(scope.connection, block, ingested, decoder, given.batches)
    if not ingested.accepted:
        return
    watermark = "_ps_wm" if late or (source.unique and not correction) else "NULL::TIMESTAMP AS _ps_wm"
    read = scope.columns.get(source.name)
    columns = column_list([c for c in relation.columns if read is None or c in read])
    comma = ", " if columns else ""
    sql = f"(SELECT {columns}{comma}_ps_p, _ps_o, {watermark} FROM {ingested.relation})"
    weighted = not relation.append_only
    if weighted:
        sql = f'(SELECT *, 1 AS "_ps_w" FROM {sql})'
    scope.deltas[source.name] = Delta(sql, weighted, ingested.accepted)
    if node.content == "table":
        apply_multiset(scope, relation, Delta(sql, False, ingested.accepted), table(f"t_{source.name}"))


def may_be_late(
    connection: duckdb.DuckDBPyConnection, plan: Plan, source: SourceDecl, progress: SourceProgress, ingested: Ingested
) -> bool:
    """Whether any row of the epoch can be late for any block: judged by the watermarks at its end, on the safe side."""
    if source.watermark is None or ingested.smallest_us is None:
        return False
    delay = _us(source.watermark)
    ends = [w for p in progress.partitions.values() if (w := p.watermark_us(delay)) is not None]
    ends += [largest - delay for largest in ingested.largest_us.values()]
    highest = max(ends, default=None)
    if highest is None or ingested.smallest_us >= highest:
        return False
    tests = [
        f"({late.end_of_event} <= make_timestamp({highest}))" for late in plan.late_rules if late.stream == source.name
    ]
    if not tests:
        return False
    row = first_row(
        connection.execute(
            f"SELECT {' OR '.join(tests)} FROM (SELECT make_timestamp({ingested.smallest_us}) AS _ps_event)"
        )
    )
    return bool(row and row[0])


def _place(scope: EpochScope, source: SourceDecl, progress: SourceProgress, ingested: Ingested) -> None:
    """Give each row `_ps_wm`, the watermark of its partition before it (semantics T1).

    Only rows at or behind their watermark can be late, so only these (and all, where duplicates are told by it) get
    one; the others keep NULL. The running maximum is taken in numpy: a window function would sort the epoch.
    """
    if source.watermark is None:
        ingested.relation = f"(SELECT *, NULL::TIMESTAMP AS _ps_wm FROM {ingested.relation})"
        return
    name = f"_ps_w_{source.name}"
    scope.statements.give("_ps_marks", _watermarks(scope, source, progress, ingested))
    scope.temporary(name, "SELECT * FROM _ps_marks")
    scope.statements.take("_ps_marks")
    # A subquery, not a copy: whoever reads it reads the columns that it needs.
    ingested.relation = (
        f"(SELECT a.*, m.wm AS _ps_wm FROM {ingested.relation} AS a "
        f"LEFT JOIN {quote(name)} AS m ON a._ps_o = m.o AND a._ps_p = m.p)"
    )


def _watermarks(scope: EpochScope, source: SourceDecl, progress: SourceProgress, ingested: Ingested) -> pa.Table:
    """Partition, offset and watermark of the rows that need one."""
    assert source.watermark is not None
    delay = _us(source.watermark)
    rows = scope.statements.reader.execute(
        f"SELECT _ps_p, _ps_o, epoch_us(_ps_at) AS at FROM {ingested.relation} WHERE _ps_at IS NOT NULL"
    ).fetchnumpy()
    partitions, offsets, times = (np.asarray(rows[name], dtype=np.int64) for name in ("_ps_p", "_ps_o", "at"))
    marks = np.full(len(times), _NO_WATERMARK, dtype=np.int64)
    for partition in np.unique(partitions):
        stood = progress.partitions.get(int(partition))
        start = stood.watermark_us(delay) if stood is not None else None
        mine = np.flatnonzero(partitions == partition)
        mine = mine[np.argsort(offsets[mine], kind="stable")]
        earlier = np.maximum.accumulate(times[mine]) - delay
        marks[mine[1:]] = earlier[:-1]
        if start is not None:
            marks[mine] = np.maximum(marks[mine], start)
    needed = marks > _NO_WATERMARK if source.unique else (marks > _NO_WATERMARK) & (times < marks)
    wm = pa.array(marks[needed]).cast(pa.timestamp("us"))
    return pa.table({"p": partitions[needed], "o": offsets[needed], "wm": wm})


def _move_watermark(
    source: SourceDecl, given: SourceInput, progress: SourceProgress, ingested: Ingested | None, *, correction: bool
) -> None:
    if source.event_time is None or source.watermark is None or correction:
        return
    for partition, largest in (ingested.largest_us if ingested else {}).items():
        moved = progress.partitions.setdefault(partition, PartitionProgress())
        moved.largest_us = max(moved.largest_us, largest) if moved.largest_us is not None else largest
    if given.advance_us is not None:
        for moved in progress.partitions.values():
            moved.floor_us = max(moved.floor_us or given.advance_us, given.advance_us)
    delay = _us(source.watermark)
    active = [p.watermark_us(delay) for n, p in progress.partitions.items() if n not in progress.idle]
    known = [w for w in active if w is not None]
    if known and len(known) == len(active):
        lowest = min(known)
        progress.watermark_us = lowest if progress.watermark_us is None else max(progress.watermark_us, lowest)


def take_idle(source: SourceDecl, idle: tuple[int, ...], progress: SourceProgress) -> None:
    """Partitions that wake start from the global watermark as their floor (semantics T1)."""
    for partition in progress.idle:
        if partition not in idle and progress.watermark_us is not None and partition in progress.partitions:
            woken = progress.partitions[partition]
            woken.floor_us = max(woken.floor_us or progress.watermark_us, progress.watermark_us)
    progress.idle = idle


def _expire(scope: EpochScope, block: SourceBlock, progress: SourceProgress) -> None:
    """Rows older than the retention leave as deletes (semantics R4)."""
    source, relation = block.source, block.relation
    if progress.watermark_us is None or source.retention is None:
        return
    cutoff = from_us(progress.watermark_us - _us(source.retention))
    stored = table(f"t_{source.name}")
    name = f"_ps_e_{source.name}"
    old = scope.temporary(name, f"SELECT * FROM {stored} WHERE {relation.event} < {cutoff}")
    if not old:
        return
    scope.connection.execute(f"DELETE FROM {stored} WHERE {relation.event} < {cutoff}")
    gone = f'SELECT *, -1 AS "_ps_w" FROM {quote(name)}'
    current = scope.deltas.get(source.name)
    sql = f"(SELECT * FROM {current.sql} UNION ALL {gone})" if current else f"({gone})"
    scope.deltas[source.name] = Delta(sql, True, (current.rows if current else 0) + old)


# -- tables ------------------------------------------------------------------------------------------------------------


def _run_keyed(
    scope: EpochScope, block: SourceBlock, progress: SourceProgress, ingested: Ingested, outcome: Outcome
) -> None:
    if not ingested.accepted:
        return
    source, relation = block.source, block.relation
    stored = table(f"t_{source.name}")
    moved = f"_ps_m_{source.name}"
    read = scope.reads.get(source.name)
    columns = [c for c in relation.columns if read is None or c in read]
    if not _move_keys(scope, block, columns, progress, ingested):
        return
    if source.version is None and len(progress.partitions) > 1:
        _alert_wandering_keys(scope, block, moved, outcome)
    rows = scope.temporary(f"_ps_d_{source.name}", keyed.delta_sql(columns, quote(moved)))
    _forget_rows(scope, stored, moved)
    scope.statements.write(keyed.insert_sql(relation, stored, quote(moved)))
    if rows:
        scope.deltas[source.name] = Delta(quote(f"_ps_d_{source.name}"), True, rows)


def _move_keys(
    scope: EpochScope, block: SourceBlock, columns: Sequence[str], progress: SourceProgress, ingested: Ingested
) -> int:
    """Leave a wide row for each key that moves; how many. columns: those that are read."""
    source, relation = block.source, block.relation
    stored, moved = table(f"t_{source.name}"), f"_ps_m_{source.name}"
    newest, found = f"_ps_n_{source.name}", f"_ps_f_{source.name}"
    if scope.statements.in_parts:
        # What reads the table stands alone, so that the rest is kept.
        one = ingested.relation
        if not _once_each(scope, source):
            scope.temporary(newest, keyed.newest_sql(source, ingested.relation))
            one = quote(newest)
        key = _one_key(scope, source)
        if key is not None and unchanged(tuple(f.type for f in relation.fields)):
            # A text that comes once is not to be remembered.
            sql = keyed.stored_row_sql(source, relation, columns, key, stored)
            scope.statements.give(found, ArrowResult(scope.connection, sql).table())
        else:
            by = _telling_key(scope, source, progress)
            scope.temporary(found, keyed.stored_sql(source, relation, columns, one, stored, by))
        return scope.temporary(moved, keyed.moved_sql(source, relation, columns, one, quote(found)))
    scope.temporary(newest, keyed.newest_sql(source, ingested.relation))
    looked_up = f"({keyed.stored_sql(source, relation, columns, quote(newest), stored, by='')})"
    return scope.temporary(moved, keyed.moved_sql(source, relation, columns, quote(newest), looked_up))


def _one_key(scope: EpochScope, source: SourceDecl) -> dict[str, str] | None:
    """The key's values in SQL, where there is one record and they are integers or texts."""
    rows = scope.statements.held(judged_name(source.name))
    if rows is None or len(rows) != 1:
        return None
    values = {name: rows.column(name)[0].as_py() for name in source.key}
    if not all(type(value) in (int, str) for value in values.values()):
        return None
    return {name: literal(value) if isinstance(value, str) else str(value) for name, value in values.items()}


# A stored row is compared with at most so many records for each key column that it shares with them.
_MOST_ALIKE = 8


def _telling_key(scope: EpochScope, source: SourceDecl, progress: SourceProgress) -> str:
    """The column of a key of several by which the stored rows are found: the one with the most values in the table,
    where few of the epoch's records have the same; else empty."""
    rows = scope.statements.held(judged_name(source.name))
    if rows is None or len(source.key) < 2:
        return ""
    most = _most_values(scope, source, progress)
    alike = compute.value_counts(rows.column(most)).field("counts")
    return most if compute.max(alike).as_py() <= _MOST_ALIKE else ""


def _most_values(scope: EpochScope, source: SourceDecl, progress: SourceProgress) -> str:
    """As DuckDB estimates, whenever twice as many records have been accepted."""
    told = "regexp_extract(stats({0})::VARCHAR, '(?i)approx.unique\\D*(\\d+)', 1)"
    estimates = ", ".join(f"TRY_CAST({told.format(quote(c))} AS BIGINT) AS {quote(c)}" for c in source.key)
    sql = f"SELECT {estimates} FROM {table(f't_{source.name}')} LIMIT 1"
    scope.statements.keep(f"_ps_v_{source.name}", sql, progress.counts.accepted.bit_length())
    found = scope.statements.held(f"_ps_v_{source.name}")
    (values,) = found.to_pylist() if found is not None and len(found) else ({},)
    return max(source.key, key=lambda name: values.get(name) or 0)


# So many row ids are better named than joined.
_FEW_ROWS = 16


def _forget_rows(scope: EpochScope, stored: str, moved: str) -> None:
    """Delete the stored rows of the keys that move."""
    rows = scope.statements.held(moved)
    found = rows.column("_ps_row").drop_null() if rows is not None else None
    if found is None or len(found) > _FEW_ROWS:
        scope.statements.write(keyed.delete_sql(stored, quote(moved)))
    elif len(found):
        scope.connection.execute(keyed.delete_sql(stored, quote(moved), found.to_pylist())).fetchall()


def _once_each(scope: EpochScope, source: SourceDecl) -> bool:
    """Whether it is seen at a glance that no key comes twice in the epoch."""
    rows = scope.statements.held(judged_name(source.name))
    if rows is None or len(rows) <= 1:
        return rows is not None
    # 0.0 and -0.0 are one key, but not to Arrow
    floating = any(pa.types.is_floating(rows.schema.field(name).type) for name in source.key)
    return not floating and len(rows.group_by(list(source.key)).aggregate([])) == len(rows)


def _alert_wandering_keys(scope: EpochScope, block: SourceBlock, moved: str, outcome: Outcome) -> None:
    row = first_row(
        scope.connection.execute(
            f"SELECT count(*) FROM {quote(moved)} WHERE _ps_from IS NOT NULL AND _ps_from <> _ps_p"
        )
    )
    if row and row[0]:
        outcome.alerts.append(
            f"{block.source.name}: {row[0]} keys came in two partitions; without a version their order is not defined"
        )


def _run_multiset(scope: EpochScope, block: SourceBlock, given: SourceInput, ingested: Ingested) -> None:
    source, relation = block.source, block.relation
    stored = table(f"t_{source.name}")
    loose = [Field(f.name, f.type) for f in relation.fields]
    columns = column_list(relation.columns)
    sign = "CASE WHEN _ps_op IN ('+I', '+U') THEN 1 ELSE -1 END"
    name = f"_ps_b_{source.name}"
    over = f"PARTITION BY {column_list(relation.columns, 'a')} ORDER BY a._ps_p, a._ps_o"
    balance = (
        f"SELECT a.*, {sign} AS _ps_sign, coalesce(s._ps_n, 0) + sum({sign}) OVER ({over}) AS _ps_balance "
        f"FROM {ingested.relation} AS a LEFT JOIN (SELECT {columns}, count(*) AS _ps_n FROM {stored} GROUP BY ALL) "
        f"AS s "
        f"ON {same('s', 'a', loose)}"
    )
    lowest = (
        f"min(_ps_balance) OVER (PARTITION BY {columns} ORDER BY _ps_p, _ps_o "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    )
    # A delete is void iff it takes the balance to a new low below zero.
    scope.temporary(
        name,
        f"SELECT *, (_ps_sign < 0 AND _ps_balance < least(0, coalesce(_ps_low, 0))) AS _ps_void "
        f"FROM (SELECT *, {lowest} AS _ps_low FROM ({balance}))",
    )
    void = scope.connection.execute(f"SELECT _ps_p, _ps_o FROM {quote(name)} WHERE _ps_void ORDER BY ALL").fetchall()
    for (partition, offset), record in zip(void, find_records(given.batches, void), strict=True):
        verdict = Verdict("delete_without_row", "", "", f"{source.name} holds no such row to delete")
        ingested.letters.append(Letter(partition, offset, record.time, record.key, record.value, verdict))
        ingested.accepted -= 1
    net = (
        f'SELECT {columns}, sum(_ps_sign)::INTEGER AS "_ps_w" FROM {quote(name)} WHERE NOT _ps_void GROUP BY {columns} '
        f"HAVING sum(_ps_sign) <> 0"
    )
    single = (
        f'SELECT {columns}, sign("_ps_w")::INTEGER AS "_ps_w" '
        f'FROM (SELECT *, unnest(range(abs("_ps_w"))) AS _ps_copy FROM ({net}))'
    )
    rows = scope.temporary(f"_ps_d_{source.name}", single)
    if rows:
        scope.deltas[source.name] = Delta(quote(f"_ps_d_{source.name}"), True, rows)
        apply_multiset(scope, relation, scope.deltas[source.name], stored)


# -- references --------------------------------------------------------------------------------------------------------


def _run_reference(
    scope: EpochScope,
    block: SourceBlock,
    decoder: Decoder,
    given: SourceInput,
    progress: SourceProgress,
    outcome: Outcome,
) -> None:
    source, relation = block.source, block.relation
    rows = sum(b.rows for b in given.batches)
    problem = ""
    if rows:
        ingested = ingest(scope.statements, block, decoder, given, _judging(scope, source))
        outcome.letters = ingested.letters
        if ingested.letters:
            problem = f"{len(ingested.letters)} of its {rows} rows break the contract"
        elif source.key and (double := _repeated_key(scope, source)):
            problem = f"the key {double} is there twice"
    elif not source.allow_empty:
        problem = "it is empty (allow_empty=True accepts that)"
    if problem:
        progress.counts.rows += len(outcome.letters)
        progress.counts.dead += len(outcome.letters)
        kept = f"version {progress.version} stays" if progress.version else "there is no version yet"
        outcome.alerts.append(f"reference {source.name}: version {given.version} is refused, {problem}; {kept}")
        return
    progress.version = given.version
    progress.counts.rows += rows
    progress.counts.accepted += rows
    scope.versions[source.name] = version_of(progress)
    columns = column_list(relation.columns)
    stored, name = table(f"t_{source.name}"), f"_ps_d_{source.name}"
    new = (
        f"SELECT {columns} FROM {quote(judged_name(source.name))}"
        if rows
        else f"SELECT {columns} FROM {stored} WHERE FALSE"
    )
    moved = scope.temporary(
        name,
        f'SELECT *, -1 AS "_ps_w" FROM (SELECT {columns} FROM {stored} EXCEPT ALL {new}) '
        f'UNION ALL SELECT *, 1 AS "_ps_w" FROM ({new} EXCEPT ALL SELECT {columns} FROM {stored})',
    )
    if moved:
        scope.deltas[source.name] = Delta(quote(name), True, moved)
        apply_multiset(scope, relation, scope.deltas[source.name], stored)


def version_of(progress: SourceProgress) -> object:
    """Something that changes with the content of a reference."""
    return progress.version, progress.counts.accepted


def _repeated_key(scope: EpochScope, source: SourceDecl) -> str:
    keys = column_list(source.key)
    row = first_row(
        scope.connection.execute(
            f"SELECT {keys} FROM {quote(judged_name(source.name))} GROUP BY {keys} HAVING count(*) > 1 ORDER BY ALL "
            f"LIMIT 1"
        )
    )
    return ", ".join(map(str, row)) if row else ""


def _us(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1_000_000)

"""From records to a source's delta: parse, judge, deduplicate, place against the watermark.

One vectorised statement per source parses and judges all records of an epoch; only the broken ones are looked at one by
one. Verdicts are pure (semantics R3): they depend on the record, its append time and the journaled versions of
references.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa

from penstock.connectors.base import Batch, TypedBatch
from penstock.contract.schema import Verdict
from penstock.engines.base import SourceInput
from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.statements import Statements
from penstock.engines.duckdb.statistics import statistics
from penstock.formats.decode import Decoder
from penstock.observe.timing import part
from penstock.pipeline import SourceDecl
from penstock.plan.blocks import SourceBlock, column_list, quote


@dataclass
class Ingested:
    """What a source's records came to. relation: the SQL of the accepted ones; letters: the broken ones."""

    relation: str
    rows: int
    accepted: int
    duplicate: int = 0
    unknown_fields: int = 0
    letters: list[Letter] = field(default_factory=list)
    largest_us: dict[int, int] = field(default_factory=dict)
    smallest_us: int | None = None


@dataclass(frozen=True)
class Judging:
    """How a source is judged. guarded: no record can make the statement fail. columns: those that are read later (None:
    all). threads: of the database. keys, versions: the key of each reference, and something that changes with it."""

    guarded: bool
    columns: frozenset[str] | None
    threads: int
    keys: Mapping[str, tuple[str, ...]]
    versions: Mapping[str, object]


@dataclass(frozen=True)
class Letter:
    """A broken record with its verdict."""

    partition: int
    offset: int
    append_time: datetime | None
    key: bytes | None
    value: bytes | None
    verdict: Verdict


# After a malformed record a source is parsed with the slower, guarded statement for so many epochs.
GUARDED_EPOCHS = 200


class MalformedRecords(Exception):
    """The fast parse of a source met a record that it cannot read, which has aborted the transaction."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(source)


def raw_name(source: str) -> str:
    return f"_ps_raw_{source}"


def judged_name(source: str) -> str:
    return f"_ps_i_{source}"


def ingest(
    statements: Statements,
    block: SourceBlock,
    decoder: Decoder,
    given: SourceInput,
    judging: Judging,
) -> Ingested:
    """Judge all records of one source in one epoch. Leaves the temporary table `judged_name`.

    Raises:
        MalformedRecords: not `judging.guarded`, and a record cannot be parsed; the transaction is lost.
    """
    source = block.source
    batches = [b for b in given.batches if b.rows]
    judged = quote(judged_name(source.name))
    _judge(statements, source, decoder, batches, judging)
    found = statistics(statements, judged_name(source.name))
    rows = sum(s.rows for s in found)
    accepted = sum(s.accepted for s in found)
    result = Ingested(
        f"(SELECT * FROM {judged} WHERE _ps_ok)" if accepted < rows else judged,
        rows,
        accepted,
        unknown_fields=sum(s.unknown_fields for s in found),
        largest_us={s.partition: s.largest_us for s in found if s.largest_us is not None},
        smallest_us=min((s.smallest_us for s in found if s.smallest_us is not None), default=None),
    )
    if accepted < rows:
        result.letters = _letters(statements.connection, source, decoder, batches)
    return result


# Above so many rows the optimizer's guess costs more than it saves: it takes what Python registers for one row.
_MANY_ROWS = 10_000
_REORDERING = "join_order,build_side_probe_side"


def _judge(
    statements: Statements,
    source: SourceDecl,
    decoder: Decoder,
    batches: Sequence[Batch],
    judging: Judging,
) -> None:
    foreign = {name for key in source.schema.foreign_keys for name in key.columns}
    needed = judging.columns | foreign if judging.columns is not None else None
    select, given = _select(statements, source, decoder, batches, judging, needed)
    connection = statements.connection
    many = sum(batch.rows for batch in batches) > _MANY_ROWS
    if many:
        connection.execute(f"SET disabled_optimizers = '{_REORDERING}'")
    try:
        statements.store(judged_name(source.name), _judged_sql(statements, source, select, judging, needed))
    except duckdb.Error as problem:
        if judging.guarded:
            raise
        raise MalformedRecords(source.name) from problem
    # Only here: an aborted transaction refuses both, and the next attempt comes by here.
    if many:
        connection.execute("RESET disabled_optimizers")
    for name in given:
        statements.take(name)


def _select(
    statements: Statements,
    source: SourceDecl,
    decoder: Decoder,
    batches: Sequence[Batch],
    judging: Judging,
    needed: frozenset[str] | None,
) -> tuple[str, list[str]]:
    """The SELECT that judges the batches, and the relations given for it.

    The compiled kernel goes first, where it is loaded; the records that it doubts are few and judged guarded at once.
    """
    raw, proven = raw_name(source.name), f"_ps_proven_{source.name}"
    with part("parse"):
        split = decoder.prove(batches, columns=needed, threads=judging.threads)
    if split is None:
        statements.give(raw, decoder.stage(batches))
        return decoder.select(quote(raw), guarded=judging.guarded, columns=needed), [raw]
    parts, given = [], []
    if split.proven.num_rows or not split.doubtful:
        statements.give(proven, split.proven)
        given.append(proven)
        parts.append(decoder.select_proven(quote(proven), guarded=judging.guarded, columns=needed))
    if split.doubtful:
        statements.give(raw, decoder.stage(split.doubtful))
        given.append(raw)
        parts.append(decoder.select(quote(raw), guarded=True, columns=needed))
    return " UNION ALL ".join(parts), given


def _judged_sql(
    statements: Statements, source: SourceDecl, select: str, judging: Judging, needed: frozenset[str] | None
) -> str:
    # what only the judging reads is not kept
    spare = ["_ps_t"] if source.kind == "table" else ["_ps_t", "_ps_op"]
    keys = source.schema.foreign_keys
    if not keys:
        return f"SELECT * EXCLUDE ({column_list(spare)}) FROM ({select})"
    joins, conditions, flags = [], [], []
    for number, key in enumerate(keys):
        alias = f"r{number}"
        theirs_all = column_list(key.reference_columns)
        matches = " AND ".join(
            f"v.{quote(mine)} = {alias}.{quote(theirs)}"
            for mine, theirs in zip(key.columns, key.reference_columns, strict=True)
        )
        its_key = judging.keys.get(key.reference, ())
        distinct = "" if its_key and set(its_key) <= set(key.reference_columns) else "DISTINCT "
        rows = f"SELECT {distinct}{theirs_all}, TRUE AS _ps_hit FROM {quote(key.reference)}"
        known = statements.keep(f"_ps_k{number}_{source.name}", rows, judging.versions[key.reference])
        joins.append(f"LEFT JOIN {known} AS {alias} ON {matches}")
        nulls = " OR ".join(f"v.{quote(c)} IS NULL" for c in key.columns)
        found = f"({alias}._ps_hit IS NOT NULL OR {nulls})"
        conditions.append(found)
        flags.append(f"{found} AS _ps_fk{number}")
    unread = sorted((needed or frozenset()) - (judging.columns or frozenset()))
    left_out = column_list(["_ps_ok", *spare, *unread])
    return (
        f"SELECT v.* EXCLUDE ({left_out}), v._ps_ok AS _ps_valid, "
        f"{', '.join(flags)}, (v._ps_ok AND {' AND '.join(conditions)}) AS _ps_ok FROM ({select}) AS v "
        f"{' '.join(joins)}"
    )


def judge_again(
    connection: duckdb.DuckDBPyConnection,
    source: SourceDecl,
    decoder: Decoder,
    batches: Sequence[Batch],
    positions: Mapping[int, Sequence[int]],
) -> str:
    """The records at the positions (partition -> offsets) with all their columns, as a temporary table; its name."""
    name = quote(f"_ps_whole_{source.name}")
    raw = f"_ps_again_{source.name}"
    wanted = [b for b in (_rows_at(b, positions.get(b.partition, ())) for b in batches if b.rows) if b.rows]
    connection.register(raw, decoder.stage(wanted))
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {decoder.select(quote(raw), guarded=True)}")
    connection.unregister(raw)
    return name


def _rows_at(batch: Batch, offsets: Sequence[int]) -> Batch:
    rows = pa.array(np.flatnonzero(np.isin(batch.offsets.to_numpy(), np.asarray(offsets, dtype=np.int64))))
    times = batch.times.take(rows) if batch.times is not None else None
    taken = batch.offsets.take(rows)
    if isinstance(batch, TypedBatch):
        return replace(batch, table=batch.table.take(rows), offsets=taken, times=times)
    keys = batch.keys.take(rows) if batch.keys is not None else None
    return replace(batch, values=batch.values.take(rows), offsets=taken, times=times, keys=keys)


def _letters(
    connection: duckdb.DuckDBPyConnection, source: SourceDecl, decoder: Decoder, batches: Sequence[Batch]
) -> list[Letter]:
    keys = source.schema.foreign_keys
    flags = "".join(f", _ps_fk{n}" for n in range(len(keys)))
    valid = "_ps_valid" if keys else "FALSE"
    broken = connection.execute(
        f"SELECT _ps_p, _ps_o, {valid}{flags} FROM {quote(judged_name(source.name))} WHERE NOT _ps_ok ORDER BY 1, 2"
    ).fetchall()
    finder = RecordFinder(batches)
    found = [(partition, offset, flags, finder.find(partition, offset)) for partition, offset, *flags in broken]
    plain = [record for _, _, (valid, *_), record in found if not valid and record.columns is None]
    diagnosed = iter(decoder.diagnose_all([(r.value, r.key, r.time, r.header) for r in plain]))
    letters = []
    for partition, offset, (is_valid, *hits), record in found:
        verdict: Verdict | None
        if is_valid:
            verdict = _missing_reference(source, hits, record.value, record.columns)
        elif record.columns is not None:
            verdict = decoder.diagnose_row(record.columns, record.time)
        else:
            verdict = next(diagnosed)
        if verdict is None:
            verdict = Verdict("unexplained", "", "", "the vectorised check refuses the record, the slow one does not")
        letters.append(Letter(partition, offset, record.time, record.key, record.value, verdict))
    return letters


def _missing_reference(
    source: SourceDecl, found: Sequence[bool], value: bytes | None, columns: dict[str, object] | None
) -> Verdict:
    key = next(k for k, hit in zip(source.schema.foreign_keys, found, strict=True) if not hit)
    record = columns if columns is not None else _as_object(value)
    got = ", ".join(str(record.get(c)) for c in key.columns)
    return Verdict(
        "references",
        ", ".join(key.columns),
        got,
        f"({', '.join(key.columns)}) is not in {key.reference}({', '.join(key.reference_columns)})",
    )


def _as_object(value: bytes | None) -> dict[str, object]:
    try:
        parsed = json.loads(value or b"{}")
    except ValueError:
        return {}
    for envelope in ("after", "before"):
        if isinstance(parsed, dict) and isinstance(parsed.get(envelope), dict):
            return dict(parsed[envelope])
    return parsed if isinstance(parsed, dict) else {}


@dataclass(frozen=True)
class FoundRecord:
    """One record as it came. header: of a CSV file; columns: of a typed record."""

    value: bytes | None
    key: bytes | None
    time: datetime | None
    header: tuple[str, ...] = ()
    columns: dict[str, object] | None = None


class RecordFinder:
    """Records by position, for the few that are looked at one by one."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = [
            (b, np.asarray(b.offsets.combine_chunks() if isinstance(b.offsets, pa.ChunkedArray) else b.offsets))
            for b in batches
        ]

    def find(self, partition: int, offset: int) -> FoundRecord:
        """The record there."""
        for batch, offsets in self._batches:
            if batch.partition != partition or not len(offsets) or not offsets[0] <= offset <= offsets[-1]:
                continue
            index = int(np.searchsorted(offsets, offset))
            if offsets[index] != offset:
                continue
            time = batch.times[index].as_py() if batch.times is not None else None
            if isinstance(batch, TypedBatch):
                columns = batch.table.slice(index, 1).to_pylist()[0]
                return FoundRecord(json.dumps(columns, default=str).encode(), None, time, (), columns)
            key = batch.keys[index].as_py() if batch.keys is not None else None
            return FoundRecord(batch.values[index].as_py(), key, time, batch.header)
        raise KeyError((partition, offset))


# -- duplicates --------------------------------------------------------------------------------------------------------


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
    finder = RecordFinder(batches)
    for partition, offset, verdict, got in rejected:
        ingested.accepted -= 1
        if verdict == "duplicate":
            ingested.duplicate += 1
            continue
        record = finder.find(partition, offset)
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

"""From records to a source's delta: parse, judge, deduplicate, place against the watermark.

One vectorised statement per source parses and judges all records of an epoch; only the broken ones are looked at one by
one, and a few that are not (formats/few_records.py). Verdicts are pure (semantics R3): they depend on the record, its
append time and the journaled versions of references.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import duckdb
import numpy as np
import pyarrow as pa

from penstock.connectors.base import Batch, TypedBatch
from penstock.contract.schema import ForeignKey
from penstock.engines.base import SourceInput
from penstock.engines.duckdb.broken import Aside, Letter, letters_of, refused_sql
from penstock.engines.duckdb.prepared import KEPT_ROWS
from penstock.engines.duckdb.statements import Statements
from penstock.engines.duckdb.statistics import statistics
from penstock.formats.compiled import Split
from penstock.formats.decode import Decoder
from penstock.formats.held_keys import MOST_ROWS, References
from penstock.observe.timing import part
from penstock.pipeline import SourceDecl
from penstock.plan.blocks import SourceBlock, column_list, quote


@dataclass
class Ingested:
    """What a source's records came to. relation: the SQL of the accepted ones; refused: queries for what `letters_of`
    asks of the others; letters: the broken ones."""

    relation: str
    rows: int
    accepted: int
    duplicate: int = 0
    unknown_fields: int = 0
    refused: tuple[str, ...] = ()
    letters: list[Letter] = field(default_factory=list)
    largest_us: dict[int, int] = field(default_factory=dict)
    smallest_us: int | None = None


@dataclass(frozen=True)
class Judging:
    """How a source is judged. guarded: no record can make the statement fail. columns: those that are read later (None:
    all). threads: of the database. keys, versions: the key of each reference, and something that changes with it.
    given: relations that are read until the epoch ends; added to here."""

    guarded: bool
    columns: frozenset[str] | None
    threads: int
    keys: Mapping[str, tuple[str, ...]]
    versions: Mapping[str, object]
    given: set[str]


# After a malformed record a source is parsed with the slower, guarded statement for so many epochs.
GUARDED_EPOCHS = 200


class MalformedRecords(Exception):
    """The fast parse of a source met a record that it cannot read, which has aborted the transaction."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__(source)


def raw_name(source: str) -> str:
    return f"_ps_raw_{source}"


def proven_name(source: str) -> str:
    return f"_ps_proven_{source}"


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
    if statements.in_parts and (few := decoder.few(batches, columns=judging.columns)) is not None:
        statements.give(judged_name(source.name), few)
        return _counted(statements, judged_name(source.name), refused="")
    references = _references(statements, source, judging)
    watching = None if statements.in_parts else Aside(source, decoder)
    with part("parse"):
        split = decoder.prove(
            batches,
            columns=judging.columns,
            threads=judging.threads,
            references=references,
            watch=watching.watch if watching is not None else None,
        )
    if statements.in_parts and split is not None:
        proven = decoder.proven(split, columns=judging.columns)
        if proven is not None:
            statements.give(judged_name(source.name), proven)
            return _counted(statements, judged_name(source.name), refused="")
    rows = sum(batch.rows for batch in batches)
    aside: list[Letter] = []
    if split is not None and split.doubtful and watching is not None:
        split, aside = watching.taken(split)
    with _many_rows(statements, rows):
        try:
            result = None
            if split is not None and not statements.in_parts:
                result = _in_place(statements, source, decoder, split, judging)
            if result is None:
                result = _stored(statements, source, decoder, split, batches, judging)
        except duckdb.Error as problem:
            if judging.guarded:
                raise
            raise MalformedRecords(source.name) from problem
    if result.refused:
        result.letters = letters_of(statements.connection, source, decoder, batches, " UNION ALL ".join(result.refused))
    if aside:
        result.rows += len(aside)
        result.letters = sorted([*result.letters, *aside], key=lambda letter: (letter.partition, letter.offset))
    return result


def _counted(statements: Statements, name: str, refused: str) -> Ingested:
    """refused: the query for the refused records of relation `name`."""
    found = statistics(statements, name)
    judged, rows, accepted = quote(name), sum(s.rows for s in found), sum(s.accepted for s in found)
    return Ingested(
        f"(SELECT * FROM {judged} WHERE _ps_ok)" if accepted < rows else judged,
        rows,
        accepted,
        unknown_fields=sum(s.unknown_fields for s in found),
        refused=(refused,) if accepted < rows else (),
        largest_us={s.partition: s.largest_us for s in found if s.largest_us is not None},
        smallest_us=min((s.smallest_us for s in found if s.smallest_us is not None), default=None),
    )


# Of proven rows that are read in place, one in so many may be refused.
_ONE_IN = 20

# Above so many rows the optimizer's guess costs more than it saves: it takes what Python registers for one row.
_MANY_ROWS = 10_000
_REORDERING = "join_order,build_side_probe_side"


@contextmanager
def _many_rows(statements: Statements, rows: int) -> Iterator[None]:
    if rows <= _MANY_ROWS:
        yield
        return
    statements.reader.execute(f"SET disabled_optimizers = '{_REORDERING}'")
    yield
    # Only here: an aborted transaction refuses it, and the next attempt comes by here.
    statements.reader.execute("RESET disabled_optimizers")


def _references(statements: Statements, source: SourceDecl, judging: Judging) -> References | None:
    """What the foreign keys of a source look into."""
    if not source.schema.foreign_keys:
        return None

    # A small epoch is not to wait for a large reference, which it can look into.
    most = KEPT_ROWS if statements.in_parts else MOST_ROWS

    def held(key: ForeignKey) -> pa.Table:
        columns = column_list(key.reference_columns)
        return statements.fetch(f"SELECT DISTINCT {columns} FROM {quote(key.reference)} LIMIT {most + 1}")

    return References(tuple(judging.versions[key.reference] for key in source.schema.foreign_keys), held, most)


def _in_place(
    statements: Statements, source: SourceDecl, decoder: Decoder, split: Split, judging: Judging
) -> Ingested | None:
    """Accepted rows where the kernel has left them: nothing is stored but the doubtful. None where that does not do.

    Each block that needs the rows reads them once more, so this is for columns that no reader has to parse. The checks
    that are left to SQL run once, when the rows are counted, if all of them turn out to be accepted. Where a few are
    refused, they run for each reader, which costs less than storing all the others.
    """
    plain = split.typed and (split.keyed or not source.schema.foreign_keys)
    if judging.columns is None or not plain or not split.proven.num_rows:
        return None
    name, kept = f"_ps_in_{source.name}", f"_ps_kept_{source.name}"
    statements.give(kept, split.proven)
    judging.given.add(kept)
    select = decoder.select_proven(quote(kept), guarded=judging.guarded, columns=judging.columns)
    statements.connection.execute(f"CREATE OR REPLACE TEMP VIEW {quote(name)} AS {select}")
    result = _counted(statements, name, refused_sql(source, name, keyed=True))
    if result.rows - result.accepted > result.rows // _ONE_IN:
        return None
    if not split.doubtful:
        return result
    doubtful = _stored(statements, source, decoder, replace(split, proven=split.proven.slice(0, 0)), (), judging)
    if doubtful.accepted:
        columns = column_list([*(n for n in source.schema.names if n in judging.columns), "_ps_p", "_ps_o", "_ps_at"])
        result.relation = (
            f"(SELECT {columns} FROM {result.relation} UNION ALL SELECT {columns} FROM {doubtful.relation})"
        )
    return _together(result, doubtful)


def _together(proven: Ingested, doubtful: Ingested) -> Ingested:
    """The counts of both, and the relation of the former."""
    marks = [*proven.largest_us.items(), *doubtful.largest_us.items()]
    firsts = [each.smallest_us for each in (proven, doubtful) if each.smallest_us is not None]
    return replace(
        proven,
        rows=proven.rows + doubtful.rows,
        accepted=proven.accepted + doubtful.accepted,
        unknown_fields=proven.unknown_fields + doubtful.unknown_fields,
        largest_us={partition: max(us for p, us in marks if p == partition) for partition, _ in marks},
        smallest_us=min(firsts, default=None),
        refused=(*proven.refused, *doubtful.refused),
    )


def _stored(
    statements: Statements,
    source: SourceDecl,
    decoder: Decoder,
    split: Split | None,
    batches: Sequence[Batch],
    judging: Judging,
) -> Ingested:
    """All records, judged, in the temporary relation `judged_name`."""
    foreign = {name for key in source.schema.foreign_keys for name in key.columns}
    needed = judging.columns | foreign if judging.columns is not None else None
    raw, proven = raw_name(source.name), proven_name(source.name)
    parts, given = [], []
    if split is None:
        statements.give(raw, decoder.stage(batches))
        given.append(raw)
        select = decoder.select(quote(raw), guarded=judging.guarded, columns=needed)
        parts.append(_judged_sql(statements, source, select, judging, needed))
    # The compiled kernel went first. The records that it doubts are few and judged guarded at once.
    elif split.proven.num_rows or not split.doubtful:
        statements.give(proven, split.proven)
        given.append(proven)
        columns = judging.columns if split.keyed else needed
        select = decoder.select_proven(quote(proven), guarded=judging.guarded, columns=columns)
        known = _known(source, select) if split.keyed else _judged_sql(statements, source, select, judging, needed)
        parts.append(known)
    few = decoder.few(split.doubtful, columns=needed) if split is not None and statements.in_parts else None
    if few:
        # Deletes are doubted, since they have no other fields than their key.
        statements.give(f"_ps_few_{source.name}", few)
        given.append(f"_ps_few_{source.name}")
        parts.append(f"SELECT * FROM {quote(given[-1])}")
    elif split is not None and split.doubtful:
        statements.give(raw, decoder.stage(split.doubtful))
        given.append(raw)
        select = decoder.select(quote(raw), guarded=True, columns=needed)
        parts.append(_judged_sql(statements, source, select, judging, needed))
    statements.store(judged_name(source.name), " UNION ALL ".join(parts))
    # Not after an error: an aborted transaction refuses it, and the next attempt comes by here.
    for name in given:
        statements.take(name)
    name = judged_name(source.name)
    return _counted(statements, name, refused_sql(source, name, keyed=False))


def _known(source: SourceDecl, select: str) -> str:
    """Judged rows of which the kernel has seen to all foreign keys."""
    flags = "".join(f", TRUE AS _ps_fk{number}" for number in range(len(source.schema.foreign_keys)))
    left_out = column_list(["_ps_ok", "_ps_t"] if source.kind == "table" else ["_ps_ok", "_ps_t", "_ps_op"])
    return f"SELECT * EXCLUDE ({left_out}), _ps_ok AS _ps_valid{flags}, _ps_ok FROM ({select})"


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

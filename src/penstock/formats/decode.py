"""Source records into typed columns with a verdict: staging (Arrow), the vectorised SELECT, and the slow diagnosis.

All formats are brought to JSON text and an operation, and judged by one statement (judge_sql). `select` and `diagnose`
agree on every record: `diagnose` is None exactly where `_ps_ok` is true. Verdicts depend on the record and its append
time alone (semantics R3).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import duckdb
import pyarrow as pa

from penstock.connectors.base import Batch, RawBatch, TypedBatch
from penstock.contract.schema import Schema, Verdict
from penstock.errors import ConnectorError
from penstock.formats.compiled import CompiledJudge, Split, Watch, loader
from penstock.formats.csvtext import csv_json
from penstock.formats.few_records import FewRecords
from penstock.formats.held_keys import References
from penstock.formats.jsontext import Object
from penstock.formats.judge_sql import (
    Judgement,
    clean,
    explain_select,
    explain_text_select,
    judge_select,
    named_columns,
    proven_columns,
    proven_select,
)
from penstock.formats.proven_rows import ProvenRows
from penstock.formats.rows import table_json
from penstock.formats.scratch import scratch
from penstock.formats.types_sql import children
from penstock.formats.verdict import Examined, Explained, Judge, parse_record

Opened = tuple[str, str | None, Object]
FORMATS = ("json", "csv", "changelog", "upsert", "debezium")


Record = tuple[bytes | None, bytes | None, datetime | None, tuple[str, ...]]
"""Value, key, append time, and the header of a CSV file."""


class Decoder(Protocol):
    """One source's format and contract."""

    def stage(self, batches: Sequence[Batch]) -> pa.Table:
        """The relation that `select` reads; the chunks of the batches stay chunks."""
        ...

    def select(self, raw: str, *, guarded: bool, columns: Collection[str] | None = None) -> str:
        """SQL over the staged relation `raw`, a row per record:

        `_ps_p` partition, `_ps_o` offset, `_ps_t` append time, `_ps_op` operation, the contract's columns, `_ps_at`
        event time (NULL: none), `_ps_extra` has unknown fields, `_ps_ok` (never NULL).
        Unguarded it is faster and much sooner planned, but one record that is malformed, or valid in a way that takes a
        closer look (escapes, white space, unknown fields), makes the whole statement fail: run it again guarded.
        With `columns`, only these of the contract are in the output; the checks cover all.
        """
        ...

    def prove(
        self,
        batches: Sequence[Batch],
        *,
        columns: Collection[str] | None,
        threads: int,
        references: References | None = None,
        watch: Watch | None = None,
    ) -> Split | None:
        """What the compiled kernel makes of the batches; None where it cannot read them, or is not loaded (yet).

        With `references` it sees to the foreign keys as well, if it can (`Split.keyed`); if not, their columns are
        given too. watch: hears of its doubts while it reads on.
        """
        ...

    def few(self, batches: Sequence[Batch], *, columns: Collection[str] | None) -> pa.Table | None:
        """A few records as judged rows, without a statement; None where they are too many, or one may be broken."""
        ...

    def proven(self, split: Split, *, columns: Collection[str] | None) -> pa.Table | None:
        """What the kernel has proven as judged rows, without a statement; None where more is to be looked at."""
        ...

    def select_proven(self, proven: str, *, guarded: bool, columns: Collection[str] | None = None) -> str:
        """The relation of `select`, over a relation that holds `Split.proven` of the same columns."""
        ...

    def diagnose(
        self, value: bytes | None, key: bytes | None, append_time: datetime | None, header: tuple[str, ...] = ()
    ) -> Verdict | None:
        """Why the record is dead, None if it is not."""
        ...

    def diagnose_all(self, records: Sequence[Record]) -> list[Verdict | None]:
        """`diagnose` for each of many records, with one question to the database for all."""
        ...

    def diagnosis(self) -> Diagnosis:
        """The same for records that come one after the other."""
        ...

    def diagnose_row(self, columns: dict[str, object], append_time: datetime | None) -> Verdict | None:
        """The same for a record that came as Arrow columns."""
        ...


def decoder_for(
    schema: Schema,
    format: str,
    *,
    event_time: str | None = None,
    max_ahead: timedelta = timedelta(hours=1),
    kind: str = "stream",
    key: tuple[str, ...] = (),
) -> Decoder:
    """The decoder of a source.

    Raises:
        ConnectorError: PS-CONN-008 when the format is unknown.
    """
    if format not in FORMATS:
        raise ConnectorError("PS-CONN-008", "the format is unknown", expected=", ".join(FORMATS), got=format)
    return RecordDecoder(Judgement(schema, kind, key, event_time, max_ahead), format)


class RecordDecoder:
    """The decoder of all text formats."""

    def __init__(self, judgement: Judgement, format: str) -> None:
        self._judgement = judgement
        self._judge_of = Judge(judgement)
        self._format = format
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._named = named_columns(judgement)
        self._plain = not any(children(column) for column in self._named)
        self._few = FewRecords(judgement, self.examine)
        self._proven = ProvenRows(judgement)
        self._given: dict[frozenset[str] | None, tuple[str, ...]] = {}
        self._compiled = CompiledJudge(judgement) if format == "json" and CompiledJudge.fits(judgement) else None

    def stage(self, batches: Sequence[Batch]) -> pa.Table:
        parts = [self._staged(batch) for batch in batches]
        return pa.concat_tables(parts) if parts else _STAGED.empty_table()

    def select(self, raw: str, *, guarded: bool, columns: Collection[str] | None = None) -> str:
        # the records that a format must first open are parsed once more on the way: nothing is saved unguarded
        guarded = guarded or self._format in ("upsert", "debezium")
        return judge_select(self._judgement, self._records(raw), guarded=guarded, columns=columns)

    def prove(
        self,
        batches: Sequence[Batch],
        *,
        columns: Collection[str] | None,
        threads: int,
        references: References | None = None,
        watch: Watch | None = None,
    ) -> Split | None:
        raw = [batch for batch in batches if isinstance(batch, RawBatch)]
        if self._compiled is None or len(raw) < len(batches):
            return None
        kernel = loader.kernel(sum(batch.rows for batch in raw))
        if kernel is None:
            return None
        held = self._compiled.hold(references) if references is not None else None
        if held is None and columns is not None:
            columns = {*columns, *(name for key in self._judgement.schema.foreign_keys for name in key.columns)}
        wanted = None if columns is None else frozenset(columns)
        if wanted not in self._given:
            self._given[wanted] = proven_columns(self._judgement, columns)
        return self._compiled.split(kernel, raw, self._given[wanted], threads, held, watch)

    def few(self, batches: Sequence[Batch], *, columns: Collection[str] | None) -> pa.Table | None:
        return self._few.rows(batches, columns)

    def proven(self, split: Split, *, columns: Collection[str] | None) -> pa.Table | None:
        return self._proven.rows(split, columns)

    def select_proven(self, proven: str, *, guarded: bool, columns: Collection[str] | None = None) -> str:
        return proven_select(self._judgement, proven, guarded=guarded, columns=columns)

    def diagnose(
        self, value: bytes | None, key: bytes | None, append_time: datetime | None, header: tuple[str, ...] = ()
    ) -> Verdict | None:
        return self.diagnose_all([(value, key, append_time, header)])[0]

    def diagnose_all(self, records: Sequence[Record]) -> list[Verdict | None]:
        diagnosis = self.diagnosis()
        for record in records:
            diagnosis.add(record)
        return diagnosis.verdicts()

    def diagnosis(self) -> Diagnosis:
        return Diagnosis(self)

    def look(self, record: Record) -> Question | Verdict:
        """What can be said of a record without the user's SQL."""
        value, key, append_time, header = record
        opened = self._record(value, key, header)
        if isinstance(opened, Verdict):
            return opened
        text, operation, fields = opened
        examined = self._judge_of.examine(fields, operation)
        return examined if isinstance(examined, Verdict) else Question(append_time, text, operation, examined)

    def answer(self, asked: Sequence[Question]) -> list[Verdict | None]:
        """What the user's SQL says of records in which nothing else is wrong."""
        if not self._judge_of.has_expressions:
            return [None] * len(asked)
        answers = zip(asked, self._answers(asked), strict=True)
        return [self._judge_of.explained(question.examined, question.text, answer) for question, answer in answers]

    def _answers(self, asked: Sequence[Question]) -> list[Explained]:
        """What the user's SQL says of each: of all at once, unless values are nested."""
        if self._plain:
            return self._explain([(question.append_time, question.examined.values) for question in asked])
        return [self._explain_text(each.text, each.operation, each.append_time) for each in asked]

    def examine(
        self, value: bytes | None, key: bytes | None = None, header: tuple[str, ...] = ()
    ) -> Examined | Verdict:
        """The record's operation and typed values, or why it is dead; row checks and event time are not looked at."""
        opened = self._record(value, key, header)
        if isinstance(opened, Verdict):
            return opened
        _, operation, record = opened
        return self._judge_of.examine(record, operation)

    def _record(self, value: bytes | None, key: bytes | None, header: tuple[str, ...]) -> Opened | Verdict:
        texts = [_decoded(value), _decoded(key)]
        if value is not None and texts[0] is None:
            return Verdict("encoding", "", repr(value[:50]), "the record is not UTF-8")
        text, operation, envelope = self._open(value, texts[0], texts[1], header)
        if envelope is not None:
            return envelope
        record = parse_record(text)
        if isinstance(record, Verdict):
            return record
        assert text is not None
        return text, operation, record

    def diagnose_row(self, columns: dict[str, object], append_time: datetime | None) -> Verdict | None:
        row = pa.Table.from_pylist([columns])
        text = table_json(row, self._judgement.schema, self._connected())[0].as_py()
        return self._as_json().diagnose(text.encode(), None, append_time)

    def _as_json(self) -> RecordDecoder:
        if self._format == "json":
            return self
        decoder = RecordDecoder(self._judgement, "json")
        decoder._connection = self._connected()
        return decoder

    @property
    def _updates(self) -> bool:
        return self._judgement.kind != "table" or bool(self._judgement.key)

    # -- staging -------------------------------------------------------------------------------------------------------

    def _staged(self, batch: Batch) -> pa.Table:
        rows = batch.rows
        if isinstance(batch, TypedBatch):
            values, keys = table_json(batch.table, self._judgement.schema), _nulls(rows, pa.string())
        else:
            values, keys = self._texts(batch), _nulls(rows, pa.string())
            if batch.keys is not None and self._format in ("upsert", "debezium"):
                keys = _utf8(batch.keys)
        partition = pa.chunked_array([pa.repeat(pa.scalar(batch.partition, pa.int32()), rows)])
        times = _nulls(rows, pa.timestamp("us")) if batch.times is None else _naive(batch.times)
        gone = batch.values.is_null() if isinstance(batch, RawBatch) else pa.repeat(pa.scalar(False), rows)
        gone = gone if isinstance(gone, pa.ChunkedArray) else pa.chunked_array([gone])
        return pa.Table.from_arrays([partition, _chunked(batch.offsets), times, values, keys, gone], schema=_STAGED)

    def _texts(self, batch: RawBatch) -> pa.ChunkedArray:
        texts = _utf8(batch.values)
        if self._format != "csv":
            return texts
        schema, header = self._judgement.schema, batch.header
        converted = [None if t is None else csv_json(t, schema, header) for t in texts.to_pylist()]
        return pa.chunked_array([pa.array(converted, pa.string())])

    def _records(self, raw: str) -> str:
        head = "SELECT _ps_p, _ps_o, _ps_t"
        if self._format == "upsert":
            gone = "_ps_gone AND _ps_key IS NOT NULL"
            value = f"CASE WHEN {gone} THEN _ps_key ELSE _ps_v END AS _ps_j"
            return f"({head}, {value}, CASE WHEN {gone} THEN '-D' END AS _ps_d FROM {raw})"
        if self._format == "debezium":
            return f"({_debezium(raw, self._updates)})"
        return f"({head}, _ps_v AS _ps_j, NULL::VARCHAR AS _ps_d FROM {raw})"

    # -- diagnosis -----------------------------------------------------------------------------------------------------

    def _open(
        self, value: bytes | None, text: str | None, key: str | None, header: tuple[str, ...]
    ) -> tuple[str | None, str | None, Verdict | None]:
        """The record's JSON text, its operation where the format says it, and a verdict on the envelope."""
        match self._format:
            case "csv":
                converted = csv_json(text, self._judgement.schema, header) if text is not None else None
                if converted is None and text is not None:
                    return None, None, Verdict("fields", "", text[:200], "the fields do not fit the header")
                return converted, None, None
            case "upsert" | "debezium" if value is None and key is not None:
                return key, "-D", None
            case "debezium":
                return self._open_envelope(text)
        return text, None, None

    def _open_envelope(self, text: str | None) -> tuple[str | None, str | None, Verdict | None]:
        outer = parse_record(text)
        if isinstance(outer, Verdict):
            return None, None, outer
        inner = outer.get("payload")
        envelope = inner if isinstance(inner, Object) else outer
        for level in (outer, envelope):
            repeated = level.repeated()
            if repeated is not None:
                return None, None, Verdict("duplicate_key", repeated, repeated, f"{repeated!r} occurs more than once")
        letter = envelope.get("op")
        operation = _LETTERS.get(letter) if isinstance(letter, str) else None
        if operation is None:
            return None, None, Verdict("op_not_allowed", "op", str(letter), "op must be c, r, u or d")
        if operation == "+U" and not self._updates:
            return None, None, Verdict("op_not_allowed", "op", "u", "a table without a key takes c, r and d")
        row = self._debezium_row(text)
        return row, operation, None

    def _debezium_row(self, text: str | None) -> str | None:
        staged = _one_row(text, None, gone=False)
        found = self._ask(f"SELECT _ps_j FROM ({_debezium('staged', self._updates)})", staged)[0][0]
        return None if found is None else str(found)

    def _explain(self, records: Sequence[tuple[datetime | None, tuple[object, ...]]]) -> list[Explained]:
        if not records:
            return []
        named = [(place, each) for place, each in enumerate(self._judgement.schema.columns) if each in self._named]
        given = [
            (moment.replace(tzinfo=None) if moment is not None else None, [(c, values[place]) for place, c in named])
            for moment, values in records
        ]
        return [_explained(row) for row in self._ask(explain_select(self._judgement, given), None)]

    def _explain_text(self, text: str, operation: str | None, append_time: datetime | None) -> Explained:
        staged = _one_row(text, append_time, gone=False)
        given = "NULL::VARCHAR" if operation is None else f"'{operation}'"
        records = f"(SELECT _ps_p, _ps_o, _ps_t, _ps_v AS _ps_j, {given} AS _ps_d FROM staged)"
        return _explained(self._ask(explain_text_select(self._judgement, records), staged)[0])

    def _ask(self, sql: str, staged: pa.Table | None) -> list[tuple[object, ...]]:
        connection = self._connected()
        if staged is not None:
            connection.register("staged", staged)
        try:
            return connection.execute(sql).fetchall()
        finally:
            if staged is not None:
                connection.unregister("staged")

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            self._connection = scratch()
        return self._connection


class Question(NamedTuple):
    """A record whose verdict depends on the user's SQL alone."""

    append_time: datetime | None
    text: str
    operation: str | None
    examined: Examined


def _explained(found: tuple[object, ...]) -> Explained:
    at, near, *checks = found
    return at, near, tuple(checks)  # type: ignore[return-value, arg-type]


class Diagnosis:
    """Records that are diagnosed as they come; SQL is asked once, for all of them."""

    def __init__(self, decoder: RecordDecoder) -> None:
        self._decoder = decoder
        self._looked: list[Question | Verdict] = []

    def add(self, record: Record) -> bool:
        """Take in one more; whether something is wrong with it for certain."""
        looked = self._decoder.look(record)
        self._looked.append(looked)
        return isinstance(looked, Verdict)

    def verdicts(self) -> list[Verdict | None]:
        """`Decoder.diagnose` for each of them, in their order."""
        asked = [each for each in self._looked if not isinstance(each, Verdict)]
        answers = iter(self._decoder.answer(asked))
        return [each if isinstance(each, Verdict) else next(answers) for each in self._looked]


_LETTERS = {"c": "+I", "r": "+I", "u": "+U", "d": "-D"}
_STAGED = pa.schema(
    [
        ("_ps_p", pa.int32()),
        ("_ps_o", pa.int64()),
        ("_ps_t", pa.timestamp("us")),
        ("_ps_v", pa.string()),
        ("_ps_key", pa.string()),
        ("_ps_gone", pa.bool_()),
    ]
)


def _debezium(raw: str, updates: bool) -> str:
    """The row inside the envelope; NULL (dead) where the envelope is broken, or an update has no key to go by."""
    names = '\'{"payload":"JSON","before":"JSON","after":"JSON","op":"JSON"}\''
    envelope = f"CASE WHEN json_type(_ps_v) = 'OBJECT' THEN from_json(_ps_v, {names}) END"
    opened = f"SELECT *, CASE WHEN json_valid(_ps_v) THEN {envelope} END AS e FROM {raw}"
    wrapped = "starts_with(e.payload::VARCHAR, '{')"
    inner = (
        f"SELECT *, CASE WHEN {wrapped} THEN from_json(e.payload, {names}) ELSE e END AS p, "
        f"CASE WHEN {wrapped} THEN e.payload::VARCHAR ELSE _ps_v END AS _ps_in FROM ({opened})"
    )
    distinct = "len(json_keys({0})) = len(list_distinct(json_keys({0})))"
    whole = f"{clean('_ps_v')} AND {distinct.format('_ps_v')} AND {distinct.format('_ps_in')}"
    letter = "CASE WHEN starts_with(p.op::VARCHAR, '\"') THEN p.op->>'$' END"
    update = "WHEN 'u' THEN p.after " if updates else ""
    row = f"CASE {letter} WHEN 'd' THEN p.before WHEN 'c' THEN p.after WHEN 'r' THEN p.after {update}END"
    value = f"CASE WHEN e IS NULL THEN NULL WHEN {whole} THEN ({row})::VARCHAR END"
    tombstone = "_ps_gone AND _ps_key IS NOT NULL"
    operation = f"CASE {letter} WHEN 'd' THEN '-D' WHEN 'u' THEN '+U' ELSE '+I' END"
    return (
        f"SELECT _ps_p, _ps_o, _ps_t, CASE WHEN {tombstone} THEN _ps_key ELSE {value} END AS _ps_j, "
        f"CASE WHEN {tombstone} THEN '-D' ELSE {operation} END AS _ps_d FROM ({inner})"
    )


def _one_row(text: str | None, append_time: datetime | None, *, gone: bool) -> pa.Table:
    moment = append_time.replace(tzinfo=None) if append_time is not None else None
    columns = ([0], [0], [moment], [text], [None], [gone])
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _STAGED, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_STAGED)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _utf8(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Binary as text without a copy; a value that is not UTF-8 becomes null."""
    return pa.chunked_array([_utf8_chunk(chunk) for chunk in _chunked(values).chunks], pa.string())


def _utf8_chunk(chunk: pa.Array) -> pa.Array:
    if chunk.type != pa.binary():
        chunk = chunk.cast(pa.binary())
    text = chunk.view(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([_decoded(value) for value in chunk.to_pylist()], pa.string())
    return text


def _chunked(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])


def _nulls(rows: int, kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(rows, kind)])


def _naive(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return _chunked(times).cast(pa.timestamp("us"))

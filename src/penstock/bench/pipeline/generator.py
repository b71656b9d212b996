"""Records of one source, generated from its contract: valid by construction, broken on request, the same for one seed.

A sound record keeps the types, the rules, the row checks, the keys and the references of the contract, and its event
time follows the time at which it is due. Columns that bear the name of a table's key (`user_id`, or `id` of `users`)
take their values from that table's keys, so that joins find something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.bench.pipeline.breakage import Breakage, Fields, breakages, joined, record_fields
from penstock.bench.pipeline.disturbance import Disturbance
from penstock.bench.pipeline.eventtime import EventColumn, event_column
from penstock.bench.pipeline.numbers import Draw, pool_draw, whole_numbers
from penstock.bench.pipeline.texts import NoText
from penstock.bench.pipeline.values import column_draw, column_sequence, holds, present_draw
from penstock.contract.schema import Column, ForeignKey
from penstock.contract.types import quote
from penstock.errors import DeclarationError
from penstock.formats.encode import json_object
from penstock.formats.scratch import scratch
from penstock.graph import SourceDecl

SOUND, LATE, DUPLICATE, DELETE = 0, 1, 2, 3
FIRST_BREAKAGE = 4
KEYS = 1_000
POOLED_SHARE = 0.9
_RECENT = 500
_ROUNDS = 200
_LEAST_CANDIDATES = 256

Micros = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """What records are made from.

    event_time, checks: SQL with the parameters filled in. pools: values for columns of these names (lower case).
    references: the rows of each reference that foreign keys name. index, of: this is generator `index` of `of` that
    share a seed and never repeat each other's keys.
    """

    source: SourceDecl
    event_time: str | None = None
    checks: tuple[tuple[str, str], ...] = ()
    pools: Mapping[str, pa.Array] = field(default_factory=dict)
    references: Mapping[str, pa.Table] = field(default_factory=dict)
    disturbance: Disturbance = field(default_factory=Disturbance)
    keys: int = KEYS
    seed: int = 0
    index: int = 0
    of: int = 1


@dataclass(frozen=True)
class Records:
    """Records in the order in which they are due. faults: SOUND, LATE, ... or a position in `breakages` from
    FIRST_BREAKAGE on, one per record."""

    values: pa.BinaryArray
    faults: NDArray[np.int16]


class RecordGenerator:
    """Makes the records of one source. Used by one thread.

    Raises:
        DeclarationError: PS-BENCH-005, nothing can be generated that keeps the contract.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self.source = recipe.source
        self.schema = recipe.source.schema
        self._connection = scratch()
        # What all generators of a source share comes from the one, what is a generator's own from the other.
        self._shared = np.random.default_rng([recipe.seed, *self.source.name.encode()])
        self._rng = np.random.default_rng([recipe.seed, recipe.index + 1, *self.source.name.encode()])
        self._fitting: dict[ForeignKey, pa.Table] = {}
        self.event = event_column(self.schema, recipe.event_time) if recipe.event_time else None
        if recipe.event_time and self.event is None:
            raise _cannot(
                self.source,
                "the event time does not follow from one column",
                "a column, or an expression over one column such as make_timestamp(at_ns // 1000)",
                recipe.event_time,
            )
        try:
            self._draws = {column.name: self._draw(column) for column in self.schema.columns}
            self.key_rows = self._keys()
        except NoText as problem:
            raise _cannot(
                self.source, "no value keeps the rules", "rules that a value can keep", str(problem)
            ) from None
        self.breakages = self._breakages()

    def records(self, due_us: Micros) -> Records:
        """Records that are due at the given times (microseconds since 1970, ascending)."""
        disturbance = self._recipe.disturbance
        count = len(due_us)
        faults = np.zeros(count, np.int16)
        late = self._chosen(count, disturbance.late if self.event else 0.0)
        faults[late] = LATE
        event_us = due_us - np.where(late, round(disturbance.late_by_s * 1e6), 0)
        if disturbance.disorder_s:
            event_us = event_us - self._rng.integers(0, round(disturbance.disorder_s * 1e6) + 1, count)
        table = self._sound_table(event_us)
        if self.source.kind == "table" and self.source.key and disturbance.deleted:
            deleted = self._chosen(count, disturbance.deleted)
            faults[deleted] = DELETE
            table = table.append_column("_op", pc.if_else(pa.array(deleted), "-D", "+I"))
        values = self._render(table)
        return self._disturbed(values, faults, event_us)

    def close(self) -> None:
        self._connection.close()

    # -- whole tables --------------------------------------------------------------------------------------------------

    def table(self, event_us: Micros) -> pa.Table:
        """Sound rows as typed columns."""
        return self._sound_table(event_us)

    def render(self, table: pa.Table) -> pa.BinaryArray:
        """Typed rows as records."""
        return self._render(table)

    def _sound_table(self, event_us: Micros) -> pa.Table:
        """Rows that keep the row checks too: those that do not are drawn again."""
        try:
            table = self._table(event_us)
            return table if not self._recipe.checks else self._checked(table, event_us)
        except NoText as problem:
            raise _cannot(self.source, "its values are used up", "more values than records", str(problem)) from None

    def _checked(self, table: pa.Table, event_us: Micros) -> pa.Table:
        good = self._pass(table)
        parts, owners = [table.filter(pa.array(good))], [np.flatnonzero(good)]
        left = np.flatnonzero(~good)
        for _ in range(_ROUNDS):
            if not len(left):
                whole = pa.concat_tables(parts).combine_chunks()
                return whole.take(pa.array(np.argsort(np.concatenate(owners), kind="stable")))
            rows = np.resize(left, max(len(left), _LEAST_CANDIDATES))
            drawn = self._table(event_us[rows])
            # The first good candidate of each row that is still without.
            candidates = np.flatnonzero(self._pass(drawn))
            found, first = np.unique(rows[candidates], return_index=True)
            parts.append(drawn.take(pa.array(candidates[first])))
            owners.append(found)
            left = np.setdiff1d(left, found)
        names = "; ".join(sql for _, sql in self._recipe.checks)
        raise _cannot(self.source, "no row that keeps the checks was found", names, f"{_ROUNDS} rounds of drawing")

    def _table(self, event_us: Micros) -> pa.Table:
        count = len(event_us)
        columns: dict[str, pa.Array] = {}
        for key in self.schema.foreign_keys:
            columns |= self._foreign(key, count)
        if self.source.kind == "table" and self.source.key:
            chosen = self.key_rows.take(pa.array(self._rng.integers(0, len(self.key_rows), count)))
            columns |= {name: chosen.column(name).combine_chunks() for name in chosen.column_names}
        if self.event is not None:
            columns[self.event.name] = self.event.spell(event_us)
        for name in self.schema.names:
            if name not in columns:
                columns[name] = self._draws[name](self._rng, count)
        return pa.table({name: columns[name] for name in self.schema.names})

    def _foreign(self, key: ForeignKey, count: int) -> dict[str, pa.Array]:
        """Foreign keys of rows that the reference has."""
        fitting = self._fitting.get(key)
        if fitting is None:
            fitting = self._fitting[key] = self._referable(key)
        chosen = fitting.take(pa.array(self._rng.integers(0, len(fitting), count)))
        return {mine: chosen.column(n).combine_chunks() for n, mine in enumerate(key.columns)}

    def _referable(self, key: ForeignKey) -> pa.Table:
        """The rows of the reference whose values keep the rules of the columns that refer to them."""
        rows = self._recipe.references.get(key.reference)
        if rows is None or not len(rows):
            raise _cannot(self.source, f"reference {key.reference} has no rows", "rows to refer to", "none")
        fitting = rows.select([self._named(rows, name) for name in key.reference_columns])
        for position, mine in enumerate(key.columns):
            column = self._column(mine)
            values = fitting.column(position).to_pylist()
            kept = [v is not None and all(holds(column, rule, v) for rule in column.rules) for v in values]
            fitting = fitting.filter(pa.array(kept, pa.bool_()))
        if not len(fitting):
            raise _cannot(self.source, f"no row of {key.reference} keeps the rules", ", ".join(key.columns), "none")
        return fitting.combine_chunks()

    @staticmethod
    def _named(rows: pa.Table, name: str) -> str:
        return str(next(found for found in rows.column_names if found.lower() == name.lower()))

    def _column(self, name: str) -> Column:
        found = self.schema.column(name)
        assert found is not None
        return found

    def _pass(self, table: pa.Table) -> NDArray[np.bool_]:
        conditions = [f"TRY(coalesce(({sql})::BOOLEAN, true))" for _, sql in self._recipe.checks]
        found = self._ask(table, f"coalesce({' AND '.join(conditions)}, false)")
        return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)

    def _ask(self, table: pa.Table, expression: str) -> pa.Array:
        typed = ", ".join(f"CAST({quote(c.name)} AS {c.type}) AS {quote(c.name)}" for c in self.schema.columns)
        self._connection.register("given", table)
        try:
            answer = self._connection.sql(f"SELECT {expression} AS v FROM (SELECT {typed} FROM given)").to_arrow_table()
        finally:
            self._connection.unregister("given")
        return answer.column("v").combine_chunks()

    def _render(self, table: pa.Table) -> pa.BinaryArray:
        self._connection.register("given", table)
        try:
            text = json_object(table, table.column_names)
            answer = self._connection.sql(f"SELECT {text} AS v FROM given").to_arrow_table()
        finally:
            self._connection.unregister("given")
        return answer.column("v").combine_chunks().cast(pa.binary())

    # -- columns -------------------------------------------------------------------------------------------------------

    def _draw(self, column: Column) -> Draw:
        recipe, source = self._recipe, self.source
        if column.name == source.version:
            found = column_sequence(column, self._shared, recipe.index, recipe.of)
            if found is not None:
                return found
        if column.name in source.unique and column.name == self._sequenced(source.unique):
            found = column_sequence(column, self._shared, recipe.index, recipe.of)
            if found is not None:
                return found
        if column.name in source.unique or column.name in source.key or column.name == source.version:
            return present_draw(column, self._shared)
        own = column_draw(column, self._shared)
        pool = recipe.pools.get(column.name.lower())
        return own if pool is None else self._pooled(column, own, pool)

    def _sequenced(self, names: Sequence[str]) -> str:
        """The column that makes a key different from all others: the first of which there are enough values."""
        taken = {name for key in self.schema.foreign_keys for name in key.columns}
        taken |= {self.event.name} if self.event is not None else set()
        for name in names:
            if name not in taken and column_sequence(self._column(name), self._shared, 0, 1) is not None:
                return name
        return ""

    def _pooled(self, column: Column, own: Draw, pool: pa.Array) -> Draw:
        sample = own(np.random.default_rng(0), 1)
        if sample.type != pool.type:
            return own
        kept = [all(holds(column, rule, value) for rule in column.rules) for value in pool.to_pylist()]
        values = pool.filter(pa.array(kept, pa.bool_()))
        if not len(values):
            return own
        shared = pool_draw(values)

        def draw(rng: np.random.Generator, count: int) -> pa.Array:
            mine, theirs = own(rng, count), shared(rng, count)
            return pc.if_else(pa.array(rng.random(count) < POOLED_SHARE), theirs, mine)

        return draw

    def _keys(self) -> pa.Table:
        """Distinct keys of a table or reference; no rows where it has none."""
        names = list(self.source.key)
        if not names:
            return pa.table({})
        wanted = self._recipe.keys
        columns: dict[str, pa.Array] = {}
        rng, sequenced = self._shared, self._sequenced(names)
        for foreign in self.schema.foreign_keys:
            drawn = self._foreign(foreign, 4 * wanted)
            columns |= {name: values for name, values in drawn.items() if name in names}
        for name in names:
            if name not in columns:
                column = self._column(name)
                sequence = column_sequence(column, rng, 0, 1) if name == sequenced else None
                numbers = whole_numbers(column, wide=True) if sequence is not None else None
                enough = numbers is None or numbers.count >= 4 * wanted
                draw = sequence if sequence is not None and enough else present_draw(column, rng)
                columns[name] = draw(rng, 4 * wanted)
        found = pa.table({name: columns[name] for name in names})
        first: dict[str, int] = {}
        for position, row in enumerate(found.to_pylist()):
            first.setdefault(repr(row), position)
        return found.take(pa.array(sorted(first.values())[:wanted]))

    # -- what is wrong on purpose --------------------------------------------------------------------------------------

    def _chosen(self, count: int, share: float) -> NDArray[np.bool_]:
        return self._rng.random(count) < share if share else np.zeros(count, np.bool_)

    def _disturbed(self, values: pa.BinaryArray, faults: NDArray[np.int16], event_us: Micros) -> Records:
        disturbance = self._recipe.disturbance
        broken = self._chosen(len(values), disturbance.broken) & (faults != DELETE)
        repeated = self._chosen(len(values), disturbance.duplicate) & (faults == SOUND) & ~broken
        if not broken.any() and not repeated.any():
            return Records(values, faults)
        changed: list[bytes] = values.to_pylist()
        ways = self._rng.integers(0, len(self.breakages), len(values))
        for position in np.flatnonzero(broken).tolist():
            faults[position] = FIRST_BREAKAGE + ways[position]
            changed[position] = self._break(self.breakages[ways[position]], changed[position], int(event_us[position]))
        for position in np.flatnonzero(repeated).tolist():
            earlier = position - 1 - int(self._rng.integers(0, _RECENT))
            if earlier >= 0 and faults[earlier] == SOUND:
                faults[position] = DUPLICATE
                changed[position] = changed[earlier]
        return Records(pa.array(changed, pa.binary()), faults)

    def _break(self, way: Breakage, record: bytes, event_us: int) -> bytes:
        fields = record_fields(record)
        if way.rule == "future" and self.event is not None:
            ahead_us = self.source.max_ahead.total_seconds() * 1e6 + 86_400e6
            return joined(fields | self._event_field(self.event, event_us + int(ahead_us)))
        return way.apply(fields)

    def _event_field(self, event: EventColumn, us: int) -> Fields:
        table = pa.table({event.name: event.spell(np.array([us], np.int64))})
        return record_fields(self._render(table)[0].as_py())

    def _breakages(self) -> list[Breakage]:
        found = breakages(self.schema, self.source.kind, self.source.key)
        if self.event is not None and self.source.kind == "stream":
            found.append(Breakage("future", "", joined))
        for key in self.schema.foreign_keys:
            strangers = self._strangers(key)
            if strangers:
                found.append(Breakage("references", ", ".join(key.columns), _overlaying(strangers)))
        for name, _ in self._recipe.checks:
            rows = self._failing(name)
            if rows:
                found.append(Breakage(name, "", _overlaying(rows)))
        return found

    def _strangers(self, key: ForeignKey) -> list[Fields]:
        """Values that keep the columns' own rules, and that the reference does not have."""
        rows = self._recipe.references.get(key.reference)
        if rows is None:
            return []
        names = [self._named(rows, name) for name in key.reference_columns]
        known = {tuple(row[name] for name in names) for row in rows.select(names).to_pylist()}
        try:
            draws = [column_sequence(self._column(c), self._shared, 7_919, 1) for c in key.columns]
            usable = [d or present_draw(self._column(c), self._shared) for d, c in zip(draws, key.columns, strict=True)]
            drawn = pa.table({c: d(self._shared, 64) for c, d in zip(key.columns, usable, strict=True)})
        except NoText:
            return []
        kept = [tuple(row.values()) not in known for row in drawn.to_pylist()]
        return [record_fields(v) for v in self._render(drawn.filter(pa.array(kept))).to_pylist()]

    def _failing(self, name: str) -> list[Fields]:
        """Values of the columns that checks look at, of rows that pass every check before this one and fail it."""
        words = " ".join(sql for _, sql in self._recipe.checks).lower()
        columns = [c.name for c in self.schema.columns if c.name.lower() in words]
        if self.event is not None and self.event.name in columns:
            return []
        position = [n for n, _ in self._recipe.checks].index(name)
        before = [f"TRY(coalesce(({sql})::BOOLEAN, true))" for _, sql in self._recipe.checks[:position]]
        fails = f"NOT TRY(coalesce(({self._recipe.checks[position][1]})::BOOLEAN, true))"
        table = self._table(np.full(2_000, 1_767_225_600_000_000, np.int64))
        mask = self._ask(table, f"coalesce({' AND '.join([*before, fails])}, false)")
        rows = table.filter(mask).slice(0, 64).select(columns)
        return [record_fields(v) for v in self._render(rows).to_pylist()] if len(rows) else []


def _overlaying(rows: Sequence[Fields]) -> Callable[[Fields], bytes]:
    position = 0

    def apply(fields: Fields) -> bytes:
        nonlocal position
        position += 1
        return joined(fields | rows[position % len(rows)])

    return apply


def _cannot(source: SourceDecl, message: str, expected: str, got: str) -> DeclarationError:
    return DeclarationError(
        "PS-BENCH-005",
        f"records of {source.name} cannot be generated: {message}",
        where=source.where,
        expected=expected,
        got=got,
        hint="bind the source to recorded data, or loosen the rule",
    )

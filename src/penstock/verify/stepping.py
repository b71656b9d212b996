"""A step folded over the epochs, key by key, change by change (semantics B1).

Written apart from the engine: the order of calls is that of the semantics. Per key, changes by time; those of one
moment are one call, in the order of the stream or else of the rows themselves, what goes before what comes. A timer
that the epoch's watermark has passed fires before the changes that are later than it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import TypeAdapter

from penstock.contract.types import parse_type
from penstock.errors import RunError
from penstock.graph import SourceDecl, StepDecl
from penstock.steps import Change, Step, Timer
from penstock.verify.history import ALWAYS, history_name, quote
from penstock.verify.records import arrow_type, plain, sql_columns
from penstock.verify.spec import ViewSpec

Key = tuple[object, ...]


@dataclass
class _Account:
    """What is kept of a key between calls."""

    state: Any = None
    timers: frozenset[Timer] = frozenset()


class Fold:
    """One step. schema: where its input is found; source: the input where that is a declared source."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        step: StepDecl,
        view: ViewSpec,
        schema: str,
        source: SourceDecl | None,
    ) -> None:
        self._connection = connection
        self._input = f"{schema}.{quote(step.input)}"
        self._of_epoch = bool(view.scoped)
        self._step = step
        self._time = view.time
        self._ordered = source if source is not None and source.kind == "stream" else None
        self._adapter: TypeAdapter[Any] = TypeAdapter(step.state)
        self._accounts: defaultdict[Key, _Account] = defaultdict(_Account)
        self._rows = f"main.{history_name(step.name)}"
        self._held = f"main.{quote('_b_' + step.name)}"
        described = connection.execute(f"DESCRIBE {self._input}").fetchall()
        self._columns = [str(row[0]) for row in described]
        names = ", ".join(f"{quote(c.name)} {c.type}" for c in step.output.columns)
        connection.execute(f"CREATE TABLE {self._rows} ({names}, _ps_from BIGINT, _ps_until BIGINT)")
        connection.execute(f"CREATE TABLE {self._held} AS SELECT * FROM {self._input} LIMIT 0")

    def run(self, epoch: int, watermark: datetime | None) -> None:
        """Fold what the epoch changed in the input, and keep the rows that the function gave."""
        changes = self._changes(epoch)
        due = {k for k, a in self._accounts.items() if watermark and any(t.at <= watermark for t in a.timers)}
        emitted: list[dict[str, object]] = []
        for key in [*changes, *(due - changes.keys())]:
            account = self._accounts[key]
            for change_time, group in itertools.groupby(changes.get(key, []), key=lambda c: c.time):
                self._fire(account, watermark, change_time, emitted)
                self._call(account, list(group), [], emitted)
            self._fire(account, watermark, None, emitted)
            # Between epochs a state is JSON of its model.
            if account.state is not None:
                account.state = self._adapter.validate_json(self._adapter.dump_json(account.state))
        self._keep(epoch, emitted)

    def _fire(
        self, account: _Account, watermark: datetime | None, before: datetime | None, emitted: list[dict[str, object]]
    ) -> None:
        while watermark is not None:
            due = [t for t in account.timers if t.at <= watermark and (before is None or t.at < before)]
            if not due:
                return
            first = min(t.at for t in due)
            self._call(account, [], sorted((t for t in due if t.at == first), key=lambda t: t.name), emitted)

    def _call(
        self, account: _Account, changes: list[Change], timers: list[Timer], emitted: list[dict[str, object]]
    ) -> None:
        try:
            result: Step[Any] = self._step.function(account.state, changes, timers)
            emitted += [dict(row) for row in result.rows]
        except Exception as problem:
            raise RunError(
                "PS-RUN-002",
                f"step {self._step.name} raised {type(problem).__name__} when it was folded again",
                where=self._step.where,
                expected="a pure function that returns penstock.Step",
                got=str(problem),
            ) from problem
        account.state = result.state
        account.timers = (account.timers - set(timers) - set(result.cancel)) | set(result.timers)

    # -- what comes in, what goes out ----------------------------------------------------------------------------------

    def _changes(self, epoch: int) -> dict[Key, list[Change]]:
        rows = self._connection.execute(self._question(epoch)).fetchall()
        if self._of_epoch:
            rows.sort(key=lambda row: row[-2])
        found: dict[Key, list[Change]] = {}
        width = len(self._columns)
        places = [self._columns.index(self._named(k)) for k in self._step.key]
        for values in rows:
            row, (time, amount) = dict(zip(self._columns, values[:width], strict=True)), values[width : width + 2]
            change = Change("+I" if amount > 0 else "-D", time, row)
            found.setdefault(tuple(values[n] for n in places), []).extend([change] * abs(amount))
        if self._ordered is None and not self._of_epoch:
            self._connection.execute(f"CREATE OR REPLACE TABLE {self._held} AS SELECT * FROM {self._input}")
        return found

    def _named(self, key: str) -> str:
        return next(c for c in self._columns if c.lower() == key.lower())

    def _question(self, epoch: int) -> str:
        if self._ordered is not None:
            return self._of_stream(epoch)
        if self._of_epoch:
            # Filters and projections of one thread keep the order of the stream's table.
            columns = ", ".join(quote(c) for c in self._columns)
            return f"SELECT {columns}, {self._time} AS _ps_time, 1 AS _ps_amount FROM {self._input}"
        return self._of_content()

    def _of_stream(self, epoch: int) -> str:
        columns = ", ".join(quote(c) for c in self._columns)
        came = f"_ps_from = {epoch} AND _ps_until > {epoch}"
        went = f"_ps_until = {epoch} AND _ps_from < {epoch}"
        return (
            f"SELECT {columns}, {self._time} AS _ps_time, CASE WHEN {came} THEN 1 ELSE -1 END AS _ps_amount "
            f"FROM main.{history_name(self._step.input)} WHERE ({came}) OR ({went}) ORDER BY _ps_time, _ps_p, _ps_o"
        )

    def _of_content(self) -> str:
        """What the input has now and had not, less what it had and has not."""
        columns = ", ".join(quote(c) for c in self._columns)
        sides = f"SELECT {columns}, 1 AS _ps_n FROM {self._input} UNION ALL SELECT {columns}, -1 FROM {self._held}"
        moved = f"SELECT {columns}, sum(_ps_n)::BIGINT AS _ps_amount FROM ({sides}) GROUP BY ALL HAVING sum(_ps_n) <> 0"
        return (
            f"SELECT {columns}, {self._time} AS _ps_time, _ps_amount FROM ({moved}) "
            f"ORDER BY _ps_time, _ps_amount, {columns}"
        )

    def _keep(self, epoch: int, emitted: list[dict[str, object]]) -> None:
        if not emitted:
            return
        columns = self._step.output.columns
        kinds = {c.name: parse_type(c.type) for c in columns}
        arrays = [
            pa.array([plain(kinds[c.name], row.get(c.name)) for row in emitted], arrow_type(kinds[c.name]))
            for c in columns
        ]
        self._connection.register("_emitted", pa.Table.from_arrays(arrays, names=[c.name for c in columns]))
        self._connection.execute(
            f"INSERT INTO {self._rows} SELECT {sql_columns(columns, 'g')}, {epoch}, {ALWAYS} FROM _emitted AS g"
        )
        self._connection.unregister("_emitted")

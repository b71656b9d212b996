"""Views that the epochs decide, made again epoch by epoch from the journal.

A step is a fold over the epochs; a row of a transient stream is answered once, by the state of its epoch; a window of a
`final` view is frozen by the epoch that closes it. For each epoch in turn, what the sources held at its end is put in
the place of the sources (schema `ps_asof`), and the view's own text, or the step's own function, is run over that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from penstock.errors import RunError
from penstock.graph import Graph, SourceDecl
from penstock.verify.accept import Accepted
from penstock.verify.history import ALWAYS, history_name, late_name, quote
from penstock.verify.records import Journaled
from penstock.verify.spec import ViewSpec
from penstock.verify.stepping import Fold

SCHEMA = "ps_asof"
_EPOCH = "getvariable('ps_epoch')::BIGINT"
_THERE = f"_ps_from <= {_EPOCH} AND _ps_until > {_EPOCH}"
_NOW = f"_ps_from = {_EPOCH}"


def replay(
    connection: duckdb.DuckDBPyConnection,
    graph: Graph,
    views: Sequence[ViewSpec],
    accepted: Mapping[str, Accepted],
    journal: Sequence[Journaled],
) -> None:
    """Leave a table in `main` for each view whose kind is not `batch`."""
    decided = [v for v in views if v.kind != "batch" and not v.skipped]
    if not decided:
        return
    timeline = _Timeline(connection, graph, accepted, {v.name: v for v in views})
    for view in views:
        if not view.skipped and not view.marked:
            timeline.declare(view)
    before: int | None = None
    for entry in journal:
        connection.execute(f"SET VARIABLE ps_epoch = {entry.epoch}")
        for view in decided:
            timeline.advance(view, entry, before)
        before = entry.epoch
    for view in decided:
        timeline.leave(view)


@dataclass
class _Timeline:
    connection: duckdb.DuckDBPyConnection
    graph: Graph
    accepted: Mapping[str, Accepted]
    specs: Mapping[str, ViewSpec]
    folds: dict[str, Fold] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection.execute(f"CREATE SCHEMA {SCHEMA}")
        for source in self.graph.sources:
            columns = ", ".join(quote(c) for c in source.schema.names)
            there = _NOW if source.transient else _THERE
            self._view(SCHEMA, source.name, f"SELECT {columns} FROM main.{history_name(source.name)} WHERE {there}")
            self.names.append(source.name)

    def _view(self, schema: str, name: str, sql: str) -> None:
        try:
            # A view's names are looked up in its own schema first.
            self.connection.execute(f"CREATE VIEW {schema}.{quote(name)} AS {sql}")
        except duckdb.Error as problem:
            raise _failed(name, problem) from problem

    def _run(self, name: str, sql: str) -> None:
        try:
            self.connection.execute(sql)
        except duckdb.Error as problem:
            raise _failed(name, problem) from problem

    # -- declaring -----------------------------------------------------------------------------------------------------

    def declare(self, view: ViewSpec) -> None:
        """Make the view as it is at the end of the epoch in force."""
        name = quote(view.name)
        if view.kind == "step":
            step = next(s for s in self.graph.steps if s.name == view.name)
            self.folds[view.name] = Fold(self.connection, step, view, self._schema(view), self.graph.source(step.input))
        else:
            schema = self._schema(view)
            self._view(schema, view.name if view.kind == "batch" else f"_q_{view.name}", view.sql)
            if view.kind == "batch" and schema != SCHEMA:
                self._view(SCHEMA, view.name, f"SELECT * FROM {schema}.{name}")
            elif view.kind != "batch":
                self.connection.execute(
                    f"CREATE TABLE {self._rows(view)} AS SELECT *, 0::BIGINT AS _ps_from, 0::BIGINT AS _ps_until "
                    f"FROM {schema}.{quote('_q_' + view.name)} LIMIT 0"
                )
        if view.kind != "batch":
            there = _NOW if view.kind == "answered" else _THERE
            shown = f"SELECT * EXCLUDE (_ps_from, _ps_until) FROM {self._rows(view)} WHERE {there}"
            self._view(SCHEMA, view.name, shown)
        self.names.append(view.name)

    def _rows(self, view: ViewSpec) -> str:
        return f"main.{history_name(view.name)}"

    def _schema(self, view: ViewSpec) -> str:
        """Where the view's text finds its inputs: a schema of its own, where rows are late for it."""
        if not view.late and not view.scoped:
            return SCHEMA
        schema = _own(view)
        self.connection.execute(f"CREATE SCHEMA {schema}")
        late = {rule.stream for rule in view.late}
        for name in self.names:
            source = self.graph.source(name)
            if source is not None and name in late:
                self._view(schema, name, _on_time(source, view))
            elif source is not None and view.kind == "step" and name in view.streams:
                # What the stream brings in the epoch, in its order.
                columns = ", ".join(quote(c) for c in source.schema.names)
                self._view(schema, name, f"SELECT {columns} FROM main.{history_name(name)} WHERE {_NOW}")
            elif name in view.scoped:
                self._view(schema, name, self.specs[name].sql)
            else:
                self._view(schema, name, f"SELECT * FROM {SCHEMA}.{quote(name)}")
        return schema

    # -- epoch by epoch ------------------------------------------------------------------------------------------------

    def advance(self, view: ViewSpec, entry: Journaled, before: int | None) -> None:
        """What the epoch adds to the view, and takes from it."""
        match view.kind:
            case "answered":
                self._add(view, entry.epoch, "TRUE")
            case "frozen":
                self._freeze(view, entry, self._watermark(view, before), self._watermark(view, entry.epoch))
            case "step":
                self.folds[view.name].run(entry.epoch, self._watermark(view, entry.epoch))

    def _watermark(self, view: ViewSpec, epoch: int | None) -> datetime | None:
        """The least of its streams' watermarks; None where one has none yet."""
        marks = [self.accepted[s].after.get(epoch) if epoch is not None else None for s in view.streams]
        known = [m for m in marks if m is not None]
        return min(known) if known and len(known) == len(marks) else None

    def _freeze(
        self, view: ViewSpec, entry: Journaled, closed_before: datetime | None, closed: datetime | None
    ) -> None:
        after = f"({view.end}) > {_moment(closed_before)}"
        if closed is not None and closed != closed_before:
            self._replace(view, entry.epoch, f"{after} AND ({view.end}) <= {_moment(closed)}")
        if entry.flush:
            self._replace(view, entry.epoch, f"({view.end}) > {_moment(closed)}")

    def _replace(self, view: ViewSpec, epoch: int, windows: str) -> None:
        self._run(
            view.name, f"UPDATE {self._rows(view)} SET _ps_until = {epoch} WHERE _ps_until = {ALWAYS} AND {windows}"
        )
        self._add(view, epoch, windows)

    def _add(self, view: ViewSpec, epoch: int, condition: str) -> None:
        schema = _own(view) if view.late or view.scoped else SCHEMA
        question = f"{schema}.{quote('_q_' + view.name)}"
        self._run(
            view.name,
            f"INSERT INTO {self._rows(view)} SELECT *, {epoch}, {ALWAYS} FROM {question} WHERE {condition}",
        )

    def leave(self, view: ViewSpec) -> None:
        """What it holds at the end."""
        self.connection.execute(
            f"CREATE TABLE main.{quote(view.name)} AS SELECT * EXCLUDE (_ps_from, _ps_until) FROM {self._rows(view)} "
            f"WHERE _ps_until = {ALWAYS}"
        )


def _own(view: ViewSpec) -> str:
    return quote(f"{SCHEMA}_{view.name}")


def _on_time(source: SourceDecl, view: ViewSpec) -> str:
    """The stream as of the epoch in force, without the rows that are late for the view."""
    columns = ", ".join(quote(c) for c in source.schema.names)
    late = late_name(view.name, source.name)
    return (
        f"SELECT {columns} FROM main.{history_name(source.name)} AS s ANTI JOIN main.{late} "
        f"AS x ON s._ps_p = x.p AND s._ps_o = x.o WHERE {_THERE}"
    )


def _moment(watermark: datetime | None) -> str:
    return f"TIMESTAMP '{watermark.isoformat(sep=' ')}'" if watermark is not None else "TIMESTAMP '-infinity'"


def _failed(name: str, problem: duckdb.Error) -> RunError:
    return RunError(
        "PS-RUN-003",
        f"view {name} fails as one batch",
        expected="a query that holds for every row",
        got=str(problem).split("\n")[0],
    )

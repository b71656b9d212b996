"""Declaring a pipeline: sources, views, steps and sinks.

Declaring runs nothing. A `Pipeline` collects declarations and mistakes; `Pipeline.graph()` returns them as one frozen
`Graph`, or raises all mistakes at once. SQL is bound later, by the planner, which knows the engine's types.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from penstock.contract.model import Contract, schema_of
from penstock.contract.schema import ForeignKey, RowCheck, Schema
from penstock.declaration_checks import check_columns, dangling, undeclared, with_durations
from penstock.durations import parse_duration
from penstock.errors import DeclarationError, DeclarationErrors, Error, Where
from penstock.graph import Bound as Bound
from penstock.graph import Emit as Emit
from penstock.graph import FunctionDecl as FunctionDecl
from penstock.graph import Graph as Graph
from penstock.graph import Kind as Kind
from penstock.graph import ParameterDecl as ParameterDecl
from penstock.graph import SinkDecl as SinkDecl
from penstock.graph import SourceDecl as SourceDecl
from penstock.graph import StepDecl as StepDecl
from penstock.graph import Strategy
from penstock.graph import ViewDecl as ViewDecl
from penstock.time_of_day import with_time_of_day

if TYPE_CHECKING:
    from penstock.ibis_views import Table as IbisTable
    from penstock.runtime.session import Session

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")


def _caller() -> Where:
    """The first frame outside this package's declaring code: the user's file and line."""
    here = str(Path(__file__).parent)
    frame = inspect.currentframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(here) or f"{here}/apps/" in path:
            return Where(path, frame.f_lineno)
        frame = frame.f_back
    return Where()


class Pipeline:
    """Collects the declarations of one graph.

    Args:
        name: letters, digits and underscores; names the state folder.

    Mistakes are collected, and raised all at once by `graph()`, `open()` and every CLI verb.

    Example:
        >>> import penstock as ps
        >>> class Click(ps.Contract):
        ...     user_id: int = ps.Field(ge=0)
        ...     kind: str
        >>> pipeline = ps.Pipeline("clicks")
        >>> pipeline.stream("clicks", Click)
        >>> pipeline.view("per_kind", "SELECT kind, count(*) AS n FROM clicks GROUP BY kind")
        >>> with pipeline.open() as session:
        ...     session.insert("clicks", [{"user_id": 1, "kind": "view"}])
        ...     epoch = session.commit()
        ...     session.read("per_kind").to_pylist()
        [{'kind': 'view', 'n': 1}]
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.where = _caller()
        self._sources: list[SourceDecl] = []
        self._views: list[ViewDecl] = []
        self._steps: list[StepDecl] = []
        self._sinks: list[SinkDecl] = []
        self._parameters: list[ParameterDecl] = []
        self._functions: list[FunctionDecl] = []
        self._errors: list[Error] = []
        self._values: dict[str, str] = {}
        self._ibis: dict[str, IbisTable] = {}
        if not NAME.match(name):
            self._wrong("PS-DECL-001", "the pipeline's name is invalid", self.where, "letters, digits, _", name)

    @classmethod
    def from_sql(cls, text: str, *, name: str, file: str = "") -> Pipeline:
        """The pipeline that one SQL text declares (CREATE STREAM, TABLE, REFERENCE, VIEW, SINK, CLOCK, STEP).

        Mistakes carry line and column within the text. See docs/guides/sql-files.md for the statements.
        """
        from penstock.sqlfile import read_pipeline

        return read_pipeline(text, name=name, file=file)

    def stream(
        self,
        name: str,
        contract: type[Contract] | Schema,
        *,
        event_time: str | None = None,
        watermark: str | timedelta | None = None,
        unique: Sequence[str] | str = (),
        within: str | timedelta | None = None,
        retention: str | timedelta | None = None,
        references: Mapping[str, str] | None = None,
        checks: Mapping[str, str] | Sequence[str] = (),
        max_ahead: str | timedelta = timedelta(hours=1),
        idle_after: str | timedelta = timedelta(seconds=30),
        correction_horizon: str | timedelta = timedelta(days=1),
        transient: bool = False,
        default: str | None = None,
        state: Bound = "bounded",
        where: Where | None = None,
    ) -> None:
        """Declare append-only events.

        Args:
            event_time: a column, or an SQL expression of type TIMESTAMP over the columns.
            watermark: how far the watermark stays behind the largest event time (a duration such as `"5 seconds"`).
            unique, within: drop repeated records with these columns' values seen within that event-time span.
            retention: rows older than the watermark by this leave again, as deletes.
            references: column or `"a, b"` -> `"reference.column"` or `"reference.(x, y)"`.
            checks: SQL conditions over the columns, by name or as a list.
            default: the URL that it is bound to where no target and no `--bind` names it; `"none:"` has no rows.
        """
        self._source(
            name,
            "stream",
            contract,
            where or _caller(),
            references=references,
            checks=checks,
            event_time=event_time,
            durations={
                "watermark": watermark,
                "within": within,
                "retention": retention,
                "max_ahead": max_ahead,
                "idle_after": idle_after,
                "correction_horizon": correction_horizon,
            },
            unique=_names(unique),
            transient=transient,
            default=default,
            state=state,
        )

    def table(
        self,
        name: str,
        contract: type[Contract] | Schema,
        *,
        key: Sequence[str] | str = (),
        version: str | None = None,
        event_time: str | None = None,
        watermark: str | timedelta | None = None,
        references: Mapping[str, str] | None = None,
        checks: Mapping[str, str] | Sequence[str] = (),
        max_ahead: str | timedelta = timedelta(hours=1),
        default: str | None = None,
        state: Bound = "bounded",
        where: Where | None = None,
    ) -> None:
        """Declare rows that are inserted, updated and deleted by `key`, the newest winning (semantics R1).

        Without a key the table is a multiset from which whole rows are deleted.
        """
        self._source(
            name,
            "table",
            contract,
            where or _caller(),
            references=references,
            checks=checks,
            event_time=event_time,
            durations={"watermark": watermark, "max_ahead": max_ahead},
            key=_names(key),
            version=version,
            default=default,
            state=state,
        )

    def reference(
        self,
        name: str,
        contract: type[Contract] | Schema,
        *,
        key: Sequence[str] | str = (),
        checks: Mapping[str, str] | Sequence[str] = (),
        allow_empty: bool = False,
        default: str | None = None,
        where: Where | None = None,
    ) -> None:
        """Declare a static or slowly changing relation, replaced as a whole (semantics R2)."""
        self._source(
            name,
            "reference",
            contract,
            where or _caller(),
            checks=checks,
            key=_names(key),
            allow_empty=allow_empty,
            default=default,
        )

    def clock(self, name: str, period: str | timedelta, *, where: Where | None = None) -> None:
        """Declare ticks as rows `{tick: BIGINT, at: TIMESTAMP}`, one each `period` (semantics T5)."""
        place = where or _caller()
        from penstock.contract.schema import Column

        schema = Schema("Tick", (Column("tick", "BIGINT"), Column("at", "TIMESTAMP")))
        self._source(
            name,
            "stream",
            schema,
            place,
            event_time="at",
            durations={"watermark": timedelta(0), "clock": period},
        )

    def view(
        self,
        name: str,
        sql: str | IbisTable,
        *,
        emit: Emit = "changes",
        key: Sequence[str] | str = (),
        state: Bound = "bounded",
        strategy: Strategy = "auto",
        where: Where | None = None,
    ) -> None:
        """Declare a query over sources and other views.

        Args:
            sql: in DuckDB's SQL, or an Ibis expression over the tables that `ibis` gives.
            emit: `"changes"` (every epoch) or `"final"` (each window once, when the watermark has closed it).
            key: the view's key, where the planner cannot infer it.
            state: `"unbounded"` acknowledges state that nothing bounds.
            strategy: `"refresh"` pins recompute-and-diff of all, `"incremental"` what `explain` shows; or cost decides.
        """
        place = where or _caller()
        if emit not in ("changes", "final"):
            self._wrong("PS-DECL-005", f"view {name}: emit is invalid", place, "'changes' or 'final'", repr(emit))
        if strategy not in (ways := get_args(Strategy)):
            self._wrong("PS-DECL-005", f"view {name}: strategy is invalid", place, " or ".join(ways), repr(strategy))
        if state not in ("bounded", "unbounded"):
            self._wrong("PS-DECL-005", f"view {name}: state is invalid", place, "'bounded' or 'unbounded'", repr(state))
        if not isinstance(sql, str):
            from penstock.ibis_views import view_sql

            place = replace(place, whole=True)
            try:
                sql = view_sql(name, sql, self._ibis, place)
            except Error as error:
                self._errors.append(error)
                return
        if self._new_name(name, place):
            self._views.append(ViewDecl(name, sql, place, emit, _names(key), state, strategy))

    def ibis(self, name: str) -> IbisTable:
        """A source, view or step that is declared, as an Ibis table to write views over (with the extra `ibis`).

        Raises:
            DeclarationError: PS-DECL-003 (not declared), PS-DECL-018 (Ibis is not installed), what is wrong in a view.
        """
        if name not in self._ibis:
            from penstock.ibis_views import ibis_table
            from penstock.runtime.columns import columns_of

            place = _caller()
            graph = self.graph_of_the_rest()
            names = [declared.name for kind in (graph.sources, graph.views, graph.steps) for declared in kind]
            if name not in names:
                missing = undeclared(f"the Ibis table {name}", place, set(names), name)
                raise DeclarationErrors([*self._errors, missing]) if self._errors else missing
            self._ibis[name] = ibis_table(name, columns_of(graph, name), place)
        return self._ibis[name]

    def step(
        self,
        name: str,
        *,
        input: str,
        key: Sequence[str] | str,
        state: type[Any],
        output: type[Contract] | Schema,
        function: Callable[..., Any],
        time: str | None = None,
        where: Where | None = None,
    ) -> None:
        """Declare a pure state machine per key: `function(state, changes, timers) -> Step(state, rows, timers)`.

        Args:
            input: the view or source whose changes are folded.
            time: the input's column that orders changes in time (default: its event time).
            output: the contract of the rows that the function returns.
        """
        place = where or _caller()
        try:
            schema = output if isinstance(output, Schema) else schema_of(output)
        except Error as error:
            self._errors.append(error)
            return
        if self._new_name(name, place):
            self._steps.append(StepDecl(name, input, _names(key), state, schema, function, place, time))

    def function(self, declared: FunctionDecl, *, where: Where | None = None) -> None:
        """Let views call a function that `ps.function` made."""
        place = where or _caller()
        if not isinstance(declared, FunctionDecl):
            got = getattr(declared, "__name__", repr(declared))
            self._wrong("PS-DECL-005", "this is no function of a view", place, "a function with @ps.function", got)
        elif self._new_name(declared.name, place):
            self._functions.append(declared)

    def sink(
        self, name: str, *, view: str, on_error: Literal["stop", "dead"] = "stop", where: Where | None = None
    ) -> None:
        """Declare where a view's changes go; targets bind the name to a URL."""
        place = where or _caller()
        if on_error not in ("stop", "dead"):
            self._wrong("PS-DECL-005", f"sink {name}: on_error is invalid", place, "'stop' or 'dead'", repr(on_error))
        if self._new_name(name, place, sink=True):
            self._sinks.append(SinkDecl(name, view, place, on_error))

    def parameter(
        self,
        name: str,
        default: str | int,
        *,
        type: Literal["int", "str", "decimal", "interval"] = "str",
        help: str = "",
        where: Where | None = None,
    ) -> None:
        """Declare a value that `--set NAME=VALUE` changes; SQL and durations name it `$NAME`."""
        place = where or _caller()
        if self._new_name(name, place):
            self._parameters.append(ParameterDecl(name, type, str(default), place, help))

    def graph(self, values: Mapping[str, str] | None = None) -> Graph:
        """All declarations, frozen.

        Raises:
            DeclarationErrors: all mistakes that can be seen without an engine, in the order of the file.
        """
        errors = [*self._errors, *dangling(self._sources, self._views, self._steps, self._sinks)]
        known = {parameter.name for parameter in self._parameters}
        for name in values or {}:
            if name not in known:
                errors.append(
                    DeclarationError(
                        "PS-DECL-015",
                        f"parameter {name} is not declared",
                        where=self.where,
                        expected=", ".join(sorted(known)) or "no parameters",
                        got=name,
                    )
                )
        if errors:
            raise DeclarationErrors(errors)
        resolved = {p.name: p.default for p in self._parameters} | dict(values or {})
        return self._frozen(tuple(with_durations(source, resolved) for source in self._sources), resolved)

    def graph_of_the_rest(self, values: Mapping[str, str] | None = None) -> Graph:
        """What is left without the declarations that are wrong, so that the SQL over it can be checked."""
        resolved = {p.name: p.default for p in self._parameters} | dict(values or {})
        sources = []
        for source in self._sources:
            with suppress(Error):  # `graph` has told it
                sources.append(with_durations(source, resolved))
        return self._frozen(tuple(sources), resolved)

    def _frozen(self, sources: tuple[SourceDecl, ...], resolved: dict[str, str]) -> Graph:
        return Graph(
            self.name,
            sources,
            with_time_of_day(sources, self._views),
            tuple(self._steps),
            tuple(self._sinks),
            tuple(self._parameters),
            resolved,
            self.where,
            tuple(self._functions),
        )

    def open(
        self,
        *,
        state: str | Path | None = None,
        engine: str = "duckdb",
        values: Mapping[str, str] | None = None,
    ) -> Session:
        """An in-process session over this pipeline; in memory unless `state` names a folder.

        Raises:
            DeclarationErrors: every mistake in the declarations.
            Unsupported: the engine cannot hold a view.
        """
        from penstock.runtime.mistakes import checked_graph
        from penstock.runtime.session import open_session

        return open_session(checked_graph(self, values), state=state, engine=engine)

    def report(self, error: Error) -> None:
        """Keep a mistake that a reader of declarations found; `graph()` raises it with the others."""
        self._errors.append(error)

    # -- collecting ------------------------------------------------------------------------------------------------

    def _source(
        self,
        name: str,
        kind: Kind,
        contract: type[Contract] | Schema,
        where: Where,
        *,
        references: Mapping[str, str] | None = None,
        checks: Mapping[str, str] | Sequence[str] = (),
        durations: Mapping[str, str | timedelta | None] | None = None,
        **options: Any,
    ) -> None:
        try:
            schema = contract if isinstance(contract, Schema) else schema_of(contract)
        except Error as error:
            self._errors.append(error)
            return
        schema = replace(
            schema,
            checks=(*schema.checks, *_row_checks(checks)),
            foreign_keys=(*schema.foreign_keys, *self._foreign_keys(references or {}, where)),
        )
        spans: dict[str, Any] = {}
        for option, value in (durations or {}).items():
            if isinstance(value, str) and value.startswith("$"):
                spans[option] = value
                continue
            try:
                spans[option] = parse_duration(value) if value is not None else None
            except ValueError as problem:
                self._wrong(
                    "PS-DECL-005", f"{kind} {name}: {option}", where, "a duration such as '5 seconds'", str(problem)
                )
        self._errors += check_columns(name, kind, schema, where, options, spans)
        if self._new_name(name, where):
            self._sources.append(SourceDecl(name=name, kind=kind, schema=schema, where=where, **spans, **options))

    def _foreign_keys(self, references: Mapping[str, str], where: Where) -> list[ForeignKey]:
        keys = []
        for columns, target in references.items():
            match = re.fullmatch(r"\s*(\w+)\s*\.\s*(?:(\w+)|\(([\w\s,]+)\))\s*", target)
            mine = _names([c.strip() for c in columns.strip("() ").split(",")])
            theirs = _names([c.strip() for c in (match[2] or match[3]).split(",")]) if match else ()
            if not match or len(mine) != len(theirs):
                self._wrong(
                    "PS-DECL-005",
                    f"references of {columns} is invalid",
                    where,
                    "'reference.column' or 'reference.(a, b)' with as many columns",
                    target,
                )
                continue
            keys.append(ForeignKey(mine, match[1], theirs))
        return keys

    def _new_name(self, name: str, where: Where, *, sink: bool = False) -> bool:
        if not NAME.match(name) or name.lower().startswith("ps_"):
            self._wrong("PS-DECL-001", "a name is invalid", where, "a letter, then letters, digits, _", name)
            return False
        taken: Sequence[SourceDecl | ViewDecl | StepDecl | SinkDecl | ParameterDecl | FunctionDecl]
        others = (self._sources, self._views, self._steps, self._parameters, self._functions)
        taken = self._sinks if sink else [declared for kind in others for declared in kind]
        for other in taken:
            if other.name.lower() == name.lower():
                self._wrong(
                    "PS-DECL-002", f"{name} is declared twice", where, "a name of its own", f"also at {other.where}"
                )
                return False
        return True

    def _wrong(self, code: str, message: str, where: Where, expected: str, got: str, hint: str = "") -> None:
        self._errors.append(DeclarationError(code, message, where=where, expected=expected, got=got, hint=hint))


def _names(value: Sequence[str] | str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) and value else tuple(value)


def _row_checks(checks: Mapping[str, str] | Sequence[str]) -> list[RowCheck]:
    if isinstance(checks, Mapping):
        return [RowCheck(name, sql) for name, sql in checks.items()]
    return [RowCheck(f"check_{number}", sql) for number, sql in enumerate(checks, 1)]

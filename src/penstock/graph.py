"""What a pipeline declares, as frozen data: sources, views, steps, sinks, parameters, and the graph of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from penstock.contract.schema import Schema
from penstock.errors import Where

Kind = Literal["stream", "table", "reference"]
Emit = Literal["changes", "final"]
Bound = Literal["bounded", "unbounded"]
Strategy = Literal["auto", "incremental", "refresh"]


@dataclass(frozen=True)
class SourceDecl:
    """A stream, table or reference.

    event_time: a column or an SQL expression over the columns; watermark: the delay behind the largest event time;
    key: primary key (tables, references); version: the column by which the newest row of a key wins;
    retention: older rows (by event time) leave as deletes; unique, within: duplicates of a stream (semantics R3);
    max_ahead: how far event time may lie after append time; idle_after: when a silent partition leaves the minimum;
    clock: the period of a clock source, None for all others; default: the URL where nothing binds it by name.
    """

    name: str
    kind: Kind
    schema: Schema
    where: Where
    event_time: str | None = None
    watermark: timedelta | None = None
    key: tuple[str, ...] = ()
    version: str | None = None
    retention: timedelta | None = None
    unique: tuple[str, ...] = ()
    within: timedelta | None = None
    max_ahead: timedelta = timedelta(hours=1)
    idle_after: timedelta = timedelta(seconds=30)
    correction_horizon: timedelta = timedelta(days=1)
    allow_empty: bool = False
    default: str | None = None
    transient: bool = False
    state: Bound = "bounded"
    clock: timedelta | None = None


@dataclass(frozen=True)
class ViewDecl:
    """A named query. sql: the user's own text. where: the place of the text's first character."""

    name: str
    sql: str
    where: Where
    emit: Emit = "changes"
    key: tuple[str, ...] = ()
    state: Bound = "bounded"
    strategy: Strategy = "auto"


@dataclass(frozen=True)
class StepDecl:
    """A pure state machine per key with timers (semantics B1); `function` is loaded, never run, at declaration."""

    name: str
    input: str
    key: tuple[str, ...]
    state: type[Any]
    output: Schema
    function: Callable[..., Any]
    where: Where
    time: str | None = None


@dataclass(frozen=True)
class FunctionDecl:
    """A Python function that views may call (semantics B2): DuckDB types, and what is called with Arrow arrays."""

    name: str
    arguments: tuple[str, ...]
    returns: str
    call: Callable[..., Any]
    where: Where

    def __call__(self, *arguments: Any) -> Any:
        return self.call(*arguments)


@dataclass(frozen=True)
class SinkDecl:
    """Where a view's changes go; on_error: `stop`, or `dead` to keep rows that the sink refuses as dead letters."""

    name: str
    view: str
    where: Where
    on_error: Literal["stop", "dead"] = "stop"


@dataclass(frozen=True)
class ParameterDecl:
    """A value that `--set NAME=VALUE` can change; SQL names it `$NAME`. type: `int`, `str`, `decimal`, `interval`."""

    name: str
    type: Literal["int", "str", "decimal", "interval"]
    default: str
    where: Where
    help: str = ""


@dataclass(frozen=True)
class Graph:
    """A whole pipeline, checked for names and references, frozen."""

    name: str
    sources: tuple[SourceDecl, ...]
    views: tuple[ViewDecl, ...]
    steps: tuple[StepDecl, ...]
    sinks: tuple[SinkDecl, ...]
    parameters: tuple[ParameterDecl, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    where: Where = field(default_factory=Where)
    functions: tuple[FunctionDecl, ...] = ()

    def source(self, name: str) -> SourceDecl | None:
        return next((s for s in self.sources if s.name == name), None)

    def view(self, name: str) -> ViewDecl | None:
        return next((v for v in self.views if v.name == name), None)

    def step(self, name: str) -> StepDecl | None:
        return next((s for s in self.steps if s.name == name), None)

    def sink(self, name: str) -> SinkDecl | None:
        return next((s for s in self.sinks if s.name == name), None)

"""Declared sources as blocks: columns, event time and checks are bound, parameters filled in."""

from __future__ import annotations

from dataclasses import replace

from penstock.errors import DeclarationError
from penstock.pipeline import SourceDecl
from penstock.plan.binder import BindProblem
from penstock.plan.blocks import Field, Relation, SourceBlock, quote
from penstock.plan.made import Made
from penstock.plan.parse import fill_parameters, quote_at


def add_source(made: Made, source: SourceDecl) -> None:
    """The source's block and relation.

    Raises:
        DeclarationError: PS-DECL-004, PS-DECL-005 or PS-DECL-015, with the place.
    """
    columns = source.schema.columns
    fields = tuple(Field(c.name, c.type, c.nullable) for c in columns)
    try:
        made.binder.add(source.name, fields)
    except BindProblem as problem:
        raise DeclarationError(
            "PS-DECL-004",
            f"{source.kind} {source.name}: a column's type is unknown",
            where=source.where,
            expected="DuckDB types",
            got=problem.message,
        ) from None
    event = None
    if source.event_time is not None:
        event = quote_at(fill_parameters(source.event_time, made.graph, source.where))
        column = source.schema.column(event.strip().strip('"'))
        event = quote(column.name) if column is not None else event
        _check_event_time(made, source, event)
    checks = tuple(
        replace(c, sql=quote_at(fill_parameters(c.sql, made.graph, source.where))) for c in source.schema.checks
    )
    source = replace(source, schema=replace(source.schema, checks=checks))
    for check in checks:
        _check_condition(made, source, check.name, check.sql)
    stream = source.kind == "stream"
    relation = Relation(
        source.name,
        fields,
        key=source.key,
        append_only=stream and source.retention is None,
        hidden=stream,
        stream=source.name if stream and event is not None and source.watermark is not None else None,
        event=event,
        streams=(source.name,) if event is not None and source.watermark is not None and stream else (),
        transient=source.transient,
    )
    made.blocks[source.name] = SourceBlock(relation, source)
    made.relations[source.name.lower()] = relation


def _check_event_time(made: Made, source: SourceDecl, event: str) -> None:
    try:
        found = made.binder.describe(f"SELECT ({event}) AS e FROM {quote(source.name)}")[0].type
    except BindProblem as problem:
        found = problem.message
    if not found.startswith("TIMESTAMP") or found == "TIMESTAMP WITH TIME ZONE":
        raise DeclarationError(
            "PS-DECL-005",
            f"{source.kind} {source.name}: event_time is not a TIMESTAMP",
            where=source.where,
            expected="a column or expression of type TIMESTAMP (UTC, without zone)",
            got=found,
            hint="event_time='make_timestamp(at_ns // 1000)' takes nanoseconds, 'epoch_ms(at_ms)' milliseconds",
        )


def _check_condition(made: Made, source: SourceDecl, name: str, sql: str) -> None:
    try:
        found = made.binder.describe(f"SELECT ({sql}) AS c FROM {quote(source.name)}")[0].type
    except BindProblem as problem:
        found = problem.message
    if found != "BOOLEAN":
        raise DeclarationError(
            "PS-DECL-004",
            f"{source.kind} {source.name}: check {name} is not a condition over its columns",
            where=source.where,
            expected="an SQL expression of type BOOLEAN",
            got=found,
        )

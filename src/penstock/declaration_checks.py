"""What can be wrong with declarations before any SQL is bound: columns, options and names that lead nowhere.

Every check returns all the mistakes it finds; none stops at the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from penstock.contract.schema import Schema
from penstock.durations import parse_duration
from penstock.errors import DeclarationError, Where
from penstock.graph import Kind, SinkDecl, SourceDecl, StepDecl, ViewDecl

# `rowid` is how stored rows are told apart; a column of that name would hide it.
RESERVED_COLUMNS = frozenset({"_op", "_epoch", "_seq", "_correction", "rowid"})
RESERVED_PREFIX = "_ps_"
_DURATIONS = ("watermark", "within", "retention", "max_ahead", "idle_after", "correction_horizon", "clock")


def check_columns(
    name: str, kind: Kind, schema: Schema, where: Where, options: Mapping[str, Any], spans: Mapping[str, Any]
) -> Iterator[DeclarationError]:
    """Names of columns, and options that name columns or need one another. spans: the options that are durations."""

    def wrong(message: str, expected: str, got: str, hint: str = "", *, code: str = "PS-DECL-005") -> DeclarationError:
        return DeclarationError(code, f"{kind} {name}: {message}", where=where, expected=expected, got=got, hint=hint)

    yield from _reserved(name, kind, schema, where)
    named = [(option, column) for option in ("key", "unique") for column in options.get(option, ())]
    version = options.get("version")
    named += [("version", version)] if version else []
    named += [("references", column) for key in schema.foreign_keys for column in key.columns]
    for option, column in named:
        if schema.column(column) is None:
            yield wrong(f"{option} names no column", ", ".join(schema.names), column, code="PS-DECL-003")
    if version and not options.get("key"):
        yield wrong("version without key", "a key", "no key")
    if bool(options.get("unique")) != bool(spans.get("within")):
        hint = "unique=('id',), within='1 hour' keeps the state of duplicates bounded"
        yield wrong("unique and within go together", "both", "only one", hint)
    if (spans.get("watermark") or spans.get("within") or spans.get("retention")) and not options.get("event_time"):
        yield wrong("watermark, within and retention need event_time", "event_time", "none")


def _reserved(name: str, kind: Kind, schema: Schema, where: Where) -> Iterator[DeclarationError]:
    seen: set[str] = set()
    for column in schema.names:
        lowered = column.lower()
        if lowered in RESERVED_COLUMNS or lowered.startswith(RESERVED_PREFIX):
            yield DeclarationError(
                "PS-DECL-001",
                f"{kind} {name}: column {column} is reserved",
                where=where,
                expected="a name other than rowid, _op, _epoch, _seq, _correction and not starting with _ps_",
                got=column,
            )
        if lowered in seen:
            yield DeclarationError(
                "PS-DECL-001",
                f"{kind} {name}: two columns differ only in case",
                where=where,
                expected="column names that differ in more than case",
                got=column,
            )
        seen.add(lowered)


def dangling(
    sources: Sequence[SourceDecl], views: Sequence[ViewDecl], steps: Sequence[StepDecl], sinks: Sequence[SinkDecl]
) -> Iterator[DeclarationError]:
    """Sinks, steps and foreign keys that name what is not declared."""
    relations = {s.name for s in sources} | {v.name for v in views} | {s.name for s in steps}
    for sink in sinks:
        if sink.view not in relations:
            yield undeclared(f"the view of sink {sink.name}", sink.where, relations, sink.view)
    for step in steps:
        if step.input not in relations:
            yield undeclared(f"the input of step {step.name}", step.where, relations, step.input)
    references = {s.name: s for s in sources if s.kind == "reference"}
    for source in sources:
        for key in source.schema.foreign_keys:
            target = references.get(key.reference)
            if target is None:
                yield undeclared(f"the reference of {source.name}", source.where, set(references), key.reference)
                continue
            for column in key.reference_columns:
                if target.schema.column(column) is None:
                    yield undeclared(f"a column of {key.reference}", source.where, set(target.schema.names), column)


def undeclared(what: str, where: Where, expected: set[str], got: str) -> DeclarationError:
    """The mistake of naming what there is not."""
    return DeclarationError(
        "PS-DECL-003",
        f"{what} is not declared",
        where=where,
        expected=", ".join(sorted(expected)) or "a declaration of it",
        got=got,
    )


def with_durations(source: SourceDecl, values: Mapping[str, str]) -> SourceDecl:
    """The source with durations that name a parameter (`$NAME`) filled in.

    Raises:
        DeclarationError: PS-DECL-015 if there is no such parameter, or it holds no duration.
    """
    changes: dict[str, Any] = {}
    for option in _DURATIONS:
        value: Any = getattr(source, option)
        if isinstance(value, str):
            try:
                changes[option] = parse_duration(values[value[1:]])
            except (KeyError, ValueError) as problem:
                raise DeclarationError(
                    "PS-DECL-015",
                    f"{source.kind} {source.name}: {option} = {value}",
                    where=source.where,
                    expected="a declared parameter that holds a duration",
                    got=str(problem),
                ) from None
    return replace(source, **changes) if changes else source

"""All mistakes of a pipeline at once: those of its declarations and those of its SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.errors import DeclarationErrors, Error
from penstock.graph import Graph, SourceDecl
from penstock.pipeline import Pipeline


def checked_graph(pipeline: Pipeline, values: Mapping[str, str] | None = None) -> Graph:
    """The pipeline's graph. Where declarations are wrong, the SQL of the right ones is checked too.

    Raises:
        DeclarationErrors: every mistake that can be seen, in the order of the file.
    """
    try:
        return pipeline.graph(values)
    except DeclarationErrors as found:
        told = {(e.code, str(e.where), e.message) for e in found.errors}
        more = [
            e for e in _sql_mistakes(pipeline, values, found.errors) if (e.code, str(e.where), e.message) not in told
        ]
        raise DeclarationErrors(sorted([*found.errors, *more], key=_place)) from None


def _sql_mistakes(pipeline: Pipeline, values: Mapping[str, str] | None, found: list[Error]) -> list[Error]:
    """What is wrong in the views over the declarations that are right.

    A name that is not declared may be one of a wrong declaration, so that is not told a second time; a source whose
    columns could not all be read is left out, so that no view is blamed for it.
    """
    rest = pipeline.graph_of_the_rest(values)
    sources = tuple(s for s in rest.sources if not _unreadable(s, rest, found))
    try:
        compile_for_duckdb(replace(rest, sources=sources), in_memory=True)
    except DeclarationErrors as problems:
        return [e for e in problems.errors if e.code not in ("PS-DECL-003", "PS-DECL-009", "PS-DECL-015")]
    return []


def _unreadable(source: SourceDecl, graph: Graph, found: list[Error]) -> bool:
    """Whether a mistake inside the source's declaration may have cost it a column."""
    declared = [s.where for s in graph.sources] + [v.where for v in graph.views]
    declared += [s.where for s in graph.steps] + [s.where for s in graph.sinks]
    later = [w.line for w in declared if w.file == source.where.file and w.line > source.where.line]
    end = min(later, default=1 << 31)
    places = [e.where for e in found if e.code in ("PS-DECL-004", "PS-DECL-006") and e.where is not None]
    return any(p.file == source.where.file and source.where.line <= p.line < end for p in places)


def _place(error: Error) -> tuple[str, int, int]:
    return (error.where.file, error.where.line, error.where.column) if error.where else ("", 0, 0)

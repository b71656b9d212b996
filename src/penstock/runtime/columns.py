"""The columns of what a pipeline declares so far, with the types that the engine gives them.

Only what the relation reads is compiled: mistakes elsewhere, and names that are declared later, do not matter.
"""

from __future__ import annotations

from dataclasses import replace

from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.graph import Graph
from penstock.plan.parse import parse_view


def columns_of(graph: Graph, name: str) -> tuple[tuple[str, str], ...]:
    """Names and DuckDB types of a source's, view's or step's columns.

    Raises:
        DeclarationErrors: the mistakes of the view, or of the views that it reads.
    """
    source = graph.source(name)
    if source is not None:
        return tuple((column.name, column.type) for column in source.schema.columns)
    step = graph.step(name)
    if step is not None:
        return tuple((column.name, column.type) for column in step.output.columns)
    plan = compile_for_duckdb(_lineage(graph, name), in_memory=True)
    view = plan.view(name)
    assert view is not None
    types = {field.name: field.type for field in plan.node(view.node).relation.fields}
    return tuple((column, types[column]) for column in view.columns)


def _lineage(graph: Graph, name: str) -> Graph:
    """The part of the graph that the view is computed from."""
    needed: set[str] = set()
    waiting = [name.lower()]
    views = {view.name.lower(): view for view in graph.views}
    steps = {step.name.lower(): step for step in graph.steps}
    while waiting:
        relation = waiting.pop()
        if relation in needed:
            continue
        needed.add(relation)
        if relation in views:
            waiting += [read.lower() for read in parse_view(views[relation], graph).relations]
        elif relation in steps:
            waiting.append(steps[relation].input.lower())
    return replace(
        graph,
        sources=tuple(
            replace(source, schema=replace(source.schema, foreign_keys=()))
            for source in graph.sources
            if source.name.lower() in needed
        ),
        views=tuple(view for view in graph.views if view.name.lower() in needed),
        steps=tuple(step for step in graph.steps if step.name.lower() in needed),
        sinks=(),
    )

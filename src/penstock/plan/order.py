"""In which order views and steps are compiled: inputs first. Circles and unknown names are found here."""

from __future__ import annotations

from sqlglot import exp

from penstock.errors import DeclarationError, Error, Where
from penstock.pipeline import StepDecl
from penstock.plan.made import Made
from penstock.plan.parse import Query, parse_view, place_in
from penstock.plan.volatile import refuse_volatile


def in_order(made: Made) -> list[Query | StepDecl]:
    """Views and steps, inputs first; the broken ones are reported and left out with all that needs them."""
    graph, volatile = made.graph, made.binder.volatile()
    queries: dict[str, Query | StepDecl] = {step.name.lower(): step for step in graph.steps}
    for view in graph.views:
        try:
            query = parse_view(view, graph)
            refuse_volatile(query, volatile)
            queries[view.name.lower()] = query
        except Error as problem:
            made.errors.append(problem)
    declared = [s.name for s in graph.sources] + [v.name for v in graph.views] + [s.name for s in graph.steps]
    known = {name.lower() for name in declared}
    ordered: list[Query | StepDecl] = []
    state: dict[str, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> bool:
        if name in path:
            cycle = " -> ".join([*path[path.index(name) :], name])
            if state.get(name) != "broken":
                made.errors.append(
                    DeclarationError(
                        "PS-DECL-009",
                        "views depend on each other in a circle",
                        where=_where(queries[name]),
                        got=cycle,
                        expected="views over sources and views before them",
                    )
                )
            state[name] = "broken"
            return False
        if name not in queries:
            return name in known and graph.view(name) is None
        if name in state:
            return state[name] == "done"
        inputs = _inputs(queries[name])
        unknown = [i for i in inputs if i.lower() not in known]
        if unknown:
            made.errors.append(_unknown_relation(queries[name], unknown[0], sorted(known)))
        # A list: every input is visited, also after one that is broken.
        fine = not unknown and all([visit(i.lower(), (*path, name)) for i in inputs])  # noqa: C419
        state[name] = "done" if fine and state.get(name) != "broken" else "broken"
        if state[name] == "done":
            ordered.append(queries[name])
        return state[name] == "done"

    for name in queries:
        visit(name, ())
    return ordered


def _inputs(item: Query | StepDecl) -> tuple[str, ...]:
    return (item.input,) if isinstance(item, StepDecl) else item.relations


def _where(item: Query | StepDecl) -> Where:
    return item.where if isinstance(item, StepDecl) else item.view.where


def _unknown_relation(item: Query | StepDecl, name: str, known: list[str]) -> Error:
    if isinstance(item, StepDecl):
        return DeclarationError("PS-DECL-003", f"step {item.name}: unknown input", where=item.where, got=name)
    table = next(t for t in item.tree.find_all(exp.Table) if t.name == name)
    meta = table.this.meta if isinstance(table.this, exp.Identifier) else {}
    where = place_in(item.view.where, item.text, int(meta.get("line", 0)), int(meta.get("start", 0)) + 1)
    if "start" in meta:
        start = int(meta["start"])
        where = place_in(item.view.where, item.text, int(meta["line"]), start - item.text.rfind("\n", 0, start))
    return DeclarationError(
        "PS-DECL-003",
        f"view {item.view.name} reads {name}, which is not declared",
        where=where,
        expected=", ".join(known),
        got=name,
        hint="a view reads declared sources, views and steps only",
    )

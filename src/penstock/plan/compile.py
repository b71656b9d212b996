"""A graph to a plan: order the views, bind each, take it apart into blocks, decide what is stored, check the bounds.

All mistakes of all views are collected and raised at once. A view that depends on a broken one is skipped, not blamed.
"""

from __future__ import annotations

from dataclasses import replace

from sqlglot import exp
from sqlglot.errors import SqlglotError

from penstock.declaration_checks import RESERVED_COLUMNS
from penstock.errors import DeclarationError, DeclarationErrors, Where
from penstock.pipeline import Graph, StepDecl, ViewDecl
from penstock.plan.binder import Binder, BindProblem
from penstock.plan.blocks import Field, FinalBlock, GroupedBlock, RankedBlock, Relation, StepBlock, quote
from penstock.plan.clauses import Opaque
from penstock.plan.decompose import compile_query, refresh_block
from penstock.plan.definite import make_definite
from penstock.plan.instead import hint_for, shortened, words
from penstock.plan.macros import expand
from penstock.plan.made import Made
from penstock.plan.order import in_order
from penstock.plan.ordering import Indefinite
from penstock.plan.parse import DIALECT, Query, place_as_written, place_of_word
from penstock.plan.plan import Plan, ViewPlan
from penstock.plan.qualification import Unqualified, qualified, quiet
from penstock.plan.rewrite.pivot import without_pivots
from penstock.plan.sources import add_source
from penstock.plan.storage import decide_storage

_KINDS = ("reference", "table", "stream")


def compile_plan(graph: Graph, binder: Binder, *, in_memory: bool) -> Plan:
    """The incremental program of a pipeline.

    Args:
        in_memory: the state dies with the process, so nothing needs a bound and every view is kept readable.

    Raises:
        DeclarationErrors: everything that is wrong, in the order of the file.
    """
    with quiet():
        return _compile(Made(graph, binder), in_memory=in_memory)


def _compile(made: Made, *, in_memory: bool) -> Plan:
    graph = made.graph
    for source in sorted(graph.sources, key=lambda s: _KINDS.index(s.kind)):
        with made.collecting():
            add_source(made, source)
    for item in in_order(made):
        with made.collecting():
            if isinstance(item, StepDecl):
                _add_step(made, item)
            elif all(name.lower() in made.relations for name in item.relations):
                _add_view(made, item)
    if made.errors:
        raise DeclarationErrors(sorted(made.errors, key=lambda e: (e.where.file, e.where.line) if e.where else ("", 0)))
    nodes = decide_storage(graph, made.blocks, made.views, made.owners, in_memory=in_memory)
    return Plan(graph, nodes, tuple(made.views.values()), dict(made.owners))


# -- views -------------------------------------------------------------------------------------------------------------


def _add_view(made: Made, query: Query) -> None:
    written = query
    query = expand(query, made.relations, made.binder)
    view = query.view
    fields = _bind(made, query, written)
    query = replace(query, tree=without_pivots(query.tree, made.binder))
    tree, notes = _definite(made, query, fields)
    oracle = tree.sql(DIALECT) if notes else query.text
    before = set(made.blocks)
    inner = f"{view.name}$changes" if view.emit == "final" else view.name
    try:
        if view.strategy == "refresh":
            raise Opaque("pinned by the declaration")
        result = compile_query(made, tree, inner, fields)
    except (Opaque, BindProblem, Unqualified, SqlglotError) as reason:
        for name in set(made.blocks) - before:
            made.drop(name)
        why = reason.message.split("\n")[0] if isinstance(reason, BindProblem) else str(reason)
        result = refresh_block(made, inner, fields, tree, oracle, why or type(reason).__name__)
    if view.emit == "final":
        result = _final(made, view, result)
    if view.key:
        result = _declared_key(made, view, result)
    for name in set(made.blocks) - before:
        made.owners[name] = view.name
    made.relations[view.name.lower()] = result
    made.binder.add(view.name, tuple(Field(f.name, f.type) for f in fields))
    columns = tuple(f.name for f in fields)
    made.views[view.name] = ViewPlan(view.name, result.name, oracle, columns, result.key, notes)


def _bind(made: Made, query: Query, written: Query) -> tuple[Field, ...]:
    """The view's columns. written: the query before macros were expanded in it."""
    view = query.view
    try:
        fields = made.binder.describe(query.text)
    except BindProblem as problem:
        read = [made.relations[n.lower()] for n in written.relations if n.lower() in made.relations]
        raise DeclarationError(
            "PS-DECL-007",
            f"view {view.name} does not fit its sources",
            where=_place(written, replace(problem, line=problem.line if query.text == written.text else 0)),
            expected="names, types and functions that DuckDB knows",
            got=shortened(problem.message),
            hint=hint_for(problem.message, read),
        ) from None
    seen: set[str] = set()
    for field in fields:
        lowered = field.name.lower()
        reserved = lowered.startswith("_ps_") or lowered in RESERVED_COLUMNS
        if reserved or lowered in seen:
            raise DeclarationError(
                "PS-DECL-001",
                f"view {view.name}: column {field.name} is {'reserved' if reserved else 'there twice'}",
                where=view.where,
                expected="columns with names of their own, compared without case",
                got=field.name,
                hint=f"write ... AS another_name for {field.name}",
            )
        seen.add(lowered)
    return fields


def _place(query: Query, problem: BindProblem) -> Where:
    """The place that the engine tells, or that of what it speaks of."""
    where = query.view.where
    if problem.line:
        return place_as_written(query, problem.line, problem.column)
    places = (place_of_word(where, query.view.sql, word) for word in words(problem.message))
    return next((place for place in places if place != where), where)


def _definite(made: Made, query: Query, fields: tuple[Field, ...]) -> tuple[exp.Query, tuple[str, ...]]:
    """The qualified tree made definite; where qualification or binding fails, the user's own tree made definite."""
    trees: list[exp.Query] = [query.tree]
    try:
        tree = qualified(query.tree, made.schema())
        described = made.binder.describe(tree.sql(DIALECT))
        if [f.type for f in described] == [f.type for f in fields]:
            trees.insert(0, tree)
    except (Unqualified, BindProblem):
        trees = [query.tree]
    notes: tuple[str, ...] = ()
    for tree in trees:
        try:
            definite, notes = make_definite(tree)
            if notes:
                made.binder.describe(definite.sql(DIALECT))
        except Indefinite as problem:
            raise _indefinite(query, problem.message, problem.word, problem.hint) from None
        except BindProblem:
            continue
        return definite, notes  # type: ignore[return-value]
    hint = "leave no order open: LIMIT after ORDER BY all columns, list(x ORDER BY x), OVER (... ORDER BY a unique key)"
    raise _indefinite(query, "rows are picked or listed in an order that is not stated", "", hint, "; ".join(notes))


def _indefinite(query: Query, message: str, word: str, hint: str, got: str = "") -> DeclarationError:
    return DeclarationError(
        "PS-DECL-008",
        f"view {query.view.name}: {message}",
        where=place_of_word(query.view.where, query.text, word) if word else query.view.where,
        expected="one answer, whatever order the rows are read in",
        got=got or word,
        hint=hint,
    )


def _final(made: Made, view: ViewDecl, relation: Relation) -> Relation:
    block = made.blocks[relation.name]
    if isinstance(block, GroupedBlock | RankedBlock) and block.window is not None:
        final = replace(relation, name=view.name, append_only=False, event=None, stream=None)
        horizon = max(
            (s.correction_horizon.total_seconds() for s in made.graph.sources if s.name in block.window.streams),
            default=0.0,
        )
        made.add(FinalBlock(final, relation.name, block.keys, block.window, horizon))
        return final
    raise DeclarationError(
        "PS-DECL-012",
        f"view {view.name}: emit = 'final' needs a window in its key",
        where=view.where,
        expected="GROUP BY time_bucket(INTERVAL ..., T), ... where T is the event time of a stream with a watermark, "
        "or the window of one view over such a stream",
        got="a view whose rows no watermark closes",
        hint="group by a window of the stream's event_time, by the window of the view it reads, or emit changes",
    )


def _declared_key(made: Made, view: ViewDecl, relation: Relation) -> Relation:
    names = {f.name.lower(): f.name for f in relation.fields}
    unknown = [k for k in view.key if k.lower() not in names]
    if unknown:
        raise DeclarationError(
            "PS-DECL-003",
            f"view {view.name}: the key names no column",
            where=view.where,
            expected=", ".join(names.values()),
            got=unknown[0],
        )
    keyed = replace(relation, key=tuple(names[k.lower()] for k in view.key))
    block = made.blocks[relation.name]
    made.blocks[relation.name] = replace(block, relation=keyed)
    return keyed


# -- steps -------------------------------------------------------------------------------------------------------------


def _add_step(made: Made, step: StepDecl) -> None:
    relation = made.relations[step.input.lower()]
    fields = {f.name.lower(): f for f in relation.fields}
    missing = [k for k in (*step.key, *([step.time] if step.time else [])) if k.lower() not in fields]
    if missing or not step.key:
        raise DeclarationError(
            "PS-DECL-003",
            f"step {step.name}: its key or time names no column of {step.input}",
            where=step.where,
            expected=", ".join(relation.columns),
            got=", ".join(missing) or "no key",
        )
    time = quote(fields[step.time.lower()].name) if step.time else relation.event
    if time is None:
        raise DeclarationError(
            "PS-DECL-005",
            f"step {step.name}: nothing orders its changes in time",
            where=step.where,
            expected=f"time=COLUMN of {step.input}",
            got=f"{step.input} has no event time",
        )
    output = tuple(Field(c.name, c.type, c.nullable) for c in step.output.columns)
    made.binder.add(step.name, output)
    result = Relation(step.name, output, append_only=True, streams=relation.streams)
    keys = tuple(fields[k.lower()] for k in step.key)
    made.add(StepBlock(result, step, relation.name, keys, time))
    made.owners[step.name] = step.name
    made.views[step.name] = ViewPlan(step.name, step.name, "", result.columns, ())

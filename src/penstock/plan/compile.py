"""A graph to a plan: order the views, bind each, take it apart into blocks, decide what is stored, check the bounds.

All mistakes of all views are collected and raised at once. A view that depends on a broken one is skipped, not blamed.
Blocks inside a view are named `view$part`, which no declared name can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify

from penstock.declaration_checks import RESERVED_COLUMNS
from penstock.errors import DeclarationError, DeclarationErrors, Error, Where
from penstock.pipeline import Graph, SourceDecl, StepDecl, ViewDecl
from penstock.plan.binder import Binder, BindProblem
from penstock.plan.blocks import (
    Block,
    Field,
    FinalBlock,
    GroupedBlock,
    RefreshBlock,
    Relation,
    SourceBlock,
    StepBlock,
    UnionBlock,
    quote,
)
from penstock.plan.definite import make_definite
from penstock.plan.late import exclude_late
from penstock.plan.parse import DIALECT, Query, fill_parameters, parse_view, place_in, quote_at
from penstock.plan.plan import Plan, ViewPlan
from penstock.plan.select import Opaque, compile_select
from penstock.plan.storage import decide_storage

_KINDS = ("reference", "table", "stream")


@dataclass
class _Compiler:
    graph: Graph
    binder: Binder
    blocks: dict[str, Block]
    relations: dict[str, Relation]
    views: dict[str, ViewPlan]
    owners: dict[str, str]
    errors: list[Error]


def compile_plan(graph: Graph, binder: Binder, *, in_memory: bool) -> Plan:
    """The incremental program of a pipeline.

    Args:
        in_memory: the state dies with the process, so nothing needs a bound and every view is kept readable.

    Raises:
        DeclarationErrors: everything that is wrong, in the order of the file.
    """
    compiler = _Compiler(graph, binder, {}, {}, {}, {}, [])
    for source in sorted(graph.sources, key=lambda s: _KINDS.index(s.kind)):
        with _collecting(compiler):
            _add_source(compiler, source)
    for item in _ordered(compiler):
        with _collecting(compiler):
            if isinstance(item, StepDecl):
                _add_step(compiler, item)
            elif all(name.lower() in compiler.relations for name in item.relations):
                _add_view(compiler, item)
    if compiler.errors:
        raise DeclarationErrors(
            sorted(compiler.errors, key=lambda e: (e.where.file, e.where.line) if e.where else ("", 0))
        )
    nodes = decide_storage(graph, compiler.blocks, compiler.views, compiler.owners, in_memory=in_memory)
    return Plan(graph, nodes, tuple(compiler.views.values()), dict(compiler.owners))


@contextmanager
def _collecting(compiler: _Compiler) -> Iterator[None]:
    try:
        yield
    except DeclarationErrors as problems:
        compiler.errors.extend(problems.errors)
    except Error as problem:
        compiler.errors.append(problem)


# -- sources -----------------------------------------------------------------------------------------------------------


def _add_source(compiler: _Compiler, source: SourceDecl) -> None:
    columns = source.schema.columns
    fields = tuple(Field(c.name, c.type, c.nullable) for c in columns)
    try:
        compiler.binder.add(source.name, fields)
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
        event = quote_at(fill_parameters(source.event_time, compiler.graph, source.where))
        column = source.schema.column(event.strip().strip('"'))
        event = quote(column.name) if column is not None else event
        _check_event_time(compiler, source, event)
    checks = tuple(
        replace(c, sql=quote_at(fill_parameters(c.sql, compiler.graph, source.where))) for c in source.schema.checks
    )
    source = replace(source, schema=replace(source.schema, checks=checks))
    for check in checks:
        _check_condition(compiler, source, check.name, check.sql)
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
    compiler.blocks[source.name] = SourceBlock(relation, source)
    compiler.relations[source.name.lower()] = relation


def _check_event_time(compiler: _Compiler, source: SourceDecl, event: str) -> None:
    try:
        found = compiler.binder.describe(f"SELECT ({event}) AS e FROM {quote(source.name)}")[0].type
    except BindProblem as problem:
        found = problem.message
    if not found.startswith("TIMESTAMP") or found == "TIMESTAMP WITH TIME ZONE":
        raise DeclarationError(
            "PS-DECL-005",
            f"{source.kind} {source.name}: event_time is not a TIMESTAMP",
            where=source.where,
            expected="a column or expression of type TIMESTAMP (UTC, without zone)",
            got=found,
            hint="event_time='make_timestamp_ns(at_ns)' takes nanoseconds, 'epoch_ms(at_ms)' milliseconds",
        )


def _check_condition(compiler: _Compiler, source: SourceDecl, name: str, sql: str) -> None:
    try:
        found = compiler.binder.describe(f"SELECT ({sql}) AS c FROM {quote(source.name)}")[0].type
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


# -- order -------------------------------------------------------------------------------------------------------------


def _ordered(compiler: _Compiler) -> list[Query | StepDecl]:
    """Views and steps, inputs first; the broken ones are reported and left out with all that needs them."""
    graph, volatile = compiler.graph, compiler.binder.volatile()
    queries: dict[str, Query | StepDecl] = {step.name.lower(): step for step in graph.steps}
    for view in graph.views:
        try:
            queries[view.name.lower()] = parse_view(view, graph, volatile)
        except Error as problem:
            compiler.errors.append(problem)
    declared = [s.name for s in graph.sources] + [v.name for v in graph.views] + [s.name for s in graph.steps]
    known = {name.lower() for name in declared}
    ordered: list[Query | StepDecl] = []
    state: dict[str, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> bool:
        if name in path:
            cycle = " -> ".join([*path[path.index(name) :], name])
            if state.get(name) != "broken":
                compiler.errors.append(
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
            compiler.errors.append(_unknown_relation(queries[name], unknown[0], sorted(known)))
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


# -- views -------------------------------------------------------------------------------------------------------------


def _add_view(compiler: _Compiler, query: Query) -> None:
    view = query.view
    fields = _bind(compiler, query)
    tree, notes = _definite(compiler, query, fields)
    oracle = tree.sql(DIALECT) if notes else query.text
    before = set(compiler.blocks)
    inner = f"{view.name}$changes" if view.emit == "final" else view.name
    try:
        if view.strategy == "refresh":
            raise Opaque("pinned by the declaration")
        result = _compile_query(compiler, tree, inner, fields)
    except (Opaque, BindProblem, SqlglotError) as reason:
        for name in set(compiler.blocks) - before:
            _drop(compiler, name)
        why = reason.message.split("\n")[0] if isinstance(reason, BindProblem) else str(reason)
        result = _refresh(compiler, inner, fields, tree, oracle, why or type(reason).__name__)
    if view.emit == "final":
        result = _final(compiler, view, result)
    if view.key:
        result = _declared_key(compiler, view, result)
    for name in set(compiler.blocks) - before:
        compiler.owners[name] = view.name
    compiler.relations[view.name.lower()] = result
    compiler.binder.add(view.name, tuple(Field(f.name, f.type) for f in fields))
    columns = tuple(f.name for f in fields)
    compiler.views[view.name] = ViewPlan(view.name, result.name, oracle, columns, result.key, notes)


def _bind(compiler: _Compiler, query: Query) -> tuple[Field, ...]:
    view = query.view
    try:
        fields = compiler.binder.describe(query.text)
    except BindProblem as problem:
        raise DeclarationError(
            "PS-DECL-007",
            f"view {view.name} does not fit its sources",
            where=place_in(view.where, query.text, problem.line, problem.column),
            expected="names, types and functions that DuckDB knows",
            got=problem.message,
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


def _definite(compiler: _Compiler, query: Query, fields: tuple[Field, ...]) -> tuple[exp.Query, tuple[str, ...]]:
    """The qualified tree made definite; where qualification fails, the user's own tree."""
    schema = _schema(compiler)
    try:
        tree = qualify(query.tree.copy(), schema=schema, dialect=DIALECT, validate_qualify_columns=False)
        described = compiler.binder.describe(tree.sql(DIALECT))
        if [f.type for f in described] != [f.type for f in fields]:
            tree = query.tree
    except (SqlglotError, BindProblem):
        tree = query.tree
    definite, notes = make_definite(tree)
    if notes:
        try:
            compiler.binder.describe(definite.sql(DIALECT))
        except BindProblem:
            return query.tree, ()
    return definite, notes  # type: ignore[return-value]


def _compile_query(compiler: _Compiler, tree: exp.Query, name: str, fields: tuple[Field, ...]) -> Relation:
    """Blocks for `tree` under `name`; raises Opaque where only refresh is right."""
    tree = _drop_order(tree)
    tree = _hoist(compiler, tree, name)
    match tree:
        case exp.Union() if not tree.args.get("by_name"):
            return _union(compiler, tree, name, fields)
        case exp.Select():
            selected = compile_select(tree, name, fields, compiler.relations, compiler.binder)
            for block in selected.blocks:
                _add(compiler, block)
            return selected.blocks[-1].relation
        case _:
            raise Opaque(type(tree).__name__.upper())


def _drop_order(tree: exp.Query) -> exp.Query:
    """ORDER BY without LIMIT says nothing about a relation."""
    distinct = tree.args.get("distinct")
    if isinstance(distinct, exp.Distinct) and distinct.args.get("on") is not None:
        raise Opaque("DISTINCT ON")
    if tree.args.get("limit") or tree.args.get("offset"):
        raise Opaque("LIMIT")
    if tree.args.get("order") is None:
        return tree
    tree = tree.copy()
    tree.set("order", None)
    return tree


def _hoist(compiler: _Compiler, tree: exp.Query, name: str) -> exp.Query:
    """Make blocks of CTEs and of subqueries in FROM; the tree then reads them by name."""
    tree = tree.copy()
    with_ = tree.args.get("with_")
    if with_ is not None:
        if with_.args.get("recursive"):
            raise Opaque("a recursive CTE")
        aliases = [cte.alias.lower() for cte in with_.expressions]
        inner_names = {c.alias.lower() for q in with_.expressions for c in q.this.find_all(exp.CTE)}
        if len(set(aliases)) != len(aliases) or inner_names & set(aliases) or set(aliases) & set(compiler.relations):
            raise Opaque("CTEs that hide other names")
        tree.set("with_", None)
        for cte in with_.expressions:
            block = _inner(compiler, cte.this, f"{name}$cte_{cte.alias}", cte.args["alias"])
            _rename(tree, cte.alias, block.name)
            for other in with_.expressions:
                _rename(other.this, cte.alias, block.name)
    if isinstance(tree, exp.Select):
        for number, subquery in enumerate(_from_subqueries(tree), 1):
            if not subquery.alias:
                raise Opaque("a subquery without a name")
            block = _inner(compiler, subquery.this, f"{name}$from_{subquery.alias}_{number}", subquery.args["alias"])
            subquery.replace(exp.Table(this=exp.to_identifier(block.name, quoted=True), alias=subquery.args["alias"]))
    return tree


def _from_subqueries(tree: exp.Select) -> list[exp.Subquery]:
    places = [tree.args["from_"].this] if tree.args.get("from_") else []
    places += [join.this for join in tree.args.get("joins") or []]
    return [p for p in places if isinstance(p, exp.Subquery)]


def _rename(tree: exp.Expr, alias: str, name: str) -> None:
    for table in tree.find_all(exp.Table):
        if table.name.lower() == alias.lower() and not table.args.get("db"):
            if not table.alias:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
            table.set("this", exp.to_identifier(name, quoted=True))


def _inner(compiler: _Compiler, tree: exp.Query, name: str, alias: exp.TableAlias) -> Relation:
    """A block for a query inside a view; refresh where it is opaque, so that the outer query need not be."""
    if alias.args.get("columns"):
        raise Opaque("a column list in an alias")
    fields = compiler.binder.describe(tree.sql(DIALECT))
    if len({f.name.lower() for f in fields}) != len(fields):
        raise Opaque("a subquery with two columns of one name")
    before = set(compiler.blocks)
    try:
        relation = _compile_query(compiler, tree, name, fields)
    except Opaque as reason:
        for added in set(compiler.blocks) - before:
            _drop(compiler, added)
        relation = _refresh(compiler, name, fields, tree, tree.sql(DIALECT), str(reason))
    compiler.relations[name.lower()] = relation
    compiler.binder.add(name, tuple(Field(f.name, f.type) for f in fields))
    return relation


def _union(compiler: _Compiler, tree: exp.Union, name: str, fields: tuple[Field, ...]) -> Relation:
    parts = []
    for number, part in enumerate(_branches(tree, bool(tree.args.get("distinct")))):
        own = compiler.binder.describe(part.sql(DIALECT))
        renamed = exp.select(
            *(f"CAST({quote(o.name)} AS {f.type}) AS {quote(f.name)}" for o, f in zip(own, fields, strict=True)),
            dialect=DIALECT,
        ).from_(exp.Subquery(this=part.copy(), alias=exp.TableAlias(this=exp.to_identifier("b", quoted=True))))
        if len({o.name.lower() for o in own}) != len(own):
            raise Opaque("a UNION branch with two columns of one name")
        qualified = qualify(renamed, dialect=DIALECT, schema=_schema(compiler), validate_qualify_columns=False)
        parts.append(_compile_query(compiler, qualified, f"{name}$branch_{number}", fields))
    distinct = bool(tree.args.get("distinct"))
    all_name = f"{name}$all" if distinct else name
    relation = Relation(
        all_name,
        fields,
        append_only=all(p.append_only for p in parts),
        streams=tuple(dict.fromkeys(s for p in parts for s in p.streams)),
        transient=any(p.transient for p in parts),
    )
    _add(compiler, UnionBlock(relation, tuple(p.name for p in parts)))
    if not distinct:
        return relation
    compiler.relations[all_name.lower()] = relation
    compiler.binder.add(all_name, fields)
    everything = exp.select(*(quote(f.name) for f in fields), dialect=DIALECT).distinct().from_(quote(all_name))
    qualified = qualify(everything, dialect=DIALECT, schema=_schema(compiler), validate_qualify_columns=False)
    return _compile_query(compiler, qualified, name, fields)


def _branches(tree: exp.Query, distinct: bool) -> list[exp.Query]:
    """The branches of nested unions of one kind, left to right."""
    plain = not any(tree.args.get(part) for part in ("with_", "order", "limit", "offset"))
    if isinstance(tree, exp.Union) and plain and bool(tree.args.get("distinct")) == distinct:
        return [b for side in (tree.left, tree.right) if isinstance(side, exp.Query) for b in _branches(side, distinct)]
    if isinstance(tree, exp.Subquery) and plain and isinstance(inner := tree.unnest(), exp.Query):
        return _branches(inner, distinct)
    return [tree]


def _schema(compiler: _Compiler) -> dict[str, object]:
    return {r.name.lower(): {f.name.lower(): f.type for f in r.fields} for r in compiler.relations.values()}


def _refresh(
    compiler: _Compiler, name: str, fields: tuple[Field, ...], tree: exp.Query, text: str, reason: str
) -> Relation:
    own = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    inputs = tuple(
        dict.fromkeys(
            compiler.relations[t.name.lower()].name
            for t in tree.find_all(exp.Table)
            if t.name.lower() in compiler.relations and t.name.lower() not in own
        )
    )
    without_late, late = exclude_late(tree, compiler.relations)
    relation = Relation(
        name,
        fields,
        streams=tuple(dict.fromkeys(s for i in inputs for s in compiler.relations[i.lower()].streams)),
        transient=any(compiler.relations[i.lower()].transient for i in inputs),
    )
    _add(compiler, RefreshBlock(relation, without_late.sql(DIALECT) if late else text, inputs, reason, late))
    return relation


def _final(compiler: _Compiler, view: ViewDecl, relation: Relation) -> Relation:
    block = compiler.blocks[relation.name]
    if isinstance(block, GroupedBlock) and block.window is not None:
        final = replace(relation, name=view.name, append_only=False, event=None, stream=None)
        horizon = max(
            (s.correction_horizon.total_seconds() for s in compiler.graph.sources if s.name in block.window.streams),
            default=0.0,
        )
        _add(compiler, FinalBlock(final, relation.name, block.keys, block.window, horizon))
        return final
    raise DeclarationError(
        "PS-DECL-012",
        f"view {view.name}: emit = 'final' needs a window in its key",
        where=view.where,
        expected="GROUP BY time_bucket(INTERVAL ..., event time of a stream with a watermark), ...",
        got="a view whose rows no watermark closes",
        hint="group by a window of the stream's event_time, or emit changes",
    )


def _declared_key(compiler: _Compiler, view: ViewDecl, relation: Relation) -> Relation:
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
    block = compiler.blocks[relation.name]
    compiler.blocks[relation.name] = replace(block, relation=keyed)
    return keyed


def _add(compiler: _Compiler, block: Block) -> None:
    compiler.blocks[block.relation.name] = block
    compiler.relations[block.relation.name.lower()] = block.relation


def _drop(compiler: _Compiler, name: str) -> None:
    del compiler.blocks[name]
    compiler.relations.pop(name.lower(), None)
    compiler.binder.remove(name)


# -- steps -------------------------------------------------------------------------------------------------------------


def _add_step(compiler: _Compiler, step: StepDecl) -> None:
    relation = compiler.relations[step.input.lower()]
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
    compiler.binder.add(step.name, output)
    result = Relation(step.name, output, append_only=True, streams=relation.streams)
    keys = tuple(fields[k.lower()] for k in step.key)
    _add(compiler, StepBlock(result, step, relation.name, keys, time))
    compiler.owners[step.name] = step.name
    compiler.views[step.name] = ViewPlan(step.name, step.name, "", result.columns, ())

"""`hop` and `session` windows, written out as plain SQL before anything is bound.

    GROUP BY hop(at, size, slide), ...      each row once for every window that holds it
    GROUP BY session(at, gap), ...          rows of one group less than `gap` apart, from neighbour to neighbour

`window_start` and `window_end` are the window's bounds in SELECT, HAVING and QUALIFY. What comes out is SQL that any
DuckDB runs: it is what a view must equal. The planner knows the shapes again (plan/windows.py, plan/select_session.py)
and gives them late rows and an end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlglot import exp

from penstock.errors import DeclarationError
from penstock.plan.binder import Binder, BindProblem
from penstock.plan.blocks import Relation, quote
from penstock.plan.interval import fixed_us
from penstock.plan.parse import DIALECT, SESSION_MACRO, Query, place_of_word
from penstock.plan.windows import hop_starts

SESSION = "_ps_session"
ROWS = "_ps_rows"


def expand(query: Query, relations: Mapping[str, Relation], binder: Binder) -> Query:
    """The query without macros.

    Raises:
        DeclarationError: PS-DECL-016, a macro that does not say what it must.
    """
    if not _macros(query.tree):
        return query
    tree = query.tree.copy()
    for select in list(tree.find_all(exp.Select)):
        group = select.args.get("group")
        calls = [e for e in group.expressions if _is_macro(e)] if group is not None else []
        if len(calls) > 1:
            raise _wrong(query, calls[1], "one window in a GROUP BY")
        if calls and isinstance(calls[0], exp.Anonymous):
            call = calls[0]
            arguments = 3 if call.name.lower() == "hop" else 2
            if len(call.expressions) != arguments or not all(_is_length(e) for e in call.expressions[1:]):
                raise _wrong(
                    query, call, "hop(event time, size, slide) or session(event time, gap) with fixed INTERVALs"
                )
            if call.name.lower() == "hop":
                _expand_hop(query, select, call, relations)
            else:
                _expand_session(select, call, binder)
    if left := _macros(tree):
        raise _wrong(
            query, left[0], "hop(...) and session(...) in GROUP BY; window_start and window_end name the bounds"
        )
    return replace(query, text=tree.sql(DIALECT), tree=tree)


def _macros(tree: exp.Expr) -> list[exp.Expr]:
    return [node for node in tree.find_all(exp.Anonymous) if _is_macro(node)]


def _is_macro(node: exp.Expr) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() in ("hop", SESSION_MACRO)


def _is_length(node: exp.Expr) -> bool:
    return isinstance(node, exp.Interval) and (fixed_us(node) or 0) > 0


def _wrong(query: Query, call: exp.Expr, expected: str) -> DeclarationError:
    word = "session" if call.name.lower() == SESSION_MACRO else "hop"
    return DeclarationError(
        "PS-DECL-016",
        f"view {query.view.name}: {word}(...) is not a window here",
        where=place_of_word(query.view.where, query.text, call.name),
        expected=expected,
        got=call.sql(DIALECT).replace(SESSION_MACRO, "session"),
    )


def _own_nodes(select: exp.Select) -> list[exp.Expr]:
    """The expressions of the SELECT itself that come after its groups."""
    parts = [*select.expressions, *(select.args.get(p) for p in ("having", "qualify", "order"))]
    return [p for p in parts if p is not None]


def _name_bounds(select: exp.Select, start: exp.Expr, end: exp.Expr) -> None:
    """Put the bounds in the place of their names."""
    bounds = {"window_start": start, "window_end": end}

    def resolve(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column) and not node.table and node.name.lower() in bounds:
            return bounds[node.name.lower()].copy()
        return node

    for part in _own_nodes(select):
        if isinstance(part, exp.Column) and not part.table and part.name.lower() in bounds:
            part.replace(exp.alias_(bounds[part.name.lower()].copy(), part.name, quoted=True))
        else:
            part.replace(part.transform(resolve))


# -- hop ---------------------------------------------------------------------------------------------------------------


def _expand_hop(query: Query, select: exp.Select, call: exp.Anonymous, relations: Mapping[str, Relation]) -> None:
    """The input whose time it is gives each row as often as windows hold it, with the window's start."""
    at, size, slide = call.expressions
    place = _place_of(select, at, relations)
    if place is None or not place.alias_or_name:
        raise _wrong(query, call, "an event time that names its table: hop(s.at, ...)")
    known = relations.get(place.name.lower()) if isinstance(place, exp.Table) else None
    if known is not None and "window_start" in {c.lower() for c in known.columns}:
        raise _wrong(query, call, "an input without a column window_start")
    alias = exp.to_identifier(place.alias_or_name, quoted=True)
    starts: exp.Expr = exp.maybe_parse(
        f"SELECT {hop_starts(*(e.sql(DIALECT) for e in (at, size, slide)))}", dialect=DIALECT
    )
    expanded = exp.Select(
        expressions=[exp.Star(), exp.alias_(starts.expressions[0], "window_start", quoted=True)],
        from_=exp.From(this=place.copy()),
    )
    start = exp.column(exp.to_identifier("window_start", quoted=True), table=alias)
    end = exp.Add(this=start.copy(), expression=size.copy())
    call.replace(start.copy())
    _name_bounds(select, start, end)
    place.replace(exp.Subquery(this=expanded, alias=exp.TableAlias(this=alias)))


def _place_of(select: exp.Select, at: exp.Expr, relations: Mapping[str, Relation]) -> exp.Expr | None:
    """The input of the FROM clause that the event time is a column of; None where that is not clear."""
    places = [select.args["from_"].this] if select.args.get("from_") else []
    places += [join.this for join in select.args.get("joins") or []]
    columns = list(at.find_all(exp.Column))
    tables = {c.table.lower() for c in columns}
    if len(places) == 1:
        return places[0]  # type: ignore[no-any-return]
    if tables and "" not in tables:
        found = [p for p in places if {p.alias_or_name.lower()} == tables]
    else:
        names = {c.name.lower() for c in columns}
        by_place = [(p, relations.get(p.name.lower())) for p in places if isinstance(p, exp.Table)]
        found = [p for p, r in by_place if r is not None and names <= {c.lower() for c in r.columns}]
    return found[0] if len(found) == 1 else None


# -- session -----------------------------------------------------------------------------------------------------------


def session_sql(rows: str, keys: tuple[str, ...], gap: str) -> str:
    """The rows (SQL with a column `_ps_at`) with the bounds of the session that each is in."""
    partition = ", ".join(quote(k) for k in keys)
    by = f"PARTITION BY {partition} " if keys else ""
    within = f"PARTITION BY {partition}, window_start" if keys else "PARTITION BY window_start"
    first = f"CASE WHEN _ps_at - lag(_ps_at) OVER ({by}ORDER BY _ps_at) < {gap} THEN NULL ELSE _ps_at END AS _ps_first"
    marked = f"SELECT *, {first} FROM ({rows}) AS {ROWS}"
    started = f"SELECT *, max(_ps_first) OVER ({by}ORDER BY _ps_at) AS window_start FROM ({marked}) AS _ps_marked"
    return f"SELECT *, max(_ps_at) OVER ({within}) + {gap} AS window_end FROM ({started}) AS _ps_started"


def _expand_session(select: exp.Select, call: exp.Anonymous, binder: Binder) -> None:
    """The SELECT reads its rows with their sessions; the other group keys are the partition."""
    at, gap = call.expressions
    projections = {e.alias_or_name.lower(): e.unalias() for e in select.expressions}
    keys = [
        _written(e, list(projections.values()), select, binder, projections) for e in select.args["group"].expressions
    ]
    others = [k for k in keys if not _is_macro(k)]
    columns: dict[str, str] = {k.sql(DIALECT): f"_ps_k{n}" for n, k in enumerate(others)}
    named = tuple(columns.values())
    read: list[exp.Expr] = [exp.alias_(k.copy(), columns[k.sql(DIALECT)], quoted=True) for k in others]
    read.append(exp.alias_(at.copy(), "_ps_at", quoted=True))

    def visit(node: exp.Expr) -> exp.Expr:
        sql = node.sql(DIALECT)
        if sql in columns and not isinstance(node, exp.Identifier):
            return exp.column(exp.to_identifier(columns[sql], quoted=True))
        if not isinstance(node, exp.Column) or (not node.table and node.name.lower() in ("window_start", "window_end")):
            return node
        columns[sql] = f"_ps_c{len(columns)}"
        read.append(exp.alias_(node.copy(), columns[sql], quoted=True))
        return exp.column(exp.to_identifier(columns[sql], quoted=True))

    for part in _own_nodes(select):
        name = part.alias_or_name if part.parent is select and part in select.expressions else ""
        changed = part.transform(visit)
        bare = name and not isinstance(changed, exp.Alias) and name not in ("window_start", "window_end")
        part.replace(exp.alias_(changed, name, quoted=True) if bare else changed)
    rows = exp.Select(expressions=read)
    for clause in ("from_", "joins", "where"):
        if select.args.get(clause):
            rows.set(clause, select.args[clause])
            select.set(clause, None)
    rows.where(exp.Not(this=exp.Is(this=at.copy(), expression=exp.Null())), copy=False)
    ended: exp.Expr = exp.maybe_parse(session_sql(rows.sql(DIALECT), named, gap.sql(DIALECT)), dialect=DIALECT)
    select.set("from_", exp.From(this=exp.Subquery(this=ended, alias=exp.TableAlias(this=exp.to_identifier(SESSION)))))
    bounds = [exp.column(name, table=SESSION) for name in ("window_start", "window_end")]
    select.set(
        "group", exp.Group(expressions=[*(exp.column(exp.to_identifier(k, quoted=True)) for k in named), *bounds])
    )
    _name_bounds(select, bounds[0], bounds[1])


def _written(
    key: exp.Expr, projections: list[exp.Expr], select: exp.Select, binder: Binder, aliases: Mapping[str, exp.Expr]
) -> exp.Expr:
    """A group key without ordinals and aliases; a column of an input goes before an alias."""
    key = key.unnest()
    if isinstance(key, exp.Literal) and not key.is_string:
        return projections[int(key.this) - 1]
    if isinstance(key, exp.Column) and not key.table and key.name.lower() in aliases:
        parts = select.copy().args
        every = exp.Select(expressions=[exp.Star()], **{c: parts[c] for c in ("from_", "joins") if parts.get(c)})
        try:
            inputs = {f.name.lower() for f in binder.describe(every.sql(DIALECT))}
        except BindProblem:
            inputs = set()
        return key if key.name.lower() in inputs else aliases[key.name.lower()]
    return key

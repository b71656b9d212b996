"""PIVOT with named values and UNPIVOT, as what they stand for.

    PIVOT F ON c IN (v, ...) USING a(x) GROUP BY g
      =  SELECT g, a(x) FILTER (WHERE CAST(c AS VARCHAR) IS NOT DISTINCT FROM CAST(v AS VARCHAR)) AS v, ...
           FROM F GROUP BY g
    UNPIVOT F ON x, y INTO NAME n VALUE v
      =  SELECT r, u.n, u.v FROM (SELECT r, unnest([{n: 'x', v: x}, {n: 'y', v: y}]) AS u FROM F) WHERE u.v IS NOT NULL

Without GROUP BY, g is every column of F that neither ON nor USING reads; r is every column that ON does not read. The
names and types of the result are what the engine says of the clause itself. What is of no such form is left as it is,
and recomputed: a FILTER in USING too, which DuckDB drops, and NULL among more than 20 values, which DuckDB 1.5 takes
for the text 'NULL'.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from sqlglot import exp

from penstock.plan.binder import Binder, BindProblem
from penstock.plan.blocks import Field, literal, quote
from penstock.plan.clauses import aggregates_in
from penstock.plan.parse import DIALECT
from penstock.plan.rewrite.scopes import fresh

# As many columns DuckDB computes by filters; more by a map from texts.
_BY_FILTERS = 20


class _Left(Exception):
    """This clause is not rewritten."""


@dataclass(frozen=True)
class _Clause:
    """A PIVOT or UNPIVOT. source: SQL of what it reads; fields: of its result, own: of what it reads."""

    node: exp.Pivot
    source: str
    fields: tuple[Field, ...]
    own: tuple[Field, ...]

    @property
    def names(self) -> dict[str, str]:
        return {f.name.lower(): f.name for f in self.own}


def without_pivots(tree: exp.Query, binder: Binder) -> exp.Query:
    """An equal query without those PIVOTs and UNPIVOTs that can be written out."""
    if tree.find(exp.Pivot) is None:
        return tree
    tree = tree.copy()
    # Inner ones first: what a clause reads is then plain.
    for node in reversed(list(tree.find_all(exp.Pivot))):
        try:
            _replace(node, binder)
        except (_Left, BindProblem):
            continue
    return tree


def _replace(node: exp.Pivot, binder: Binder) -> None:
    place = node.parent
    if node.this is not None:
        expanded = _expanded(_statement(node, binder), binder)
        expanded.set("with_", node.args.get("with_"))
        node.replace(expanded)
        return
    if not isinstance(place, exp.Table | exp.Subquery) or len(place.args["pivots"]) != 1 or not _is_own(place):
        raise _Left
    alias = node.args.get("alias")
    node.set("alias", None)
    node.set("columns", None)
    expanded = _expanded(_in_from(node, place, binder), binder)
    name = alias.name if alias is not None and alias.name else fresh(place, "pivoted")
    columns = alias.args.get("columns") or [] if alias is not None else []
    for projection, renamed in zip(expanded.expressions, columns, strict=False):
        projection.set("alias", exp.to_identifier(renamed.name, quoted=True))
    place.replace(
        exp.Subquery(this=expanded, alias=exp.TableAlias(this=exp.to_identifier(name, quoted=True))),
    )


def _is_own(place: exp.Expr) -> bool:
    """Whether the clause is of this place alone, and not of a join that ends with it."""
    join = place.parent
    if isinstance(join, exp.From):
        return True
    return isinstance(join, exp.Join) and bool(join.args.get("on") or not (join.kind or join.side or join.method))


def _statement(node: exp.Pivot, binder: Binder) -> _Clause:
    source, with_ = _named(node.this), _context(node.this)
    # What it reads is written on its own: within a PIVOT sqlglot writes columns without their tables.
    asked = node.copy()
    asked.set("with_", None)
    asked.this.replace(exp.to_table("_ps_in"))
    seen = f"{with_ + ',' if with_ else 'WITH'} _ps_in AS (SELECT * FROM {source})"
    return _Clause(
        node,
        source,
        binder.describe(f"{seen} SELECT * FROM ({asked.sql(DIALECT)})"),
        binder.describe(f"{with_} SELECT * FROM {source}"),
    )


def _in_from(node: exp.Pivot, place: exp.Expr, binder: Binder) -> _Clause:
    bare = place.copy()
    bare.set("pivots", None)
    source, with_ = _named(bare), _context(place)
    return _Clause(
        node,
        source,
        binder.describe(f"{with_} SELECT * FROM {place.sql(DIALECT)}"),
        binder.describe(f"{with_} SELECT * FROM {source}"),
    )


def _named(place: exp.Expr) -> str:
    if isinstance(place, exp.Query) and not place.alias_or_name:
        inner = place.unnest() if isinstance(place, exp.Subquery) else place
        place = exp.Subquery(this=inner.copy(), alias=exp.TableAlias(this=exp.to_identifier("_ps_in", quoted=True)))
    return place.sql(DIALECT)


def _context(node: exp.Expr) -> str:
    """The CTEs that the node sees."""
    seen: list[exp.Expr] = []
    below: exp.Expr = node
    above = node.parent
    inside: exp.Expr | None = None
    while above is not None:
        if isinstance(below, exp.CTE):
            inside = below
        with_ = above.args.get("with_")
        if with_ is not None:
            ctes = list(with_.expressions)
            if with_.args.get("recursive"):
                raise _Left
            seen = [*(ctes[: _place(ctes, inside)] if below is with_ and inside is not None else ctes), *seen]
        below, above = above, above.parent
    return f"WITH {', '.join(c.sql(DIALECT) for c in seen)}" if seen else ""


def _place(ctes: list[exp.Expr], inside: exp.Expr) -> int:
    return next(n for n, cte in enumerate(ctes) if cte is inside)


def _expanded(clause: _Clause, binder: Binder) -> exp.Select:
    if len(clause.names) != len(clause.own) or any(f.name.lower().startswith("_ps_") for f in clause.own):
        raise _Left
    text = _unpivoted(clause) if clause.node.args.get("unpivot") else _pivoted(clause, binder.aggregates())
    found: exp.Expr = exp.maybe_parse(text, dialect=DIALECT)
    described = binder.describe(f"{_context(_anchor(clause.node))} {text}")
    if not isinstance(found, exp.Select) or described != clause.fields:
        raise _Left
    return found


def _anchor(node: exp.Pivot) -> exp.Expr:
    """A node that sees what the clause's source sees."""
    return node.this if isinstance(node.this, exp.Expr) else node


# -- PIVOT -------------------------------------------------------------------------------------------------------------


def _pivoted(clause: _Clause, aggregates: frozenset[str]) -> str:
    node = clause.node
    statement = node.this is not None
    wanted = list(node.expressions if statement else node.args.get("fields") or [])
    calls = list((node.args.get("using") or [exp.maybe_parse("count(*)")]) if statement else node.expressions)
    conditions = [_condition(combination) for combination in product(*(_values(part) for part in wanted))]
    number = len(clause.fields) - len(conditions) * len(calls)
    group = node.args.get("group")
    keys = [_key(clause, e) for e in group.expressions] if group is not None else _remaining(clause, [*wanted, *calls])
    hasty = len(conditions) > _BY_FILTERS and any(v.find(exp.Null) for part in wanted for v in part.expressions)
    if hasty or len(keys) != number:
        raise _Left
    cells = [_filtered(call, condition, aggregates) for condition in conditions for call in calls]
    values = [*(quote(k) for k in keys), *cells]
    outputs = ", ".join(f"{v} AS {quote(f.name)}" for v, f in zip(values, clause.fields, strict=True))
    by = f" GROUP BY {', '.join(quote(k) for k in keys)}" if keys else ""
    return f"SELECT {outputs} FROM {clause.source}{by}"


def _values(part: exp.Expr) -> list[list[tuple[str, str]]]:
    """What each column of an IN list asks: expressions and their values, as SQL."""
    if not isinstance(part, exp.In) or part.args.get("query") or not part.expressions:
        raise _Left
    asked = part.this.expressions if isinstance(part.this, exp.Tuple) else [part.this]
    found = []
    for value in part.expressions:
        value = value.this if isinstance(value, exp.PivotAlias | exp.Alias) else value
        parts = value.expressions if isinstance(value, exp.Tuple) else [value]
        if len(parts) != len(asked):
            raise _Left
        found.append([(a.sql(DIALECT), _value(v)) for a, v in zip(asked, parts, strict=True)])
    return found


def _value(value: exp.Expr) -> str:
    """A bare word is a text."""
    return literal(value.name) if isinstance(value, exp.Column) and not value.table else value.sql(DIALECT)


def _condition(combination: tuple[list[tuple[str, str]], ...]) -> str:
    return " AND ".join(
        f"CAST({asked} AS VARCHAR) IS NOT DISTINCT FROM CAST({value} AS VARCHAR)"
        for part in combination
        for asked, value in part
    )


def _key(clause: _Clause, key: exp.Expr) -> str:
    if not isinstance(key, exp.Column) or key.name.lower() not in clause.names:
        raise _Left
    return clause.names[key.name.lower()]


def _remaining(clause: _Clause, read: list[exp.Expr]) -> list[str]:
    used = {column.name.lower() for part in read for column in _read(part)}
    return [name for lowered, name in clause.names.items() if lowered not in used]


def _read(part: exp.Expr) -> list[exp.Column]:
    """The columns that ON or USING reads: the words of an IN list are none."""
    return list((part.this if isinstance(part, exp.In) else part).find_all(exp.Column))


def _filtered(call: exp.Expr, condition: str, aggregates: frozenset[str]) -> str:
    holder = exp.Paren(this=call.unalias().copy())
    found = aggregates_in(holder, aggregates)
    if len(found) != 1 or isinstance(found[0], exp.Filter):
        raise _Left
    where = exp.Where(this=exp.maybe_parse(condition, dialect=DIALECT))
    found[0].replace(exp.Filter(this=found[0].copy(), expression=where))
    return str(holder.this.sql(DIALECT))


# -- UNPIVOT -----------------------------------------------------------------------------------------------------------


def _unpivoted(clause: _Clause) -> str:
    node = clause.node
    into = node.args.get("into")
    if node.this is not None:
        listed, width = node.expressions, len(into.expressions) if into is not None else 1
    else:
        fields = node.args.get("fields") or []
        if len(fields) != 1 or len(node.expressions) != 1:
            raise _Left
        values = node.expressions[0]
        listed, width = fields[0].expressions, len(values.expressions) if isinstance(values, exp.Tuple) else 1
    others, name, values = clause.fields[: -1 - width], clause.fields[-1 - width], clause.fields[-width:]
    entries = _entries(clause, list(listed), [f.name.lower() for f in others])
    if any(len(columns) != width for _, columns in entries):
        raise _Left
    kept = ", ".join(quote(f.name) for f in others)
    each = ", ".join(
        "{'n': "
        + literal(said)
        + "".join(
            f", 'v{n}': CAST({quote(c)} AS {f.type})" for n, (c, f) in enumerate(zip(columns, values, strict=True))
        )
        + "}"
        for said, columns in entries
    )
    before = f"{kept}, " if kept else ""
    outputs = [f"{quote(f.name)} AS {quote(f.name)}" for f in others]
    outputs += [f"struct_extract(_ps_u, 'n') AS {quote(name.name)}"]
    outputs += [f"struct_extract(_ps_u, 'v{n}') AS {quote(f.name)}" for n, f in enumerate(values)]
    some = " AND ".join(f"struct_extract(_ps_u, 'v{n}') IS NOT NULL" for n in range(width))
    where = "" if node.args.get("include_nulls") else f" WHERE {some}"
    below = f"SELECT {before}unnest([{each}]) AS _ps_u FROM {clause.source}"
    return f"SELECT {', '.join(outputs)} FROM ({below}) AS _ps_each{where}"


def _entries(clause: _Clause, listed: list[exp.Expr], others: list[str]) -> list[tuple[str, list[str]]]:
    """What each row of the result is called, and the columns that it shows."""
    if len(listed) == 1 and (listed[0].is_star or isinstance(listed[0], exp.Columns)):
        return [(name, [name]) for lowered, name in clause.names.items() if lowered not in others]
    found = []
    for entry in listed:
        alias = entry.args["alias"].name if isinstance(entry, exp.Alias | exp.PivotAlias) else ""
        inner = entry.this if alias else entry
        columns = [_key(clause, c) for c in (inner.expressions if isinstance(inner, exp.Tuple) else [inner])]
        found.append((alias or "_".join(columns), columns))
    return found

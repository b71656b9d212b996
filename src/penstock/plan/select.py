"""One qualified SELECT to blocks: a flat block, and a grouped one over it where there are aggregates.

A SELECT that this file cannot take apart raises `Opaque` with the reason; the caller then falls back to refresh, which
is always right. Nothing here guesses: what is not recognised is opaque.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from penstock.plan.binder import Binder
from penstock.plan.blocks import (
    Aggregate,
    Field,
    FlatBlock,
    GroupedBlock,
    Input,
    Late,
    Relation,
    Window,
    quote,
)
from penstock.plan.parse import DIALECT, function_names
from penstock.plan.windows import end_of_event, find_window

INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)


class Opaque(Exception):
    """This query goes to refresh; the message is the reason that `explain` shows."""


@dataclass(frozen=True)
class Selected:
    """The blocks of one SELECT, inputs first; the last one is the result."""

    blocks: tuple[FlatBlock | GroupedBlock, ...]


def compile_select(
    select: exp.Select,
    name: str,
    fields: tuple[Field, ...],
    relations: Mapping[str, Relation],
    binder: Binder,
) -> Selected:
    """The blocks of `select`, which must be qualified and read only `relations`.

    fields: the result's columns as the engine describes them. Raises Opaque.
    """
    _refuse(select)
    sources = _sources(select, relations)
    aggregates = binder.aggregates()
    grouping = select.args.get("group")
    projections = [e.unalias() for e in select.expressions]
    if len(projections) != len(fields) or any(isinstance(e, exp.Star | exp.Columns) for e in projections):
        raise Opaque("its columns cannot be named one by one")
    conditions = _conditions(select)
    has_aggregates = any(_aggregates(e, aggregates) for e in [*projections, *_having(select)])
    distinct = select.args.get("distinct")
    if grouping is None and not has_aggregates:
        if distinct is None:
            return Selected((_flat(name, fields, projections, sources, conditions, relations),))
        inner = f"{name}$rows"
        flat = _flat(inner, fields, projections, sources, conditions, relations)
        return Selected((flat, _distinct(name, fields, flat)))
    if distinct is not None:
        raise Opaque("DISTINCT over aggregates")
    return _grouped(select, name, fields, projections, sources, conditions, relations, binder)


# -- what is refused ---------------------------------------------------------------------------------------------------


def _refuse(select: exp.Select) -> None:
    for part, reason in (
        ("limit", "LIMIT"),
        ("offset", "OFFSET"),
        ("qualify", "QUALIFY"),
        ("windows", "WINDOW"),
        ("laterals", "LATERAL"),
        ("sample", "SAMPLE"),
        ("pivots", "PIVOT"),
        ("with_", "WITH"),
    ):
        if select.args.get(part):
            raise Opaque(reason)
    for node in select.walk():
        if node is select:
            continue
        if isinstance(node, exp.Query | exp.Subquery):
            raise Opaque("a subquery")
        if isinstance(node, exp.Window):
            raise Opaque("a window function")
        if isinstance(node, exp.Unnest | exp.Explode | exp.Lateral | exp.Values | exp.TableSample | exp.Pivot):
            raise Opaque(type(node).__name__.lower())
        if isinstance(node, exp.Anonymous) and node.name.lower() in ("unnest", "grouping", "grouping_id"):
            raise Opaque(node.name.lower())


def _sources(select: exp.Select, relations: Mapping[str, Relation]) -> list[tuple[exp.Table, Input]]:
    from_ = select.args.get("from_")
    if from_ is None:
        raise Opaque("a SELECT without FROM")
    found = [(from_.this, _input(from_.this, relations, "from", None))]
    for join in select.args.get("joins") or []:
        side, kind, method = join.side.upper(), join.kind.upper(), (join.method or "").upper()
        if method or side not in ("", "LEFT") or kind not in ("", "INNER", "CROSS", "OUTER"):
            raise Opaque(" ".join(word for word in (method, side, kind, "JOIN") if word))
        if join.args.get("using"):
            raise Opaque("JOIN ... USING that could not be expanded")
        on = join.args.get("on")
        how = "left" if side == "LEFT" else "inner"
        condition = on.sql(DIALECT) if on is not None else None
        found.append((join.this, _input(join.this, relations, how, condition)))
    optional = {i.relation for _, i in found if i.join == "left"}
    if any(sum(i.relation == name for _, i in found) > 1 for name in optional):
        raise Opaque("a LEFT JOIN to a relation that the query also reads elsewhere")
    aliases = [i.alias.lower() for _, i in found]
    if len(set(aliases)) != len(aliases):
        raise Opaque("two inputs with one alias")
    _refuse_whole_rows(select, [i for _, i in found], relations)
    return found


def _refuse_whole_rows(select: exp.Select, inputs: list[Input], relations: Mapping[str, Relation]) -> None:
    """An alias used as a value is the whole row: a delta's rows have hidden columns, which it would show."""
    names = {c.lower() for i in inputs for c in relations[i.relation.lower()].columns}
    aliases = {i.alias.lower() for i in inputs}
    for column in select.find_all(exp.Column):
        if column.name.lower() in aliases and column.name.lower() not in names:
            raise Opaque("a whole row as a value")
    if select.find(exp.TableColumn) is not None:
        raise Opaque("a whole row as a value")


def _input(table: exp.Expr, relations: Mapping[str, Relation], how: str, on: str | None) -> Input:
    if not isinstance(table, exp.Table) or table.args.get("db") or table.name.lower() not in relations:
        raise Opaque(f"{type(table).__name__.lower()} in FROM")
    if table.args.get("joins") or table.args.get("sample") or table.args.get("pivots"):
        raise Opaque("a nested join")
    alias = table.args.get("alias")
    if alias is not None and alias.args.get("columns"):
        raise Opaque("a column list in an alias")
    relation = relations[table.name.lower()]
    match how:
        case "from":
            return Input(relation.name, table.alias_or_name, "from", None)
        case "left":
            return Input(relation.name, table.alias_or_name, "left", on or "TRUE")
        case _:
            return Input(relation.name, table.alias_or_name, "inner", on or "TRUE")


def _conditions(select: exp.Select) -> tuple[str, ...]:
    where = select.args.get("where")
    if where is None:
        return ()
    parts = where.this.flatten() if isinstance(where.this, exp.And) else [where.this]
    return tuple(part.sql(DIALECT) for part in parts)


def _having(select: exp.Select) -> list[exp.Expr]:
    having = select.args.get("having")
    return [having.this] if having is not None else []


def _aggregates(expression: exp.Expr, names: frozenset[str]) -> list[exp.Expr]:
    """The outermost aggregate calls in `expression`, each with its FILTER."""
    found: list[exp.Expr] = []

    def visit(node: exp.Expr) -> None:
        if isinstance(node, exp.Filter):
            found.append(node)
            return
        is_aggregate = isinstance(node, exp.AggFunc) or (isinstance(node, exp.Func) and function_names(node) & names)
        if is_aggregate:
            found.append(node)
            return
        for child in node.iter_expressions():
            visit(child)

    visit(expression)
    return found


# -- flat --------------------------------------------------------------------------------------------------------------


def _flat(
    name: str,
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    sources: list[tuple[exp.Table, Input]],
    conditions: tuple[str, ...],
    relations: Mapping[str, Relation],
    late: Late | None = None,
) -> FlatBlock:
    inputs = tuple(i for _, i in sources)
    carried = _carrier(inputs, relations)
    event = _event_column(fields, projections, carried, relations)
    by_name = [relations[i.relation.lower()] for i in inputs]
    plain = _plain_columns(projections, inputs, relations)
    streams = tuple(dict.fromkeys(s for r in by_name for s in r.streams))
    alone = len(inputs) == 1
    key = _flat_key(fields, projections, inputs, relations)
    repeated = len({i.relation for i in inputs}) != len(inputs)
    relation = Relation(
        name,
        tuple(
            Field(f.name, f.type, column is None or column.nullable) for f, column in zip(fields, plain, strict=True)
        ),
        key=key,
        append_only=all(r.append_only for r in by_name)
        and not repeated
        and (alone or not any(i.join == "left" for i in inputs)),
        hidden=carried is not None,
        stream=relations[carried.relation.lower()].stream if carried else None,
        event=event,
        streams=streams,
        transient=any(r.transient for r in by_name),
    )
    columns = tuple((f.name, p.sql(DIALECT)) for f, p in zip(fields, projections, strict=True))
    return FlatBlock(relation, inputs, columns, conditions, late, carried.alias if carried else None)


def _carrier(inputs: tuple[Input, ...], relations: Mapping[str, Relation]) -> Input | None:
    """The one input whose rows carry position and watermark, None where there is none or more than one."""
    hidden = [i for i in inputs if relations[i.relation.lower()].hidden and i.join != "left"]
    return hidden[0] if len(hidden) == 1 else None


def _event_column(
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    carried: Input | None,
    relations: Mapping[str, Relation],
) -> str | None:
    if carried is None:
        return None
    event = event_expression(relations[carried.relation.lower()], carried.alias)
    for column, projection in zip(fields, projections, strict=True):
        if event is not None and projection == event:
            return quote(column.name)
    return None


def event_expression(relation: Relation, alias: str) -> exp.Expr | None:
    """The relation's event time over its columns as `alias`, quoted as qualification quotes them."""
    if relation.event is None:
        return None
    tree: exp.Expr = exp.maybe_parse(relation.event, dialect=DIALECT)
    names = {c.lower(): c for c in relation.columns}

    def qualify_column(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column) and not node.table:
            return exp.column(
                exp.to_identifier(names.get(node.name.lower(), node.name).lower(), quoted=True),
                table=exp.to_identifier(alias, quoted=True),
            )
        return node

    return tree.transform(qualify_column)


def _plain_columns(
    projections: list[exp.Expr], inputs: tuple[Input, ...], relations: Mapping[str, Relation]
) -> list[Field | None]:
    """For each projection that is a bare column of a non-outer input, that column."""
    by_alias = {i.alias.lower(): i for i in inputs}
    found: list[Field | None] = []
    for projection in projections:
        column = None
        if isinstance(projection, exp.Column) and projection.table.lower() in by_alias:
            source = by_alias[projection.table.lower()]
            fields = {f.name.lower(): f for f in relations[source.relation.lower()].fields}
            column = fields.get(projection.name.lower()) if source.join != "left" else None
        found.append(column)
    return found


def _flat_key(
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    inputs: tuple[Input, ...],
    relations: Mapping[str, Relation],
) -> tuple[str, ...]:
    """A lone input's key, where all of it is projected (semantics V5)."""
    if len(inputs) != 1:
        return ()
    relation = relations[inputs[0].relation.lower()]
    names = {p.name.lower(): f.name for f, p in zip(fields, projections, strict=True) if isinstance(p, exp.Column)}
    if not relation.key or any(k.lower() not in names for k in relation.key):
        return ()
    return tuple(names[k.lower()] for k in relation.key)


# -- grouped -----------------------------------------------------------------------------------------------------------


def _distinct(name: str, fields: tuple[Field, ...], flat: FlatBlock) -> GroupedBlock:
    keys = flat.relation.fields
    relation = Relation(
        name,
        keys,
        key=tuple(f.name for f in keys),
        append_only=flat.relation.append_only,
        streams=flat.relation.streams,
        transient=flat.relation.transient,
    )
    outputs = tuple((f.name, quote(f.name)) for f in keys)
    return GroupedBlock(
        relation, flat.relation.name, keys, (), outputs, None, None, "merge", "DISTINCT counts its rows"
    )


def _grouped(
    select: exp.Select,
    name: str,
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    sources: list[tuple[exp.Table, Input]],
    conditions: tuple[str, ...],
    relations: Mapping[str, Relation],
    binder: Binder,
) -> Selected:
    names = binder.aggregates()
    keys = _group_keys(select, projections, names)
    calls: dict[str, exp.Expr] = {}
    for expression in [*projections, *_having(select)]:
        for call in _aggregates(expression, names):
            calls.setdefault(call.sql(DIALECT), call)
    inner = f"{name}$rows"
    columns: list[tuple[str, exp.Expr]] = [(f"_ps_k{n}", key) for n, key in enumerate(keys)]
    calls_list = list(calls.values())
    shapes = [_shape(call) for call in calls_list]
    read = _Read()
    for number, shape in enumerate(shapes):
        if shape.kind == "opaque":
            read.rewrite(calls_list[number])
        if shape.argument is not None:
            columns.append((f"_ps_a{number}", shape.argument))
        if shape.filter is not None:
            columns.append((f"_ps_f{number}", shape.filter))
    columns += read.columns
    from_sql = from_clause(sources, conditions)
    described = binder.describe(
        f"SELECT {', '.join(f'{e.sql(DIALECT)} AS {quote(n)}' for n, e in columns) or '1 AS _ps_one'} {from_sql}"
    )
    inputs = tuple(i for _, i in sources)
    carried = _carrier(inputs, relations)
    window, late = _window(keys, carried, relations)
    if not columns:
        columns = [("_ps_one", exp.Literal.number(1))]
    flat = _flat(inner, described, [e for _, e in columns], sources, conditions, relations, late)
    aggregates = tuple(
        _aggregate(number, call, shape, described, flat.relation.append_only, binder, from_sql, read)
        for number, (call, shape) in enumerate(zip(calls.values(), shapes, strict=True))
    )
    opaque = [a for a in aggregates if a.kind == "opaque"]
    key_fields = tuple(flat.relation.fields[: len(keys)])
    rewrite = _Rewrite(keys, list(calls))
    outputs = tuple((f.name, f"CAST({rewrite(p)} AS {f.type})") for f, p in zip(fields, projections, strict=True))
    having = [rewrite(h) for h in _having(select)]
    key_columns = _key_columns(fields, projections, keys)
    relation = Relation(
        name,
        fields,
        key=key_columns,
        streams=flat.relation.streams,
        transient=flat.relation.transient,
    )
    grouped = GroupedBlock(
        relation,
        inner,
        key_fields,
        aggregates,
        outputs,
        having[0] if having else None,
        window,
        "affected groups" if opaque else "merge",
        f"{_call_name(opaque[0])} does not merge" if opaque else "all aggregates are linear",
    )
    return Selected((flat, grouped))


def _call_name(aggregate: Aggregate) -> str:
    return aggregate.sql.split("(", 1)[0].lower() + ("(DISTINCT)" if "DISTINCT" in aggregate.sql else "")


def from_clause(sources: list[tuple[exp.Table, Input]], conditions: tuple[str, ...]) -> str:
    """FROM and WHERE as written, over relations by name."""
    parts = ["FROM"]
    for _, source in sources:
        reference = f"{quote(source.relation)} AS {quote(source.alias)}"
        match source.join:
            case "from":
                parts.append(reference)
            case "inner":
                parts.append(f"JOIN {reference} ON {source.on}")
            case "left":
                parts.append(f"LEFT JOIN {reference} ON {source.on}")
    if conditions:
        parts.append("WHERE " + " AND ".join(f"({c})" for c in conditions))
    return " ".join(parts)


def _group_keys(select: exp.Select, projections: list[exp.Expr], names: frozenset[str]) -> list[exp.Expr]:
    group = select.args.get("group")
    if group is None:
        return []
    named = any(group.args.get(part) for part in ("grouping_sets", "cube", "rollup", "totals"))
    if named or group.find(exp.GroupingSets, exp.Cube, exp.Rollup):
        raise Opaque("GROUPING SETS, ROLLUP or CUBE")
    if group.args.get("all"):
        return [p for p in projections if not _aggregates(p, names) and not isinstance(p, exp.Literal)]
    keys = []
    for expression in group.expressions:
        expression = expression.unnest() if isinstance(expression, exp.Paren) else expression
        if isinstance(expression, exp.Tuple):
            raise Opaque("a tuple in GROUP BY")
        if isinstance(expression, exp.Literal) and not expression.is_string:
            expression = projections[int(expression.this) - 1]
        keys.append(expression)
    return list({k.sql(DIALECT): k for k in keys}.values())


class _Read:
    """The columns that aggregates which do not merge read, under names of their own in the flat block."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self.columns: list[tuple[str, exp.Expr]] = []

    def rewrite(self, call: exp.Expr) -> str:
        """The call over those columns, as SQL."""
        copy = call.copy()
        for column in list(copy.find_all(exp.Column)):
            sql = column.sql(DIALECT)
            if sql not in self._names:
                self._names[sql] = f"_ps_c{len(self._names)}"
                self.columns.append((self._names[sql], column.copy()))
            column.replace(exp.column(exp.to_identifier(self._names[sql], quoted=True)))
        return copy.sql(DIALECT)


@dataclass(frozen=True)
class _Shape:
    """An aggregate call taken apart: the call itself without FILTER, its only argument, its FILTER."""

    call: exp.Expr
    argument: exp.Expr | None
    filter: exp.Expr | None
    kind: str


_KINDS: dict[type[exp.Expr], str] = {
    exp.Count: "count",
    exp.CountIf: "count_if",
    exp.Sum: "sum",
    exp.Avg: "avg",
    exp.Min: "min",
    exp.Max: "max",
    exp.LogicalAnd: "bool_and",
    exp.LogicalOr: "bool_or",
}


def _shape(call: exp.Expr) -> _Shape:
    condition = call.expression.this if isinstance(call, exp.Filter) else None
    bare = call.this if isinstance(call, exp.Filter) else call
    kind = _KINDS.get(type(bare), "opaque")
    argument = bare.args.get("this")
    if isinstance(argument, exp.Star) or (kind == "count" and argument is None):
        argument = None
    plain = (
        kind != "opaque"
        and not bare.expressions
        and not bare.args.get("count")
        and not isinstance(argument, exp.Distinct | exp.Order)
    )
    if not plain:
        return _Shape(bare, None, None, "opaque")
    if kind == "count_if" and argument is not None:
        # DuckDB's count_if sums: over no value at all it is NULL, not 0.
        return _Shape(bare, exp.cast(exp.cast(argument.copy(), "BOOLEAN"), "INTEGER"), condition, "sum")
    return _Shape(bare, argument, condition, kind)


def _aggregate(
    number: int,
    call: exp.Expr,
    shape: _Shape,
    described: tuple[Field, ...],
    append_only: bool,
    binder: Binder,
    from_sql: str,
    read: _Read,
) -> Aggregate:
    types = {f.name: f.type for f in described}
    argument = f"_ps_a{number}" if f"_ps_a{number}" in types else None
    condition = f"_ps_f{number}" if f"_ps_f{number}" in types else None
    result = binder.describe(f"SELECT {call.sql(DIALECT)} AS r {from_sql}")[0].type
    kind, partial = _merge_kind(shape.kind, types.get(argument or "", ""), result, append_only)
    if shape.kind == "opaque":
        sql = read.rewrite(call)
    else:
        condition_sql = f" FILTER (WHERE {quote(condition)})" if condition else ""
        sql = f"{shape.kind}({quote(argument) if argument else '*'}){condition_sql}"
    return Aggregate(f"_ps_g{number}", sql, kind, argument, condition, result, partial)  # type: ignore[arg-type]


def _merge_kind(kind: str, argument: str, result: str, append_only: bool) -> tuple[str, str]:
    """How the aggregate merges over arguments of that type, and the type of its partial."""
    exact = argument in INTEGERS or argument.startswith("DECIMAL")
    match kind:
        case "count" | "bool_and" | "bool_or":
            return kind, "BIGINT"
        case "sum" if exact and (result == "HUGEINT" or result.startswith("DECIMAL")):
            return kind, result
        case "avg" if exact and result == "DOUBLE" and argument != "HUGEINT":
            partial = "HUGEINT" if argument in INTEGERS else f"DECIMAL(38,{argument.rstrip(')').split(',')[1].strip()})"
            return kind, partial
        case "min" | "max" if append_only and result == argument:
            return kind, result
        case _:
            return "opaque", ""


def _window(
    keys: list[exp.Expr], carried: Input | None, relations: Mapping[str, Relation]
) -> tuple[Window | None, Late | None]:
    if carried is None:
        return None, None
    relation = relations[carried.relation.lower()]
    event = event_expression(relation, carried.alias)
    if event is None or relation.stream is None:
        return None, None
    for number, key in enumerate(keys):
        length = find_window(key, event)
        if length is None:
            continue
        start = key.sql(DIALECT)
        late = Late(
            relation.stream,
            relation.name,
            carried.alias,
            start,
            f"{start} + {length}",
            end_of_event(key, event, length),
        )
        column = f"_ps_k{number}"
        return Window(column, f"{quote(column)} + {length}", length, relation.streams), late
    return None, None


def _key_columns(fields: tuple[Field, ...], projections: list[exp.Expr], keys: list[exp.Expr]) -> tuple[str, ...]:
    """The output columns that are the group keys; () where a key is not projected. No keys: the one row needs none."""
    found = []
    for key in keys:
        name = next((f.name for f, p in zip(fields, projections, strict=True) if p == key), None)
        if name is None:
            return ()
        found.append(name)
    return tuple(found)


class _Rewrite:
    """Projections over the input become SQL over keys (`_ps_k0`...) and aggregates (`_ps_g0`...)."""

    def __init__(self, keys: list[exp.Expr], calls: list[str]) -> None:
        self._keys = {key.sql(DIALECT): f"_ps_k{n}" for n, key in enumerate(keys)}
        self._calls = {call: f"_ps_g{n}" for n, call in enumerate(calls)}

    def __call__(self, expression: exp.Expr) -> str:
        rewritten = self._visit(expression.copy())
        for column in rewritten.find_all(exp.Column):
            if not column.name.startswith("_ps_"):
                raise Opaque(f"column {column.name} is neither grouped nor aggregated")
        return rewritten.sql(DIALECT)

    def _visit(self, node: exp.Expr) -> exp.Expr:
        sql = node.sql(DIALECT)
        name = self._keys.get(sql) or self._calls.get(sql)
        if name is not None:
            return exp.column(exp.to_identifier(name, quoted=True))
        for key, value in list(node.args.items()):
            if isinstance(value, exp.Expr):
                node.set(key, self._visit(value))
            elif isinstance(value, list):
                node.set(key, [self._visit(v) if isinstance(v, exp.Expr) else v for v in value])
        return node

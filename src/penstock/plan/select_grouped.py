"""GROUP BY and DISTINCT of a SELECT: keys, aggregates and how each merges, the window among the keys.

The flat block below computes keys and arguments under names of its own (`_ps_k0`, `_ps_a0`, `_ps_f0`, `_ps_c0`); the
grouped block is SQL over these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from penstock.plan.binder import Binder
from penstock.plan.blocks import (
    Aggregate,
    Closing,
    Field,
    FlatBlock,
    GroupedBlock,
    Hop,
    Input,
    Late,
    Relation,
    Window,
    quote,
)
from penstock.plan.clauses import Opaque, aggregates_in, from_clause, having_of
from penstock.plan.closings import closing_window, output_closings, window_closings
from penstock.plan.macros import SESSION
from penstock.plan.noise import is_noisy
from penstock.plan.parse import DIALECT
from penstock.plan.select_flat import carrier_of, event_expression, flat_block
from penstock.plan.windows import end_of_event, find_window

INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)


def distinct_block(name: str, fields: tuple[Field, ...], flat: FlatBlock) -> GroupedBlock:
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


def group_key(key: exp.Expr, kind: str) -> exp.Expr:
    """What rows are grouped by for a key of the type `kind`.

    0.0 and -0.0 are one group. It goes by 0.0 always, so that which row came first does not show.
    """
    if kind not in ("DOUBLE", "FLOAT"):
        return key
    zero = exp.cast(exp.Literal.number(0), kind, dialect=DIALECT)
    return exp.Case(
        ifs=[exp.If(this=exp.EQ(this=exp.paren(key), expression=zero), true=zero.copy())], default=key.copy()
    )


def grouped_blocks(
    select: exp.Select,
    name: str,
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    sources: list[tuple[exp.Table, Input]],
    conditions: tuple[str, ...],
    relations: Mapping[str, Relation],
    binder: Binder,
) -> tuple[FlatBlock, GroupedBlock]:
    names = binder.aggregates()
    keys = _group_keys(select, projections, names)
    calls: dict[str, exp.Expr] = {}
    for expression in [*projections, *having_of(select)]:
        for call in aggregates_in(expression, names):
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
    columns = [
        (column, group_key(expression, described[n].type) if n < len(keys) else expression)
        for n, (column, expression) in enumerate(columns)
    ]
    inputs = tuple(i for _, i in sources)
    window, late, closings = _window(keys, inputs, relations)
    if not columns:
        columns = [("_ps_one", exp.Literal.number(1))]
    flat = flat_block(inner, described, [e for _, e in columns], sources, conditions, relations, late)
    aggregates = tuple(
        _aggregate(number, call, shape, described, flat.relation.append_only, binder, from_sql, read)
        for number, (call, shape) in enumerate(zip(calls.values(), shapes, strict=True))
    )
    opaque = [a for a in aggregates if a.kind == "opaque"]
    key_fields = tuple(flat.relation.fields[: len(keys)])
    rewrite = _Rewrite(keys, list(calls))
    rewritten = tuple(rewrite(p) for p in projections)
    outputs = tuple((f.name, f"CAST({sql} AS {f.type})") for f, sql in zip(fields, rewritten, strict=True))
    having = [rewrite(h) for h in having_of(select)]
    key_columns = _key_columns(fields, projections, keys)
    relation = Relation(
        name,
        fields,
        key=key_columns,
        streams=flat.relation.streams,
        transient=flat.relation.transient,
        closings=output_closings(fields, rewritten, closings),
        single=not keys,
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
        tuple(f.name for f, p in zip(fields, projections, strict=True) if f.type == "DOUBLE" and is_noisy(p)),
    )
    return flat, grouped


def _call_name(aggregate: Aggregate) -> str:
    return aggregate.sql.split("(", 1)[0].lower() + ("(DISTINCT)" if "DISTINCT" in aggregate.sql else "")


def _group_keys(select: exp.Select, projections: list[exp.Expr], names: frozenset[str]) -> list[exp.Expr]:
    group = select.args.get("group")
    if group is None:
        return []
    named = any(group.args.get(part) for part in ("grouping_sets", "cube", "rollup", "totals"))
    if named or group.find(exp.GroupingSets, exp.Cube, exp.Rollup):
        raise Opaque("GROUPING SETS, ROLLUP or CUBE")
    if group.args.get("all"):
        return [p for p in projections if not aggregates_in(p, names) and not isinstance(p, exp.Literal)]
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
    keys: list[exp.Expr], inputs: tuple[Input, ...], relations: Mapping[str, Relation]
) -> tuple[Window | None, Late | None, tuple[Closing, ...]]:
    """The window among the keys, which rows are late for it, and the event times of its own rows."""
    carried = carrier_of(inputs, relations)
    if carried is None:
        found = closing_window(keys, inputs, relations)
        return (found[0], None, found[1]) if found is not None else (None, None, ())
    relation = relations[carried.relation.lower()]
    event = event_expression(relation, carried.alias)
    if event is None or relation.stream is None:
        return None, None, ()
    for number, key in enumerate(keys):
        if (hop := _hop_of(key, carried, relation)) is not None:
            return _hop_window(number, key, event, hop, relation, carried)
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
        window = Window(column, f"{quote(column)} + {length}", length, relation.streams)
        return window, late, window_closings(column, key, event, length)
    return None, None, ()


def _hop_of(key: exp.Expr, carried: Input, relation: Relation) -> Hop | None:
    """The hopping windows whose start the key is."""
    if not isinstance(key, exp.Column) or key.table.lower() != carried.alias.lower():
        return None
    return next((hop for hop in relation.hops if hop.column.lower() == key.name.lower()), None)


def _hop_window(
    number: int, key: exp.Expr, event: exp.Expr, hop: Hop, relation: Relation, carried: Input
) -> tuple[Window | None, Late | None, tuple[Closing, ...]]:
    """Each row is there once for every window, so it is late for those that have ended, and for these alone."""
    start, column = key.sql(DIALECT), f"_ps_k{number}"
    first = f"time_bucket({hop.slide}, _ps_event - {hop.size}) + {hop.slide} + {hop.size}"
    late = Late(relation.stream or "", relation.name, carried.alias, start, f"{start} + {hop.size}", first)
    window = Window(column, f"{quote(column)} + {hop.size}", hop.size, relation.streams)
    last: exp.Expr = exp.maybe_parse(f"time_bucket({hop.slide}, {event.sql(DIALECT)})", dialect=DIALECT)
    return window, late, window_closings(column, last, event, hop.size)


def _key_columns(fields: tuple[Field, ...], projections: list[exp.Expr], keys: list[exp.Expr]) -> tuple[str, ...]:
    """The output columns that are the group keys; () where a key is not projected. No keys: the one row needs none.

    A session is known by its start, so that one that grows is a row that changes.
    """
    found = []
    for key in keys:
        if isinstance(key, exp.Column) and (key.table, key.name) == (SESSION, "window_end"):
            continue
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

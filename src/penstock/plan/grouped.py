"""Grouped blocks: GROUP BY and DISTINCT.

Delta rule, *merge* (linear aggregates, exact under retractions because weights are +1 and -1):

    partial'(g)  =  partial(g) + sum over the delta's rows of group g of  weight * contribution
    d            =  -output(partial(g)) + output(partial'(g))   where they differ

A group lives while its hidden row count `_ps_n` is above zero; the group of a query without keys lives always. min and
max merge by least and greatest, over append-only input alone.

Delta rule, *affected groups* (all other aggregates): the groups that the delta touches are computed again from the
input's content; d is the difference to their stored outputs.

Either may be computed *again* as a whole: merge with the partials of everything less the stored ones in place of the
delta's partials, affected groups with all groups touched.

Reference version: `content_sql`, the GROUP BY over the input's whole content.
"""

from __future__ import annotations

import re

from penstock.plan.blocks import Aggregate, Field, GroupedBlock, column_list, quote, same
from penstock.plan.noise import settled_sql

W = '"_ps_w"'
# Columns of `merge_step_sql`: whether the group lived and lives; its place in the state; outputs before and after;
# whether the delta has the former and the latter.
OLD, NEW, INDEX = "_ps_old", "_ps_new", "_ps_i"
BEFORE, AFTER = "_ps_b_", "_ps_a_"
OUT, IN = "_ps_out", "_ps_in"
_HAD, _HAS = "_ps_had", "_ps_has"


def content_sql(block: GroupedBlock, content: str) -> str:
    """Keys and outputs of the whole block over the input's content (an SQL table or subquery)."""
    return _grouped(block, content, f"FROM {content} AS i")


def output_sql(block: GroupedBlock, state: str) -> str:
    """Merge: the block's rows from its state table."""
    having = f" WHERE {_finished(block, block.having, 's.')}" if block.having else ""
    outputs = ", ".join(f"{_finished(block, sql, 's.')} AS {quote(name)}" for name, sql in block.outputs)
    keys = "".join(f", s.{quote(k.name)}" for k in block.keys)
    return f"SELECT {outputs}{keys} FROM {state} AS s{having}"


# -- merge -------------------------------------------------------------------------------------------------------------


def merge_state_sql(block: GroupedBlock, partials: str, state: str) -> str:
    """The state of the touched groups."""
    return f"SELECT s.* FROM {state} AS s SEMI JOIN {partials} AS g ON {same('s', 'g', block.keys)}"


def merge_touched_sql(block: GroupedBlock, partials: str, state: str, also: tuple[str, ...] = ()) -> str:
    """One wide row per touched group: keys, `_ps_old` and `_ps_new` (does the group live), old and new partials.

    partials: what `partials_sql` gives; state: that of these groups, and perhaps of others; also: more of its columns.
    """
    keys = column_list([k.name for k in block.keys], "g")
    columns = [keys] if keys else []
    alive = 's."_ps_n" IS NOT NULL' if not block.keys else 'coalesce(s."_ps_n", 0) > 0'
    will_live = "TRUE" if not block.keys else 'coalesce(s."_ps_n", 0) + g."_ps_n" > 0'
    columns += [f'{alive} AS "_ps_old"', f'{will_live} AS "_ps_new"']
    for old, new, name in _merged(block):
        columns += [f"{old} AS {quote('o' + name)}", f"{new} AS {quote('n' + name)}"]
    columns += [f"s.{quote(name)}" for name in also]
    return f"SELECT {', '.join(columns)} FROM {partials} AS g LEFT JOIN {state} AS s ON {same('s', 'g', block.keys)}"


def step_names(block: GroupedBlock) -> tuple[str, ...]:
    """The columns of `merge_step_sql`."""
    partials = [prefix + name for _, _, name in _merged(block) for prefix in "on"]
    outputs = [prefix + name for name, _ in block.outputs for prefix in (BEFORE, AFTER)]
    return (*(k.name for k in block.keys), OLD, NEW, *partials, INDEX, *outputs, OUT, IN)


def merge_step_sql(block: GroupedBlock, partials: str, state: str) -> str:
    """The wide rows with what the block's delta needs of them: outputs before and after, and which of them it has.

    state: of these groups and others, with `_ps_i`. An output that may fail is evaluated for a group that shows it
    alone.
    """
    touched = merge_touched_sql(block, partials, state, (INDEX,))
    sides = ((OLD, "o", _HAD, BEFORE), (NEW, "n", _HAS, AFTER))
    types = {f.name: f.type for f in block.relation.fields}
    shown, outputs = [], []
    for lives, prefix, shows, label in sides:
        having = f"({_finished(block, block.having, '', prefix)}) IS TRUE" if block.having else "TRUE"
        shown.append(f"CASE WHEN {lives} THEN {having} ELSE FALSE END AS {shows}")
        for name, sql in block.outputs:
            value = _finished(block, sql, "", prefix)
            if not _never_fails(block, sql):
                value = f"CASE WHEN {shows} THEN {value} END"
            outputs.append(f"CAST({value} AS {types[name]}) AS {quote(label + name)}")
    same_values = " AND ".join(
        f"{quote(BEFORE + name)} IS NOT DISTINCT FROM {quote(AFTER + name)}"
        for name, sql in block.outputs
        if _reads_aggregates(block, sql)
    )
    moved = f"NOT ({_HAD} AND {_HAS} AND {same_values or 'TRUE'})"
    return (
        f"SELECT * EXCLUDE ({_HAD}, {_HAS}), {_HAD} AND {moved} AS {OUT}, {_HAS} AND {moved} AS {IN} "
        f"FROM (SELECT *, {', '.join(outputs)} FROM (SELECT *, {', '.join(shown)} FROM ({touched})))"
    )


_OWN_VALUE = re.compile(r'CAST\(("(?:[^"]|"")+") AS ([A-Z0-9(), ]+)\)')


def _never_fails(block: GroupedBlock, sql: str) -> bool:
    """Whether an output is a key or an aggregate in its own type: then a group that does not show it may have it, too.

    (Each expression that a statement runs costs as much as some hundred rows.)
    """
    found = _OWN_VALUE.fullmatch(sql)
    own = {quote(key.name): key.type for key in block.keys}
    for aggregate in block.aggregates:
        if aggregate.kind in ("count", "sum", "min", "max"):
            own[quote(aggregate.name)] = "BIGINT" if aggregate.kind == "count" else aggregate.partial_type
    return found is not None and own.get(found[1]) == found[2]


def step_order_sql(block: GroupedBlock, rows: str) -> str:
    """The rows of `merge_step_sql` in the order of the view's key."""
    order = ", ".join(
        f"CASE WHEN {IN} THEN {quote(AFTER + name)} ELSE {quote(BEFORE + name)} END" for name in block.relation.key
    )
    return f"SELECT * FROM {rows} WHERE {OUT} OR {IN} ORDER BY {order}"


def one_row_a_group(block: GroupedBlock) -> bool:
    """Whether the view's key is the groups', so that a group has one row in it at most."""
    return bool(block.relation.key) and len(block.relation.key) == len(block.keys)


def merge_delete_sql(block: GroupedBlock, touched: str, state: str) -> str:
    return f"DELETE FROM {state} AS s USING {touched} AS t WHERE {same('s', 't', block.keys)}"


def merge_insert_sql(block: GroupedBlock, touched: str, state: str) -> str:
    keys = [quote(k.name) for k in block.keys]
    partials = [quote("n" + name) for _, _, name in _merged(block)]
    return f'INSERT INTO {state} SELECT {", ".join([*keys, *partials])} FROM {touched} WHERE "_ps_new"'


def merge_delta_sql(block: GroupedBlock, touched: str, *, keys: bool) -> str:
    """The block's delta from the wide rows; with `keys`, the hidden key columns too."""
    before = _side(block, touched, "o", OLD, "-1", keys=keys)
    after = _side(block, touched, "n", NEW, "1", keys=keys)
    return f"{before} UNION ALL {after}"


def _side(block: GroupedBlock, touched: str, prefix: str, lives: str, weight: str, *, keys: bool) -> str:
    outputs = [f"{_finished(block, sql, '', prefix)} AS {quote(name)}" for name, sql in block.outputs]
    if keys:
        outputs += [quote(k.name) for k in block.keys]
    unchanged = [
        f"{_finished(block, sql, '', 'o')} IS NOT DISTINCT FROM {_finished(block, sql, '', 'n')}"
        for _, sql in block.outputs
        if _reads_aggregates(block, sql)
    ]
    # An output is evaluated for a group that shows it alone: ln(count(*)) fails for one that is not there.
    both = f"CASE WHEN {_shows(block, 'o', OLD)} THEN {_shows(block, 'n', NEW)} ELSE FALSE END"
    moved = f"CASE WHEN {both} THEN NOT ({' AND '.join(unchanged) or 'TRUE'}) ELSE TRUE END"
    shown = f"CASE WHEN {_shows(block, prefix, lives)} THEN {moved} ELSE FALSE END"
    return f"SELECT {', '.join(outputs)}, {weight} AS {W} FROM {touched} WHERE {shown}"


def _shows(block: GroupedBlock, prefix: str, lives: str) -> str:
    """Whether the group has a row in the block, before (`o`) or after (`n`); never NULL."""
    if not block.having:
        return quote(lives)
    return f"CASE WHEN {quote(lives)} THEN ({_finished(block, block.having, '', prefix)}) IS TRUE ELSE FALSE END"


def _reads_aggregates(block: GroupedBlock, sql: str) -> bool:
    return any(quote(a.name) in sql for a in block.aggregates)


def partials_sql(block: GroupedBlock, delta: str, weighted: bool) -> str:
    """The delta's own partials per group."""
    weight = f"i.{W}" if weighted else None
    count = f"coalesce(sum({weight}), 0)::BIGINT" if weight else "count(*)"
    columns = [f"i.{quote(k.name)}" for k in block.keys] + [f'{count} AS "_ps_n"']
    for aggregate in block.aggregates:
        columns += _partial(aggregate, weight)
    group = f" GROUP BY {', '.join(f'i.{quote(k.name)}' for k in block.keys)}" if block.keys else ""
    return f"SELECT {', '.join(columns)} FROM {delta} AS i{group}"


def moved_partials_sql(block: GroupedBlock, delta: str, weighted: bool) -> str:
    """The same, but nothing where the delta has no rows: a query without groups would have a row over nothing."""
    sql = partials_sql(block, delta, weighted)
    return sql if block.keys else f"{sql} HAVING count(*) > 0"


def again_sql(block: GroupedBlock, content: str, state: str) -> str:
    """By how much the stored partials differ from those of the input's whole content: what `partials_sql` would give.

    Of sums and counts alone: by how much an extreme differs cannot be said.
    """
    keys = [quote(k.name) for k in block.keys]
    names = [name for _, _, name in _merged(block)]
    types = {f"{a.name}_s": a.partial_type for a in block.aggregates}
    totals = {name: f"coalesce(sum({quote(name)}), 0)" for name in names}
    now = f"SELECT {column_list([*(k.name for k in block.keys), *names])} FROM ({partials_sql(block, content, False)})"
    stored = ", ".join([*keys, *(f"-{quote(name)} AS {quote(name)}" for name in names)])
    columns = [*keys, *(f"{totals[n]}::{types.get(n, 'BIGINT')} AS {quote(n)}" for n in names)]
    group = f" GROUP BY {', '.join(keys)}" if keys else ""
    return (
        f"SELECT {', '.join(columns)} FROM ({now} UNION ALL SELECT {stored} FROM {state}){group} "
        f"HAVING {' OR '.join(f'{total} <> 0' for total in totals.values())}"
    )


def _partial(aggregate: Aggregate, weight: str | None) -> list[str]:
    name = aggregate.name
    argument = f"i.{quote(aggregate.argument)}" if aggregate.argument else None
    condition = f"i.{quote(aggregate.filter)}" if aggregate.filter else None

    def counted(*tests: str | None) -> str:
        test = " AND ".join(t for t in tests if t)
        if weight is None and tests == (present, None):
            return f"count({argument})" if argument else "count(*)"
        if weight is None:
            return f"count(CASE WHEN {test} THEN 1 END)" if test else "count(*)"
        return f"coalesce(sum(CASE WHEN {test or 'TRUE'} THEN {weight} END), 0)::BIGINT"

    present = f"{argument} IS NOT NULL" if argument else None
    match aggregate.kind:
        case "count":
            return [f"{counted(present, condition)} AS {quote(name + '_n')}"]
        case "sum" | "avg":
            value = (
                argument
                if weight is None
                else f"CASE WHEN {weight} > 0 THEN {argument} ELSE -{_signed(aggregate, argument)} END"
            )
            if condition:
                value = f"CASE WHEN {condition} THEN {value} END"
            return [
                f"sum({value})::{aggregate.partial_type} AS {quote(name + '_s')}",
                f"{counted(present, condition)} AS {quote(name + '_n')}",
            ]
        case "bool_and" | "bool_or":
            return [
                f"{counted(argument, condition)} AS {quote(name + '_t')}",
                f"{counted(present, condition)} AS {quote(name + '_n')}",
            ]
        case _:
            value = f"CASE WHEN {condition} THEN {argument} END" if condition else argument
            return [f"{aggregate.kind}({value}) AS {quote(name + '_s')}"]


def _signed(aggregate: Aggregate, argument: str | None) -> str:
    """The argument in a type that holds its negation (unsigned and minimal integers have none)."""
    integer = aggregate.partial_type == "HUGEINT"
    return f"{argument}::HUGEINT" if integer else f"{argument}"


def _merged(block: GroupedBlock) -> list[tuple[str, str, str]]:
    """For each partial column: its old value, its new value, its name."""
    merged = [_added("_ps_n")]
    for aggregate in block.aggregates:
        name = aggregate.name
        match aggregate.kind:
            case "count":
                merged.append(_added(f"{name}_n"))
            case "sum" | "avg":
                merged += [_added(f"{name}_s"), _added(f"{name}_n")]
            case "bool_and" | "bool_or":
                merged += [_added(f"{name}_t"), _added(f"{name}_n")]
            case "min":
                merged.append(_extreme(f"{name}_s", "least"))
            case _:
                merged.append(_extreme(f"{name}_s", "greatest"))
    return merged


def _added(name: str) -> tuple[str, str, str]:
    column = quote(name)
    return f"coalesce(s.{column}, 0)", f"coalesce(s.{column}, 0) + coalesce(g.{column}, 0)", name


def _extreme(name: str, function: str) -> tuple[str, str, str]:
    column = quote(name)
    return f"s.{column}", f"{function}(s.{column}, g.{column})", name


def _finished(block: GroupedBlock, sql: str, qualifier: str, prefix: str = "") -> str:
    """SQL over keys and aggregate names as SQL over partials."""
    for aggregate in reversed(block.aggregates):
        marker = quote(aggregate.name)
        if marker in sql:
            sql = sql.replace(marker, _value(aggregate, qualifier, prefix))
    if qualifier:
        for key in block.keys:
            sql = sql.replace(quote(key.name), qualifier + quote(key.name))
    return sql


def _value(aggregate: Aggregate, qualifier: str, prefix: str) -> str:
    def part(suffix: str) -> str:
        return qualifier + quote(f"{prefix}{aggregate.name}_{suffix}")

    match aggregate.kind:
        case "count":
            return part("n")
        case "sum":
            return f"(CASE WHEN {part('n')} > 0 THEN {part('s')} END)"
        case "avg":
            return f"(CASE WHEN {part('n')} > 0 THEN {part('s')}::DOUBLE / {part('n')} END)"
        case "bool_and":
            return f"(CASE WHEN {part('n')} > 0 THEN {part('t')} = {part('n')} END)"
        case "bool_or":
            return f"(CASE WHEN {part('n')} > 0 THEN {part('t')} > 0 END)"
        case _:
            return part("s")


# -- affected groups ---------------------------------------------------------------------------------------------------


def affected_keys_sql(block: GroupedBlock, delta: str) -> str:
    """The keys of the groups that the delta touches."""
    return f"SELECT DISTINCT {column_list([k.name for k in block.keys]) or '1 AS _ps_one'} FROM {delta}"


def affected_rows_sql(block: GroupedBlock, content: str, affected: str | None) -> str:
    """The touched groups (None: all) computed again from the input's content."""
    join = (
        f"FROM {content} AS i SEMI JOIN {affected} AS a ON {same('i', 'a', block.keys)}"
        if block.keys and affected is not None
        else f"FROM {content} AS i"
    )
    return _grouped(block, content, join)


def settled_rows_sql(block: GroupedBlock, stored: str, rows: str) -> str:
    """The touched groups with floats that differ from the stored ones by the order of additions put back."""
    return settled_sql(rows, stored, block.keys, block.relation.fields, block.noisy)


def affected_delta_sql(block: GroupedBlock, stored: str, affected: str | None, rows: str, *, keys: bool) -> str:
    """Stored outputs of the touched groups out, new ones in, where they differ."""
    columns = column_list([*block.relation.columns, *([k.name for k in block.keys] if keys else [])])
    mine = (
        f"SELECT * FROM {stored} AS s SEMI JOIN {affected} AS a ON {same('s', 'a', block.keys)}"
        if block.keys and affected is not None
        else f"SELECT * FROM {stored}"
    )
    everything: list[Field] = [*block.relation.fields]
    matched = f"{same('l', 'r', block.keys)} AND {same('l', 'r', [Field(f.name, f.type) for f in everything])}"
    return (
        f"SELECT {columns}, -1 AS {W} FROM ({mine}) AS l WHERE NOT EXISTS (SELECT 1 FROM {rows} AS r WHERE {matched}) "
        f"UNION ALL "
        f"SELECT {columns}, 1 AS {W} FROM {rows} AS l WHERE NOT EXISTS (SELECT 1 FROM ({mine}) AS r WHERE {matched})"
    )


def affected_delete_sql(block: GroupedBlock, stored: str, affected: str | None) -> str:
    if not block.keys or affected is None:
        return f"DELETE FROM {stored}"
    return f"DELETE FROM {stored} AS s USING {affected} AS a WHERE {same('s', 'a', block.keys)}"


def affected_insert_sql(block: GroupedBlock, stored: str, rows: str) -> str:
    columns = column_list([*(k.name for k in block.keys), *block.relation.columns])
    return f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM {rows}"


def _grouped(block: GroupedBlock, content: str, from_: str) -> str:
    """The GROUP BY itself: hidden keys and outputs."""
    keys = [f"i.{quote(k.name)}" for k in block.keys]
    calls = [f"{_call(a)} AS {quote(a.name)}" for a in block.aggregates]
    group = f" GROUP BY {', '.join(keys)}" if keys else ""
    inner = f"SELECT {', '.join([*keys, *calls]) or 'count(*) AS _ps_n'} {from_}{group}"
    outputs = ", ".join([quote(k.name) for k in block.keys] + [f"{sql} AS {quote(n)}" for n, sql in block.outputs])
    having = f" WHERE {block.having}" if block.having else ""
    return f"SELECT {outputs} FROM ({inner}){having}"


def _call(aggregate: Aggregate) -> str:
    if aggregate.kind == "opaque":
        return aggregate.sql
    function = aggregate.kind
    argument = f"i.{quote(aggregate.argument)}" if aggregate.argument else "*"
    condition = f" FILTER (WHERE i.{quote(aggregate.filter)})" if aggregate.filter else ""
    return f"{function}({argument}){condition}"

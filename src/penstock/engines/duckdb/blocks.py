"""Running one block of an epoch: its delta from its inputs' deltas, and its state.

A delta is a temporary table or a subquery; it has `_ps_w` unless its relation is append-only. A block whose inputs did
not move runs no statement, except in the first epoch (a query over nothing may have rows).
"""

from __future__ import annotations

import time
from typing import assert_never

import duckdb
import numpy as np

from penstock.engines.duckdb.behind import Behind
from penstock.engines.duckdb.fold import run_step
from penstock.engines.duckdb.outbox import key_order, step_records
from penstock.engines.duckdb.ranked import run_ranked
from penstock.engines.duckdb.scope import Delta, EpochScope, apply_multiset, delta_name, set_delta
from penstock.engines.duckdb.sessions import run_sessions
from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.statements import Planned
from penstock.engines.duckdb.times import from_us
from penstock.errors import RunError
from penstock.functions import failure
from penstock.plan import constant, final, flat, grouped, multiset, recent, refresh, union
from penstock.plan.blocks import (
    HIDDEN,
    Block,
    ConstantBlock,
    FinalBlock,
    FlatBlock,
    GroupedBlock,
    Node,
    RankedBlock,
    RecentBlock,
    RefreshBlock,
    SessionBlock,
    SourceBlock,
    StepBlock,
    UnionBlock,
    column_list,
    content_name,
    quote,
)


def run_block(scope: EpochScope, node: Node) -> None:
    """Compute the node's delta and move its state. Inputs have been run before."""
    block: Block = node.block
    match block:
        case SourceBlock():
            return
        case FlatBlock():
            _run_flat(scope, node, block)
        case UnionBlock():
            _run_union(scope, node, block)
        case ConstantBlock():
            _run_constant(scope, block)
        case GroupedBlock(strategy="merge"):
            _run_merge(scope, block)
        case GroupedBlock():
            _run_affected(scope, block)
        case RankedBlock():
            run_ranked(scope, block)
        case SessionBlock():
            run_sessions(scope, block)
        case RecentBlock():
            _run_recent(scope, block)
        case FinalBlock():
            _run_final(scope, block)
        case RefreshBlock():
            _run_refresh(scope, block)
        case StepBlock():
            _run_step(scope, node, block)
        case _:
            assert_never(block)


def run_named_block(scope: EpochScope, node: Node, *, problem: str, hint: str) -> None:
    """Run a block, where a row on which its query fails is told as the `problem` of its view.

    Raises:
        RunError: PS-RUN-003, or PS-RUN-002 where a declared function failed.
    """
    try:
        run_block(scope, node)
    except (duckdb.DataError, duckdb.ProgrammingError, duckdb.NotSupportedError) as error:
        view = scope.plan.owner(node.name)
        declared = scope.plan.graph.view(view)
        raise failure(error, scope.plan.graph) or RunError(
            "PS-RUN-003",
            f"view {view} {problem}",
            where=declared.where if declared else None,
            expected="expressions that hold for every row",
            got=str(error).split("\n")[0],
            hint=hint,
        ) from error


# -- flat and union ----------------------------------------------------------------------------------------------------


def _run_flat(scope: EpochScope, node: Node, block: FlatBlock) -> None:
    relation = block.relation
    if len(block.from_) == 1:
        late = block.late is not None and (block.late.stream in scope.late or not scope.plan.fresh(block.late.relation))
        delta = scope.deltas.get(block.inputs[0])
        if delta is None:
            return
        (sql,) = flat.delta_sql(block, block.inputs[0], delta.sql, delta.weighted, scope.contents, late=late)
        if node.consumers <= 1 and node.content != "table":
            set_delta(scope, relation, f"({sql})")
            return
        rows = scope.temporary(delta_name(relation), sql)
    else:
        if relation.name not in scope.started:
            return
        # The terms were computed as each input moved (`start_joins`).
        rows = scope.started[relation.name]
    set_delta(scope, relation, quote(delta_name(relation)), rows)
    if node.content == "table" and rows:
        apply_multiset(scope, relation, scope.deltas[relation.name], table(f"t_{relation.name}"))


def start_joins(scope: EpochScope, moving: str) -> None:
    """After `moving` has changed and its content with it: run the terms of every join that reads it."""
    for node in scope.plan.nodes:
        block = node.block
        if not isinstance(block, FlatBlock) or len(block.from_) == 1 or moving not in block.inputs:
            continue
        if block.relation.name in scope.idle or (
            block.relation.transient and not scope.plan.node(moving).relation.transient
        ):
            continue
        started = time.perf_counter()
        add_terms(scope, block, moving)
        scope.spend(block.relation.name, started)


def add_terms(scope: EpochScope, block: FlatBlock, moving: str) -> None:
    """Add to the join's delta what the delta of `moving` contributes."""
    # What is stored holds late rows too, so it is filtered even when nothing is late now.
    late = block.late is not None and (
        block.late.stream in scope.late or block.late.relation != moving or not scope.plan.fresh(moving)
    )
    delta = scope.deltas[moving]
    name = block.relation.name
    unturned = _unturned(scope, block, moving)
    contents = {relation: scope.content(relation) for relation in block.inputs}
    for sql in flat.delta_sql(block, moving, delta.sql, delta.weighted, contents, late=late, unturned=unturned):
        if name in scope.started:
            scope.started[name] += scope.statements.add(delta_name(block.relation), sql)
        else:
            scope.started[name] = scope.statements.store(delta_name(block.relation), sql)


def _unturned(scope: EpochScope, block: FlatBlock, moving: str) -> frozenset[int]:
    """The places at which the delta of `moving` gives no row its first match and takes none its last one."""
    # Of a source's delta there is what some block reads, and so all that `on` can read.
    reads = scope.reads.get(moving)
    fields = [f for f in scope.plan.node(moving).relation.fields if reads is None or f.name in reads]
    places = flat.turning_columns(block, moving, fields)
    return frozenset(place for place, columns in places.items() if scope.balanced(moving, columns))


def _run_union(scope: EpochScope, node: Node, block: UnionBlock) -> None:
    parts = [
        union.delta_sql(block, scope.deltas[i].sql, scope.deltas[i].weighted) for i in block.inputs if i in scope.deltas
    ]
    if not parts:
        return
    relation = block.relation
    rows = scope.temporary(delta_name(relation), " UNION ALL ".join(parts))
    set_delta(scope, relation, quote(delta_name(relation)), rows)
    if node.content == "table" and rows:
        apply_multiset(scope, relation, scope.deltas[relation.name], table(f"t_{relation.name}"))


def _run_constant(scope: EpochScope, block: ConstantBlock) -> None:
    if not scope.first:
        return
    relation = block.relation
    rows = scope.temporary(delta_name(relation), constant.content_sql(block))
    set_delta(scope, relation, quote(delta_name(relation)), rows)
    if rows:
        apply_multiset(scope, relation, scope.deltas[relation.name], table(f"t_{relation.name}"))


# -- recent rows -------------------------------------------------------------------------------------------------------


def _run_recent(scope: EpochScope, block: RecentBlock) -> None:
    delta = scope.deltas.get(block.input)
    if delta is None:
        return
    relation = block.relation
    rows = scope.temporary(delta_name(relation), recent.content_sql(block, delta.sql))
    set_delta(scope, relation, quote(delta_name(relation)), rows)
    if rows:
        apply_multiset(scope, relation, scope.deltas[relation.name], table(f"t_{relation.name}"))


# -- grouped -----------------------------------------------------------------------------------------------------------


def _run_merge(scope: EpochScope, block: GroupedBlock) -> None:
    name, state = block.relation.name, table(f"g_{block.relation.name}")
    delta = _group_delta(scope, block)
    if delta is None:
        return
    if scope.behind is not None and name in scope.behind.blocks:
        _run_behind(scope, scope.behind, block, delta)
        return
    touched, unit = quote(f"_ps_t_{name}"), scope.again.get(name)

    def partials() -> str:
        if unit is not None:
            return grouped.again_sql(block, delta.sql, state)
        return _partials_sql(scope, block, delta)

    stored = -1
    if scope.statements.in_parts:
        mine, theirs = quote(f"_ps_g_{name}"), quote(f"_ps_n_{name}")
        if not scope.temporary(f"_ps_g_{name}", scope.text(("partials", name, str(scope.first), delta.sql), partials)):
            return
        stored = scope.temporary(f"_ps_n_{name}", grouped.merge_state_sql(block, mine, state))
        sql = scope.text(("touched", name), lambda: grouped.merge_touched_sql(block, mine, theirs))
    else:
        sql = grouped.merge_touched_sql(block, f"({partials()})", state)
    if not scope.temporary(f"_ps_t_{name}", sql):
        return
    if stored:
        scope.statements.write(grouped.merge_delete_sql(block, touched, state))
    scope.statements.write(scope.text(("insert", name), lambda: grouped.merge_insert_sql(block, touched, state)))
    _keyed_delta(scope, block, scope.text(("delta", name), lambda: grouped.merge_delta_sql(block, touched, keys=True)))


def _partials_sql(scope: EpochScope, block: GroupedBlock, delta: Delta) -> str:
    """By how much the delta moves the groups; in the first epoch a query without groups has its row over nothing."""
    make = grouped.partials_sql if scope.first else grouped.moved_partials_sql
    return make(block, delta.sql, delta.weighted)


def _run_behind(scope: EpochScope, behind: Behind, block: GroupedBlock, delta: Delta) -> None:
    """Merge with the groups in memory: one statement, in which all is read that the epoch's records are made of."""
    name = block.relation.name

    def step(groups: str) -> str:
        return grouped.merge_step_sql(block, f"({_partials_sql(scope, block, delta)})", groups)

    touched = behind.touched(
        name, lambda groups: scope.text(("step", name, str(scope.first), delta.sql), lambda: step(groups))
    )
    if not len(touched):
        return
    rows = quote(f"_ps_t_{name}")
    if grouped.one_row_a_group(block):
        order = key_order(block, touched)
        if order is None:
            sql = scope.text(("order", name), lambda: grouped.step_order_sql(block, rows))
            touched = scope.statements.fetch(sql)
            order = np.arange(len(touched))
        scope.changes[name] = step_records(block, touched, order)
        if not len(scope.changes[name]):
            return
    _keyed_delta(scope, block, scope.text(("delta", name), lambda: grouped.merge_delta_sql(block, rows, keys=True)))


def _keyed_delta(scope: EpochScope, block: GroupedBlock, sql: str) -> None:
    relation = block.relation
    name, rows = quote(delta_name(relation)), -1
    # Affected groups compare with what is stored, which moves before the outbox reads.
    if block.strategy != "merge" or any(relation.name in node.block.inputs for node in scope.plan.nodes):
        rows = scope.temporary(delta_name(relation), sql)
    else:
        # read once, by the outbox
        name = f"({sql})"
    if rows:
        scope.keyed[relation.name] = Delta(name, True, rows)
        columns = column_list(relation.columns)
        weight = "" if relation.append_only else ', "_ps_w"'
        scope.deltas[relation.name] = Delta(f"(SELECT {columns}{weight} FROM {name})", not relation.append_only, rows)


def _group_delta(scope: EpochScope, block: GroupedBlock) -> Delta | None:
    """The input's delta (where the group is computed again, its content); in the first epoch a query without groups has
    its row even over nothing."""
    unit = scope.again.get(block.relation.name)
    if unit is not None:
        return Delta(unit.content, False) if not unit.reads.isdisjoint(scope.deltas) else None
    delta = scope.deltas.get(block.input)
    if delta is None and scope.first and not block.keys:
        return _nothing(scope, block.input)
    return delta


def _nothing(scope: EpochScope, name: str) -> Delta:
    """An empty delta of a relation."""
    relation = scope.plan.node(name).relation
    columns = [f"NULL::{f.type} AS {quote(f.name)}" for f in relation.fields]
    columns += [f"NULL AS {quote(h)}" for h in HIDDEN] if relation.hidden else []
    return Delta(f'(SELECT {", ".join(columns)}, 0 AS "_ps_w" WHERE FALSE)', not relation.append_only, 0)


def _run_affected(scope: EpochScope, block: GroupedBlock) -> None:
    delta = _group_delta(scope, block)
    if delta is None:
        return
    relation = block.relation
    stored = table(f"t_{relation.name}")
    affected: str | None = None
    rows = quote(f"_ps_r_{relation.name}")
    content = f"({_input_content(scope, block.input)})"
    if block.keys and relation.name not in scope.again:
        affected = quote(f"_ps_a_{relation.name}")
        if scope.temporary(f"_ps_a_{relation.name}", grouped.affected_keys_sql(block, delta.sql)) == 0:
            return
    scope.temporary(f"_ps_r_{relation.name}", grouped.affected_rows_sql(block, content, affected))
    if block.noisy:
        settled = f"_ps_s_{relation.name}"
        scope.temporary(settled, grouped.settled_rows_sql(block, stored, rows))
        rows = quote(settled)
    changes = grouped.affected_delta_sql(block, stored, affected, rows, keys=True)
    _keyed_delta(scope, block, changes)
    scope.statements.write(grouped.affected_delete_sql(block, stored, affected))
    scope.statements.write(grouped.affected_insert_sql(block, stored, rows))


def _input_content(scope: EpochScope, name: str) -> str:
    return f"SELECT * FROM {content_name(scope.plan.node(name).relation)}"


# -- final -------------------------------------------------------------------------------------------------------------

_NEVER = "'-infinity'::TIMESTAMP"


def _run_final(scope: EpochScope, block: FinalBlock) -> None:
    relation = block.relation
    before = scope.watermark(block.window.streams, after=False)
    after = scope.watermark(block.window.streams, after=True)
    stored = table(f"t_{relation.name}")
    keyed = f"_ps.{quote('k_' + block.input)}"
    floor = from_us(before) if before is not None else _NEVER
    parts = []
    if scope.flush or (after is not None and after != before):
        upto = None if scope.flush else from_us(after)
        closing = f"_ps_c_{relation.name}"
        scope.temporary(closing, final.rows_sql(block, keyed, floor, upto))
        parts.append(final.delta_sql(block, quote(closing), f"({final.emitted_sql(stored, floor, upto)})"))
    group = scope.keyed.get(block.input)
    if scope.correction and group is not None and before is not None:
        groups = f"_ps_a_{relation.name}"
        scope.temporary(groups, final.corrected_keys_sql(block, group.sql, from_us(before)))
        rows_now = f"({final.corrected_rows_sql(block, keyed, quote(groups))})"
        parts.append(final.delta_sql(block, rows_now, f"({final.of_groups_sql(block, stored, quote(groups))})"))
    if not parts:
        return
    name = delta_name(relation)
    rows = scope.temporary(name, " UNION ALL ".join(parts))
    closed = f"_ps_end <= {from_us(after)}" if after is not None else "FALSE"
    if rows:
        _apply_final(scope, block, quote(name), stored, closed)
        columns = column_list(relation.columns)
        scope.deltas[relation.name] = Delta(f'(SELECT {columns}, "_ps_w" FROM {quote(name)})', True, rows)
    if after is not None and after != before:
        scope.statements.write(f"UPDATE {stored} SET _ps_open = FALSE WHERE _ps_open AND {closed}")


def _apply_final(scope: EpochScope, block: FinalBlock, delta: str, stored: str, closed: str) -> None:
    fields = final.fields(block)
    scope.statements.write(multiset.delete_sql(stored, delta, fields))
    columns = column_list([f.name for f in fields])
    scope.statements.write(
        f'INSERT INTO {stored} ({columns}, _ps_open) SELECT {columns}, NOT ({closed}) FROM {delta} WHERE "_ps_w" > 0'
    )


# -- refresh and step --------------------------------------------------------------------------------------------------


def _run_refresh(scope: EpochScope, block: RefreshBlock) -> None:
    forced = scope.first or block.relation.name in scope.forced
    if not forced and not any(i in scope.deltas for i in block.inputs):
        return
    relation = block.relation
    rows, stored = f"_ps_r_{relation.name}", table(f"t_{relation.name}")
    # a whole view, which would not pass through memory well
    Planned(scope.connection).store(rows, refresh.renamed_sql(block))
    count = scope.temporary(delta_name(relation), refresh.delta_sql(block, quote(rows), stored))
    set_delta(scope, relation, quote(delta_name(relation)), count)
    if count:
        apply_multiset(scope, relation, scope.deltas[relation.name], stored)


def _run_step(scope: EpochScope, node: Node, block: StepBlock) -> None:
    before = scope.watermark(block.relation.streams, after=False)
    after = scope.watermark(block.relation.streams, after=True)
    delta = scope.deltas.get(block.input)
    if delta is None and (after is None or after == before):
        return
    rows = run_step(scope.connection, block, delta.sql if delta else None, delta is not None and delta.weighted, after)
    if rows is None:
        return
    name = delta_name(block.relation)
    scope.statements.give("_ps_step_rows", rows)
    columns = ", ".join(f"CAST({quote(f.name)} AS {f.type}) AS {quote(f.name)}" for f in block.relation.fields)
    count = scope.temporary(name, f"SELECT {columns} FROM _ps_step_rows")
    scope.statements.take("_ps_step_rows")
    set_delta(scope, block.relation, quote(name), count)
    if count and node.content == "table":
        apply_multiset(scope, block.relation, scope.deltas[block.relation.name], table(f"t_{block.relation.name}"))

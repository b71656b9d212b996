"""Running a ranked block: the touched partitions, or the candidates of the first places (plan/ranked.py)."""

from __future__ import annotations

from penstock.engines.duckdb.scope import Delta, EpochScope, delta_name
from penstock.engines.duckdb.state import table
from penstock.plan import multiset, ranked
from penstock.plan.blocks import RankedBlock, column_list, content_name, quote


def run_ranked(scope: EpochScope, block: RankedBlock) -> None:
    """The block's delta and its state, after its input has moved."""
    delta = scope.deltas.get(block.input)
    if delta is None:
        return
    if block.top is None:
        _run_partitions(scope, block, delta)
    else:
        _run_top(scope, block, delta)


def _run_partitions(scope: EpochScope, block: RankedBlock, delta: Delta) -> None:
    name = block.relation.name
    stored, touched, rows = table(f"t_{name}"), f"_ps_a_{name}", f"_ps_r_{name}"
    if ranked.hidden(block) and scope.temporary(touched, ranked.touched_sql(block, delta.sql)) == 0:
        return
    content = content_name(scope.plan.node(block.input).relation)
    scope.temporary(rows, ranked.rows_sql(block, content, quote(touched)))
    old = ranked.stored_sql(block, stored, quote(touched))
    moved = scope.temporary(delta_name(block.relation), ranked.delta_sql(block, old, quote(rows)))
    if not moved:
        return
    _tell(scope, block, moved)
    if block.noisy:
        # The rows that were told stay, so the state moves by the delta alone.
        _move(scope, block, stored)
        return
    columns = column_list([f.name for f in ranked.fields(block)])
    scope.connection.execute(ranked.forget_sql(block, stored, quote(touched)))
    scope.connection.execute(f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM {quote(rows)}")


def _move(scope: EpochScope, block: RankedBlock, stored: str) -> None:
    delta, fields = quote(delta_name(block.relation)), ranked.fields(block)
    scope.connection.execute(multiset.delete_sql(stored, delta, fields))
    scope.connection.execute(multiset.insert_sql(stored, delta, fields, True))


def _run_top(scope: EpochScope, block: RankedBlock, delta: Delta) -> None:
    name = block.relation.name
    candidates, touched, rows = table(f"c_{name}"), f"_ps_a_{name}", f"_ps_r_{name}"
    net = _net(scope, block, delta)
    if block.keys and scope.temporary(touched, ranked.touched_sql(block, net)) == 0:
        return
    mine = ranked.within_sql(block, candidates, quote(touched))
    came = ranked.came_sql(block, net, weighted=delta.weighted)
    broken = f"_ps_b_{name}"
    parts = [mine, came]
    if delta.weighted and scope.temporary(broken, ranked.broken_sql(block, net, candidates)):
        content = content_name(scope.plan.node(block.input).relation)
        again = ranked.within_sql(block, content, quote(broken))
        parts = [*(ranked.outside_sql(block, part, quote(broken)) for part in parts if block.keys), again]
    scope.temporary(rows, ranked.candidates_sql(block, parts))
    old, new = (f"({ranked.outputs_sql(block, part)})" for part in (mine, quote(rows)))
    moved = scope.temporary(delta_name(block.relation), ranked.delta_sql(block, old, new))
    columns = column_list([f.name for f in block.columns])
    scope.connection.execute(ranked.forget_sql(block, candidates, quote(touched)))
    scope.connection.execute(f"INSERT INTO {candidates} ({columns}) SELECT {columns} FROM {quote(rows)}")
    if moved:
        _tell(scope, block, moved)


def _net(scope: EpochScope, block: RankedBlock, delta: Delta) -> str:
    """The delta without what comes and goes in the same epoch."""
    if not delta.weighted:
        return delta.sql
    name = f"_ps_n_{block.relation.name}"
    scope.temporary(name, multiset.consolidated_sql(delta.sql, block.columns))
    return quote(name)


def _tell(scope: EpochScope, block: RankedBlock, moved: int) -> None:
    name = quote(delta_name(block.relation))
    columns = column_list(block.relation.columns)
    scope.keyed[block.relation.name] = Delta(name, True, moved)
    scope.deltas[block.relation.name] = Delta(f'(SELECT {columns}, "_ps_w" FROM {name})', True, moved)

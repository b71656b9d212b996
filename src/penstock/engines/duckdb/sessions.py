"""Running a session block: the sessions that the delta touches (plan/session.py)."""

from __future__ import annotations

from penstock.engines.duckdb.scope import EpochScope, delta_name, set_delta
from penstock.engines.duckdb.state import table
from penstock.plan import session
from penstock.plan.blocks import SessionBlock, column_list, quote


def run_sessions(scope: EpochScope, block: SessionBlock) -> None:
    """The block's delta and its state, after its input has moved."""
    delta = scope.deltas.get(block.input)
    if delta is None:
        return
    name = block.relation.name
    stored, touched, rows = table(f"t_{name}"), quote(f"_ps_a_{name}"), quote(f"_ps_r_{name}")
    scope.temporary(f"_ps_a_{name}", session.touched_sql(block, delta.sql, stored))
    scope.temporary(f"_ps_r_{name}", session.rows_sql(block, delta.sql, touched, weighted=delta.weighted))
    moved = scope.temporary(delta_name(block.relation), session.delta_sql(block, touched, rows))
    scope.connection.execute(session.forget_sql(block, stored, touched))
    columns = column_list(block.relation.columns)
    scope.connection.execute(f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM {rows}")
    set_delta(scope, block.relation, quote(delta_name(block.relation)), moved)

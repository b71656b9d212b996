"""Late rows stay out of windowed blocks, also of those that are recomputed.

A windowed block is a grouped SELECT with a window of a stream's event time among its keys. Its rows are filtered by
`_ps_wm`, the watermark that stood before the row in its own partition (semantics T1), so that a row is late or not
whatever the epochs were.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from penstock.plan.blocks import Late, Relation
from penstock.plan.parse import DIALECT
from penstock.plan.select_flat import event_expression
from penstock.plan.windows import end_of_event, find_window


def late_condition(late: Late) -> str:
    """SQL that is true for the late rows."""
    return f'("{late.alias}"."_ps_wm" IS NOT NULL AND {late.window_end} <= "{late.alias}"."_ps_wm")'


def exclude_late(tree: exp.Query, relations: Mapping[str, Relation]) -> tuple[exp.Query, tuple[Late, ...]]:
    """The query with every windowed SELECT reading only rows that are not late for it, and what it left out."""
    tree = tree.copy()
    found: list[Late] = []
    for select in list(tree.find_all(exp.Select)):
        late = _late_of(select, relations)
        if late is None:
            continue
        found.append(late)
        table = next(t for t in _tables(select) if t.alias_or_name == late.alias)
        table.set("this", exp.to_identifier(f"h_{late.relation}", quoted=True))
        table.set("db", exp.to_identifier("_ps"))
        if not table.alias:
            table.set("alias", exp.TableAlias(this=exp.to_identifier(late.alias, quoted=True)))
        select.where(f"NOT {late_condition(late)}", copy=False, dialect=DIALECT)
    return tree, tuple(found)


def _tables(select: exp.Select) -> list[exp.Table]:
    places = [select.args["from_"].this] if select.args.get("from_") else []
    places += [join.this for join in select.args.get("joins") or []]
    return [p for p in places if isinstance(p, exp.Table)]


def _late_of(select: exp.Select, relations: Mapping[str, Relation]) -> Late | None:
    group = select.args.get("group")
    if group is None:
        return None
    projections = [e.unalias() for e in select.expressions]
    keys = projections if group.args.get("all") else [_resolve(k, projections) for k in group.expressions]
    for table in _tables(select):
        relation = relations.get(table.name.lower())
        if relation is None or not relation.hidden or relation.stream is None or table.args.get("db"):
            continue
        event = event_expression(relation, table.alias_or_name)
        for key in keys:
            length = find_window(key, event) if event is not None else None
            if event is not None and length is not None:
                start = key.sql(DIALECT)
                return Late(
                    relation.stream,
                    relation.name,
                    table.alias_or_name,
                    start,
                    f"{start} + {length}",
                    end_of_event(key, event, length),
                )
    return None


def _resolve(key: exp.Expr, projections: list[exp.Expr]) -> exp.Expr:
    if isinstance(key, exp.Literal) and not key.is_string and int(key.this) <= len(projections):
        return projections[int(key.this) - 1]
    return key

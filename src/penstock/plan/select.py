"""One qualified SELECT to blocks: a flat block, and a grouped one over it where there are aggregates.

A SELECT that cannot be taken apart raises `Opaque` with the reason; the caller then falls back to refresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from penstock.plan.binder import Binder
from penstock.plan.blocks import Field, FlatBlock, GroupedBlock, Relation
from penstock.plan.clauses import Opaque, aggregates_in, conditions_of, find_sources, having_of, refuse
from penstock.plan.select_flat import flat_block
from penstock.plan.select_grouped import distinct_block, group_key, grouped_blocks


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
    """The blocks of `select`, which must be qualified and read only `relations`; DISTINCT over no groups.

    fields: the result's columns as the engine describes them. Raises Opaque.
    """
    refuse(select)
    sources = find_sources(select, relations)
    aggregates = binder.aggregates()
    grouping = select.args.get("group")
    projections = [e.unalias() for e in select.expressions]
    if len(projections) != len(fields) or any(isinstance(e, exp.Star | exp.Columns) for e in projections):
        raise Opaque("its columns cannot be named one by one")
    conditions = conditions_of(select)
    has_aggregates = any(aggregates_in(e, aggregates) for e in [*projections, *having_of(select)])
    if has_aggregates and select.find(exp.Explode) is not None:
        raise Opaque("unnest over aggregates")
    distinct = select.args.get("distinct")
    if grouping is None and not has_aggregates:
        if distinct is None:
            return Selected((flat_block(name, fields, projections, sources, conditions, relations),))
        inner = f"{name}$rows"
        grouped_by = [group_key(e, f.type) for e, f in zip(projections, fields, strict=True)]
        flat = flat_block(inner, fields, grouped_by, sources, conditions, relations)
        return Selected((flat, distinct_block(name, fields, flat)))
    return Selected(grouped_blocks(select, name, fields, projections, sources, conditions, relations, binder))

"""The flat part of a SELECT: scan, filter, project and join, with what is known of the rows that come out.

A flat block keeps the event time of the one input whose rows carry a position; a key survives where all of it is
projected from a lone input.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from penstock.plan.blocks import Field, FlatBlock, Hop, Input, Late, Relation, quote
from penstock.plan.closings import projected_closings
from penstock.plan.parse import DIALECT
from penstock.plan.windows import find_hop


def flat_block(
    name: str,
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    sources: list[tuple[exp.Table, Input]],
    conditions: tuple[str, ...],
    relations: Mapping[str, Relation],
    late: Late | None = None,
) -> FlatBlock:
    inputs = tuple(i for _, i in sources)
    carried = carrier_of(inputs, relations)
    event = _event_column(fields, projections, carried, relations)
    by_name = [relations[i.relation.lower()] for i in inputs]
    plain = _plain_columns(projections, inputs, relations)
    streams = tuple(dict.fromkeys(s for r in by_name for s in r.streams))
    alone = len(inputs) == 1
    expands = any(p.find(exp.Explode) is not None for p in projections)
    key = () if expands else _flat_key(fields, projections, inputs, relations)
    repeated = len({i.relation for i in inputs}) != len(inputs)
    relation = Relation(
        name,
        tuple(
            Field(f.name, f.type, column is None or column.nullable) for f, column in zip(fields, plain, strict=True)
        ),
        key=key,
        append_only=all(r.append_only for r in by_name) and not repeated and (alone or all(i.certain for i in inputs)),
        hidden=carried is not None,
        stream=relations[carried.relation.lower()].stream if carried else None,
        event=event,
        streams=streams,
        transient=any(r.transient for r in by_name),
        closings=projected_closings(fields, projections, inputs, relations),
        hops=_hops(fields, projections, carried, relations),
        several=expands or any(r.several for r in by_name),
    )
    columns = tuple((f.name, p.sql(DIALECT)) for f, p in zip(fields, projections, strict=True))
    return FlatBlock(relation, inputs, columns, conditions, late, carried.alias if carried else None)


def carrier_of(inputs: tuple[Input, ...], relations: Mapping[str, Relation]) -> Input | None:
    """The one input whose rows carry position and watermark, None where there is none or more than one."""
    hidden = [i for i in inputs if relations[i.relation.lower()].hidden and i.certain]
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


def _hops(
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    carried: Input | None,
    relations: Mapping[str, Relation],
) -> tuple[Hop, ...]:
    event = event_expression(relations[carried.relation.lower()], carried.alias) if carried is not None else None
    if event is None:
        return ()
    found = [(f.name, find_hop(p, event)) for f, p in zip(fields, projections, strict=True)]
    return tuple(Hop(name, *hop) for name, hop in found if hop is not None)


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
            column = fields.get(projection.name.lower()) if source.certain else None
        found.append(column)
    return found


def _flat_key(
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    inputs: tuple[Input, ...],
    relations: Mapping[str, Relation],
) -> tuple[str, ...]:
    """The key of the one input whose rows come once each, where all of it is projected (semantics V5)."""
    repeating = [i for i in inputs if not _meets_one(i, inputs, relations)]
    if len(repeating) != 1 or repeating[0].join != "from":
        return ()
    relation, alias = relations[repeating[0].relation.lower()], repeating[0].alias.lower()
    names = {
        p.name.lower(): f.name
        for f, p in zip(fields, projections, strict=True)
        if isinstance(p, exp.Column) and p.table.lower() == alias
    }
    if not relation.key or any(k.lower() not in names for k in relation.key):
        return ()
    return tuple(names[k.lower()] for k in relation.key)


def _meets_one(source: Input, inputs: tuple[Input, ...], relations: Mapping[str, Relation]) -> bool:
    """Whether a row of the join to its left stays one row: it asks only, or finds one row at most.

    A key column is fixed by a column of its own type: '1' and '01' both equal 1.
    """
    relation = relations[source.relation.lower()]
    if source.join in ("semi", "anti"):
        return True
    if source.join == "from" or source.on is None:
        return False
    if relation.single:
        return True
    types = {(i.alias.lower(), f.name.lower()): f.type for i in inputs for f in relations[i.relation.lower()].fields}
    condition: exp.Expr = exp.maybe_parse(source.on, dialect=DIALECT).unnest()
    fixed = set()
    for part in condition.flatten() if isinstance(condition, exp.And) else [condition]:
        sides = (part.this, part.expression) if isinstance(part, exp.EQ | exp.NullSafeEQ) else ()
        if not sides or not all(isinstance(side, exp.Column) for side in sides):
            continue
        left, right = ((side.text("table").lower(), side.name.lower()) for side in sides)
        for mine, other in ((left, right), (right, left)):
            own = mine[0] == source.alias.lower() and other[0] != source.alias.lower()
            if own and other in types and types.get(mine) == types[other]:
                fixed.add(mine[1])
    return bool(relation.key) and {k.lower() for k in relation.key} <= fixed

"""A session macro's SQL, known again: its rows become a flat block, their sessions a block over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sqlglot import exp

from penstock.plan.blocks import Closing, FlatBlock, Late, Relation, SessionBlock, Window, quote
from penstock.plan.clauses import Opaque
from penstock.plan.closings import PLACE
from penstock.plan.macros import ROWS, SESSION
from penstock.plan.made import Made
from penstock.plan.parse import DIALECT
from penstock.plan.select_flat import event_expression
from penstock.plan.session import BOUNDS

INSTANT = "INTERVAL '1 microsecond'"


class Below(Protocol):
    """How a query inside a view becomes a block of its own."""

    def __call__(self, made: Made, tree: exp.Query, name: str, alias: exp.TableAlias) -> Relation: ...


def is_session(subquery: exp.Subquery) -> bool:
    return subquery.alias.lower() == SESSION


def session_block(made: Made, tree: exp.Expr, name: str, below: Below) -> Relation:
    """The blocks of a session macro's subquery; raises Opaque where its rows are not a flat query."""
    rows = next(s.this for s in tree.find_all(exp.Subquery) if s.alias.lower() == ROWS)
    gap = next(e.unalias().expression for e in tree.expressions if e.alias_or_name.lower() == "window_end")
    relation = below(made, rows, f"{name}$rows", exp.TableAlias())
    block = made.blocks[relation.name]
    if not isinstance(block, FlatBlock):
        raise Opaque("a session over rows that are no flat query")
    late = _late(block, made)
    made.blocks[relation.name] = replace(block, late=late)
    keys = tuple(f for f in relation.fields if f.name.startswith("_ps_k"))
    closes = late is not None and relation.append_only
    result = Relation(
        name,
        (*relation.fields, *BOUNDS),
        streams=relation.streams,
        transient=relation.transient,
        closings=(Closing("window_end", "", PLACE, PLACE),) if closes else (),
    )
    window = Window("window_end", quote("window_end"), "", relation.streams) if closes else None
    made.add(SessionBlock(result, relation.name, relation.fields, keys, gap.sql(DIALECT), window))
    return result


def _late(block: FlatBlock, made: Made) -> Late | None:
    """Rows that come behind the watermark are late: a session that could take them in may have closed."""
    carried = next((i for i in block.from_ if i.alias == block.hidden_alias), None)
    if carried is None:
        return None
    relation = made.relations[carried.relation.lower()]
    event = event_expression(relation, carried.alias)
    at = dict(block.columns)["_ps_at"]
    if event is None or relation.stream is None or event.sql(DIALECT).lower() != at.lower():
        return None
    end = f"{at} + {INSTANT}"
    return Late(relation.stream, relation.name, carried.alias, at, end, f"_ps_event + {INSTANT}")

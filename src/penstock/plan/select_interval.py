"""An interval join, known by its conditions: each stream becomes a side that forgets what can meet nothing any more.

Only two streams with watermarks that are joined with each other alone are taken: a table beside them could change what
rows that are gone would show. Where a windowed group reads the join by the time of one of them, its windows close when
nothing they hold can change any more: later than the window's end by as much as the other side may come after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from penstock.plan.blocks import Closing, FlatBlock, Input, Late, RecentBlock, Relation, SourceBlock, Window, quote
from penstock.plan.closings import PLACE
from penstock.plan.interval import distance
from penstock.plan.made import Made
from penstock.plan.parse import DIALECT
from penstock.plan.recent import kept_us, settled_us
from penstock.plan.rewrite.made_of import conjuncts, where_of
from penstock.plan.rewrite.scopes import places_of
from penstock.plan.select_flat import event_expression
from penstock.plan.select_session import INSTANT

_INNER = ("", "INNER", "CROSS")


@dataclass(frozen=True)
class _Side:
    """One of the two streams in the FROM clause."""

    place: exp.Table
    relation: Relation
    event: exp.Expr

    @property
    def alias(self) -> str:
        return self.place.alias_or_name


def over_recent_rows(made: Made, select: exp.Select, name: str) -> exp.Select:
    """The SELECT over sides that forget, which are made; the SELECT itself where it is no interval join."""
    joins = select.args.get("joins") or []
    sides = [side for place in places_of(select) if (side := _side(made, place)) is not None]
    if len(joins) != 1 or len(sides) != 2 or len(places_of(select)) != 2:
        return select
    (join,) = joins
    if join.side.upper() not in ("", "LEFT") or join.args.get("using") or join.method:
        return select
    inner = not join.side and join.kind.upper() in _INNER
    a, b = sides
    # What WHERE says of an outer join comes after the rows without a match.
    conditions = [*conjuncts(join.args.get("on")), *(where_of(select) if inner else [])]
    found = distance(conditions, a.event, b.event)
    if found.low_us is None or found.high_us is None or found.low_us > found.high_us:
        return select
    select = select.copy()
    shown = _shown(select, a, b) if inner else a
    streams = tuple(dict.fromkeys((*a.relation.streams, *b.relation.streams)))
    kept, settled = kept_us(found.low_us, found.high_us), settled_us(found.low_us, found.high_us)
    for number, side in enumerate(sides):
        closes = settled[number] if side is shown else None
        recent = _recent(made, select, side, f"{name}$recent_{side.alias}", kept[number], streams, closes)
        alias = exp.TableAlias(this=exp.to_identifier(side.alias, quoted=True))
        table = exp.Table(this=exp.to_identifier(recent.name, quoted=True), alias=alias)
        places_of(select)[number].replace(table)
    return select


def _side(made: Made, place: exp.Expr) -> _Side | None:
    """The place where it holds the rows of one stream, as they come, that can be late."""
    if not isinstance(place, exp.Table) or place.args.get("db") or place.args.get("pivots"):
        return None
    relation = made.relations.get(place.name.lower())
    if relation is None or relation.stream is None or not _as_it_comes(made, relation):
        return None
    event = event_expression(relation, place.alias_or_name)
    return _Side(place, relation, event) if event is not None else None


def _as_it_comes(made: Made, relation: Relation) -> bool:
    """Whether its rows are records of the epoch that they come in, and stay."""
    block = made.blocks.get(relation.name)
    if not relation.append_only or not relation.hidden or relation.transient or relation.several:
        return False
    if isinstance(block, FlatBlock) and len(block.from_) == 1 and block.late is None:
        return _as_it_comes(made, made.relations[block.from_[0].relation.lower()])
    return isinstance(block, SourceBlock)


def _shown(select: exp.Select, a: _Side, b: _Side) -> _Side:
    """The side by whose time the SELECT groups or shows its rows."""
    parts = [*select.expressions, *([select.args["group"]] if select.args.get("group") else [])]
    written = {node.sql(DIALECT).lower() for part in parts for node in part.find_all(exp.Column)}
    return b if b.event.sql(DIALECT).lower() in written and a.event.sql(DIALECT).lower() not in written else a


def _recent(
    made: Made, select: exp.Select, side: _Side, name: str, kept: int, streams: tuple[str, ...], closes: int | None
) -> Relation:
    """The side's blocks: the stream's rows that are on time, and what is kept of them."""
    columns = _read(select, side)
    fields = tuple(f for f in side.relation.fields if f.name.lower() in columns)
    at = side.event.sql(DIALECT)
    late = Late(
        side.relation.stream or "", side.relation.name, side.alias, at, f"{at} + {INSTANT}", f"{PLACE} + {INSTANT}"
    )
    on_time = Relation(f"{name}$rows", fields, append_only=True, streams=side.relation.streams)
    made.add(
        FlatBlock(
            on_time,
            (Input(side.relation.name, side.alias),),
            tuple((f.name, f"{quote(side.alias)}.{quote(f.name)}") for f in fields),
            late=late,
        )
    )
    event = side.event.transform(_bare).sql(DIALECT)
    window = Window("", f"({event}) + {_microseconds(kept)}", "", streams)
    relation = Relation(name, fields, append_only=True, streams=streams, closings=_closings(side, closes))
    made.add(RecentBlock(relation, on_time.name, event, kept, window))
    for added in (on_time, relation):
        made.binder.add(added.name, added.fields)
    return relation


def _closings(side: _Side, closes: int | None) -> tuple[Closing, ...]:
    """When rows of a time come no more, by the time itself."""
    if closes is None or not isinstance(side.event, exp.Column):
        return ()
    column = next(c for c in side.relation.columns if c.lower() == side.event.name.lower())
    last = f"{PLACE} + {_microseconds(closes)}"
    return (Closing(column, "", f"{last} + {INSTANT}", last),)


def _read(select: exp.Select, side: _Side) -> set[str]:
    """The columns of the side that the SELECT reads, and those of its time."""
    found = {c.name.lower() for c in side.event.find_all(exp.Column)}
    return found | {c.name.lower() for c in select.find_all(exp.Column) if c.table.lower() == side.alias.lower()}


def _bare(node: exp.Expr) -> exp.Expr:
    return exp.column(exp.to_identifier(node.name, quoted=True)) if isinstance(node, exp.Column) else node


def _microseconds(us: int) -> str:
    return f"INTERVAL '{us} microseconds'"

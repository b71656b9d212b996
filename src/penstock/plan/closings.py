"""Event time of closed windows: what lets a window close over the rows of closed windows (semantics T3).

A row of a windowed group comes when the watermark passes its window's end. So a window over these rows closes when the
last of them has come: for a window that ends at E, at the largest end of all windows that start before E. Where the
inner windows divide the outer one, that is E itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlglot import exp

from penstock.plan.blocks import Closing, Field, FlatBlock, Input, Relation, Window, quote
from penstock.plan.parse import DIALECT
from penstock.plan.windows import find_window, over_placeholder

PLACE = "_ps_event"
STREAM = Closing("", "", PLACE, PLACE)


def fill(template: str, value: str) -> str:
    """The template with a value in its place."""
    return template.replace(PLACE, f"({value})")


def closing_carrier(inputs: tuple[Input, ...], relations: Mapping[str, Relation]) -> Input | None:
    """The one input whose rows come when windows close; None where there are several, or a stream beside it."""
    inner = [i for i in inputs if i.certain]
    if any(relations[i.relation.lower()].hidden for i in inner):
        return None
    closing = [i for i in inner if relations[i.relation.lower()].closings]
    return closing[0] if len(closing) == 1 else None


def closing_window(
    keys: list[exp.Expr], inputs: tuple[Input, ...], relations: Mapping[str, Relation]
) -> tuple[Window, tuple[Closing, ...]] | None:
    """The group key that is a window over closed windows, or such a window itself."""
    carried = closing_carrier(inputs, relations)
    if carried is None:
        return None
    relation = relations[carried.relation.lower()]
    for number, key in enumerate(keys):
        column = f"_ps_k{number}"
        for closing in relation.closings:
            event = _expression(closing, carried.alias)
            if key == event:
                end = fill(closing.end, quote(column))
                return Window(column, end, "", relation.streams), _renamed(relation, closing, column)
            length = find_window(key, event)
            if length is not None:
                made = window_closings(column, key, event, length, closing)
                return Window(column, fill(made[0].end, quote(column)), length, relation.streams), made
    return None


def _renamed(relation: Relation, key: Closing, column: str) -> tuple[Closing, ...]:
    """The closings of a group whose key is a closing's own expression."""
    if key.plus:
        return (replace(key, column=column, plus=""),)
    return tuple(replace(c, column=column) for c in relation.closings if c.column == key.column)


def window_closings(
    column: str, key: exp.Expr, event: exp.Expr, length: str, below: Closing = STREAM
) -> tuple[Closing, ...]:
    """The event times of a window's rows, by its start and by its end. below: those of the rows in the window."""
    bucket = over_placeholder(key, event)
    before = fill(bucket, f"{PLACE} - INTERVAL '1 microsecond'")
    end = fill(below.last, f"{PLACE} + {length}")
    return (
        Closing(column, "", end, fill(below.last, f"{before} + {length}")),
        Closing(column, length, below.last, below.last),
    )


def output_closings(
    fields: tuple[Field, ...], rewritten: tuple[str, ...], made: tuple[Closing, ...]
) -> tuple[Closing, ...]:
    """A group's closings by its output columns. rewritten: each output as SQL over keys and aggregates."""
    return tuple(
        found
        for f, sql in zip(fields, rewritten, strict=True)
        for closing in made
        for found in _carried(closing, f.name, sql, quote(closing.column))
    )


def projected_closings(
    fields: tuple[Field, ...],
    projections: list[exp.Expr],
    inputs: tuple[Input, ...],
    relations: Mapping[str, Relation],
) -> tuple[Closing, ...]:
    """The closings that a projection keeps, by its output columns."""
    carried = closing_carrier(inputs, relations)
    if carried is None:
        return ()
    return tuple(
        found
        for f, projection in zip(fields, projections, strict=True)
        for closing in relations[carried.relation.lower()].closings
        for found in _carried(
            closing,
            f.name,
            projection.sql(DIALECT),
            _expression(replace(closing, plus=""), carried.alias).sql(DIALECT),
        )
    )


def _carried(closing: Closing, name: str, sql: str, column: str) -> list[Closing]:
    """What an output column `name`, made by `sql`, keeps of a closing whose own column is `column` there."""
    if sql == column:
        return [replace(closing, column=name)]
    if closing.plus and sql == f"{column} + {closing.plus}":
        return [replace(closing, column=name, plus="")]
    return []


def _expression(closing: Closing, alias: str) -> exp.Expr:
    """The closing's expression over an alias, as qualification writes it."""
    column: exp.Expr = exp.column(
        exp.to_identifier(closing.column.lower(), quoted=True), table=exp.to_identifier(alias, quoted=True)
    )
    if not closing.plus:
        return column
    return exp.Add(this=column, expression=exp.maybe_parse(closing.plus, dialect=DIALECT))


def tied(block: FlatBlock, relations: Mapping[str, Relation]) -> bool:
    """Whether every input of a join comes when windows close, and only rows of windows that close together meet."""
    first = relations[block.from_[0].relation.lower()]
    known = [(block.from_[0].alias, first)]
    for place in block.from_[1:]:
        relation = relations[place.relation.lower()]
        if place.on is None or not any(_meets(place.on, place.alias, relation, *other) for other in known):
            return False
        known.append((place.alias, relation))
    return bool(first.closings)


def _meets(condition: str, alias: str, relation: Relation, other_alias: str, other: Relation) -> bool:
    """Whether the condition holds a pair of event times of the two equal that come at one watermark."""
    tree: exp.Expr = exp.maybe_parse(condition, dialect=DIALECT).unnest()
    equal = [e for e in (tree.flatten() if isinstance(tree, exp.And) else [tree]) if isinstance(e, exp.EQ)]
    pairs = [{e.left.sql(DIALECT), e.right.sql(DIALECT)} for e in equal]
    return any(
        {_expression(mine, alias).sql(DIALECT), _expression(theirs, other_alias).sql(DIALECT)} in pairs
        for mine in relation.closings
        for theirs in other.closings
        if (mine.end, mine.last) == (theirs.end, theirs.last)
    )

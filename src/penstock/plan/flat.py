"""Flat blocks: scan, filter, project, inner and left join.

Delta rule. Relations change one after another (topological order); when X changes, its content already includes dX,
relations visited earlier are new, later ones old. With X occurring in the set O of places of the FROM clause:

    d(... X ... X ...)  =  sum over non-empty S of O of  (-1)^(|S|+1) * (dX in S, X in O - S, the others as they stand)

For X on the right of a LEFT JOIN (once), with L all that stands to the left of it:

    d(L left join X)  =  L join dX  +  L with NULLs, weighted +1 where the last match went, -1 where the first one came

Reference version: the FROM clause over the contents, as one batch (`content_sql`).
"""

from __future__ import annotations

from itertools import combinations

from penstock.plan.blocks import HIDDEN, FlatBlock, Input, quote
from penstock.plan.late import late_condition


def content_sql(block: FlatBlock, contents: dict[str, str], *, late: bool = True) -> str:
    """The whole block over the inputs' contents (relation name -> SQL name)."""
    places = [f"{contents[i.relation]} AS {quote(i.alias)}" for i in block.from_]
    return _select(block, places, weight=None, late=late)


def delta_sql(
    block: FlatBlock,
    changed: str,
    delta: str,
    weighted: bool,
    contents: dict[str, str],
    *,
    late: bool,
) -> list[str]:
    """The terms of the block's delta when relation `changed` moves by `delta` (an SQL table or subquery).

    weighted: whether the delta has `_ps_w` (an append-only one has not). late: whether rows can be late now. The terms
    have `_ps_w` unless the block is append-only.
    """
    occurrences = [n for n, i in enumerate(block.from_) if i.relation == changed]
    on_the_right = [n for n in occurrences if block.from_[n].join == "left"]
    if on_the_right:
        return _right_of_left_join(block, on_the_right[0], delta, weighted, contents, late=late)
    terms = []
    for size in range(1, len(occurrences) + 1):
        for chosen in combinations(occurrences, size):
            places = [
                f"{delta if n in chosen else contents[i.relation]} AS {quote(i.alias)}"
                for n, i in enumerate(block.from_)
            ]
            terms.append(_select(block, places, weight=_weight(block, chosen, weighted, size), late=late))
    return terms


def _weight(block: FlatBlock, chosen: tuple[int, ...], weighted: bool, size: int) -> str | None:
    if block.relation.append_only:
        return None
    factors = [f'{quote(block.from_[n].alias)}."_ps_w"' for n in chosen] if weighted else ["1"]
    product = " * ".join(factors)
    return product if size % 2 else f"-({product})"


def _select(block: FlatBlock, places: list[str], *, weight: str | None, late: bool, extra: str = "") -> str:
    columns = [f"{sql} AS {quote(name)}" for name, sql in block.columns]
    if block.hidden_alias is not None:
        columns += [f"{quote(block.hidden_alias)}.{quote(name)} AS {quote(name)}" for name in HIDDEN]
    if weight is not None:
        columns.append(f'{weight} AS "_ps_w"')
    conditions = [f"({c})" for c in block.where]
    if late and block.late is not None:
        conditions.append(f"NOT {late_condition(block.late)}")
    if extra:
        conditions.append(extra)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {', '.join(columns)} FROM {_joined(block.from_, places)}{where}"


def _joined(inputs: tuple[Input, ...], places: list[str]) -> str:
    parts = []
    for source, place in zip(inputs, places, strict=True):
        match source.join:
            case "from":
                parts.append(place)
            case "inner":
                parts.append(f"JOIN {place} ON {source.on}")
            case "left":
                parts.append(f"LEFT JOIN {place} ON {source.on}")
    return " ".join(parts)


def _right_of_left_join(
    block: FlatBlock, position: int, delta: str, weighted: bool, contents: dict[str, str], *, late: bool
) -> list[str]:
    joined = block.from_[position]
    alias = quote(joined.alias)
    places = [f"{contents[i.relation]} AS {quote(i.alias)}" for i in block.from_]
    weight = f'{alias}."_ps_w"' if weighted else "1"
    as_inner = tuple(
        Input(i.relation, i.alias, "inner" if n == position else i.join, i.on) for n, i in enumerate(block.from_)
    )
    matches = [f"{delta} AS {alias}" if n == position else place for n, place in enumerate(places)]
    inner = FlatBlock(block.relation, as_inner, block.columns, block.where, block.late, block.hidden_alias)
    matched = _select(inner, matches, weight=weight, late=late)
    now = f"(SELECT count(*) FROM {contents[joined.relation]} AS {alias} WHERE {joined.on})"
    moved = f"(SELECT coalesce(sum({weight}), 0) FROM {delta} AS {alias} WHERE {joined.on})"
    was = f"({now} - {moved})"
    correction = f"CASE WHEN {now} = 0 AND {was} > 0 THEN 1 WHEN {was} = 0 AND {now} > 0 THEN -1 ELSE 0 END"
    empty = f"(SELECT * FROM {contents[joined.relation]} LIMIT 0) AS {alias}"
    alone = tuple(
        Input(i.relation, i.alias, i.join, "FALSE" if n == position else i.on) for n, i in enumerate(block.from_)
    )
    nulls = [empty if n == position else place for n, place in enumerate(places)]
    outer = FlatBlock(block.relation, alone, block.columns, block.where, block.late, block.hidden_alias)
    touched = f"EXISTS (SELECT 1 FROM {delta} AS {alias} WHERE {joined.on})"
    unmatched = _select(outer, nulls, weight=correction, late=late, extra=touched)
    return [matched, f'SELECT * FROM ({unmatched}) WHERE "_ps_w" <> 0']

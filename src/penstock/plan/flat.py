"""Flat blocks: scan, filter, project; inner, left, semi and anti join.

Delta rule. Relations change one after another (topological order); when X changes, its content already includes dX,
relations visited earlier are new, later ones old. With X occurring in the set O of places of the FROM clause:

    d(... X ... X ...)  =  sum over non-empty S of O  of  (-1)^(|S|+1) * (the step of X in S, X in O - S, the others)

The step of X at a place, with L all that stands to the left of it and o the rows of L that dX can match:

    inner        L join dX
    left join    L join dX  +  o with NULLs, weighted +1 where the last match went, -1 where the first one came
    semi join    o, weighted +1 where the first match came, -1 where the last one went
    anti join    o, weighted -1 where the first match came, +1 where the last one went

Each step is linear in L, so that steps at several places are taken one in the other.

Where dX gives as many rows as it takes, for each value of the columns that `on` reads of it, no row of L has its first
match or its last one: o is empty, and what is weighted by it falls away (`turning_columns`). Updates of a keyed
relation that is joined by its key are so.

Reference version: the FROM clause over the contents, as one batch (`content_sql`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from penstock.plan.blocks import HIDDEN, Field, FlatBlock, Input, quote
from penstock.plan.late import late_condition


@dataclass(frozen=True)
class _Place:
    """One place of a FROM clause in one term of a delta.

    sql: None where nothing stands there. touched: the join before it that keeps of L what dX can match. (A semi join,
    for DuckDB 1.5 finds nothing by EXISTS over several inequalities.)
    """

    input: Input
    sql: str | None
    weight: str = ""
    touched: str = ""


def content_sql(block: FlatBlock, contents: dict[str, str], *, late: bool = True) -> str:
    """The whole block over the inputs' contents (relation name -> SQL name)."""
    places = [_Place(i, f"{contents[i.relation]} AS {quote(i.alias)}") for i in block.from_]
    return _select(block, places, weight=None, late=late)


def delta_sql(
    block: FlatBlock,
    changed: str,
    delta: str,
    weighted: bool,
    contents: dict[str, str],
    *,
    late: bool,
    unturned: frozenset[int] = frozenset(),
) -> list[str]:
    """The terms of the block's delta when relation `changed` moves by `delta` (an SQL table or subquery).

    weighted: whether the delta has `_ps_w` (an append-only one has not). late: whether rows can be late now. unturned:
    places at which the delta gives no row its first match and takes none its last one. The terms have `_ps_w` unless
    the block is append-only.
    """
    occurrences = [n for n, i in enumerate(block.from_) if i.relation == changed]
    terms = []
    for size in range(1, len(occurrences) + 1):
        for chosen in combinations(occurrences, size):
            steps = [
                _steps(i, delta, weighted, contents[i.relation], turns=n not in unturned)
                if n in chosen
                else [_Place(i, f"{contents[i.relation]} AS {quote(i.alias)}")]
                for n, i in enumerate(block.from_)
            ]
            terms += [_term(block, places, negative=size % 2 == 0, late=late) for places in product(*steps)]
    return terms


def turning_columns(block: FlatBlock, changed: str, fields: Sequence[Field]) -> dict[int, tuple[str, ...]]:
    """The columns of relation `changed` (its fields) that `on` reads, at each place that may have no row of it.

    A place is left out where that is not known, or where equal values of such a column are not always the same (-0.0).
    """
    found = {}
    for n, source in enumerate(block.from_):
        if source.relation != changed or source.certain or source.on is None:
            continue
        named = source.on.lower()
        read = [field for field in fields if field.name.lower() in named]
        if _by_columns(source) and exact(read):
            found[n] = tuple(field.name for field in read)
    return found


_EXACT = re.compile(
    r"(BOOLEAN|U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|DECIMAL\(\d+, ?\d+\)|VARCHAR|DATE|TIMESTAMP|UUID)$"
)


def exact(fields: Sequence[Field]) -> bool:
    """Whether values of these fields that compare as equal are the same in every expression."""
    return all(_EXACT.match(field.type) for field in fields)


def _by_columns(source: Input) -> bool:
    """Whether `on` reads the place column by column: neither all of them, nor a row as one value."""
    assert source.on is not None
    rest = source.on.replace(f"{quote(source.alias)}.", "")
    return "*" not in rest and re.search(rf"\b{re.escape(source.alias)}\b", rest, re.IGNORECASE) is None


def _steps(source: Input, delta: str, weighted: bool, content: str, *, turns: bool) -> list[_Place]:
    """The terms of one place whose relation moves."""
    alias = quote(source.alias)
    weight = f'{alias}."_ps_w"' if weighted else "1"
    moved = _Place(
        replace(source, join="inner" if source.join == "left" else source.join), f"{delta} AS {alias}", weight
    )
    if source.certain:
        return [moved]
    if not turns:
        return [moved] if source.join == "left" else []
    now = f"(SELECT count(*) FROM {content} AS {alias} WHERE {source.on})"
    step = f"(SELECT coalesce(sum({weight}), 0) FROM {delta} AS {alias} WHERE {source.on})"
    was = f"({now} - {step})"
    came, went = ("1", "-1") if source.join == "semi" else ("-1", "1")
    turned = f"CASE WHEN {now} = 0 AND {was} > 0 THEN {went} WHEN {was} = 0 AND {now} > 0 THEN {came} ELSE 0 END"
    touched = f"SEMI JOIN {delta} AS {alias} ON {source.on}"
    if source.join != "left":
        return [_Place(source, None, turned, touched)]
    nothing = f"(SELECT * FROM {content} LIMIT 0) AS {alias}"
    return [moved, _Place(replace(source, on="FALSE"), nothing, turned, touched)]


def _term(block: FlatBlock, places: tuple[_Place, ...], *, negative: bool, late: bool) -> str:
    if block.relation.append_only:
        weight = None
    else:
        factors = " * ".join(p.weight for p in places if p.weight)
        weight = f"-({factors})" if negative else factors
    sql = _select(block, list(places), weight=weight, late=late)
    return f'SELECT * FROM ({sql}) WHERE "_ps_w" <> 0' if any(p.touched for p in places) else sql


def _select(block: FlatBlock, places: list[_Place], *, weight: str | None, late: bool) -> str:
    columns = [f"{sql} AS {quote(name)}" for name, sql in block.columns]
    if block.hidden_alias is not None:
        columns += [f"{quote(block.hidden_alias)}.{quote(name)} AS {quote(name)}" for name in HIDDEN]
    if weight is not None:
        columns.append(f'{weight} AS "_ps_w"')
    conditions = [f"({c})" for c in block.where]
    if late and block.late is not None:
        conditions.append(f"NOT {late_condition(block.late)}")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {', '.join(columns)} FROM {_joined(places)}{where}"


def _joined(places: list[_Place]) -> str:
    parts = []
    for place in places:
        if place.touched:
            parts.append(place.touched)
        if place.sql is None:
            continue
        match place.input.join:
            case "from":
                parts.append(place.sql)
            case "inner":
                parts.append(f"JOIN {place.sql} ON {place.input.on}")
            case _:
                parts.append(f"{place.input.join.upper()} JOIN {place.sql} ON {place.input.on}")
    return " ".join(parts)

"""A page of a table: which rows of a view or source a person looks at, as one query.

At most 200 rows leave the database, whatever the view holds. The order is total (by the chosen column, then the key,
or all columns where there is none), so that pages do not overlap. Names are checked against the plan and quoted; values
are literals. Personal data leaves under names of its own; a row can be looked for by such a name, never by the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import DataError
from penstock.page.picture import Column, Item, Picture
from penstock.page.veil import Veil
from penstock.plan.blocks import literal, quote
from penstock.runtime.answers import Answer

MAX_ROWS = 200
# JavaScript's numbers are exact up to here.
EXACT = 2**53
_TEXTS = ("VARCHAR", "UUID", "ENUM")
_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UINTEGER", "UBIGINT", "DECIMAL", "DOUBLE", "FLOAT")

Ask = Callable[[Mapping[str, object]], Answer]


@dataclass(frozen=True)
class Wanted:
    """What a person asked to see. where: values that columns must have; search: a text that a text column holds."""

    name: str
    offset: int = 0
    limit: int = 50
    sort: str = ""
    descending: bool = False
    search: str = ""
    where: tuple[tuple[str, str], ...] = ()


def read_page(ask: Ask, picture: Picture, wanted: Wanted, veil: Veil) -> dict[str, Any]:
    """The rows, and how many there are in all.

    Raises:
        DataError: PS-DATA-002 for a name or number that cannot be.
        Error: what the state answers.
    """
    item = _item(picture, wanted.name)
    columns = {c.name: c for c in item.columns}
    if not 0 < wanted.limit <= MAX_ROWS or not 0 <= wanted.offset < EXACT:
        raise DataError(
            "PS-DATA-002",
            "the page cannot be shown",
            expected=f"a limit of 1 to {MAX_ROWS} and an offset of 0 or more",
            got=f"limit {wanted.limit}, offset {wanted.offset}",
        )
    _check_columns(item, columns, wanted)
    condition = _condition(item, wanted, veil)
    counted = ask({"do": "sql", "query": f"SELECT count(*) FROM {quote(item.name)}{condition}"})
    total = _rows(counted)[0][0]
    offset = min(wanted.offset, max(0, (total - 1) // wanted.limit * wanted.limit))
    names = ", ".join(quote(c.name) for c in item.columns)
    found = ask(
        {
            "do": "sql",
            "query": f"SELECT {names} FROM {quote(item.name)}{condition} ORDER BY {_order(item, wanted)} "
            f"LIMIT {wanted.limit} OFFSET {offset}",
        }
    )
    rows = [[_shown(v, c, veil) for v, c in zip(row, item.columns, strict=True)] for row in _rows(found)]
    return {"name": item.name, "total": total, "offset": offset, "rows": rows}


def _check_columns(item: Item, columns: Mapping[str, Column], wanted: Wanted) -> None:
    unknown = [name for name, _ in wanted.where if name not in columns]
    if wanted.sort and (wanted.sort not in columns or columns[wanted.sort].masked):
        unknown.append(wanted.sort)
    if unknown:
        raise DataError(
            "PS-DATA-002",
            f"{item.name} cannot be sorted or filtered by {unknown[0]}",
            expected=", ".join(c.name for c in item.columns if not c.masked),
            got="a masked column" if unknown[0] in columns else "no column of that name",
        )


def _item(picture: Picture, name: str) -> Item:
    item = picture.item(name)
    if item is None or not item.kept:
        raise DataError(
            "PS-DATA-002",
            f"the rows of {name} are not kept: they pass through" if item else f"there is no view {name}",
            expected=", ".join(i.name for i in picture.items if i.kept),
            got=name,
        )
    return item


def _condition(item: Item, wanted: Wanted, veil: Veil) -> str:
    columns = {c.name: c for c in item.columns}
    parts = [_equal(columns[name], value, veil) for name, value in wanted.where]
    if wanted.search:
        parts.append(_search(item, wanted.search))
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _equal(column: Column, given: str, veil: Veil) -> str:
    value = veil.value(given) if column.masked else given
    if value is None:
        return "FALSE"
    return f"{quote(column.name)} IS NOT DISTINCT FROM TRY_CAST({literal(value)} AS {column.type})"


def _search(item: Item, text: str) -> str:
    """Text columns hold it, whatever the case; a number is searched for in numbers as well."""
    shown = [c for c in item.columns if not c.masked]
    needle = literal(text.lower())
    parts = [
        f"contains(lower({quote(c.name)}::VARCHAR), {needle})"
        for c in shown
        if c.type.upper().startswith(_TEXTS) or (c.name in item.key and not c.type.upper().startswith(_NUMBERS))
    ]
    if _number(text):
        parts += [f"{quote(c.name)} = TRY_CAST({needle} AS {c.type})" for c in shown if _numeric(c)]
    return f"({' OR '.join(parts)})" if parts else "FALSE"


def _numeric(column: Column) -> bool:
    return column.type.upper().startswith(_NUMBERS) and not column.type.endswith("]")


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _order(item: Item, wanted: Wanted) -> str:
    keys = [k for k in item.key if k in {c.name for c in item.columns}] or [c.name for c in item.columns]
    first = [f"{quote(wanted.sort)} {'DESC' if wanted.descending else 'ASC'} NULLS LAST"] if wanted.sort else []
    return ", ".join(first + [f"{quote(k)} NULLS LAST" for k in keys if k != wanted.sort]) or "1"


def _rows(reply: Answer) -> list[list[Any]]:
    rows = reply["rows"]
    assert isinstance(rows, list)
    return rows


def _shown(value: object, column: Column, veil: Veil) -> object:
    if column.masked and value is not None:
        return veil.name(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= EXACT:
        return str(value)
    return value

"""The part of a statement between the parentheses: columns, constraints, keys and the watermark.

A column may be NULL unless it says NOT NULL or is part of the primary key, as in SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

import sqlglot
from sqlglot.errors import ParseError

from penstock.contract.schema import Column, RowCheck, Rule
from penstock.contract.types import parse_type
from penstock.sqlfile.words import Cursor, Kind, Mistake

_AFTER_TYPE = (
    "NOT",
    "NULL",
    "PRIMARY",
    "CHECK",
    "CONSTRAINT",
    "REFERENCES",
    "PII",
    "COMMENT",
    "DEFAULT",
    "GENERATED",
    "AS",
    "UNIQUE",
    "COLLATE",
    ",",
)

_INSTEAD = (
    (r"TIMESTAMPTZ|TIMESTAMP WITH|TIMESTAMP_TZ", "times are kept in UTC: write TIMESTAMP"),
    (r"TIMESTAMP_", "times are kept in microseconds: write TIMESTAMP"),
    (r"TIMETZ|TIME WITH", "a time of day has no zone: write TIME"),
    (r"UHUGEINT", "write HUGEINT, DECIMAL(38, 0) or VARCHAR"),
    (r".*\[\s*\d+\s*\]$", "a list has any length: write INTEGER[] and CHECK (len(column) = 3)"),
    (r"BIT", "write BLOB, or VARCHAR of zeros and ones"),
    (r"JSON|VARIANT", "write VARCHAR and take it apart in a view, or STRUCT and MAP"),
    (r"UNION", "write STRUCT with one nullable field for each kind"),
    (r"VARINT|BIGNUM", "write DECIMAL(38, 0) or VARCHAR"),
)

# What a column of a table says in DuckDB, and what to write here instead.
_NO_CLAUSE = {
    "DEFAULT": "what a record does not say is NULL: write coalesce(column, value) in a view",
    "GENERATED": "a source has what its records say: compute the column in a view",
    "AS": "a source has what its records say: compute the column in a view",
    "UNIQUE": "write UNIQUE (column) WITHIN INTERVAL '1 hour' after the columns, or PRIMARY KEY",
    "COLLATE": "texts are compared byte by byte: write lower(column) or column COLLATE ... in a view",
}


@dataclass
class Body:
    """What the parentheses of CREATE STREAM, TABLE or REFERENCE say, as it is being read."""

    columns: list[Column] = field(default_factory=list)
    checks: list[RowCheck] = field(default_factory=list)
    references: dict[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()
    within: str | None = None
    event_time: str | None = None
    watermark: str | None = None
    mistakes: list[Mistake] = field(default_factory=list)


def read_body(cursor: Cursor) -> Body:
    """Read `( ... )`. A mistake in one item is kept in `mistakes`, and reading goes on with the next item."""
    body = Body()
    cursor.expect("(")
    while True:
        before = cursor.offset
        try:
            _item(cursor, body)
            if not (cursor.at(",") or cursor.at(")")):
                cursor.fail("a comma or a closing parenthesis")
        except Mistake as mistake:
            body.mistakes.append(mistake)
            cursor.skip_item()
        if cursor.accept(","):
            continue
        if cursor.done or cursor.offset == before or cursor.at(")"):
            break
    cursor.expect(")")
    keys = {name.lower() for name in body.key}
    body.columns = [replace(c, nullable=c.nullable and c.name.lower() not in keys) for c in body.columns]
    return body


def _item(cursor: Cursor, body: Body) -> None:
    if cursor.at("CHECK", "("):
        _check(cursor, body, "")
    elif cursor.accept("CONSTRAINT"):
        name = cursor.name("the name of the constraint")
        _check(cursor, body, name)
    elif cursor.at("PRIMARY", "KEY", "("):
        cursor.expect("PRIMARY", "KEY")
        _primary_key(cursor, body, cursor.names("a column of the key"))
    elif cursor.accept("FOREIGN", "KEY"):
        columns = cursor.names("a column")
        _references(cursor, body, columns)
    elif cursor.at("UNIQUE", "("):
        _unique(cursor, body)
    elif cursor.at("WATERMARK", "FOR"):
        _watermark(cursor, body)
    else:
        _column(cursor, body)


def _column(cursor: Cursor, body: Body) -> None:
    name = cursor.name("a column, CHECK, CONSTRAINT, PRIMARY KEY, FOREIGN KEY, UNIQUE or WATERMARK FOR")
    kind, rules = _type(cursor)
    nullable, pii, description = True, False, ""
    while not (cursor.done or cursor.at(",") or cursor.at(")")):
        if cursor.accept("NOT", "NULL"):
            nullable = False
        elif cursor.accept("NULL"):
            nullable = True
        elif cursor.accept("PRIMARY", "KEY"):
            _primary_key(cursor, body, (name,))
        elif cursor.at("CHECK"):
            _check(cursor, body, "")
        elif cursor.accept("CONSTRAINT"):
            _check(cursor, body, cursor.name("the name of the constraint"))
        elif cursor.at("REFERENCES"):
            _references(cursor, body, (name,))
        elif cursor.accept("PII"):
            pii = True
        elif cursor.accept("COMMENT"):
            description = cursor.string("the comment in quotes")
        else:
            expected = "NOT NULL, PRIMARY KEY, CHECK, REFERENCES, PII, COMMENT, a comma or a closing parenthesis"
            cursor.fail(expected, next((hint for word, hint in _NO_CLAUSE.items() if cursor.at(word)), ""))
    body.columns.append(Column(name, kind, nullable, rules, pii, description))


def _type(cursor: Cursor) -> tuple[str, tuple[Rule, ...]]:
    start = cursor.offset
    if cursor.accept("ENUM"):
        return "VARCHAR", (Rule("one_of", _enum_values(cursor)),)
    text, _ = cursor.until(*_AFTER_TYPE)
    try:
        return parse_type(" ".join(text.split())).name, ()
    except ValueError:
        hint = _instead(text.upper())
        raise Mistake(
            "the type of a column is unknown",
            start,
            "a type such as BIGINT, VARCHAR, DECIMAL(18, 2), TIMESTAMP, BOOLEAN, VARCHAR[] or STRUCT(name TYPE, ...)",
            text or "none",
            hint,
        ) from None


def _instead(text: str) -> str:
    """What to write instead of a type of DuckDB that no column has."""
    return next((hint for start, hint in _INSTEAD if re.match(start, text)), "docs/reference/types.md lists the types")


def _enum_values(cursor: Cursor) -> tuple[str, ...]:
    cursor.expect("(")
    values = [cursor.string("a value in quotes")]
    while cursor.accept(","):
        values.append(cursor.string("a value in quotes"))
    cursor.expect(")")
    return tuple(values)


def _primary_key(cursor: Cursor, body: Body, columns: tuple[str, ...]) -> None:
    if body.key:
        raise Mistake("there are two primary keys", cursor.offset, "one PRIMARY KEY", ", ".join(columns))
    body.key = columns


def _check(cursor: Cursor, body: Body, name: str) -> None:
    cursor.expect("CHECK")
    text, start = cursor.parenthesised()
    _parses(text, start, "condition")
    body.checks.append(RowCheck(name or f"check_{len(body.checks) + 1}", text.strip()))


def _references(cursor: Cursor, body: Body, columns: tuple[str, ...]) -> None:
    cursor.expect("REFERENCES")
    reference = cursor.name("a reference")
    theirs = cursor.names("a column of the reference")
    body.references[", ".join(columns)] = f"{reference}.({', '.join(theirs)})"


def _unique(cursor: Cursor, body: Body) -> None:
    start = cursor.offset
    cursor.expect("UNIQUE")
    columns = cursor.names("a column")
    cursor.expect("WITHIN", hint="UNIQUE (id) WITHIN INTERVAL '1 hour' keeps the state of duplicates bounded")
    if body.unique:
        raise Mistake("there are two UNIQUE constraints", start, "one UNIQUE", ", ".join(columns))
    body.unique, body.within = columns, duration(cursor)


def _watermark(cursor: Cursor, body: Body) -> None:
    """`WATERMARK FOR at AS at - INTERVAL '5 seconds'`, `WATERMARK FOR (expression) AS (expression) - ...`."""
    start = cursor.offset
    cursor.expect("WATERMARK", "FOR")
    event_time = _event_time(cursor)
    cursor.expect("AS")
    again = _event_time(cursor)
    if _plain(again) != _plain(event_time):
        raise Mistake("the watermark is of another time", start, f"AS {event_time} - INTERVAL '...'", again)
    if body.event_time is not None:
        raise Mistake("there are two watermarks", start, "one WATERMARK FOR", event_time)
    body.event_time = event_time
    body.watermark = duration(cursor) if cursor.accept("-") else "0s"


def _event_time(cursor: Cursor) -> str:
    if cursor.at("("):
        text, start = cursor.parenthesised()
        _parses(text, start, "event time")
        return text.strip()
    return cursor.name("a column, or an expression in parentheses")


def _plain(text: str) -> str:
    return "".join(text.split()).lower()


def duration(cursor: Cursor) -> str:
    """`INTERVAL '5 seconds'`, `INTERVAL 5 SECONDS`, `'5 seconds'` or `$parameter`."""
    if cursor.accept("$"):
        return "$" + cursor.name("the name of a parameter")
    cursor.accept("INTERVAL")
    word = cursor.peek()
    if word is not None and word.kind is Kind.NUMBER:
        cursor.take()
        return f"{word.text} {cursor.name('a unit such as SECONDS')}".lower()
    text = cursor.string("a duration such as INTERVAL '5 seconds'")
    # INTERVAL '5' SECOND, as the standard writes it.
    return f"{text} {cursor.name('a unit')}".lower() if text.strip().isdecimal() else text


def _parses(text: str, start: int, what: str) -> None:
    try:
        sqlglot.parse_one(text, read="duckdb")
    except ParseError as problem:
        found = problem.errors[0] if problem.errors else {}
        got = str(found.get("description") or problem)
        raise Mistake(f"a {what} cannot be parsed", start, f"an SQL {what}", got) from None

"""Values that the compiled kernel leaves as JSON text, checked and cast: decimals, dates and times above all.

Invariant: what each function says is what `types_sql` says of the same text. A text of the usual shape (quoted, nothing
escaped, a time without a zone) is read as it stands; DuckDB's JSON functions, which parse a text each time that one is
called, see the others alone.
"""

from __future__ import annotations

from penstock.contract.schema import Column
from penstock.contract.types import DecimalType, parse_type
from penstock.formats.types_sql import CLOCK, DATE, INTEGER, check, literal, typed


def token_check(column: Column, token: str) -> str:
    """An SQL condition: the JSON text, which is not the JSON null, is strictly of the column's type."""
    whole = check(column, f"{token}::JSON")
    usual = _usual(column, token)
    return f"(CASE WHEN {usual} THEN {_cast(column, token)} IS NOT NULL ELSE {whole} END)" if usual else whole


def token_value(column: Column, token: str) -> str:
    """The typed value of a JSON text that `token_check` accepts."""
    whole = typed(column, f"{token}::JSON")
    usual = _usual(column, token)
    return f"CASE WHEN {usual} THEN {_cast(column, token)} ELSE {whole} END" if usual else whole


def _usual(column: Column, token: str) -> str:
    """Whether a text has the usual shape of its type; empty for types that have none."""
    kind = parse_type(column.type)
    if isinstance(kind, DecimalType):
        fraction = f"(\\.[0-9]{{1,{kind.scale}}})?" if kind.scale else ""
        return _matches(token, f"{INTEGER}{fraction}")
    if column.type == "DATE":
        return f"({_matches(token, DATE)} AND NOT starts_with({token}, '\"0000'))"
    if column.type == "TIMESTAMP":
        return f"({_matches(token, f'{DATE}[T ]{CLOCK}')} AND NOT starts_with({token}, '\"0000'))"
    return ""


def _matches(token: str, pattern: str) -> str:
    quoted = f'"{pattern}"'
    return f"regexp_full_match({token}, {literal(quoted)})"


def _cast(column: Column, token: str) -> str:
    return f"try_cast(substr({token}, 2, length({token}) - 2) AS {column.type})"

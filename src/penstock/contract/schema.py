"""A contract as frozen data: columns with DuckDB types, and the rules that every record must keep."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

Literal_ = int | float | str | bool | Decimal


@dataclass(frozen=True)
class Rule:
    """One constraint on one column.

    `name`: `ge`, `gt`, `le`, `lt`, `multiple_of`, `min_length`, `max_length`, `pattern` (argument: a literal) or
    `one_of` (argument: a tuple of literals).
    """

    name: str
    argument: Literal_ | tuple[Literal_, ...]


@dataclass(frozen=True)
class Column:
    """One column: `type` is a DuckDB type name; `nullable` columns may be missing or null in the record.

    children: of a STRUCT its fields, of a list or MAP one column for the elements or values; empty where `type` says
    all (everything inside may then be null). default: the JSON text that a missing field takes, empty for none.
    """

    name: str
    type: str
    nullable: bool = False
    rules: tuple[Rule, ...] = ()
    pii: bool = False
    description: str = ""
    children: tuple[Column, ...] = ()
    default: str = ""


@dataclass(frozen=True)
class RowCheck:
    """A named boolean SQL expression over the columns; a record for which it is false is dead (NULL passes)."""

    name: str
    sql: str


@dataclass(frozen=True)
class ForeignKey:
    """The columns of a record that must be found in a reference (a record with a NULL in them passes)."""

    columns: tuple[str, ...]
    reference: str
    reference_columns: tuple[str, ...]


@dataclass(frozen=True)
class Schema:
    """Everything a contract says. `extra`: unknown fields are ignored and counted, or make a record dead."""

    name: str
    columns: tuple[Column, ...]
    checks: tuple[RowCheck, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    extra: str = "ignore"
    owner: str = ""
    version: str = ""

    def column(self, name: str) -> Column | None:
        """The column of that name, compared without case, or None."""
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


@dataclass(frozen=True)
class Verdict:
    """Why a record is dead: the rule, the field (empty: the record as a whole), what was got, and a sentence."""

    rule: str
    field: str
    got: str
    reason: str

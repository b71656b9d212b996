"""What the planner asks of an engine: names, types and the kinds of functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock.plan.blocks import Field


@dataclass(frozen=True)
class BindProblem(Exception):
    """SQL that does not fit: what the engine says, and where in the text (line, column from 1; 0: unknown)."""

    message: str
    line: int = 0
    column: int = 0


class Binder(Protocol):
    """Types and names, checked over empty relations."""

    def add(self, name: str, fields: tuple[Field, ...]) -> None:
        """Make the relation `name` known, with these columns."""
        ...

    def remove(self, name: str) -> None:
        """Forget the relation `name`, if it is known."""
        ...

    def describe(self, sql: str) -> tuple[Field, ...]:
        """The columns of a query.

        Raises:
            BindProblem: the query cannot be bound.
        """
        ...

    def aggregates(self) -> frozenset[str]:
        """The lower-case names of all aggregate functions."""
        ...

    def volatile(self) -> frozenset[str]:
        """The lower-case names of all functions whose result is not determined by their arguments."""
        ...

    def exact_rows(self) -> bool:
        """Whether `(a, b) IN (SELECT ...)` is NULL where SQL says so, and nowhere else."""
        ...

    def close(self) -> None: ...

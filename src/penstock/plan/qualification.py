"""Qualification: every column with its table, stars and aliases written out, by sqlglot's optimizer.

It is help, not truth: where it fails, or changes what a query is, the query goes on as the user wrote it. sqlglot tells
of SQL that it cannot walk by exceptions of many kinds, and by warnings that mean nothing to a user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify

from penstock.plan.parse import DIALECT

_CANNOT = (SqlglotError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class Unqualified(Exception):
    """This query cannot be qualified; the message says why, as far as it is known."""


def qualified(tree: exp.Query, schema: Mapping[str, object]) -> exp.Query:
    """A qualified copy of the tree.

    Raises:
        Unqualified: sqlglot cannot do it.
    """
    try:
        with quiet():
            found = qualify(tree.copy(), schema=dict(schema), dialect=DIALECT, validate_qualify_columns=False)
    except _CANNOT as problem:
        raise Unqualified(str(problem).split("\n")[0]) from problem
    if not isinstance(found, exp.Query):
        raise Unqualified(type(found).__name__)
    for node in found.walk():
        # They are no part of what a query means, which a plan's fingerprint is made of. Nor is what else sqlglot notes
        # (places in the text, types by its own lights), which takes half of the time to copy a tree.
        node.comments = None
        node._meta = None
        node._type = None
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without sqlglot's warnings."""
    logger = logging.getLogger("sqlglot")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

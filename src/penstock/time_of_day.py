"""`now()` in a view: the newest tick of the pipeline's clock (semantics T5).

No operator reads a clock. Where exactly one clock is declared, `now()`, `current_timestamp` and `current_date` in views
stand for the row of the view `CLOCK_now`, which is added to the pipeline. Its ticks are rows: what a filter against
`now()` lets go leaves when a tick passes, and a batch over the same ticks gives the same answer. Else the planner
refuses the word, and says what to declare.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from penstock.graph import SourceDecl, ViewDecl

# What is quoted or a comment stands first, so that no word in it is found.
_WORDS = re.compile(
    r"(?P<other>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/)"
    r"|(?<![\w.$])(?:(?P<time>(?:now|get_current_timestamp|transaction_timestamp)\s*\(\s*\)"
    r"|current_timestamp\b(?:\s*\(\s*\))?)"
    r"|(?P<date>today\s*\(\s*\)|current_date\b(?:\s*\(\s*\))?))",
    re.IGNORECASE | re.DOTALL,
)


def with_time_of_day(sources: Sequence[SourceDecl], views: Sequence[ViewDecl]) -> tuple[ViewDecl, ...]:
    """The views with the clock's newest tick in the place of the time of day, and the view that holds it.

    Example:
        >>> reading("SELECT 'now()' AS t WHERE a > now() - INTERVAL 1 hour", "tick")
        'SELECT \\'now()\\' AS t WHERE a > (SELECT "at" FROM tick_now) - INTERVAL 1 hour'
    """
    clocks = [source for source in sources if source.clock is not None]
    if len(clocks) != 1:
        return tuple(views)
    clock = clocks[0]
    name = f"{clock.name}_now"
    read = tuple(replace(view, sql=reading(view.sql, clock.name)) for view in views)
    changed = any(new.sql != old.sql for new, old in zip(read, views, strict=True))
    if not changed or any(view.name.lower() == name.lower() for view in views):
        return read
    return (ViewDecl(name, f'SELECT max("at") AS "at" FROM {clock.name}', clock.where), *read)


def reading(sql: str, clock: str) -> str:
    """The text with the newest tick for each word that asks for the time; lines stay where they are."""

    def in_place_of(found: re.Match[str]) -> str:
        tick = f'(SELECT "at" FROM {clock}_now)'
        if found["time"]:
            return tick
        return f"CAST({tick} AS DATE)" if found["date"] else found[0]

    return _WORDS.sub(in_place_of, sql)

"""What the engine says of SQL that does not bind: what to write instead, and the word that it is about.

The engine tells what is wrong in words of its own, mostly with a place. The words that it is known by are in
`_INSTEAD`, with what helps; where there is no place, `words` tells what to look for in the user's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.plan.blocks import Relation

_INSTEAD = (
    (r"must appear in the GROUP BY", "add it to GROUP BY, or pick a value of each group: any_value(x), max(x)"),
    (r"No function matches", "cast what it is called with: x::BIGINT, x::DECIMAL(18, 2), x::TIMESTAMP"),
    (r"Set operations can only apply", "give both sides as many columns, or write UNION BY NAME"),
    (r"WHERE clause cannot contain aggregates", "put it into HAVING, or compare with (SELECT avg(x) FROM ...)"),
    (r"WHERE clause cannot contain window", "put it into QUALIFY"),
    (r"Subquery returns \d+ columns", "select one column there, or compare as many: (a, b) IN (SELECT c, d ...)"),
    (r"GROUP BY term out of range", "columns of SELECT count from 1: name the key, or write GROUP BY ALL"),
    (r"ASOF JOIN inequality", "add the time: ON a.key = b.key AND a.at >= b.at"),
    (r"UNNEST\(\) can only", "unnest a list: unnest([a, b]), unnest(range(n)), unnest(string_split(text, ','))"),
    (r"Cannot unpivot columns of types", "cast them to one type: UNPIVOT (SELECT a::VARCHAR AS a, b FROM s) ON a, b"),
    (r"Ambiguous reference", "write the table before the column"),
    (r"Function with name \S+ does not exist", "a function in Python becomes known by ps.function"),
    (r"Type with name", "docs/reference/types.md lists the types"),
)
_ABOUT_COLUMNS = r"Referenced column|does not have a column|referenced in UNPIVOT"
# The word in the user's text that a message is about, where it has no place of its own.
_WORDS = (
    (r"Set operations", ("UNION", "EXCEPT", "INTERSECT")),
    (r"GROUP BY term", ("GROUP BY",)),
    (r"ASOF JOIN", ("ASOF",)),
    (r"unpivot", ("UNPIVOT",)),
)


def hint_for(message: str, read: Iterable[Relation]) -> str:
    """What to write instead; empty where the message says all that is known."""
    if re.search(_ABOUT_COLUMNS, message):
        return "; ".join(f"{r.name} has {', '.join(r.columns[:12])}{', ...' * (len(r.columns) > 12)}" for r in read)
    return next((hint for pattern, hint in _INSTEAD if re.search(pattern, message)), "")


def words(message: str) -> tuple[str, ...]:
    """The words to look for in the user's text, the likeliest first."""
    named = tuple(re.findall(r'"(\w+)"', message.split("\nCandidate")[0]))
    return (*named, *(w for pattern, found in _WORDS if re.search(pattern, message) for w in found))


def shortened(message: str) -> str:
    """The message without the list of all functions of one name."""
    return message.split("\n\tCandidate functions")[0].strip()

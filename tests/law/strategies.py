"""Which strategy each block of each query of the catalogue has: docs/generated/strategies.md (semantics P5).

`python -m tests.law.strategies` writes the page again. It refuses when a query that was incremental would go to
refresh: that hides every mistake of an incremental block, so its rows may only shrink.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from penstock.bench.views.suite import SUITES, suite
from penstock.engines.duckdb.engine import compile_for_duckdb
from penstock.plan.plan import Plan
from tests.law.catalogue import CATALOGUE
from tests.law.law import compiled

PAGE = Path(__file__).parent.parent.parent / "docs/generated/strategies.md"
HEAD = """# Strategies

What the planner makes of each query that holds the law: one row per block, inputs first. `tests/law/catalogue.py` has
the queries, those of TPC-H and Nexmark are in `src/penstock/bench/views`; `python -m tests.law.strategies` writes this
page, and refuses to send to refresh what was incremental.

| query | block | strategy | reason |
|---|---|---|---|
"""


def rows() -> list[tuple[str, str, str, str]]:
    """Query, block, strategy and reason of every block but the sources."""
    found: list[tuple[str, str, str, str]] = []
    for case in CATALOGUE:
        plan = compiled(case)[1]
        found += [(case.name, n.name, n.strategy, n.reason) for n in plan.nodes if n.strategy != "input"]
    for name in SUITES:
        found += _suite_rows(name, compile_for_duckdb(suite(name), in_memory=True))
    return found


def _suite_rows(name: str, plan: Plan) -> list[tuple[str, str, str, str]]:
    return [(f"{name}_{plan.owner(n.name)}", n.name, n.strategy, n.reason) for n in plan.nodes if n.strategy != "input"]


def page() -> str:
    return HEAD + "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows())


def refreshed(text: str) -> set[str]:
    """The queries of a page in which a block is refreshed."""
    return {m[1] for m in re.finditer(r"^\| (\w+) \| [^|]+ \| refresh \|", text, re.MULTILINE)}


def queries(text: str) -> set[str]:
    return {m[1] for m in re.finditer(r"^\| (\w+) \| ", text, re.MULTILINE)} - {"query"}


def regressed(before: str, after: str) -> list[str]:
    """The queries that were there without a refresh, and have one now."""
    return sorted((refreshed(after) - refreshed(before)) & queries(before))


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    new = page()
    if worse := regressed(old, new):
        sys.exit(f"these queries would go to refresh: {', '.join(worse)}")
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(new, encoding="utf-8")

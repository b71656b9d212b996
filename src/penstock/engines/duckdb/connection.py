"""Opening DuckDB: the version that is safe, and the settings that every connection of ours has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from penstock.decimals import DECIMAL_DIV
from penstock.errors import StateError
from penstock.plan.blocks import literal

MINIMUM = (1, 5)
# What each connection to a database needs. (In what it takes for an interactive session DuckDB would draw its own bar
# over ours.)
SETTINGS = f"SET TimeZone = 'UTC'; SET enable_progress_bar = false; {DECIMAL_DIV}"


def connect(
    path: Path | None, *, threads: int | None = None, memory_limit: str | None = None, beside: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """A connection in UTC without access to the network; in memory if `path` is None.

    Args:
        beside: a second database file, in a folder of its own, which may be attached.

    Raises:
        StateError: PS-STATE-006 below DuckDB 1.5 (it loses acknowledged rows on a full disk), PS-STATE-005 when the
            file cannot be opened.
    """
    version = tuple(int(part) for part in duckdb.__version__.split(".")[:2])
    if version < MINIMUM:
        raise StateError(
            "PS-STATE-006",
            "this DuckDB loses acknowledged rows on a full disk",
            expected="duckdb 1.5 or newer",
            got=duckdb.__version__,
            hint="pip install 'duckdb>=1.5'",
        )
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        # A view reads declared sources: no files, no network, no variables of the Python that calls us.
        "enable_external_access": beside is not None,
        "python_enable_replacements": False,
        "preserve_insertion_order": True,
        # Checkpoints stall the loop; it asks for them itself when it is idle.
        "checkpoint_threshold": "256MB",
    }
    if threads is not None:
        config["threads"] = threads
    if memory_limit is not None:
        config["memory_limit"] = memory_limit
    try:
        connection = duckdb.connect(str(path) if path else ":memory:", config=config)
    except duckdb.Error as problem:
        raise StateError(
            "PS-STATE-005",
            "the state cannot be opened",
            got=str(problem).split("\n")[0],
            expected=f"a DuckDB file at {path}",
        ) from None
    if beside is not None:
        connection.execute(f"SET allowed_directories = [{literal(str(beside.parent))}]")
        connection.execute("SET enable_external_access = false")
    connection.execute(SETTINGS)
    return connection


def first_row(result: duckdb.DuckDBPyConnection) -> tuple[Any, ...] | None:
    """The first row of a result, which is read to its end: DuckDB 2.0 takes no other call before that."""
    rows = result.fetchall()
    return rows[0] if rows else None


def thread_count(connection: duckdb.DuckDBPyConnection) -> int:
    """How many threads the database uses."""
    row = first_row(connection.execute("SELECT current_setting('threads')"))
    return int(row[0]) if row else 1

"""Steps: a Python function folded over each key's changes and timers (semantics B1).

Order inside an epoch: per key, changes by (time, sequence); a timer fires after the changes up to its time and before
later ones, once the epoch's watermark has passed it. State is kept as JSON of the declared model.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
from pydantic import TypeAdapter

from penstock.engines.duckdb.state import table
from penstock.engines.duckdb.times import to_datetime
from penstock.errors import RunError
from penstock.plan import multiset
from penstock.plan.blocks import HIDDEN, Field, StepBlock, column_list, quote, same
from penstock.steps import Change, Step, Timer

Key = tuple[object, ...]


def run_step(
    connection: duckdb.DuckDBPyConnection, block: StepBlock, delta: str | None, weighted: bool, watermark_us: int | None
) -> pa.Table | None:
    """Fold one epoch; the rows that the function emitted, in the order of their calls, or None."""
    changes = _changes(connection, block, delta, weighted) if delta is not None else {}
    watermark = to_datetime(watermark_us)
    timers = _due_timers(connection, block, watermark, changes)
    keys = [*changes, *(k for k in timers if k not in changes)]
    if not keys:
        return None
    adapter: TypeAdapter[Any] = TypeAdapter(block.step.state)
    states = _states(connection, block, keys, adapter)
    emitted: list[dict[str, object]] = []
    for key in keys:
        pending = set(timers.get(key, ()))
        state, rows, pending = _fold_key(block, key, states.get(key), changes.get(key, []), pending, watermark)
        states[key] = state
        timers[key] = pending
        emitted += rows
    _store(connection, block, keys, states, timers, adapter)
    if not emitted:
        return None
    return pa.table({f.name: [row.get(f.name) for row in emitted] for f in block.relation.fields})


def _fold_key(
    block: StepBlock,
    key: Key,
    state: Any,
    changes: list[Change],
    pending: set[Timer],
    watermark: datetime | None,
) -> tuple[Any, list[dict[str, object]], set[Timer]]:
    emitted: list[dict[str, object]] = []

    def call(some: list[Change], due: list[Timer]) -> None:
        nonlocal state, pending
        result = _call(block, key, state, some, due)
        state = result.state
        pending = (pending - set(due) - set(result.cancel)) | set(result.timers)
        emitted.extend(dict(row) for row in result.rows)

    def fire(upto: datetime | None) -> None:
        """All timers that are due before `upto` (None: before the watermark), in order of time."""
        while True:
            due = [t for t in pending if watermark is not None and t.at <= watermark and (upto is None or t.at < upto)]
            if not due:
                return
            first = min(t.at for t in due)
            call([], sorted((t for t in due if t.at == first), key=lambda t: t.name))

    for time, group in _by_time(changes):
        fire(time)
        call(group, [])
    fire(None)
    return state, emitted, pending


def _by_time(changes: list[Change]) -> Iterator[tuple[datetime, list[Change]]]:
    group: list[Change] = []
    for change in changes:
        if group and group[-1].time != change.time:
            yield group[0].time, group
            group = []
        group.append(change)
    if group:
        yield group[0].time, group


def _call(block: StepBlock, key: Key, state: Any, changes: list[Change], due: list[Timer]) -> Step[Any]:
    try:
        result = block.step.function(state, changes, due)
    except Exception as problem:
        raise RunError(
            "PS-RUN-002",
            f"step {block.step.name} raised {type(problem).__name__}",
            where=block.step.where,
            expected="a pure function that returns penstock.Step",
            got=f"{problem} for key {key}",
            hint="the epoch was rolled back; nothing of it was stored",
        ) from problem
    if not isinstance(result, Step):
        raise RunError(
            "PS-RUN-002",
            f"step {block.step.name} did not return a Step",
            where=block.step.where,
            expected="penstock.Step(state, rows, timers)",
            got=type(result).__name__,
        )
    return result


def _changes(
    connection: duckdb.DuckDBPyConnection, block: StepBlock, delta: str, weighted: bool
) -> dict[Key, list[Change]]:
    """The delta's net changes per key, in the order of (time, position in the stream or else the row itself)."""
    names = block_columns(connection, delta)
    own = [name for name in names if not name.startswith("_ps_")]
    positions = [name for name in HIDDEN if name in names]
    columns, keys = column_list(own), column_list([k.name for k in block.key_fields])
    if weighted:
        delta = f"({multiset.consolidated_sql(delta, tuple(Field(name, '') for name in [*own, *positions]))})"
    weight = '"_ps_w"' if weighted else "1"
    # Rows of one position are told apart by themselves.
    order = f"{column_list(positions[:2])}, {columns}" if positions else f"_ps_weight, {columns}"
    rows = connection.execute(
        f"SELECT {columns}, {block.time} AS _ps_time, {weight} AS _ps_weight FROM {delta} AS d "
        f"ORDER BY _ps_time, {keys}, {order}"
    )
    names = [d[0] for d in rows.description or []]
    found: dict[Key, list[Change]] = {}
    for values in rows.fetchall():
        row = dict(zip(names, values, strict=True))
        time, amount = row.pop("_ps_time"), row.pop("_ps_weight")
        key = tuple(row[k.name] for k in block.key_fields)
        found.setdefault(key, []).extend(Change("+I" if amount > 0 else "-D", time, row) for _ in range(abs(amount)))
    return found


def block_columns(connection: duckdb.DuckDBPyConnection, delta: str) -> list[str]:
    """The delta's columns, hidden ones too."""
    described = connection.execute(f"SELECT * FROM {delta} LIMIT 0")
    names = [d[0] for d in described.description or []]
    described.fetchall()
    return names


def _due_timers(
    connection: duckdb.DuckDBPyConnection,
    block: StepBlock,
    watermark: datetime | None,
    changes: dict[Key, list[Change]],
) -> dict[Key, set[Timer]]:
    """The timers of every key that has changes now or a timer that is due."""
    stored = table(f"timer_{block.relation.name}")
    keys = column_list([k.name for k in block.key_fields])
    if watermark is None and not changes:
        return {}
    # Of many keys few change in an epoch, so the others' timers are left where they are.
    asked = [f"SELECT {keys} FROM {_keys_table(connection, block, list(changes))}"] if changes else []
    if watermark is not None:
        asked.append(f"SELECT {keys} FROM {stored} WHERE _ps_at <= ?")
    rows = connection.execute(
        f"SELECT {column_list([k.name for k in block.key_fields], 't')}, _ps_at, _ps_timer FROM {stored} AS t "
        f"SEMI JOIN ({' UNION '.join(asked)}) AS d ON {same('t', 'd', block.key_fields)} ORDER BY ALL",
        [watermark] if watermark is not None else [],
    ).fetchall()
    width = len(block.key_fields)
    found: dict[Key, set[Timer]] = {}
    for row in rows:
        found.setdefault(tuple(row[:width]), set()).add(Timer(row[width], row[width + 1]))
    due_now = {k for k, ts in found.items() if watermark is not None and any(t.at <= watermark for t in ts)}
    return {k: ts for k, ts in found.items() if k in due_now or k in changes}


def _states(
    connection: duckdb.DuckDBPyConnection, block: StepBlock, keys: list[Key], adapter: TypeAdapter[Any]
) -> dict[Key, Any]:
    wanted = _keys_table(connection, block, keys)
    stored = table(f"fold_{block.relation.name}")
    names = column_list([k.name for k in block.key_fields], "s")
    rows = connection.execute(
        f"SELECT {names}, s._ps_state FROM {stored} AS s SEMI JOIN {wanted} AS w ON {same('s', 'w', block.key_fields)}"
    ).fetchall()
    return {tuple(row[:-1]): adapter.validate_json(row[-1]) for row in rows}


def _keys_table(connection: duckdb.DuckDBPyConnection, block: StepBlock, keys: list[Key]) -> str:
    columns = {f.name: [key[n] for key in keys] for n, f in enumerate(block.key_fields)}
    connection.register("_ps_keys_given", pa.table(columns))
    casts = ", ".join(f"CAST({quote(f.name)} AS {f.type}) AS {quote(f.name)}" for f in block.key_fields)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _ps_keys AS SELECT {casts} FROM _ps_keys_given")
    connection.unregister("_ps_keys_given")
    return "_ps_keys"


def _store(
    connection: duckdb.DuckDBPyConnection,
    block: StepBlock,
    keys: list[Key],
    states: dict[Key, Any],
    timers: dict[Key, set[Timer]],
    adapter: TypeAdapter[Any],
) -> None:
    wanted = _keys_table(connection, block, keys)
    for name in ("fold_", "timer_"):
        stored = table(name + block.relation.name)
        connection.execute(f"DELETE FROM {stored} AS s USING {wanted} AS w WHERE {same('s', 'w', block.key_fields)}")
    kept = [k for k in keys if states.get(k) is not None]
    _insert(connection, block, "fold_", kept, {"_ps_state": [adapter.dump_json(states[k]).decode() for k in kept]})
    alarms = [(k, t) for k in keys for t in sorted(timers.get(k, ()), key=lambda t: (t.at, t.name))]
    columns: dict[str, list[Any]] = {"_ps_at": [t.at for _, t in alarms], "_ps_timer": [t.name for _, t in alarms]}
    _insert(connection, block, "timer_", [k for k, _ in alarms], columns)


def _insert(
    connection: duckdb.DuckDBPyConnection, block: StepBlock, prefix: str, keys: list[Key], extra: dict[str, list[Any]]
) -> None:
    if not keys:
        return
    columns = {f.name: [key[n] for key in keys] for n, f in enumerate(block.key_fields)} | extra
    connection.register("_ps_stored", pa.table(columns))
    names = column_list(list(columns))
    connection.execute(f"INSERT INTO {table(prefix + block.relation.name)} ({names}) SELECT {names} FROM _ps_stored")
    connection.unregister("_ps_stored")

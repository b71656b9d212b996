"""Rows that the compiled kernel has proven, as judged ones without a statement: to run one costs more than they do.

Invariant: the rows are those of `proven_select`, all of them accepted. Where that is not certain there are none, and
the statement judges.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.contract.types import IntegerType, parse_type
from penstock.formats.compiled import Split
from penstock.formats.judge_sql import Judgement
from penstock.formats.plain_checks import plain_checks
from penstock.formats.provable import is_token, proven_rules
from penstock.formats.scratch import scratch

# Event times of a number, and how many units of it a microsecond has.
_NAME = r'"?([A-Za-z_]\w*)"?'
_EVENTS = {
    re.compile(rf"make_timestamp\({_NAME} ?// ?1000\)"): 1_000,
    re.compile(rf"make_timestamp\({_NAME}\)"): 1,
    re.compile(rf"make_timestamp_ns\({_NAME}\)"): 1_000,
}
# Numbers that are a time in DuckDB: not before 1970, and far from its infinity.
_LATEST = 2**62
_NONE: tuple[re.Match[str] | None, int] = (None, 1)
_INTEGERS = {
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
}


class ProvenRows:
    """One contract."""

    def __init__(self, judgement: Judgement) -> None:
        self._judgement = judgement
        schema = judgement.schema
        self._types = {c.name: _arrow_type(c.type) for c in schema.columns}
        plain = all(
            not is_token(c) and self._types[c.name] is not None and set(c.rules) <= set(proven_rules(c))
            for c in schema.columns
        )
        text = judgement.event_time or ""
        found, self._units = next(
            ((m, units) for shape, units in _EVENTS.items() if (m := shape.fullmatch(text))), _NONE
        )
        event = schema.column(found[1]) if found is not None else None
        self._event = event.name if event is not None and isinstance(parse_type(event.type), IntegerType) else None
        self._half = self._units // 2 if "_ns(" in text and _rounded() else 0
        timed = judgement.event_time is None or self._event is not None
        checks = plain_checks(schema)
        self._checks = checks or ()
        self._fits = plain and timed and judgement.kind == "stream" and checks is not None

    def rows(self, split: Split, columns: Collection[str] | None) -> pa.Table | None:
        """The rows that `ingest` stores; None where that is not certain."""
        unkeyed = self._judgement.schema.foreign_keys and not split.keyed
        if not self._fits or unkeyed or split.doubtful or not split.proven.num_rows:
            return None
        proven = split.proven.combine_chunks()
        count = proven.num_rows
        times = self._times(proven)
        if times is None or not all(check.holds_for_all(proven.column(check.column)) for check in self._checks):
            return None
        given = {"_ps_p": proven.column("_ps_p"), "_ps_o": proven.column("_ps_o")}
        for column in self._judgement.schema.columns:
            if columns is None or column.name in columns:
                given[column.name] = proven.column(column.name).cast(self._types[column.name])
        given["_ps_at"] = times
        given["_ps_extra"] = pa.array(np.zeros(count, dtype=np.bool_))
        # In the order of the statement's columns: relations that change theirs are planned again.
        keys = len(self._judgement.schema.foreign_keys)
        flags = ["_ps_valid", *(f"_ps_fk{number}" for number in range(keys))] if keys else []
        yes = pa.array(np.ones(count, dtype=np.bool_))
        return pa.table(given | dict.fromkeys([*flags, "_ps_ok"], yes))

    def _times(self, proven: pa.Table) -> pa.Array | None:
        """The event times; None where one is missing, odd or too far ahead."""
        if self._event is None:
            return pa.nulls(proven.num_rows, pa.timestamp("us"))
        column = proven.column(self._event)
        if column.null_count:
            return None
        given: NDArray[np.int64] = column.to_numpy()
        if given.min() < 0 or given.max() > _LATEST:
            return None
        at = (given + self._half) // self._units
        appended = proven.column("_ps_t")
        if appended.null_count < len(appended):
            ahead = at - appended.cast(pa.int64()).fill_null(np.iinfo(np.int64).max).to_numpy()
            if ahead.max() > self._judgement.max_ahead // timedelta(microseconds=1):
                return None
        return pa.array(at).cast(pa.timestamp("us"))


@cache
def _rounded() -> bool:
    """Whether nanoseconds become the nearest microsecond (DuckDB 2.0), and not the one before (1.5)."""
    with scratch() as connection:
        return connection.execute("SELECT epoch_us(CAST(make_timestamp_ns(500) AS TIMESTAMP))").fetchall() == [(1,)]


def _arrow_type(name: str) -> pa.DataType | None:
    """The type in which DuckDB gives a column to Arrow; None where the kernel's values would have to change."""
    if name == "VARCHAR":
        return pa.string()
    return pa.bool_() if name == "BOOLEAN" else _INTEGERS.get(name)

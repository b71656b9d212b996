"""The broken records of an epoch: what is wrong with each, as a letter.

Two ways lead here. The records that a statement has refused are looked up and diagnosed (`letters_of`). Where the
compiled kernel doubts only a few, they are diagnosed at once (`Aside`): those that are dead are told from the
others by the same verdict, and no statement has to be planned for them. What is sound in spite of the doubt goes to
SQL, which alone makes values of records. Both say the same, for a diagnosis finds fault with exactly the records that
the statement refuses (semantics R3).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.connectors.base import Batch, RawBatch
from penstock.contract.schema import ForeignKey, Verdict
from penstock.engines.duckdb.finder import find_records
from penstock.formats.compiled import Split
from penstock.formats.decode import Decoder
from penstock.pipeline import SourceDecl
from penstock.plan.blocks import quote

# One in so many records is diagnosed without asking SQL first, and always a few.
_ONE_IN = 20
_A_FEW = 50
# The first ones are looked at to see whether most of the doubtful are dead.
_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Letter:
    """A broken record with its verdict."""

    partition: int
    offset: int
    append_time: datetime | None
    key: bytes | None
    value: bytes | None
    verdict: Verdict


class Aside:
    """The doubtful records of an epoch that are dead, told from the others while the kernel reads on.

    Where many are doubted, or most of the doubtful are sound, nothing is set aside: that source writes its records in a
    way which the kernel does not read, and SQL would have to judge them again.
    """

    def __init__(self, source: SourceDecl, decoder: Decoder) -> None:
        self._source = source
        self._diagnosis = decoder.diagnosis()
        self._places: list[list[_Place]] = []
        self._worthwhile = True
        # Of the first few: how many were looked at, and how many had nothing wrong with them.
        self._seen = self._sound = 0

    def watch(self, batch: RawBatch, unheld: NDArray[np.int16], proven: int) -> None:
        """A piece's doubts; proven: how many of its records are none."""
        if batch.rows > max(_A_FEW, (batch.rows + proven) // _ONE_IN):
            self._worthwhile = False
        if not self._worthwhile:
            return
        places = list(_records(batch))
        for (_, time, key, value), number in zip(places, unheld.tolist(), strict=True):
            wrong = self._diagnosis.add((value, key, time, ()))
            if self._seen < _SAMPLE:
                # Where nothing is wrong but a key, the record is dead in any case.
                self._seen, self._sound = self._seen + 1, self._sound + (not wrong and number < 0)
                if self._seen == _SAMPLE and self._sound > _SAMPLE // 2:
                    self._worthwhile = False
                    return
        self._places.append(places)

    def taken(self, split: Split) -> tuple[Split, list[Letter]]:
        """The letters, and the split without their records. split: what has been watched."""
        if not self._worthwhile or 2 * self._sound > self._seen:
            return split, []
        verdicts = iter(self._diagnosis.verdicts())
        letters, left, left_keys = [], [], []
        for batch, places, unheld in zip(split.doubtful, self._places, split.unheld, strict=True):
            alive = np.zeros(batch.rows, np.bool_)
            for row, ((offset, time, key, value), number) in enumerate(zip(places, unheld.tolist(), strict=True)):
                verdict = next(verdicts)
                if verdict is None and number >= 0:
                    verdict = missing_reference(self._source.schema.foreign_keys[number], value, None)
                if verdict is None:
                    alive[row] = True
                else:
                    letters.append(Letter(batch.partition, offset, time, key, value, verdict))
            if alive.any():
                left.append(batch if alive.all() else _filtered(batch, pa.array(alive)))
                left_keys.append(unheld[alive])
        return replace(split, doubtful=tuple(left), unheld=tuple(left_keys)), letters


_Place = tuple[int, datetime | None, bytes | None, bytes | None]


def _records(batch: RawBatch) -> Iterator[_Place]:
    """Offset, append time, key and value."""
    nothing = [None] * batch.rows
    times = batch.times.to_pylist() if batch.times is not None else nothing
    keys = batch.keys.to_pylist() if batch.keys is not None else nothing
    return zip(batch.offsets.to_pylist(), times, keys, batch.values.to_pylist(), strict=True)


def _filtered(batch: RawBatch, mask: pa.BooleanArray) -> RawBatch:
    return replace(
        batch,
        values=batch.values.filter(mask),
        offsets=batch.offsets.filter(mask),
        times=batch.times.filter(mask) if batch.times is not None else None,
        keys=batch.keys.filter(mask) if batch.keys is not None else None,
    )


def refused_sql(source: SourceDecl, judged: str, *, keyed: bool) -> str:
    """The records that the relation `judged` refuses: their places, whether but for its keys each would be accepted,
    and which of its keys are held. keyed: all of them are."""
    keys = source.schema.foreign_keys
    valid = "_ps_valid" if keys and not keyed else "FALSE"
    held = "".join(", TRUE" if keyed else f", _ps_fk{number}" for number in range(len(keys)))
    return f"SELECT _ps_p, _ps_o, {valid}{held} FROM {quote(judged)} WHERE NOT _ps_ok"


def letters_of(
    connection: duckdb.DuckDBPyConnection, source: SourceDecl, decoder: Decoder, batches: Sequence[Batch], refused: str
) -> list[Letter]:
    """A letter for each record that the query `refused` gives (`refused_sql`)."""
    keys = source.schema.foreign_keys
    broken = connection.execute(f"{refused} ORDER BY 1, 2").fetchall()
    records = find_records(batches, [(partition, offset) for partition, offset, *_ in broken])
    found = [(place[0], place[1], place[2:], record) for place, record in zip(broken, records, strict=True)]
    plain = [record for _, _, (valid, *_), record in found if not valid and record.columns is None]
    diagnosed = iter(decoder.diagnose_all([(r.value, r.key, r.time, r.header) for r in plain]))
    letters = []
    for partition, offset, (is_valid, *hits), record in found:
        verdict: Verdict | None
        if is_valid:
            key = next(k for k, hit in zip(keys, hits, strict=True) if not hit)
            verdict = missing_reference(key, record.value, record.columns)
        elif record.columns is not None:
            verdict = decoder.diagnose_row(record.columns, record.time)
        else:
            verdict = next(diagnosed)
        if verdict is None:
            verdict = Verdict("unexplained", "", "", "the vectorised check refuses the record, the slow one does not")
        letters.append(Letter(partition, offset, record.time, record.key, record.value, verdict))
    return letters


def missing_reference(key: ForeignKey, value: bytes | None, columns: dict[str, object] | None) -> Verdict:
    """The verdict on a record whose key is in no row of the reference."""
    record = columns if columns is not None else _as_object(value)
    got = ", ".join(str(record.get(c)) for c in key.columns)
    return Verdict(
        "references",
        ", ".join(key.columns),
        got,
        f"({', '.join(key.columns)}) is not in {key.reference}({', '.join(key.reference_columns)})",
    )


def _as_object(value: bytes | None) -> dict[str, object]:
    try:
        parsed = json.loads(value or b"{}")
    except ValueError:
        return {}
    for envelope in ("after", "before"):
        if isinstance(parsed, dict) and isinstance(parsed.get(envelope), dict):
            return dict(parsed[envelope])
    return parsed if isinstance(parsed, dict) else {}

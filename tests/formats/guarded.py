"""Runs the compiled kernel over bytes between two pages that nobody may read: a load outside ends the process.

`python -m tests.formats.guarded SEED COUNT` says how many records were proven.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.connectors.base import RawBatch
from penstock.formats import compiled
from penstock.formats.compiled import CompiledJudge, Kernel, loader
from penstock.formats.judge_sql import Judgement, proven_columns
from tests.formats.records import TRIED, cut_records, tried_records

JUDGEMENT = Judgement(TRIED, "stream", (), None, None)  # type: ignore[arg-type]
_libc = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """Memory of so many bytes between two closed pages; what is placed in it ends at the last of its bytes."""

    def __init__(self, size: int) -> None:
        inner = max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, inner + 2 * mmap.PAGESIZE)
        self.first = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)) + mmap.PAGESIZE
        self.behind = self.first + inner
        for page in (self.first - mmap.PAGESIZE, self.behind):
            # PROT_NONE
            if _libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def place(self, data: bytes, *, first: bool = False) -> int:
        """The address of the bytes: at the end, or at the beginning."""
        address = self.first if first else self.behind - len(data)
        ctypes.memmove(address, data, len(data))
        return address

    def array(self, kind: type[np.generic], *shape: int) -> NDArray[Any]:
        """An array of this shape that ends with the memory."""
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        whole = (ctypes.c_uint8 * size).from_address(self.behind - size)
        return np.frombuffer(whole, kind).reshape(shape)


def ends_of(records: Sequence[bytes]) -> NDArray[np.int32]:
    return np.array([0, *itertools.accumulate(map(len, records))], np.int32)


def judged(kernel: Kernel, records: Sequence[bytes], memory: Sequence[Guarded], skipped: int, *, first: bool) -> int:
    """How many are proven, behind `skipped` records of the array."""
    data, ends = b"".join(records), ends_of(records).tobytes()
    buffers = [
        pa.foreign_buffer(each.place(part, first=first), len(part))
        for each, part in zip(memory, (data, ends), strict=True)
    ]
    values = pa.Array.from_buffers(pa.binary(), len(records), [None, buffers[1], buffers[0]], 0).slice(skipped)
    places = pa.chunked_array([pa.array(range(len(values)), pa.int64())])
    batch = RawBatch(0, pa.chunked_array([values], pa.binary()), places, len(values))
    split = CompiledJudge(JUDGEMENT).split(kernel, [batch], proven_columns(JUDGEMENT, None), 1)
    split.proven.validate(full=True)
    assert split.proven.num_rows + sum(each.rows for each in split.doubtful) == len(values)
    return split.proven.num_rows


def proven_tightly(kernel: Kernel, records: Sequence[bytes]) -> int:
    """All that the kernel reads and writes ends at closed pages, with as much room as it asks for and no more."""
    spec = compiled._Spec(kernel, TRIED.columns, {"id"}, [column.name for column in TRIED.columns])
    ends, whole = ends_of(records), np.frombuffer(b"".join(records), np.uint8)
    rows, size = len(records), len(whole) + kernel.PAD
    memory: list[Guarded] = []

    def placed(kind: type[np.generic], *shape: int) -> NDArray[Any]:
        memory.append(Guarded(int(np.prod(shape)) * np.dtype(kind).itemsize))
        return memory[-1].array(kind, *shape)

    data, places = placed(np.uint8, size + spec.longest), placed(np.int32, rows + 1)
    places[:] = ends
    columns = (
        placed(np.int64, spec.number_slots, rows),
        placed(np.bool_, spec.number_slots, rows),
        placed(np.uint8, spec.text_slots, size),
        placed(np.int32, spec.text_slots, rows + 1),
        placed(np.bool_, spec.text_slots, rows),
    )
    proven, foreign = placed(np.int16, rows), placed(np.bool_, 1)
    found = []
    # behind the last record what leads a reader astray that runs on: the records again, a text, a number, blanks
    for filling in (whole if len(whole) else b"{", b"a", b"0", b" "):
        data[:] = np.resize(np.frombuffer(filling, np.uint8), len(data))
        data[: len(whole)] = whole
        found.append(kernel.prove(data, places, False, spec.arguments, compiled._NO_KEYS, proven, foreign, columns))
        assert found[-1] == proven.sum()
    assert len(set(found)) == 1
    return found[0]


def main(seed: int, count: int) -> None:
    kernel = loader.load()
    assert kernel is not None
    records = list(tried_records(seed, count))
    proven = 0
    memory = (Guarded(1 << 20), Guarded(1 << 16))
    for start in range(0, len(records), 40):
        some = records[start : start + 40]
        for first in (False, True):
            proven += judged(kernel, some, memory, start % 7, first=first)
        proven += proven_tightly(kernel, some)
    # short buffers: a record alone, or behind a sound one
    for record in (b"", *cut_records(seed), *records[: count // 4]):
        proven += judged(kernel, [record], memory, 0, first=False)
        proven_tightly(kernel, [record])
    for record in records[: count // 4]:
        proven += judged(kernel, [b'{"id":1}', record, b""], memory, 1, first=False)
    sys.stdout.write(f"{proven}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""Runs: small frames that lie one behind the other, read, checked and laid out at once.

A run takes only what is whole and right, and of it only frames that are small; it never judges. What it leaves (a
large frame, a frame that is not all there yet, damage) is for `PartitionReader.frames`, the plain reader, whose answer
it has to give: the same records, a frame at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.connectors.log_frame import (
    HEADER,
    HEADER_BYTES,
    KEYS,
    MAGIC,
    VALUE_NULLS,
    VERSION,
    Header,
    arrays_of_body,
)

# Frames with as many records are worth a chunk of their own, which then needs no copy.
LARGE_FRAME_RECORDS = 2_048


class Run(NamedTuple):
    """Small frames. block: their bytes; bodies: where in it each body begins; headers: theirs, in the same order."""

    block: bytes
    bodies: list[int]
    headers: list[Header]

    @property
    def read_bytes(self) -> int:
        """The length of all frames, from the first byte of the block on."""
        return self.bodies[-1] + self.headers[-1].body_bytes if self.bodies else 0


def run_of(block: bytes, offset: int, most_rows: int) -> Run:
    """The small, whole and right frames at the beginning of `block`, until they hold `most_rows` records.

    offset: of the first record.
    """
    # What the checksum takes is bytes or a buffer of Arrow, no memoryview.
    buffer, length, position = pa.py_buffer(block), len(block), 0
    unpack, crc = HEADER.unpack_from, google_crc32c.value
    bodies: list[int] = []
    headers: list[Header] = []
    while position + HEADER_BYTES <= length and most_rows > 0:
        magic, header_crc, body_crc, flags, version, body_bytes, base, *rest = unpack(block, position)
        body = position + HEADER_BYTES
        end = body + body_bytes
        if magic != MAGIC or base != offset or end > length or version != VERSION:
            break
        if crc(block[position + 8 : body]) != header_crc or crc(buffer.slice(body, body_bytes)) != body_crc:
            break
        header = Header(body_crc, flags, body_bytes, base, *rest)
        if header.records >= LARGE_FRAME_RECORDS:
            break
        bodies.append(body)
        headers.append(header)
        offset, position = header.next_offset, end
        most_rows -= header.records
    return Run(block, bodies, headers)


class Records(NamedTuple):
    """The records of a run, one per row. keys: None where no frame has any."""

    values: pa.BinaryArray
    keys: pa.BinaryArray | None
    offsets: NDArray[np.int64]
    append_us: NDArray[np.int64]


def records_of(run: Run) -> Records:
    """All records of a run."""
    counts = np.array([header.records for header in run.headers], np.int64)
    begins = np.cumsum(counts) - counts
    firsts = np.array([header.base_offset for header in run.headers], np.int64)
    offsets = np.repeat(firsts - begins, counts) + np.arange(counts.sum(), dtype=np.int64)
    times = np.repeat(np.array([header.append_us for header in run.headers], np.int64), counts)
    if any(header.flags & (KEYS | VALUE_NULLS) for header in run.headers):
        values, keys = _frame_by_frame(run)
    else:
        values, keys = _values(run, counts, begins), None
    return Records(values, keys, offsets, times)


def _values(run: Run, counts: NDArray[np.int64], begins: NDArray[np.int64]) -> pa.BinaryArray:
    """The values laid side by side, their ends computed for all frames at once."""
    view = memoryview(run.block)
    sizes = np.array([header.values_bytes for header in run.headers], np.int64)
    shifts = np.cumsum(sizes) - sizes
    # Of Arrow's memory, which comes back: the system's would be cleared page by page each time.
    values = pa.allocate_buffer(int(sizes.sum()))
    target = memoryview(values).cast("B")
    for body, header, at in zip(run.bodies, run.headers, shifts.tolist(), strict=True):
        start = body + (4 * header.records + 11) // 8 * 8
        target[at : at + header.values_bytes] = view[start : start + header.values_bytes]
    words = np.frombuffer(run.block, np.int32, len(run.block) // 4)
    # of each frame all offsets but the first, which is 0: bodies lie on multiples of 8 from the block's first byte on
    places = np.repeat(np.array(run.bodies, np.int64) // 4 + 1 - begins, counts) + np.arange(counts.sum())
    ends = np.zeros(counts.sum() + 1, np.int32)
    ends[1:] = words[places] + np.repeat(shifts, counts)
    return pa.Array.from_buffers(pa.binary(), len(ends) - 1, [None, pa.py_buffer(ends), values], 0)


def _frame_by_frame(run: Run) -> tuple[pa.BinaryArray, pa.BinaryArray | None]:
    block = pa.py_buffer(run.block)
    columns = [
        arrays_of_body(header, block.slice(body, header.body_bytes))
        for body, header in zip(run.bodies, run.headers, strict=True)
        if header.records
    ]
    values = pa.concat_arrays([values for values, _ in columns])
    if all(keys is None for _, keys in columns):
        return values, None
    return values, pa.concat_arrays(_filled(columns))


def _filled(columns: Sequence[tuple[pa.BinaryArray, pa.BinaryArray | None]]) -> list[pa.BinaryArray]:
    return [keys if keys is not None else pa.nulls(len(values), pa.binary()) for values, keys in columns]

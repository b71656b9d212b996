"""Where records begin and end in the bytes of a text file.

JSON lines end at a newline. A CSV record ends at a newline that is not inside a quoted field (RFC 4180: quotes open
only at the start of a field). A quoted field that does not close within `MAX_QUOTED_BYTES` is taken for a stray
quote: its record then ends at its first newline, so that one broken line cannot swallow the rest of a file. That rule
looks at nothing but the bytes of the record, so where a file is cut into reads never changes its records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MAX_QUOTED_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_NEWLINE, _RETURN, _QUOTE = 10, 13, 34

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Records:
    """Whole records of a buffer. starts: byte of each one's begin; end: the byte behind the last one."""

    values: pa.BinaryArray
    starts: Positions
    end: int


def line_ends(data: bytes) -> Positions:
    """The position behind every newline."""
    return np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE).astype(np.int64) + 1


def csv_ends(data: bytes, *, whole: bool) -> Positions:
    """The position behind every newline that ends a CSV record. whole: nothing can follow `data` any more."""
    if b'"' not in data:
        return line_ends(data)
    ends: list[int] = []
    position = 0
    while True:
        newline = data.find(b"\n", position)
        if newline < 0:
            break
        quote = data.find(b'"', position, newline)
        if quote >= 0:
            stopped = _record_end(data, position)
            if stopped >= 0:
                newline = stopped
            elif not whole and len(data) - position < MAX_QUOTED_BYTES:
                break  # the closing quote may still come
            if newline - position >= MAX_QUOTED_BYTES:
                newline = data.find(b"\n", position)
        position = newline + 1
        ends.append(position)
    return np.array(ends, np.int64)


def _record_end(data: bytes, position: int) -> int:
    """The newline that ends the record, field by field; -1 if none does within `MAX_QUOTED_BYTES`.

    By hand: possessive patterns, the linear way to say this, match wrongly before Python 3.11.5.
    """
    limit = position + MAX_QUOTED_BYTES + 1
    while True:
        if data[position : position + 1] == b'"':
            position = _behind_quotes(data, position + 1, limit)
            if position < 0:
                return -1
        newline = data.find(b"\n", position)
        comma = data.find(b",", position, newline if newline >= 0 else len(data))
        if comma < 0:
            return newline
        position = comma + 1


def _behind_quotes(data: bytes, position: int, limit: int) -> int:
    """The position behind the closing quote of a field whose text begins here, or -1."""
    while (quote := data.find(b'"', position, limit)) >= 0:
        if data[quote + 1 : quote + 2] != b'"':
            return quote + 1
        position = quote + 2
    return -1


def cut(data: bytes, ends: Positions) -> Records:
    """The records that end at `ends`, without their line ends; blank lines are none."""
    if not len(ends):
        return Records(pa.array([], pa.binary()), np.zeros(0, np.int64), 0)
    end = int(ends[-1])
    content = np.frombuffer(data, np.uint8, end)
    starts = np.concatenate(([0], ends[:-1]))
    newline = content[ends - 1] == _NEWLINE
    returns = newline & (ends - starts >= 2) & (content[np.maximum(ends - 2, 0)] == _RETURN)
    lengths = ends - starts - newline - returns
    keep = np.ones(end, np.bool_)
    keep[ends[newline] - 1] = False
    keep[ends[returns] - 2] = False
    filled = lengths > 0
    offsets = np.zeros(int(filled.sum()) + 1, np.int32)
    np.cumsum(lengths[filled], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content[keep])]
    values = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers, 0)
    return Records(values, starts[filled], end)

"""The frame: how records lie in a log segment.

A frame is a header of 88 bytes and a body, its length a multiple of 8, so that bodies can be used as Arrow buffers
where they lie. Two checksums (crc32c): one over the header, one over the body; a frame whose header is right states
its length truly, so a damaged body never makes the reader lose its place.

    header: magic, header_crc, body_crc, flags, version, body_bytes, base_offset, append_us, count, values_bytes,
            keys_bytes, parts, fence_id, epoch, seq_from, seq_to
    body:   int32 offsets (count + 1), values, [validity], [int32 key offsets (count + 1), keys, [key validity]],
            each part padded to 8

A mark (end of version) has no records but takes one offset. A fence carried over from an older segment has no records
and takes none.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import google_crc32c
import numpy as np
import pyarrow as pa

from penstock.errors import ConnectorError

MAGIC = b"PSF1"
VERSION = 1
HEADER = struct.Struct("<4sIIHHQqqIIII16sqII")
HEADER_BYTES = HEADER.size
MAX_FRAME_RECORDS = 65_536
MAX_FRAME_BYTES = 16 << 20
MAX_RECORD_BYTES = 512 << 20

KEYS, VALUE_NULLS, KEY_NULLS, MARK, FENCE, PART_END = 1, 2, 4, 8, 16, 32
NO_FENCE = bytes(16)

if sys.byteorder != "little":
    raise ImportError("the embedded log needs a little-endian machine")


@dataclass(frozen=True)
class Fence:
    """What makes a sink's delivery recognisable (semantics E4).

    id: 16 bytes naming state and sink. epoch: the epoch. seq_from, seq_to: which of the epoch's records in this
    partition the frame holds. parts: how many partitions the epoch touches. last: the epoch's last frame here.
    """

    id: bytes
    epoch: int
    seq_from: int
    seq_to: int
    parts: int
    last: bool


class Header(NamedTuple):
    """A header that was read and found right (a named tuple: one is made per frame, and frames may be tiny)."""

    body_crc: int
    flags: int
    body_bytes: int
    base_offset: int
    append_us: int
    records: int
    values_bytes: int
    keys_bytes: int
    parts: int
    fence_id: bytes
    epoch: int
    seq_from: int
    seq_to: int

    @property
    def frame_bytes(self) -> int:
        return HEADER_BYTES + self.body_bytes

    @property
    def is_mark(self) -> bool:
        return bool(self.flags & MARK)

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.records + (1 if self.flags & MARK else 0)

    @property
    def fence(self) -> Fence | None:
        if not self.flags & FENCE:
            return None
        last = bool(self.flags & PART_END)
        return Fence(self.fence_id, self.epoch, self.seq_from, self.seq_to, self.parts, last)


@dataclass(frozen=True)
class Body:
    """Records laid out as they will lie in the file."""

    data: bytes
    crc: int
    count: int
    values_bytes: int
    keys_bytes: int
    flags: int


EMPTY_BODY = Body(b"", 0, 0, 0, 0, 0)


def pack_header(
    body: Body,
    base_offset: int,
    append_us: int,
    flags: int = 0,
    fence: Fence | None = None,
) -> bytes:
    """The header for a body at an offset and time."""
    flags |= body.flags | ((FENCE | (PART_END if fence.last else 0)) if fence else 0)
    rest = HEADER.pack(
        MAGIC,
        0,
        body.crc,
        flags,
        VERSION,
        len(body.data),
        base_offset,
        append_us,
        body.count,
        body.values_bytes,
        body.keys_bytes,
        fence.parts if fence else 0,
        fence.id if fence else NO_FENCE,
        fence.epoch if fence else 0,
        fence.seq_from if fence else 0,
        fence.seq_to if fence else 0,
    )[8:]
    crc: int = google_crc32c.value(rest)
    return MAGIC + crc.to_bytes(4, "little") + rest


def unpack_header(data: bytes, position: int = 0) -> Header | None:
    """The header at `position`, or None if the bytes there are not a whole, right header.

    Raises ConnectorError PS-CONN-004 for a right header of a newer version: it must be neither skipped nor cut.
    """
    if len(data) - position < HEADER_BYTES or data[position : position + 4] != MAGIC:
        return None
    fields = HEADER.unpack_from(data, position)
    if google_crc32c.value(data[position + 8 : position + HEADER_BYTES]) != fields[1]:
        return None
    if fields[4] != VERSION:
        raise ConnectorError(
            "PS-CONN-004",
            "a log frame was written by another version of Penstock",
            expected=f"frame version {VERSION}",
            got=f"version {fields[4]}",
            hint="use the newer Penstock to read this topic",
        )
    return Header(fields[2], fields[3], *fields[5:])


def body_of_list(values: Sequence[bytes | None], keys: Sequence[bytes | None] | None) -> Body:
    """The body for a few records; cheap for small batches."""
    flags, parts, values_bytes = 0, [], 0
    keys_bytes = 0
    data, nulls, size = _column_of_list(values)
    parts.append(data)
    values_bytes = size
    flags |= VALUE_NULLS if nulls else 0
    if keys is not None:
        data, nulls, size = _column_of_list(keys)
        parts.append(data)
        keys_bytes = size
        flags |= KEYS | (KEY_NULLS if nulls else 0)
    whole = b"".join(parts)
    return Body(whole, google_crc32c.value(whole), len(values), values_bytes, keys_bytes, flags)


def body_of_arrays(values: pa.BinaryArray, keys: pa.BinaryArray | None) -> Body:
    """The body for Arrow arrays (slices are fine)."""
    flags = 0
    data, nulls, values_bytes = _column_of_array(values)
    flags |= VALUE_NULLS if nulls else 0
    keys_bytes = 0
    if keys is not None:
        key_data, key_nulls, keys_bytes = _column_of_array(keys)
        data += key_data
        flags |= KEYS | (KEY_NULLS if key_nulls else 0)
    whole = b"".join(data)
    return Body(whole, google_crc32c.value(whole), len(values), values_bytes, keys_bytes, flags)


def body_is_right(header: Header, body: pa.Buffer) -> bool:
    """Whether the body is the one the header was written for."""
    return bool(google_crc32c.value(body) == header.body_crc)


def arrays_of_body(header: Header, body: pa.Buffer) -> tuple[pa.BinaryArray, pa.BinaryArray | None]:
    """The records as Arrow arrays over the body's own bytes."""
    if not header.records:
        return pa.array([], pa.binary()), None
    values, position = _array_at(body, 0, header.records, header.values_bytes, bool(header.flags & VALUE_NULLS))
    if not header.flags & KEYS:
        return values, None
    keys, _ = _array_at(
        body,
        position,
        header.records,
        header.keys_bytes,
        bool(header.flags & KEY_NULLS),
    )
    return values, keys


def _pad(length: int) -> int:
    return -length % 8


def _column_of_list(values: Sequence[bytes | None]) -> tuple[bytes, bool, int]:
    try:
        whole = b"".join(values)  # type: ignore[arg-type]
        present: list[bytes] = values  # type: ignore[assignment]
        bitmap = b""
    except TypeError:
        present = [value or b"" for value in values]
        whole = b"".join(present)
        bits = np.fromiter((value is not None for value in values), np.bool_, len(values))
        bitmap = np.packbits(bits, bitorder="little").tobytes()
    ends = list(accumulate(map(len, present), initial=0))
    offsets = struct.pack(f"<{len(ends)}i", *ends)
    data = b"".join((offsets, bytes(_pad(len(offsets))), whole, bytes(_pad(len(whole)))))
    return data + bitmap + bytes(_pad(len(bitmap))), bool(bitmap), len(whole)


def _column_of_array(
    array: pa.BinaryArray,
) -> tuple[list[bytes | memoryview], bool, int]:
    buffers = array.buffers()
    count = len(array)
    raw = np.frombuffer(buffers[1], np.int32, count + 1, array.offset * 4) if count else np.zeros(1, np.int32)
    first, last = int(raw[0]), int(raw[-1])
    offsets = (raw - raw[0]).tobytes()
    values = memoryview(buffers[2])[first:last] if buffers[2] is not None else b""
    data: list[bytes | memoryview] = [
        offsets,
        bytes(_pad(len(offsets))),
        values,
        bytes(_pad(last - first)),
    ]
    if not array.null_count:
        return data, False, last - first
    bits = array.is_valid().to_numpy(zero_copy_only=False)
    bitmap = np.packbits(bits, bitorder="little").tobytes()
    return [*data, bitmap, bytes(_pad(len(bitmap)))], True, last - first


def _array_at(body: pa.Buffer, position: int, count: int, data_bytes: int, nulls: bool) -> tuple[pa.BinaryArray, int]:
    offset_bytes = (count + 1) * 4
    offsets = body.slice(position, offset_bytes)
    position += offset_bytes + _pad(offset_bytes)
    data = body.slice(position, data_bytes)
    position += data_bytes + _pad(data_bytes)
    validity = None
    if nulls:
        bitmap_bytes = (count + 7) // 8
        validity = body.slice(position, bitmap_bytes)
        position += bitmap_bytes + _pad(bitmap_bytes)
    array = pa.Array.from_buffers(pa.binary(), count, [validity, offsets, data], -1 if nulls else 0)
    return array, position

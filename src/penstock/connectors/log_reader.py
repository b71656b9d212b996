"""Reading one partition of the embedded log, in Arrow arrays over the file's own pages.

What the reader hands out is whole, checked and durable (or about to be, where whoever reads has said that it will wait
for that: `PartitionReader.aside`): a frame whose end is not there yet is waited for, a wrong checksum with more data
behind it is damage and stops the reader, and what no writer has synced yet is synced first (else a power loss could
take back records that a job has already counted).
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from penstock.connectors.log_frame import (
    HEADER_BYTES,
    Header,
    body_is_right,
    unpack_header,
)
from penstock.connectors.log_run import Run, run_of
from penstock.connectors.log_topic import (
    SEGMENT_HEADER_BYTES,
    LogTopic,
    Position,
    Segment,
    damaged,
    find_header_after,
    list_segments,
    read_synced,
    segment_exists,
    segment_path,
    segment_start,
    write_synced,
)
from penstock.errors import ConnectorError
from penstock.storage import files

BLOCK_BYTES = 1 << 20
_LEAST_RUN_BYTES, _RUN_BYTES_PER_ROW = 64 << 10, 512
_INDEX_EVERY_BYTES = 4 << 20


@dataclass(frozen=True)
class Frame:
    """A checked frame: where it lies and its body."""

    header: Header
    position: int
    body: pa.Buffer


@dataclass(frozen=True)
class Sync:
    """Making one segment durable, at least up to `place`; runs once, in any thread. descriptor: its own."""

    descriptor: int
    path: Path
    place: Position

    def __call__(self) -> None:
        try:
            files.sync(self.descriptor, self.path)
        finally:
            os.close(self.descriptor)
        with contextlib.suppress(PermissionError):  # a reader without write access only cannot tell the others
            write_synced(self.path.parent, self.place)


class PartitionReader:
    """A cursor over one partition. Not thread-safe.

    aside: takes what makes durable the records that are about to be handed out, to be run before they count (None: it
    is run at once).
    """

    def __init__(self, topic: LogTopic, partition: int) -> None:
        self.folder: Path = topic.folder(partition)
        self._name = str(self.folder)
        self.partition = partition
        self._segment: Segment | None = None
        self._descriptor = -1
        self._index: list[Position] = []
        self._durable: tuple[int, int] = (-1, 0)
        self._block: tuple[bytes, int] = (b"", 0)
        self._kept: Frame | None = None
        self._end: Position | None = None
        self.aside: Callable[[Sync], None] | None = None

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._segment, self._block, self._kept = -1, None, (b"", 0), None

    def earliest(self) -> int:
        """The first offset still held."""
        return self._segments()[0].base

    def end(self) -> Position:
        """The place after the last whole, right frame."""
        if self._end is not None and self.is_at_end(self._end):
            return self._end
        segment = self._segments()[-1]
        place = self._open(segment)
        for known in (read_synced(self.folder), self._end):
            if known is not None and known.base == segment.base and known.position > place.position:
                place = known
        for position, header in self._headers(place):
            if self._body(position, header) is None:
                break
            place = after(header, position, place.base)
        self._end = place
        return place

    def seek(self, offset: int) -> Position:
        """The place of the frame that holds `offset`, or of the end when it is the next offset to be written.

        Raises ConnectorError PS-CONN-005 if it is before the earliest or after the latest offset.
        """
        segments = self._segments()
        if offset < segments[0].base:
            raise self._out_of_range(offset, f"at least {segments[0].base} (the earliest offset still held)")
        segment = next(s for s in reversed(segments) if s.base <= offset)
        place = self._open(segment)
        synced = read_synced(self.folder)
        candidates = [
            *self._index,
            *([synced] if synced is not None and synced.base == segment.base else []),
        ]
        place = max(
            (p for p in candidates if p.offset <= offset),
            key=lambda p: p.position,
            default=place,
        )
        for position, header in self._headers(place):
            if header.next_offset > offset:
                return place
            place = after(header, position, place.base)
            self._remember(place)
        if place.offset == offset:
            return place
        raise self._out_of_range(offset, f"at most {place.offset} (the latest offset)")

    def seek_time(self, append_us: int) -> int:
        """The offset of the first record that was appended at `append_us` (microseconds) or later."""
        place = None
        for segment in reversed(self._segments()):
            place = self._open(segment)
            if place.last_us < append_us:
                break
        assert place is not None
        for position, header in self._headers(place):
            if header.append_us >= append_us and header.next_offset > header.base_offset:
                return header.base_offset
            place = after(header, position, place.base)
        return place.offset

    def is_at_end(self, place: Position) -> bool:
        """Whether nothing lies behind `place` yet, as is seen at little cost. (If not, `frames` knows what does.)"""
        if self._segment is None or self._segment.base != place.base:
            return False
        found = os.fstat(self._descriptor)
        if found.st_size > place.position or found.st_nlink == 0:
            return False
        return self.onward(place) == place

    def written(self, place: Position) -> Position:
        """`place`, moved to where the file of its segment ends now; a frame there may not be whole."""
        if self._segment is None or self._segment.base != place.base:
            self._open(Segment(segment_path(self.folder, place.base), place.base))
        return place._replace(position=os.fstat(self._descriptor).st_size)

    def onward(self, place: Position) -> Position:
        """The beginning of the next segment, if it is there and `place` is the end of the one before; else `place`."""
        if place.offset == place.base or not segment_exists(self._name, place.offset):
            return place
        return Position(place.offset, SEGMENT_HEADER_BYTES, place.offset, place.last_us)

    def run(self, place: Position, most_rows: int) -> tuple[Run, Position]:
        """Small frames from `place` on, checked and durable, and the place behind them; none if `frames` has to look.

        most_rows: enough records; a few more may come with the last frame.
        """
        if self._segment is None or self._segment.base != place.base:
            self._open(Segment(segment_path(self.folder, place.base), place.base))
        # No more than is there: memory for a whole block would be had from the system, page by page.
        there = os.fstat(self._descriptor).st_size - place.position
        wanted = min(BLOCK_BYTES, _LEAST_RUN_BYTES + most_rows * _RUN_BYTES_PER_ROW, max(there, 0))
        run = run_of(os.pread(self._descriptor, wanted, place.position), place.offset, most_rows)
        if run.headers:
            last = run.headers[-1]
            place = Position(place.base, place.position + run.read_bytes, last.next_offset, last.append_us)
            self._remember(place)
            self._settle(place)
        return run, place

    def frames(self, place: Position) -> Iterator[Frame]:
        """Checked, durable frames from `place` on, over segment borders, until there is none yet."""
        while True:
            segment = Segment(segment_path(self.folder, place.base), place.base)
            self._open(segment)
            for position, header in self._headers(place):
                body = self._body(position, header)
                if body is None:
                    return
                place = after(header, position, place.base)
                self._remember(place)
                self._settle(place)
                yield Frame(header, position, body)
            following = segment_path(self.folder, place.offset)
            if place.offset == place.base or not following.exists():
                # Only one that has left can have taken those behind it along.
                gone = os.fstat(self._descriptor).st_nlink == 0
                if gone and (earliest := self.earliest()) > place.offset:
                    raise self._out_of_range(place.offset, f"at least {earliest} (the earliest offset still held)")
                return
            self._open(Segment(following, place.offset))
            place = Position(place.offset, SEGMENT_HEADER_BYTES, place.offset, place.last_us)

    def keep(self, frame: Frame) -> None:
        """Whoever reads has taken a part of this frame, the last that `frames` gave, and will come back for the rest:
        it is neither read nor checked again."""
        self._kept = frame

    def check_tail(self, place: Position) -> tuple[Position, int]:
        """Where the right frames of the newest segment end, from `place` in it on, and how long its file is.

        To be called under the partition's lock: what lies between the two is a torn frame.
        Raises ConnectorError PS-CONN-004 if right or durable data lies behind wrong data.
        """
        self._open(Segment(segment_path(self.folder, place.base), place.base))
        for position, header in self._headers(place):
            if self._body(position, header) is None:
                break
            place = after(header, position, place.base)
        return place, os.fstat(self._descriptor).st_size

    def start_of(self, segment: Segment) -> Position:
        """The place of a segment's first frame."""
        return self._open(segment)

    def headers_of(self, segment: Segment) -> Iterator[tuple[int, Header]]:
        """All frame headers of one segment with their bytes' positions."""
        return self._headers(self._open(segment))

    def place_of(self, frame: Frame) -> Position:
        """The place of a frame that `frames` has just given."""
        assert self._segment is not None
        return Position(
            self._segment.base,
            frame.position,
            frame.header.base_offset,
            frame.header.append_us,
        )

    def _headers(self, place: Position) -> Iterator[tuple[int, Header]]:
        """Headers of whole frames from `place` to the end of its segment, as far as it is written."""
        position, offset = place.position, place.offset
        block, block_start = self._block = b"", position
        size = os.fstat(self._descriptor).st_size
        while True:
            if position - block_start + HEADER_BYTES > len(block):
                wanted = BLOCK_BYTES if block and position - block_start <= len(block) else 64 << 10
                block, block_start = self._block = os.pread(self._descriptor, wanted, position), position
            header = unpack_header(block, position - block_start)
            if header is None or header.base_offset != offset:
                size = os.fstat(self._descriptor).st_size
                self._judge(position, size, offset, header)
                return
            if position + header.frame_bytes > size:
                size = os.fstat(self._descriptor).st_size
                if position + header.frame_bytes > size:
                    return
            yield position, header
            position += header.frame_bytes
            offset = header.next_offset

    def _judge(self, position: int, size: int, offset: int, header: Header | None) -> None:
        """A tail that is not there yet is fine; anything wrong before right or durable data is damage."""
        assert self._segment is not None
        if position >= size:
            return
        suspicious = self._known_durable(position + 1) or (
            find_header_after(self._descriptor, position, size, offset) is not None
        )
        if not suspicious:
            return
        # A writer may have finished this very frame meanwhile: what made it suspicious was seen after that.
        again = unpack_header(os.pread(self._descriptor, HEADER_BYTES, position))
        if again is None or again.base_offset != offset:
            got = "other bytes" if header is None else f"offset {header.base_offset}"
            raise damaged(self._segment.path, position, f"the frame of offset {offset}", got)

    def _known_durable(self, end: int) -> bool:
        """Whether the bytes of the open segment below `end` are known to have been synced."""
        assert self._segment is not None
        synced = read_synced(self.folder)
        if synced is not None and (synced.base, synced.position) >= (
            self._segment.base,
            end,
        ):
            return True
        return self._segments()[-1].base != self._segment.base

    def _body(self, position: int, header: Header) -> pa.Buffer | None:
        kept, self._kept = self._kept, None
        if kept is not None and (kept.position, kept.header) == (position, header):
            return kept.body
        body = self._read_body(position, header)
        if body_is_right(header, body):
            return body
        assert self._segment is not None
        end = position + header.frame_bytes
        if self._known_durable(end) or os.fstat(self._descriptor).st_size > end:
            self._block = b"", 0
            body = self._read_body(position, header)
            if not body_is_right(header, body):
                expected = f"records that match their checksum (offset {header.base_offset})"
                raise damaged(self._segment.path, position, expected, "another checksum")
            return body
        return None

    def _read_body(self, position: int, header: Header) -> pa.Buffer:
        start = position + HEADER_BYTES
        block, block_start = self._block
        if block_start <= position and start + header.body_bytes <= block_start + len(block):
            return pa.py_buffer(block).slice(start - block_start, header.body_bytes)
        if header.body_bytes < 256 << 10:
            return pa.py_buffer(os.pread(self._descriptor, header.body_bytes, start))
        page = start - start % mmap.ALLOCATIONGRANULARITY
        length = start - page + header.body_bytes
        flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
        mapped = mmap.mmap(self._descriptor, length, flags=flags, prot=mmap.PROT_READ, offset=page)
        return pa.py_buffer(mapped).slice(start - page, header.body_bytes)

    def _settle(self, place: Position) -> None:
        """Make what is about to be handed out durable, unless it is known to be."""
        if (place.base, place.position) <= self._durable:
            return
        synced = read_synced(self.folder)
        if synced is not None:
            self._durable = (synced.base, synced.position)
        if (place.base, place.position) <= self._durable:
            return
        assert self._segment is not None
        end = os.fstat(self._descriptor).st_size
        sync = Sync(os.dup(self._descriptor), self._segment.path, place)
        if self.aside is None:
            sync()
        else:
            self.aside(sync)
        self._durable = (place.base, end)

    def _open(self, segment: Segment) -> Position:
        if self._segment != segment:
            self.close()
            try:
                self._descriptor = os.open(segment.path, os.O_RDONLY)
            except FileNotFoundError:
                raise self._out_of_range(segment.base, "an offset that is still held") from None
            self._segment = segment
            self._index = [segment_start(segment, os.pread(self._descriptor, SEGMENT_HEADER_BYTES, 0))]
        return self._index[0]

    def _remember(self, place: Position) -> None:
        if place.position - self._index[-1].position >= _INDEX_EVERY_BYTES and place.base == self._index[0].base:
            self._index.append(place)

    def _segments(self) -> list[Segment]:
        segments = list_segments(self.folder)
        if not segments:
            raise damaged(self.folder, 0, "a log segment", "none")
        return segments

    def _out_of_range(self, offset: int, expected: str) -> ConnectorError:
        return ConnectorError(
            "PS-CONN-005",
            f"{self.folder}: offset {offset} is out of range",
            expected=expected,
            got=str(offset),
            hint="older records have left by retention or clearing; start from what is still held",
        )


def after(header: Header, position: int, base: int) -> Position:
    """The place behind a frame."""
    return Position(base, position + header.frame_bytes, header.next_offset, header.append_us)

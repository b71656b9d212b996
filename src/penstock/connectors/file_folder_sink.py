"""A folder of files, each with whole epochs: `file:folder/?format=changelog|csv|parquet&roll=10s&roll_bytes=N`.

A file is named by its first and last epoch and the state that wrote it, and appears by a rename when it is complete:
as soon as it holds `roll_bytes` or is older than `roll` when an epoch arrives, and when the sink is closed. Until
then its epochs lie durably in a hidden spool, so that an epoch counts as delivered at once. The sidecar says what the
spool holds; a crash between the rename and the sidecar is seen by the file being there.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from penstock.connectors.base import Guarantee, SinkContext, Url
from penstock.connectors.file_output import LineEncoder, append_all, deliver_once, text_format, unwritable
from penstock.connectors.options import duration_option, number_option
from penstock.errors import ConnectorError
from penstock.storage import failpoints, files

BEFORE_SPOOL = failpoints.register("folder_sink.spool", "an epoch is about to be appended to a folder's spool")
TORN_SPOOL = failpoints.register("folder_sink.torn", "half of an epoch has been appended to a folder's spool")
BEFORE_MARK = failpoints.register("folder_sink.mark", "an epoch is in a folder's spool, its sidecar is not written")
BEFORE_ROLL = failpoints.register("folder_sink.roll", "a folder's spool is about to become a file")
AFTER_ROLL = failpoints.register("folder_sink.rolled", "a folder's spool is a file, its sidecar does not know it")

DEFAULT_ROLL_S = 10.0
DEFAULT_ROLL_BYTES = 128 << 20
_LENGTH = struct.Struct("<q")


@dataclass(frozen=True)
class _Mark:
    """The spool's first `bytes` hold the epochs `first` to `epoch` of `state_id` in `format` (none if bytes is 0)."""

    state_id: str
    format: str
    first: int
    epoch: int
    bytes: int


class FolderSink:
    """Collects epochs in a spool and turns it into files."""

    guarantee = Guarantee.IDEMPOTENT

    def __init__(self, folder: Path, context: SinkContext, format: str, *, roll_s: float, roll_bytes: int) -> None:
        self._folder = folder
        self._context = context
        self._format = format
        self._encoder = None if format == "parquet" else LineEncoder(format, context.key)
        self._roll_s = roll_s
        self._roll_bytes = roll_bytes
        self._sidecar = folder / ".penstock-sink"
        files.make_folder(folder)
        # A name that a killed process left may not be durable: the spool is emptied only because of one that is.
        files.sync_folder(folder)
        mark = self._read_mark()
        if mark is not None and mark.bytes and self._final_path(mark).exists():
            mark = replace(mark, first=-1, bytes=0)
        self._spool = files.AppendFile(folder / ".penstock-spool")
        held = mark.bytes if mark is not None else 0
        if self._spool.size < held:
            self._spool.close()
            raise ConnectorError(
                "PS-CONN-003",
                f"{self._spool.path} is shorter than what was delivered to it",
                expected=f"{held} bytes",
                got="fewer",
            )
        self._spool.truncate(held)
        if mark is not None and mark.bytes and (mark.state_id, mark.format) != (context.state_id, format):
            self._mark = mark
            self._roll()
            mark = self._mark
        if mark is None or mark.state_id != context.state_id:
            mark = _Mark(context.state_id, format, -1, -1, 0)
        self._mark = mark
        self._since = time.monotonic()

    @classmethod
    def open(cls, url: Url, context: SinkContext) -> FolderSink:
        """The sink for `file:FOLDER/`."""
        format = "parquet" if url.options.get("format") == "parquet" else text_format(url)
        roll = duration_option(url, "roll")
        return cls(
            Path(url.path),
            context,
            format,
            roll_s=DEFAULT_ROLL_S if roll is None else roll.total_seconds(),
            roll_bytes=number_option(url, "roll_bytes") or DEFAULT_ROLL_BYTES,
        )

    def delivered(self) -> int:
        return self._mark.epoch

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        deliver_once(epoch, lambda: self._mark, self._spool, self._folder, lambda: self._spool_epoch(epoch, changes))

    def close(self) -> None:
        try:
            self._roll()
        except OSError as problem:
            raise unwritable(self._folder, problem) from problem
        finally:
            self._spool.close()
            if self._encoder is not None:
                self._encoder.close()

    def _spool_epoch(self, epoch: int, changes: pa.Table) -> None:
        self._append(epoch, changes)
        if self._mark.bytes >= self._roll_bytes or time.monotonic() - self._since >= self._roll_s:
            self._roll()

    def _append(self, epoch: int, changes: pa.Table) -> None:
        data = self._encode(changes)
        failpoints.hit(BEFORE_SPOOL)
        append_all(self._spool, data, TORN_SPOOL)
        self._spool.sync()
        failpoints.hit(BEFORE_MARK)
        first = self._mark.first if self._mark.bytes else epoch
        if not self._mark.bytes:
            self._since = time.monotonic()
        self._write_mark(_Mark(self._context.state_id, self._format, first, epoch, self._mark.bytes + len(data)))

    def _roll(self) -> None:
        """The spool becomes a file. Naming it by its epochs makes doing it twice harmless."""
        if not self._mark.bytes:
            return
        failpoints.hit(BEFORE_ROLL)
        final = self._final_path(self._mark)
        temporary = files.temporary_name(final)
        try:
            with open(temporary, "wb") as file:
                if self._mark.format == "parquet":
                    self._write_parquet(file)
                else:
                    file.write(self._spool_bytes())
                file.flush()
                files.sync(file.fileno(), temporary)
            files.replace(temporary, final)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        failpoints.hit(AFTER_ROLL)
        self._write_mark(replace(self._mark, first=-1, bytes=0))
        self._spool.truncate(0)

    def _encode(self, changes: pa.Table) -> bytes:
        if self._encoder is not None:
            return self._encoder.lines(changes, first=self._mark.bytes == 0)
        if not len(changes):
            return b""
        output = pa.BufferOutputStream()
        with pa.ipc.new_stream(output, changes.schema) as writer:
            writer.write_table(changes)
        data = bytes(output.getvalue().to_pybytes())
        return _LENGTH.pack(len(data)) + data

    def _write_parquet(self, file: object) -> None:
        writer: pq.ParquetWriter | None = None
        for table in _spooled_tables(self._spool_bytes()):
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()

    def _spool_bytes(self) -> bytes:
        return self._spool.path.read_bytes()[: self._mark.bytes]

    def _final_path(self, mark: _Mark) -> Path:
        """`FIRST-LAST-STATE.SUFFIX`: files sort by epoch, and two states never share a name."""
        suffix = {"parquet": "parquet", "csv": "csv"}.get(mark.format, "jsonl")
        state = hashlib.sha256(mark.state_id.encode()).hexdigest()[:8]
        return self._folder / f"{mark.first:016d}-{mark.epoch:016d}-{state}.{suffix}"

    def _read_mark(self) -> _Mark | None:
        try:
            return _Mark(**json.loads(self._sidecar.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as problem:
            raise ConnectorError(
                "PS-CONN-003", f"{self._sidecar} is damaged", expected="state, epochs and bytes", got=str(problem)
            ) from problem

    def _write_mark(self, mark: _Mark) -> None:
        files.write_atomic(self._sidecar, json.dumps(asdict(mark)).encode())
        self._mark = mark


def _spooled_tables(data: bytes) -> Iterator[pa.Table]:
    position = 0
    while position < len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        yield pa.ipc.open_stream(data[position : position + length]).read_all()
        position += length

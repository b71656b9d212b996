"""Files as sinks: `file:out.jsonl`, `file:out.csv` (appended), `file:folder/` (files of whole epochs),
`file:table.csv?mode=snapshot` (the view as a table, replaced atomically at every epoch).

An appended file has a sidecar (`.NAME.penstock`: state, epoch, bytes; semantics E5) that is replaced durably after
each epoch. A start cuts the file to it, so that what an interrupted delivery has left is written again, once.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from penstock.connectors.base import Guarantee, Sink, SinkContext, Url
from penstock.connectors.file_folder_sink import FolderSink
from penstock.connectors.file_output import LineEncoder, append_all, deliver_once, text_format, unwritable
from penstock.connectors.file_snapshot_sink import SnapshotSink
from penstock.errors import ConnectorError
from penstock.storage import failpoints, files

BEFORE_WRITE = failpoints.register("file_sink.write", "an epoch is about to be appended to a file")
TORN_WRITE = failpoints.register("file_sink.torn", "half of an epoch has been appended to a file")
BEFORE_SYNC = failpoints.register("file_sink.sync", "an epoch is appended to a file, not synced")
BEFORE_MARK = failpoints.register("file_sink.mark", "an epoch is appended and synced, its sidecar is not written")
AFTER_MARK = failpoints.register("file_sink.marked", "an epoch is delivered to a file, not yet acknowledged")


class FileSinks:
    """Opens the sink that a `file:` URL means."""

    OPTIONS = ("format", "mode", "roll", "roll_bytes")

    @classmethod
    def open(cls, url: Url, context: SinkContext) -> Sink:
        """A snapshot with `mode=snapshot`, a folder with a trailing slash, else a file that is appended to.

        Raises ConnectorError PS-CONN-003 if it cannot be written, PS-CONN-008 for wrong options.
        """
        mode = url.options.get("mode", "append")
        if mode not in ("append", "snapshot"):
            raise ConnectorError(
                "PS-CONN-008", "the option mode is wrong", expected="append or snapshot", got=f"mode={mode}"
            )
        path = Path(url.path)
        is_folder = url.path.endswith("/") or path.is_dir()
        rolls = [name for name in ("roll", "roll_bytes") if name in url.options]
        if rolls and (mode == "snapshot" or not is_folder):
            raise ConnectorError(
                "PS-CONN-008",
                f"the option {rolls[0]} is for folders",
                expected="a path that ends with /",
                got=str(url),
            )
        try:
            if mode == "snapshot":
                return SnapshotSink.open(url, context)
            if is_folder:
                return FolderSink.open(url, context)
            return AppendSink(path, context, text_format(url))
        except OSError as problem:
            raise unwritable(path, problem) from problem


@dataclass(frozen=True)
class _Mark:
    """What the sidecar says: the file holds exactly the epochs up to `epoch` of `state_id` in its first `bytes`."""

    state_id: str
    epoch: int
    bytes: int


class AppendSink:
    """Appends each epoch's encoded changes, a line each."""

    guarantee = Guarantee.IDEMPOTENT

    def __init__(self, path: Path, context: SinkContext, format: str) -> None:
        self._path = path
        self._context = context
        self._encoder = LineEncoder(format, context.key)
        self._sidecar = path.with_name(f".{path.name}.penstock")
        files.make_folder(path.parent)
        # A name that a killed process left may not be durable: what is forgotten because of it must not outlive it.
        files.sync_folder(path.parent)
        mark = _read_mark(self._sidecar)
        self._file = files.AppendFile(path)
        if mark is None:
            # Written before the first epoch: without it, half of that epoch would pass for what was there before.
            mark = _Mark(context.state_id, -1, self._file.size)
            files.write_atomic(self._sidecar, json.dumps(asdict(mark)).encode())
        if self._file.size < mark.bytes:
            self._file.close()
            raise ConnectorError(
                "PS-CONN-003",
                f"{path} is shorter than what was delivered to it",
                expected=f"at least {mark.bytes} bytes",
                got=f"{self._file_size()} bytes",
                hint=f"restore the file, or delete it and {self._sidecar} to go on with what comes next",
            )
        if self._file.size > mark.bytes:
            self._file.truncate(mark.bytes)
        if mark.state_id != context.state_id:
            mark = _Mark(context.state_id, -1, mark.bytes)
        self._mark = mark

    def delivered(self) -> int:
        return self._mark.epoch

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        deliver_once(epoch, lambda: self._mark, self._file, self._path, lambda: self._append(epoch, changes))

    def close(self) -> None:
        self._encoder.close()
        self._file.close()

    def _append(self, epoch: int, changes: pa.Table) -> None:
        data = self._encoder.lines(changes, first=self._mark.bytes == 0)
        failpoints.hit(BEFORE_WRITE)
        append_all(self._file, data, TORN_WRITE)
        failpoints.hit(BEFORE_SYNC)
        self._file.sync()
        failpoints.hit(BEFORE_MARK)
        mark = _Mark(self._context.state_id, epoch, self._mark.bytes + len(data))
        files.write_atomic(self._sidecar, json.dumps(asdict(mark)).encode())
        self._mark = mark
        failpoints.hit(AFTER_MARK)

    def _file_size(self) -> int:
        return self._path.stat().st_size


def _read_mark(sidecar: Path) -> _Mark | None:
    try:
        return _Mark(**json.loads(sidecar.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as problem:
        raise ConnectorError(
            "PS-CONN-003", f"{sidecar} is damaged", expected="state, epoch and bytes", got=str(problem)
        ) from problem

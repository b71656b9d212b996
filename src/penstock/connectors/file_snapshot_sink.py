"""The view as a table in a file: `file:table.csv?mode=snapshot` (also `.jsonl`, `.parquet`).

The folded content lies in a hidden Arrow file beside it, with state and epoch, and is replaced durably first; the
visible file is made from it and renamed into place after. So both are always whole, and the hidden one decides which
epoch was delivered. Rewriting takes time in proportion to the table: for views of up to some 100,000 rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from penstock.connectors.base import Guarantee, SinkContext, Url
from penstock.connectors.file_output import LineEncoder, unwritable
from penstock.connectors.options import wrong_option
from penstock.errors import ConnectorError
from penstock.storage import failpoints, files

BEFORE_CONTENT = failpoints.register("snapshot_sink.content", "a snapshot's content is about to be replaced")
BEFORE_VISIBLE = failpoints.register("snapshot_sink.visible", "a snapshot's content is replaced, its file is not")
AFTER_VISIBLE = failpoints.register("snapshot_sink.done", "a snapshot is delivered, not yet acknowledged")

_STATE, _EPOCH, _VISIBLE = b"penstock.state_id", b"penstock.epoch", b"penstock.visible"
_FORMATS = {".csv": "csv", ".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json"}

Row = dict[str, object]


class SnapshotSink:
    """Folds changes and keeps the file equal to the view."""

    guarantee = Guarantee.IDEMPOTENT

    def __init__(self, path: Path, context: SinkContext, format: str) -> None:
        self._path = path
        self._context = context
        self._encoder = None if format == "parquet" else LineEncoder(format, context.key)
        self._content_path = path.with_name(f".{path.name}.penstock")
        self._schema = pa.schema([field for field in context.columns if not field.name.startswith("_")])
        self._rows: dict[Hashable, tuple[Row, int]] = {}
        self._epoch = -1
        files.make_folder(path.parent)
        # A name that a killed process left may not be durable: the outbox forgets only what is.
        files.sync_folder(path.parent)
        self._load()

    @classmethod
    def open(cls, url: Url, context: SinkContext) -> SnapshotSink:
        """The sink for `file:PATH?mode=snapshot`."""
        path = Path(url.path)
        format = url.options.get("format", _FORMATS.get(path.suffix.lower(), ""))
        if format not in _FORMATS.values():
            raise wrong_option("format", "a path that ends with .csv, .jsonl or .parquet, or such a format", url.path)
        return cls(path, context, format)

    def delivered(self) -> int:
        return self._epoch

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        if epoch <= self._epoch:
            return
        try:
            folded = self._fold(changes)
            content = self._table(folded)
            self._write(epoch, content)
        except OSError as problem:
            raise unwritable(self._path, problem) from problem
        self._rows, self._epoch = folded, epoch

    def close(self) -> None:
        """Every epoch has been written already."""
        if self._encoder is not None:
            self._encoder.close()

    def _load(self) -> None:
        try:
            with pa.OSFile(str(self._content_path), "rb") as file:
                table = pa.ipc.open_file(file).read_all()
        except FileNotFoundError:
            return
        except pa.ArrowException as problem:
            raise ConnectorError(
                "PS-CONN-003",
                f"{self._content_path} is damaged",
                expected="the content of the snapshot",
                got=str(problem),
                hint="delete it and reset the pipeline, so that the snapshot is built again",
            ) from problem
        metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
        if metadata.get(_STATE, b"").decode() != self._context.state_id:
            return  # another state's table: this one begins empty and replaces it
        self._epoch = int(metadata[_EPOCH])
        for row in table.to_pylist():
            self._add(self._rows, row, 1)
        if not self._path.exists() or _digest(self._path.read_bytes()) != metadata[_VISIBLE]:
            files.write_atomic(self._path, self._visible(self._table(self._rows)))

    def _fold(self, changes: pa.Table) -> dict[Hashable, tuple[Row, int]]:
        folded = dict(self._rows)
        signs = changes["_op"].to_pylist()
        for sign, row in zip(signs, changes.select(self._schema.names).to_pylist(), strict=True):
            self._add(folded, row, 1 if sign in ("+I", "+U") else -1)
        return folded

    def _add(self, rows: dict[Hashable, tuple[Row, int]], row: Row, sign: int) -> None:
        key = tuple(_hashable(row[name]) for name in self._context.key or self._schema.names)
        count = sign if self._context.key else rows[key][1] + sign if key in rows else sign
        if self._context.key and sign < 0:
            rows.pop(key, None)
        elif count == 0:
            del rows[key]
        else:
            rows[key] = row, count

    def _table(self, rows: dict[Hashable, tuple[Row, int]]) -> pa.Table:
        """The folded rows, in the order of the key (or of all columns) where that can be sorted."""
        listed = [row for row, count in rows.values() for _ in range(count)]
        table = pa.Table.from_pylist(listed, self._schema)
        order = [
            (name, "ascending")
            for name in self._context.key or self._schema.names
            if not pa.types.is_nested(self._schema.field(name).type)
        ]
        return table.sort_by(order) if order else table

    def _write(self, epoch: int, content: pa.Table) -> None:
        visible = self._visible(content)
        metadata = {_STATE: self._context.state_id, _EPOCH: str(epoch), _VISIBLE: _digest(visible)}
        output = pa.BufferOutputStream()
        with pa.ipc.new_file(output, content.schema.with_metadata(metadata)) as writer:
            writer.write_table(content.replace_schema_metadata(metadata))
        failpoints.hit(BEFORE_CONTENT)
        files.write_atomic(self._content_path, output.getvalue().to_pybytes())
        failpoints.hit(BEFORE_VISIBLE)
        files.write_atomic(self._path, visible)
        failpoints.hit(AFTER_VISIBLE)

    def _visible(self, content: pa.Table) -> bytes:
        if self._encoder is not None:
            return self._encoder.lines(content, first=True)
        output = pa.BufferOutputStream()
        pq.write_table(content, output, compression="zstd")
        return bytes(output.getvalue().to_pybytes())


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _hashable(value: object) -> Hashable:
    """A value that is equal for equal cells (NaN equals NaN here, as it does in the views)."""
    match value:
        case float() if math.isnan(value):
            return "NaN", None
        case list():
            return tuple(_hashable(item) for item in value)
        case dict():
            return tuple((name, _hashable(item)) for name, item in value.items())
        case _:
            assert isinstance(value, Hashable)
            return value

"""Changes on standard output: JSON lines for programs, an aligned table for people at a terminal.

Nothing can be asked back from a terminal or a pipe, so delivery is at least once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import BinaryIO

import pyarrow as pa

from penstock.connectors.base import Guarantee, SinkContext, Url
from penstock.errors import ConnectorError
from penstock.formats.encode import Encoder

MAX_CELL = 40


class StdoutSink:
    """Writes each epoch and flushes. Option `format`: as for all sinks, or `table`."""

    OPTIONS = ("format",)
    guarantee = Guarantee.AT_LEAST_ONCE

    def __init__(self, context: SinkContext, format: str, stream: BinaryIO) -> None:
        self._context = context
        self._encoder = None if format == "table" else Encoder(format, context.key)
        self._stream = stream

    @classmethod
    def open(cls, url: Url, context: SinkContext) -> StdoutSink:
        """The sink for `stdout:`; without `format`, a table at a terminal and JSON lines elsewhere."""
        default = "table" if sys.stdout.isatty() else "changelog"
        return cls(context, url.options.get("format", default), sys.stdout.buffer)

    def delivered(self) -> int:
        return -1

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        if not len(changes):
            return
        try:
            if self._encoder is None:
                self._stream.write(_table(self._context.sink, changes).encode())
            else:
                values = self._encoder.encode(changes).values.drop_null()
                self._stream.write(b"".join(value + b"\n" for value in values.to_pylist()))
            self._stream.flush()
        except OSError as problem:
            raise ConnectorError(
                "PS-CONN-003", "standard output cannot be written", expected="a reader", got=str(problem)
            ) from problem

    def close(self) -> None:
        """Standard output belongs to the process and stays open."""
        if self._encoder is not None:
            self._encoder.close()


def _table(title: str, changes: pa.Table) -> str:
    names = ["_op", *(name for name in changes.column_names if not name.startswith("_"))]
    rows = [[_cell(value) for value in row] for row in zip(*(changes[name].to_pylist() for name in names), strict=True)]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    lines = [_line(names, widths), _line(["-" * width for width in widths], widths)]
    return "\n".join([f"{title}, epoch {changes['_epoch'][0]}", *lines, *(_line(row, widths) for row in rows), "", ""])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(value: object) -> str:
    text = "" if value is None else str(value).replace("\n", " ")
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"

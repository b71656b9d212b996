"""What the file sinks share: formats by suffix, changes as lines of text, one way to deliver an epoch once or not."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from penstock.connectors.base import Url
from penstock.errors import ConnectorError
from penstock.formats.encode import Encoder, csv_names
from penstock.storage import failpoints, files

_TEXT_FORMATS = ("changelog", "json", "csv", "debezium")


def text_format(url: Url) -> str:
    """The option `format`, else csv for `.csv` and the changelog for the rest.

    Raises ConnectorError PS-CONN-008 for what a file without keys cannot hold.
    """
    format = url.options.get("format", "csv" if url.path.lower().endswith(".csv") else "changelog")
    if format not in _TEXT_FORMATS:
        raise ConnectorError(
            "PS-CONN-008",
            f"a file cannot be written as {format}",
            expected=", ".join(_TEXT_FORMATS),
            got=str(url),
            hint="upsert needs keys and tombstones, which a log: topic has" if format == "upsert" else "",
        )
    return format


class LineEncoder:
    """Changes as text, a line each; used by one thread."""

    def __init__(self, format: str, key: tuple[str, ...]) -> None:
        self._format = format
        self._encoder = Encoder(format, key)

    def lines(self, changes: pa.Table, *, first: bool) -> bytes:
        """The lines of one epoch. first: the file is empty, so a CSV file begins with its column names."""
        lines = b"".join(value + b"\n" for value in self._encoder.encode(changes).values.to_pylist())
        if first and self._format == "csv":
            return ",".join(csv_names(changes)).encode() + b"\n" + lines
        return lines

    def close(self) -> None:
        self._encoder.close()


class Delivered(Protocol):
    """What a sink's sidecar says: the epochs up to `epoch` are in the first `bytes` of its file."""

    @property
    def epoch(self) -> int: ...

    @property
    def bytes(self) -> int: ...


def deliver_once(
    epoch: int, mark: Callable[[], Delivered], file: files.AppendFile, path: Path, write: Callable[[], None]
) -> None:
    """Write an epoch that is not delivered yet; where that fails, the file is again what the sidecar says.

    mark: what is delivered now, which `write` may move before it fails.

    Raises:
        ConnectorError: PS-CONN-003 when it cannot be written.
    """
    if epoch <= mark().epoch:
        return
    try:
        write()
    except OSError as problem:
        file.truncate(mark().bytes)
        raise unwritable(path, problem) from problem


def append_all(file: files.AppendFile, data: bytes, torn: str) -> None:
    """Append the data however often the system takes a part of it. torn: the fail point in the middle."""
    written = file.write([failpoints.torn(torn, data)]) if data else 0
    failpoints.torn_kill(torn)
    while written < len(data):
        written += file.write([data[written:]])


def unwritable(path: Path, problem: OSError) -> ConnectorError:
    """The error for a file that cannot be written; a full disk is worth another try."""
    return ConnectorError(
        "PS-CONN-003",
        f"{path} cannot be written",
        expected="space on the disk and the right to write",
        got=str(problem),
        hint="free space or change the rights: what was not acknowledged is delivered again",
        retryable=problem.errno in (errno.ENOSPC, errno.EDQUOT),
    )

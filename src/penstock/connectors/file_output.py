"""What the file sinks share: formats by suffix, changes as lines of text, one way to say that writing failed."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa

from penstock.connectors.base import SinkContext, Url
from penstock.errors import ConnectorError
from penstock.formats.encode import csv_names, encode

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


def encode_lines(changes: pa.Table, format: str, context: SinkContext, *, first: bool) -> bytes:
    """The changes as text, a line each. first: the file is empty, so a CSV file begins with its column names."""
    values = encode(changes, format, context.key).values
    lines = b"".join(value + b"\n" for value in values.to_pylist())
    if first and format == "csv":
        return ",".join(csv_names(changes)).encode() + b"\n" + lines
    return lines


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

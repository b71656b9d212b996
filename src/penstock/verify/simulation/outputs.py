"""What the sinks of a simulated job hold in the end, of whatever kind, as files of change records to be folded."""

from __future__ import annotations

import json
from pathlib import Path

from penstock.connectors.log import LogSource, LogTopic
from penstock.url import Url
from penstock.verify.simulation.schedule import SinkKind

ROLL_BYTES = 1_024
SEGMENT_BYTES = 4_096


def sink_url(kind: SinkKind, folder: Path, view: str) -> Url:
    """Where a view's changes go. Small segments and rolls, so that these steps are passed too."""
    match kind:
        case "file":
            return Url("file", str(folder / f"{view}.jsonl"))
        case "folder":
            return Url("file", f"{folder / view}/", {"roll_bytes": str(ROLL_BYTES)})
        case "snapshot":
            return Url("file", str(folder / f"{view}.snapshot.jsonl"), {"mode": "snapshot"})
        case "log":
            return Url("log", str(folder / f"{view}.log"), {"partitions": "2", "segment_bytes": str(SEGMENT_BYTES)})


def change_records(kind: SinkKind, folder: Path, view: str) -> Path:
    """The file of the view's change records in order."""
    path = folder / f"{view}.jsonl"
    match kind:
        case "file":
            return path
        case "folder":
            home = folder / view
            parts = [p for p in sorted(home.glob("*")) if not p.name.startswith((".", "_"))]
            lines = [line for part in [*parts, home / ".penstock-spool"] for line in _lines(part)]
        case "snapshot":
            rows = [json.loads(line) for line in _lines(folder / f"{view}.snapshot.jsonl")]
            lines = [_record(row | {"_op": "+I", "_epoch": 0, "_seq": n}) for n, row in enumerate(rows)]
        case "log":
            found = [json.loads(value) for value in _topic(folder / f"{view}.log")]
            lines = [_record(row) for row in sorted(found, key=lambda row: (row["_epoch"], row["_seq"]))]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def _record(row: dict[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().split(b"\n") if line] if path.exists() else []


def _topic(path: Path) -> list[bytes]:
    if not LogTopic.exists(str(path)):
        return []
    source = LogSource(LogTopic.open(str(path)))
    try:
        values: list[bytes] = []
        for partition in source.partitions():
            offset = source.earliest(partition)
            while (batch := source.read(partition, offset, 1 << 20, 1 << 30)) is not None:
                values += batch.values.to_pylist()
                offset = batch.next_offset
        return values
    finally:
        source.close()

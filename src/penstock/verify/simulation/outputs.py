"""What the sinks of a simulated job hold in the end, of whatever kind, as files of change records to be folded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.connectors.log import LogSource, LogTopic
from penstock.url import Url
from penstock.verify.simulation.schedule import SinkKind

# Of a topic with retention the newest segment alone is held.
LEAST_RETENTION_BYTES = 1
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
        case "retained":
            options = {"segment_bytes": str(SEGMENT_BYTES), "retention_bytes": str(LEAST_RETENTION_BYTES)}
            return Url("log", str(folder / f"{view}.retained"), options)


class Follower:
    """Who reads topics with retention as they grow: what has left them was read before, as by a consumer in time.

    `take` before a segment leaves and at the end; `forget_lost` when a crash has taken records away.
    """

    def __init__(self, folder: Path, views: Iterable[str]) -> None:
        self._topics = {view: folder / f"{view}.retained" for view in views}
        self._taken: dict[str, dict[tuple[int, int], bytes]] = {view: {} for view in self._topics}

    def take(self) -> None:
        """Read what is new."""
        for view, path in self._topics.items():
            taken = self._taken[view]
            after = {partition: offset + 1 for partition, offset in sorted(taken)}
            taken.update(_topic(path, after))

    def forget_lost(self) -> None:
        """Records that are no longer there, and have not left by retention, were never there."""
        for view, path in self._topics.items():
            ends = _ends(path)
            self._taken[view] = {
                place: value for place, value in self._taken[view].items() if place[1] < ends.get(place[0], 0)
            }

    def values(self, view: str) -> list[bytes]:
        """All records that were ever in the view's topic."""
        return list(self._taken[view].values())


def change_records(kind: SinkKind, folder: Path, view: str, follower: Follower) -> Path:
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
            lines = _in_order(_topic(folder / f"{view}.log", {}).values())
        case "retained":
            lines = _in_order(follower.values(view))
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def _in_order(values: Iterable[bytes]) -> list[bytes]:
    found = [json.loads(value) for value in values]
    return [_record(row) for row in sorted(found, key=lambda row: (row["_epoch"], row["_seq"]))]


def _record(row: dict[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def _lines(path: Path) -> list[bytes]:
    return [line for line in path.read_bytes().split(b"\n") if line] if path.exists() else []


def _topic(path: Path, after: Mapping[int, int]) -> dict[tuple[int, int], bytes]:
    """The records of a topic by partition and offset. after: where to begin in a partition (else with its first)."""
    if not LogTopic.exists(str(path)):
        return {}
    source = LogSource(LogTopic.open(str(path)))
    try:
        found: dict[tuple[int, int], bytes] = {}
        for partition in source.partitions():
            offset = max(source.earliest(partition), after.get(partition, 0))
            while (batch := source.read(partition, offset, 1 << 20, 1 << 30)) is not None:
                places = ((partition, each) for each in batch.offsets.to_pylist())
                found.update(zip(places, batch.values.to_pylist(), strict=True))
                offset = batch.next_offset
        return found
    finally:
        source.close()


def _ends(path: Path) -> dict[int, int]:
    if not LogTopic.exists(str(path)):
        return {}
    source = LogSource(LogTopic.open(str(path)))
    try:
        return {partition: source.latest(partition) for partition in source.partitions()}
    finally:
        source.close()

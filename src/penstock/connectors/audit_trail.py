"""An audit trail: append-only chains of records in a folder, where every later hash depends on every earlier record.

A record is one line of canonical JSON: `{"hash", "partition", "previous", "record", "sequence"}`. hash is the SHA-256
of the line without it; previous the hash of the record before, 64 zeros for the first; sequence counts from 1 in each
partition. A record lies in `year=/month=/day=/hour=/part-NN.jsonl`, by its own time, but never in an hour before that
of the record before it, so that files in order of their names are the chain. An hour that a partition has left has
`part-NN.closed.json` beside it. Nothing in a line depends on when or in which run it was written: the same records
give the same bytes.

`trail.json` says what the trail is, `head.json` how far it goes and for which epoch of which state. With a key the head
is signed: who can write to the folder cannot cut the trail's end without it being seen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.connectors.partitioning import partition_for
from penstock.errors import ConnectorError
from penstock.formats.canonical import canonical
from penstock.storage import files

MAGIC, VERSION = "penstock-audit", 1
TRAIL, HEAD, LOCK = "trail.json", "head.json", ".lock"
GENESIS = "0" * 64


@dataclass(frozen=True)
class Trail:
    """What a trail is, fixed when it is made. by: the column whose value decides the partition, empty for one chain.

    time: the column that decides the hour.
    """

    partitions: int
    by: str
    time: str

    def partition(self, record: Mapping[str, object]) -> int:
        """Which chain a record belongs to."""
        return partition_for(str(record[self.by]).encode(), self.partitions) if self.by else 0

    def hour(self, record: Mapping[str, object]) -> str:
        """The folder of a record's own hour, below the trail's; without a time, one before all others."""
        at = str(record[self.time] or "0000-00-00T00")
        return f"year={at[:4]}/month={at[5:7]}/day={at[8:10]}/hour={at[11:13]}"


@dataclass(frozen=True)
class ChainHead:
    """The end of one chain: sequence and hash of its last record, the folder that this lies in.

    bytes: of its file; first: sequence of the file's first record.
    """

    sequence: int = 0
    hash: str = GENESIS
    hour: str = ""
    bytes: int = 0
    first: int = 1


@dataclass(frozen=True)
class Head:
    """How far a trail goes: the epochs of `state_id` up to `epoch` are in it."""

    state_id: str
    epoch: int
    chains: tuple[ChainHead, ...]


def chained(previous: ChainHead, partition: int, record: Mapping[str, object]) -> tuple[bytes, int, str]:
    """The line of the record that comes after `previous`, its sequence and its hash."""
    body = {
        "partition": partition,
        "previous": previous.hash,
        "record": record,
        "sequence": previous.sequence + 1,
    }
    found = hash_of(body)
    return canonical(body | {"hash": found}) + b"\n", previous.sequence + 1, found


def hash_of(body: Mapping[str, object]) -> str:
    """The hash of a line, from what it says beside it."""
    return hashlib.sha256(canonical({name: value for name, value in body.items() if name != "hash"})).hexdigest()


def read_records(folder: Path) -> Iterator[Mapping[str, Any]]:
    """All records of a trail, unchecked; those of a chain in its order."""
    for path in sorted(folder.glob("year=*/month=*/day=*/hour=*/part-*.jsonl")):
        for line in path.read_bytes().splitlines():
            yield json.loads(line)["record"]


def part_name(partition: int) -> str:
    return f"part-{partition:02d}.jsonl"


def closed_name(partition: int) -> str:
    return f"part-{partition:02d}.closed.json"


def closed_text(partition: int, head: ChainHead) -> bytes:
    """What is said of a partition's hour once it has left it."""
    said = {"bytes": head.bytes, "first": head.first, "hash": head.hash, "last": head.sequence, "partition": partition}
    return canonical(said) + b"\n"


def write_trail(folder: Path, trail: Trail) -> None:
    files.write_atomic(folder / TRAIL, canonical(asdict(trail) | {"magic": MAGIC, "version": VERSION}) + b"\n")


def read_trail(folder: Path) -> Trail | None:
    """What the folder's trail is, None where there is none.

    Raises:
        ConnectorError: PS-CONN-003 when it is no trail of this version.
    """
    found = _read(folder / TRAIL)
    if found is None:
        return None
    if found.get("magic") != MAGIC or found.get("version") != VERSION:
        raise _damaged(folder / TRAIL, f"an audit trail of version {VERSION}", str(found.get("version")))
    return Trail(int(found["partitions"]), str(found["by"]), str(found["time"]))


def write_head(folder: Path, head: Head, key: bytes | None) -> None:
    said = asdict(head) | {"chains": [asdict(chain) for chain in head.chains]}
    signature = {} if key is None else {"signature": _signature(said, key)}
    files.write_atomic(folder / HEAD, canonical(said | signature) + b"\n")


def read_head(folder: Path, key: bytes | None) -> Head | None:
    """How far the trail goes, None where nothing was ever written.

    Raises:
        ConnectorError: PS-CONN-003 when it is damaged, or not signed with the key.
    """
    said = _read(folder / HEAD)
    if said is None:
        return None
    signature = said.pop("signature", None)
    if key is not None and not hmac.compare_digest(str(signature), _signature(said, key)):
        raise _damaged(
            folder / HEAD, "a head that is signed with the key", "no signature" if signature is None else "another"
        )
    try:
        chains = tuple(ChainHead(**chain) for chain in said["chains"])
        return Head(str(said["state_id"]), int(said["epoch"]), chains)
    except (KeyError, TypeError) as problem:
        raise _damaged(folder / HEAD, "state, epoch and chains", str(problem)) from problem


def _signature(said: Mapping[str, object], key: bytes) -> str:
    return hmac.new(key, canonical(said), hashlib.sha256).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise _damaged(path, "JSON", str(problem)) from problem
    if not isinstance(found, dict):
        raise _damaged(path, "a JSON object", type(found).__name__)
    return found


def _damaged(path: Path, expected: str, got: str) -> ConnectorError:
    return ConnectorError("PS-CONN-003", f"{path} is damaged", expected=expected, got=got)

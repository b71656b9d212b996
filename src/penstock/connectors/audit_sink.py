"""The audit trail as a sink: `audit:FOLDER?by=COLUMN&partitions=N&time=COLUMN&key_env=NAME`.

Delivery is idempotent, and nothing is ever cut: what an interrupted delivery has left after the head must be how the
same epoch begins, which is then completed; anything else stops the sink. `_epoch`, `_seq` and `_correction` are left
out of the records, `_op` stays, so that the trail follows from the changes and their order alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from penstock.connectors.audit_trail import (
    LOCK,
    ChainHead,
    Head,
    Trail,
    chained,
    closed_name,
    closed_text,
    part_name,
    read_head,
    read_trail,
    write_head,
    write_trail,
)
from penstock.connectors.base import Guarantee, SinkContext, Url
from penstock.connectors.file_output import append_all, unwritable
from penstock.connectors.options import number_option, wrong_option
from penstock.errors import ConnectorError
from penstock.formats.encode import Encoder
from penstock.storage import failpoints, files

BEFORE_APPEND = failpoints.register("audit.append", "an epoch is about to be appended to an audit trail")
TORN_APPEND = failpoints.register("audit.torn", "half of a chain's lines have been appended to an audit trail")
BEFORE_HEAD = failpoints.register("audit.head", "an epoch is in an audit trail durably, its head does not say so")
MAX_PARTITIONS = 100
_LEFT_OUT = ("_epoch", "_seq", "_correction")


class AuditSink:
    """Appends changes to the chains of a trail, each epoch once. One process writes to a folder."""

    OPTIONS = ("by", "partitions", "time", "key_env")
    guarantee = Guarantee.IDEMPOTENT

    def __init__(self, folder: Path, trail: Trail, context: SinkContext, key: bytes | None) -> None:
        self._folder = folder
        self._key = key
        files.make_folder(folder)
        self._lock = _lock(folder)
        try:
            self._trail = _agreed(folder, trail)
            head = read_head(folder, key)
            # a name that a killed process left may not be durable, and the head is trusted from now on
            files.sync_folder(folder)
            chains = head.chains if head is not None else (ChainHead(),) * trail.partitions
            known = head is not None and head.state_id == context.state_id
            self._head = head if head is not None and known else Head(context.state_id, -1, chains)
            self._encoder = Encoder("changelog", ())
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def open(cls, url: Url, context: SinkContext) -> AuditSink:
        """The sink for `audit:FOLDER`."""
        partitions = number_option(url, "partitions") or 1
        if partitions > MAX_PARTITIONS:
            raise wrong_option("partitions", f"at most {MAX_PARTITIONS}", str(partitions))
        by = url.options.get("by", "")
        if by and by not in context.columns.names:
            raise wrong_option("by", f"a column of {context.sink}", by)
        if partitions > 1 and not by:
            raise wrong_option("by", "a column, where there is more than one partition", "none")
        trail = Trail(partitions, by, _time_column(url, context))
        return cls(Path(url.path), trail, context, signing_key(url.options.get("key_env")))

    def delivered(self) -> int:
        return self._head.epoch

    def deliver(self, epoch: int, changes: pa.Table) -> None:
        if epoch <= self._head.epoch:
            return
        try:
            chains = list(self._head.chains)
            parts = self._parts(changes, chains)
            failpoints.hit(BEFORE_APPEND)
            for part in parts:
                part.write(self._folder)
            head = Head(self._head.state_id, epoch, tuple(chains))
            if parts:
                failpoints.hit(BEFORE_HEAD)
                write_head(self._folder, head, self._key)
        except OSError as problem:
            raise unwritable(self._folder, problem) from problem
        self._head = head

    def close(self) -> None:
        self._encoder.close()
        os.close(self._lock)

    def _parts(self, changes: pa.Table, chains: list[ChainHead]) -> list[_Part]:
        """What the epoch adds to each file, in order; `chains` moves on with it."""
        parts: dict[tuple[int, str], _Part] = {}
        for record in self._records(changes):
            partition = self._trail.partition(record)
            before = chains[partition]
            hour = max(self._trail.hour(record), before.hour)
            line, sequence, found = chained(before, partition, record)
            left = before.hour != hour
            start = 0 if left else before.bytes
            part = parts.setdefault((partition, hour), _Part(partition, hour, start, before if left else None))
            part.lines.append(line)
            first = sequence if left else before.first
            chains[partition] = ChainHead(sequence, found, hour, start + len(line), first)
        return list(parts.values())

    def _records(self, changes: pa.Table) -> Iterator[Mapping[str, object]]:
        """Changes as JSON values; integers that JSON numbers do not hold exactly as text, as decimals are."""
        kept = changes.drop_columns([name for name in _LEFT_OUT if name in changes.column_names])
        for value in self._encoder.encode(kept).values.to_pylist():
            yield json.loads(value, parse_int=_integer)


class _Part:
    """Lines for one file, from `start` on. left: where the chain was before, if this is its first file of the hour."""

    def __init__(self, partition: int, hour: str, start: int, left: ChainHead | None) -> None:
        self.partition, self.hour, self.start, self.left = partition, hour, start, left
        self.lines: list[bytes] = []

    def write(self, folder: Path) -> None:
        """Append what is not there yet, durably, and close the hour before."""
        data = b"".join(self.lines)
        place = folder / self.hour
        files.make_folder(place)
        file = files.AppendFile(place / part_name(self.partition))
        try:
            there = file.path.read_bytes()[self.start :] if file.size > self.start else b""
            if file.size < self.start or not data.startswith(there):
                raise _foreign(file.path, self.start, file.size)
            append_all(file, data[len(there) :], TORN_APPEND)
            file.sync()
        finally:
            file.close()
        files.sync_folder(place)
        if self.left is not None and self.left.sequence:
            closed = folder / self.left.hour / closed_name(self.partition)
            files.write_atomic(closed, closed_text(self.partition, self.left))


def signing_key(variable: str | None) -> bytes | None:
    """The key that is in an environment variable, None where none is named.

    Raises:
        ConnectorError: PS-CONN-008 when the variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise wrong_option("key_env", "the name of an environment variable that holds the key", f"{variable}, not set")
    return key.encode()


def _time_column(url: Url, context: SinkContext) -> str:
    times = [field.name for field in context.columns if pa.types.is_timestamp(field.type)]
    name = url.options.get("time") or (times[0] if len(times) == 1 else "")
    if name not in times:
        raise wrong_option("time", f"one of {', '.join(times) or 'no timestamps: the view needs one'}", name or "none")
    return name


def _agreed(folder: Path, trail: Trail) -> Trail:
    """The trail as it is, or made anew."""
    there = read_trail(folder)
    if there is None:
        write_trail(folder, trail)
    elif there != trail:
        raise ConnectorError(
            "PS-CONN-008",
            f"{folder} is another trail",
            expected=f"by={there.by} partitions={there.partitions} time={there.time}",
            got=f"by={trail.by} partitions={trail.partitions} time={trail.time}",
            hint="a trail stays as it was made; bind another folder",
        )
    return trail


def _lock(folder: Path) -> int:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConnectorError(
            "PS-CONN-003",
            f"another process writes to {folder}",
            expected="one job for each audit trail",
            got=f"{folder / LOCK} is held",
        ) from None
    return lock


def _foreign(path: Path, start: int, size: int) -> ConnectorError:
    return ConnectorError(
        "PS-CONN-003",
        f"{path} is not as it was left",
        expected=f"{start} bytes, or after them the beginning of the epoch that is delivered",
        got=f"{size} bytes that are something else",
        hint="penstock audit verify names what was changed; a state that begins anew needs a folder of its own",
    )


def _integer(text: str) -> int | str:
    value = int(text)
    return value if abs(value) <= 2**53 else text

"""Checking an audit trail: every record is what it was, in its place, and none is missing or added.

Every line is judged by itself (its bytes are the canonical text of what they say, its hash fits), then by its
neighbours, then against the closed hours and the head. What is found names the record. The head is read before and
after, so that a trail that is being written can be checked too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from penstock.connectors.audit_trail import (
    GENESIS,
    HEAD,
    LOCK,
    TRAIL,
    ChainHead,
    Trail,
    closed_name,
    closed_text,
    hash_of,
    part_name,
    read_head,
    read_trail,
)
from penstock.errors import VerificationError
from penstock.formats.canonical import canonical, parsed
from penstock.storage import files

Kind = Literal["changed", "missing", "swapped", "added", "moved"]
LOOKS, PAUSE_S = 3, 0.3


@dataclass(frozen=True)
class Finding:
    """What is wrong with one record, or with a file (sequence 0). where: path and line."""

    kind: Kind
    partition: int
    sequence: int
    where: str
    reason: str

    def __str__(self) -> str:
        record = f"partition {self.partition} record {self.sequence}: " if self.sequence else ""
        return f"{self.kind}: {record}{self.reason} ({self.where})"


@dataclass(frozen=True)
class Checked:
    """records: how many there are; heads: the hash at the end of each chain; signed: the head's signature fits."""

    records: int
    heads: tuple[str, ...]
    signed: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Line:
    """One line that could be read. hour: the folder that it lies in; own_hour: the one of its own time."""

    sequence: int
    hash: str
    previous: str
    hour: str
    own_hour: str
    where: str


def check_trail(folder: Path, key: bytes | None = None) -> Checked:
    """Read a whole trail and say what is wrong with it.

    Args:
        key: what the head is signed with; without it, a trail that was cut together with its head is not told.

    Raises:
        VerificationError: PS-VERIFY-002 when there is no trail.
        ConnectorError: PS-CONN-003 when the head or the trail's description is damaged, or not signed with the key.
    """
    trail = read_trail(folder)
    if trail is None:
        raise VerificationError(
            "PS-VERIFY-002", "there is no audit trail", expected=f"{folder / TRAIL}", got="no such file"
        )
    for look in range(LOOKS):
        before = _heads(folder, trail, key)
        findings: list[Finding] = []
        ends = [_check_chain(folder, trail, number, before[number], findings) for number in range(trail.partitions)]
        after = _heads(folder, trail, key)
        beyond = [_beyond(folder, number, end, after[number]) for number, end in enumerate(ends)]
        if not any(beyond) or look == LOOKS - 1:
            break
        time.sleep(PAUSE_S)  # a delivery that is under way has its head in a moment
    findings += [finding for finding in beyond if finding is not None]
    findings += _strangers(folder, trail)
    return Checked(sum(end.sequence for end in ends), tuple(end.hash for end in ends), key is not None, tuple(findings))


def _heads(folder: Path, trail: Trail, key: bytes | None) -> tuple[ChainHead, ...]:
    head = read_head(folder, key)
    return head.chains if head is not None else (ChainHead(),) * trail.partitions


def _check_chain(folder: Path, trail: Trail, partition: int, head: ChainHead, findings: list[Finding]) -> ChainHead:
    """One partition, up to its head at least; where its last record stands."""
    lines = list(_lines(folder, trail, partition, findings))
    broken = {finding.sequence for finding in findings if finding.partition == partition}
    times = Counter(line.sequence for line in lines)
    by_sequence = {line.sequence: line for line in lines}
    last = max(by_sequence, default=0)
    for sequence in range(1, max(last, head.sequence) + 1):
        if sequence not in by_sequence and sequence not in broken:
            findings.append(Finding("missing", partition, sequence, str(folder), "it is not there"))
    highest = 0
    for line in lines:
        if times[line.sequence] > 1 and line is not by_sequence[line.sequence]:
            findings.append(Finding("added", partition, line.sequence, line.where, "it is there more than once"))
        elif line.sequence < highest:
            findings.append(Finding("swapped", partition, line.sequence, line.where, "it lies after a later record"))
        highest = max(highest, line.sequence)
    broken |= _check_links(partition, by_sequence, head, broken, findings)
    if not broken and len(lines) == last:
        _check_hours(folder, partition, lines, findings)
    end = by_sequence.get(last)
    return ChainHead(last, end.hash, end.hour) if end is not None else ChainHead()


def _check_links(
    partition: int, lines: dict[int, _Line], head: ChainHead, broken: set[int], findings: list[Finding]
) -> set[int]:
    """Each record is the one that the next was chained to; those that are not."""
    wrong = set()
    for sequence, line in lines.items():
        if sequence in broken:
            continue
        follower = lines.get(sequence + 1)
        if sequence == 1 and line.previous != GENESIS:
            wrong.add(sequence)
            findings.append(Finding("changed", partition, sequence, line.where, "it does not begin a chain"))
        elif follower is not None and sequence + 1 not in broken and follower.previous != line.hash:
            wrong.add(sequence)
            findings.append(
                Finding("changed", partition, sequence, line.where, "the next record was chained to another one")
            )
        elif sequence == head.sequence and line.hash != head.hash:
            wrong.add(sequence)
            findings.append(Finding("changed", partition, sequence, line.where, "the head was another record"))
    return wrong


def _check_hours(folder: Path, partition: int, lines: list[_Line], findings: list[Finding]) -> None:
    """Each record lies in its hour, and each hour that was left says what was in it."""
    at = ""
    end = ChainHead()
    for line in lines:
        hour = max(line.own_hour, at)
        if line.hour != hour:
            findings.append(Finding("moved", partition, line.sequence, line.where, f"its place is {hour}"))
            return
        if at not in ("", hour):
            _check_closed(folder, partition, end, findings)
        first = line.sequence if at != hour else end.first
        at, end = hour, ChainHead(line.sequence, line.hash, hour, first=first)


def _check_closed(folder: Path, partition: int, end: ChainHead, findings: list[Finding]) -> None:
    path = folder / end.hour / closed_name(partition)
    size = (folder / end.hour / part_name(partition)).stat().st_size
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        findings.append(Finding("missing", partition, 0, str(path), "the file of an hour that is over"))
        return
    if found != closed_text(partition, replace(end, bytes=size)):
        findings.append(Finding("changed", partition, 0, str(path), "it does not say what is in its hour"))


def _beyond(folder: Path, partition: int, end: ChainHead, head: ChainHead) -> Finding | None:
    if end.sequence <= head.sequence:
        return None
    reason = f"the head ends at record {head.sequence}: it was added, or its delivery was interrupted"
    return Finding("added", partition, end.sequence, str(folder / end.hour / part_name(partition)), reason)


def _lines(folder: Path, trail: Trail, partition: int, findings: list[Finding]) -> Iterator[_Line]:
    """The lines of a partition in the order of its files; what cannot be one is found."""
    expected = 1
    for path in sorted(folder.glob(f"year=*/month=*/day=*/hour=*/{part_name(partition)}")):
        *texts, torn = path.read_bytes().split(b"\n")
        for number, text in enumerate(texts, 1):
            where = f"{path}:{number}"
            line = _line(trail, partition, text, path.parent.relative_to(folder).as_posix(), where)
            if isinstance(line, str):
                findings.append(Finding("changed", partition, expected, where, line))
                expected += 1
            else:
                yield line
                expected = line.sequence + 1
        if torn:
            findings.append(Finding("changed", partition, expected, str(path), "its last line is torn"))


def _line(trail: Trail, partition: int, text: bytes, hour: str, where: str) -> _Line | str:
    """The line, or what is wrong with it by itself."""
    try:
        body: Any = parsed(text)
        sequence, record = body["sequence"], body["record"]
        if canonical(body) != text or not isinstance(sequence, int) or hash_of(body) != body["hash"]:
            return "its hash is not that of what it says"
        if body["partition"] != partition or trail.partition(record) != partition:
            return "it belongs to another partition"
        return _Line(sequence, body["hash"], body["previous"], hour, trail.hour(record), where)
    except (ValueError, KeyError, TypeError) as problem:
        return f"it is no record: {problem}"


def _strangers(folder: Path, trail: Trail) -> list[Finding]:
    """Files that no trail has."""
    own = {name for n in range(trail.partitions) for name in (part_name(n), closed_name(n))}
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        inside = path.relative_to(folder).parts
        known = inside[0] in (TRAIL, HEAD, LOCK) if len(inside) == 1 else len(inside) == 5 and inside[-1] in own
        if not known and not files.is_temporary(path):
            found.append(Finding("added", 0, 0, str(path), "the trail has no such file"))
    return found

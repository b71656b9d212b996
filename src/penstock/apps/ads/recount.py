"""The second independent count: every record of the topic, read again and judged in plain Python.

Nothing here comes from the contract's compiler, the planner or the engine. Most records are recognised by one regular
expression that spells out a sound record in the producers' own field order; all others take the slow path through
`json`, which judges field by field.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from penstock.apps.ads.counts import Cell, CellCounts, add_all, from_kinds, window_start_us
from penstock.apps.ads.generate import AD_TYPES, EVENT_TYPES
from penstock.apps.ads.timeline import Collector, Timeline
from penstock.bench.leash import follow_parent
from penstock.connectors.log import LogSource, LogTopic

MAX_AHEAD_US = 3_600_000_000
BIGINT = 2**63
READ_RECORDS = 65_536
READ_BYTES = 64 << 20

Event = tuple[str, int, int, str, int]
"""ad id, event time in ns, campaign id, event type, produce time in ms"""


@dataclass(frozen=True)
class Recount:
    """All records of a topic: `records` = those in `accepted` + those in `late` + those in `dead` (by rule)."""

    records: int = 0
    accepted: CellCounts = field(default_factory=dict)
    late: CellCounts = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Recount) -> Recount:
        return Recount(
            self.records + other.records,
            add_all([self.accepted, other.accepted]),
            add_all([self.late, other.late]),
            dict(Counter(self.dead) + Counter(other.dead)),
        )

    @property
    def sound(self) -> CellCounts:
        """Accepted and late together: what the producers know."""
        return add_all([self.accepted, self.late])


def recount(
    topic: str, mapping: Mapping[str, int], *, window_s: float, watermark_s: float, workers: int = 2
) -> Recount:
    """Count the topic in the folder `topic`, a process per partition (none if `workers` is 0).

    An event is late when its window ended at or before the largest event time of an earlier sound record of its
    partition, less the watermark delay.
    """
    pairs = _all_partitions(topic, mapping, window_s, watermark_s, workers, timelines=False)
    return sum((counted for counted, _ in pairs), Recount())


def recount_in_time(
    topic: str, mapping: Mapping[str, int], *, window_s: float, watermark_s: float, workers: int = 2
) -> tuple[Recount, list[Timeline]]:
    """As `recount`, and the sound events of each partition as columns."""
    pairs = _all_partitions(topic, mapping, window_s, watermark_s, workers, timelines=True)
    return sum((counted for counted, _ in pairs), Recount()), [timeline for _, timeline in pairs]


def _all_partitions(
    topic: str, mapping: Mapping[str, int], window_s: float, watermark_s: float, workers: int, *, timelines: bool
) -> list[tuple[Recount, Timeline]]:
    arguments = [
        (topic, number, dict(mapping), round(window_s * 1e6), round(watermark_s * 1e6), timelines)
        for number in range(LogTopic.open(topic).partitions)
    ]
    if workers == 0:
        return [_recount_partition(*each) for each in arguments]
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=follow_parent) as pool:
        return list(pool.map(_recount_partition, *zip(*arguments, strict=True)))


def judge(record: bytes, append_us: int, mapping: Mapping[str, int]) -> Event | str:
    """The event, or the rule that the record breaks."""
    event = _quick(record) or _slow(record)
    if isinstance(event, str):
        return event
    if event[1] // 1_000 > append_us + MAX_AHEAD_US:
        return "future"
    return event if mapping.get(event[0]) == event[2] else "reference"


def _recount_partition(
    topic: str, partition: int, mapping: dict[str, int], window_us: int, watermark_us: int, timelines: bool
) -> tuple[Recount, Timeline]:
    counts: dict[Cell, list[int]] = {}
    late: dict[Cell, list[int]] = {}
    dead: Counter[str] = Counter()
    collector = Collector(partition)
    newest_us: int | None = None
    records = 0
    for offset, record, append_us in _records(topic, partition):
        records += 1
        event = judge(record, append_us, mapping)
        if isinstance(event, str):
            dead[event] += 1
            continue
        _, event_ns, campaign, kind, produce_time_ms = event
        event_us = event_ns // 1_000
        start = window_start_us(event_us, window_us)
        is_late = newest_us is not None and start + window_us <= newest_us - watermark_us
        newest_us = event_us if newest_us is None or event_us > newest_us else newest_us
        row = (late if is_late else counts).setdefault((campaign, start), [0] * (len(EVENT_TYPES) + 1))
        place = EVENT_TYPES.index(kind)
        row[place] += 1
        row[-1] = max(row[-1], produce_time_ms)
        if timelines:
            collector.add(offset, campaign, start, place, produce_time_ms, event_us, late=is_late)
    return Recount(records, _cells(counts), _cells(late), dict(dead)), collector.timeline()


def _records(topic: str, partition: int) -> Iterator[tuple[int, bytes, int]]:
    """Offset, value and append time of every record."""
    source = LogSource(LogTopic.open(topic))
    try:
        offset = source.earliest(partition)
        while (batch := source.read(partition, offset, READ_RECORDS, READ_BYTES)) is not None:
            offset = batch.next_offset
            offsets = batch.offsets.to_pylist()
            times = batch.times.cast("int64").to_pylist() if batch.times is not None else [0] * batch.rows
            values = batch.values.to_pylist()
            yield from zip(offsets, (value or b"" for value in values), times, strict=True)
    finally:
        source.close()


def _cells(rows: Mapping[Cell, list[int]]) -> CellCounts:
    return {cell: from_kinds(row[:-1], row[-1]) for cell, row in rows.items()}


_UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_SOUND = re.compile(
    rb'\{"user_id":"' + _UUID + rb'","page_id":"' + _UUID + rb'","ad_id":"(' + _UUID + rb')","ad_type":"(?:'
    rb"image|video|carousel|text|story|shopping|collection"
    rb')","event_type":"(view|click|purchase)","event_time_ns":([1-9]\d{0,17}),"window_id":(?:0|-?[1-9]\d{0,17}),'
    rb'"ip_address":"([0-9a-f.:]+)","campaign_id":(0|-?[1-9]\d{0,17}),"produce_time":([1-9]\d{0,17})\}'
)
_addresses: dict[bytes, bool] = {}


def _quick(record: bytes) -> Event | None:
    match = _SOUND.fullmatch(record)
    if match is None or not _is_address_cached(match[4]):
        return None
    return match[1].decode(), int(match[3]), int(match[5]), match[2].decode(), int(match[6])


def _is_address_cached(text: bytes) -> bool:
    known = _addresses.get(text)
    if known is None:
        if len(_addresses) > 100_000:
            _addresses.clear()
        known = _addresses[text] = _is_address(text.decode())
    return known


def _slow(record: bytes) -> Event | str:
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError:
        return "encoding"
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except _DuplicateKeyError:
        return "duplicate_key"
    except (ValueError, RecursionError):
        return "json"
    if not isinstance(value, dict):
        return "object"
    for name, rule_of in _FIELDS.items():
        if name not in value:
            return "missing"
        if value[name] is None:
            return "null"
        rule = rule_of(value[name])
        if rule:
            return rule
    return value["ad_id"], value["event_time_ns"], value["campaign_id"], value["event_type"], value["produce_time"]


class _DuplicateKeyError(ValueError):
    """An object names a key twice."""


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKeyError
    return result


def _no_constant(name: str) -> object:
    raise ValueError(name)


Judge = Callable[[object], str]


def _text(pattern: Callable[[str], bool], rule: str) -> Judge:
    def judge_text(value: object) -> str:
        if not isinstance(value, str):
            return "type"
        return "" if pattern(value) else rule

    return judge_text


def _integer(least: int | None = None) -> Judge:
    def judge_integer(value: object) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            return "type"
        if not -BIGINT <= value < BIGINT:
            return "range"
        return "gt" if least is not None and value < least else ""

    return judge_integer


_UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


def _is_uuid(text: str) -> bool:
    return _UUID_TEXT.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


_FIELDS: dict[str, Judge] = {
    "user_id": _text(_is_uuid, "pattern"),
    "page_id": _text(_is_uuid, "pattern"),
    "ad_id": _text(_is_uuid, "pattern"),
    "ad_type": _text(AD_TYPES.__contains__, "one_of"),
    "event_type": _text(EVENT_TYPES.__contains__, "one_of"),
    "event_time_ns": _integer(1),
    "window_id": _integer(),
    "ip_address": _text(_is_address, "pattern"),
    "campaign_id": _integer(),
    "produce_time": _integer(1),
}

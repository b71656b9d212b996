"""Ad events as JSON bytes, rendered a block at a time.

Records are compact JSON in the field order of the contract. `produce_time` comes last and is always 13 digits wide,
so that it can be stamped into a rendered block just before its events are sent, without rendering them again.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from penstock.apps.ads.faults import FAULTS, Disturbance
from penstock.apps.ads.mapping import random_uuids

AD_TYPES = ("image", "video", "carousel", "text", "story", "shopping", "collection")
EVENT_TYPES = ("view", "click", "purchase")
SOUND = -1
USERS = 65_536
PAGES = 4_096
ADDRESSES = 4_096
IPV6_SHARE = 0.25
STAMP_WIDTH = 13

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Rendered events in the order of `due_ns`.

    due_ns: when each is to be sent. event_ns: the event time written into it (the same unless late or disordered).
    campaigns, kinds: campaign id, and index into `EVENT_TYPES`. faults: index into `FAULTS`, or `SOUND`.
    records: the events, as Arrow sees them in `bytes_`. stamps: where in `bytes_` each digit of `produce_time` lies, a
    row per event; those of broken records lie behind all records, for they keep what they have.
    """

    due_ns: Integers
    event_ns: Integers
    campaigns: Integers
    kinds: Integers
    faults: Integers
    bytes_: NDArray[np.uint8]
    records: pa.BinaryArray
    stamps: NDArray[np.int32]

    @property
    def rows(self) -> int:
        return len(self.due_ns)

    def stamp(self, start: int, stop: int, produce_time_ms: int) -> None:
        """Write `produce_time_ms` into the sound records from `start` to `stop` (broken ones keep what they have)."""
        digits = np.frombuffer(str(produce_time_ms).encode().rjust(STAMP_WIDTH, b"0"), dtype=np.uint8)
        self.bytes_[self.stamps[start:stop]] = digits

    def values(self, start: int, stop: int) -> pa.BinaryArray:
        """The records from `start` to `stop`, without a copy; stamp them before."""
        return self.records.slice(start, stop - start)


class Renderer:
    """Renders blocks; all randomness comes from `rng`.

    Args:
        mapping: `{ad_id: campaign_id}`.
        base_ns: the run's base event time, from which `window_id` counts.
        window_ns: the window's length in nanoseconds.
    """

    def __init__(
        self,
        mapping: dict[str, int],
        rng: np.random.Generator,
        *,
        base_ns: int,
        window_ns: int,
        disturbance: Disturbance | None = None,
    ) -> None:
        self._rng = rng
        self._base_ns = base_ns
        self._window_ns = window_ns
        self._disturbance = disturbance or Disturbance()
        self._ad_campaigns = np.fromiter(mapping.values(), dtype=np.int64, count=len(mapping))
        self._users = _column('{"user_id":"%s","page_id":"', random_uuids(rng, USERS))
        self._pages = _column('%s","ad_id":"', random_uuids(rng, PAGES))
        self._ads = _column('%s","ad_type":"', mapping)
        self._types = pa.array(
            [f'{ad_type}","event_type":"{kind}","event_time_ns":' for ad_type in AD_TYPES for kind in EVENT_TYPES]
        )
        self._addresses = _column('%s","campaign_id":', _addresses(rng))

    def render(self, due_ns: Integers) -> Block:
        """One event for each time of `due_ns` (ascending), and the disturbance that was asked for."""
        rng = self._rng
        count = len(due_ns)
        ads = rng.integers(0, len(self._ad_campaigns), count)
        types = rng.integers(0, len(self._types), count)
        event_ns = self._event_times(due_ns)
        campaigns = self._ad_campaigns[ads]
        records = pc.binary_join_element_wise(
            self._users.take(pa.array(rng.integers(0, USERS, count))),
            self._pages.take(pa.array(rng.integers(0, PAGES, count))),
            self._ads.take(pa.array(ads)),
            self._types.take(pa.array(types)),
            _numbers("", event_ns, ',"window_id":'),
            _numbers("", (event_ns - self._base_ns) // self._window_ns, ',"ip_address":"'),
            self._addresses.take(pa.array(rng.integers(0, ADDRESSES, count))),
            _numbers("", campaigns, ',"produce_time":'),
            _numbers("", event_ns // 1_000_000, "}"),
            "",
        ).cast(pa.binary())
        records, faults = self._break(records)
        repeats = 1 + (rng.random(count) < self._disturbance.duplicate) if self._disturbance.duplicate else None
        if repeats is not None:
            order = np.repeat(np.arange(count), repeats)
            records = records.take(pa.array(order))
            due_ns, event_ns, campaigns, types, faults = (
                column[order] for column in (due_ns, event_ns, campaigns, types, faults)
            )
        _, ends, data = records.buffers()
        ends = np.frombuffer(ends, dtype=np.int32)[: len(records) + 1]
        bytes_: NDArray[np.uint8] = np.empty(int(ends[-1]) + STAMP_WIDTH, dtype=np.uint8)
        bytes_[: ends[-1]] = np.frombuffer(data, dtype=np.uint8)[: ends[-1]]
        stamped = np.where(faults == SOUND, ends[1:] - (STAMP_WIDTH + 1), ends[-1]).astype(np.int32)
        return Block(
            due_ns,
            event_ns,
            campaigns,
            types % len(EVENT_TYPES),
            faults,
            bytes_,
            pa.Array.from_buffers(pa.binary(), len(records), [None, pa.py_buffer(ends), pa.py_buffer(bytes_)]),
            (stamped[:, None] + np.arange(STAMP_WIDTH)).astype(np.int32),
        )

    def _event_times(self, due_ns: Integers) -> Integers:
        disturbance = self._disturbance
        event_ns = due_ns
        if disturbance.disorder_s:
            event_ns = event_ns - (self._rng.random(len(due_ns)) * disturbance.disorder_s * 1e9).astype(np.int64)
        if disturbance.late:
            late = self._rng.random(len(due_ns)) < disturbance.late
            event_ns = event_ns - late * int(disturbance.late_by_s * 1e9)
        return event_ns

    def _break(self, records: pa.BinaryArray) -> tuple[pa.BinaryArray, Integers]:
        faults = np.full(len(records), SOUND, dtype=np.int64)
        if not self._disturbance.broken:
            return records, faults
        broken = self._rng.random(len(records)) < self._disturbance.broken
        faults[broken] = self._rng.integers(0, len(FAULTS), int(broken.sum()))
        spoilt = [
            FAULTS[fault].apply(record.as_py())
            for record, fault in zip(records.filter(pa.array(broken)), faults[broken], strict=True)
        ]
        return pc.replace_with_mask(records, pa.array(broken), pa.array(spoilt, type=pa.binary())), faults


def _column(pattern: str, values: object) -> pa.StringArray:
    return pa.array([pattern.replace("%s", value) for value in values])  # type: ignore[attr-defined]


def _numbers(before: str, values: Integers, after: str) -> pa.StringArray:
    return pc.binary_join_element_wise(before, pa.array(values).cast(pa.string()), after, "")


def _addresses(rng: np.random.Generator) -> list[str]:
    """IP addresses as text, a quarter of them IPv6."""
    long = int(ADDRESSES * IPV6_SHARE)
    wide = [str(ipaddress.IPv6Address(rng.bytes(16))) for _ in range(long)]
    return wide + [str(ipaddress.IPv4Address(rng.bytes(4))) for _ in range(ADDRESSES - long)]

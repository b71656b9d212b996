"""Records that break the contract on purpose, one way each, and the share of them in a load.

Every way is a function of one sound record. `rule` says which rule of the contract finds it, so that a run can compare
what was injected with what the dead letters say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from penstock.errors import DeclarationError

_FAR_NS = 10 * 86_400 * 10**9


@dataclass(frozen=True)
class Fault:
    """One way to break a record: `name` for people, `rule` for the dead letter, `apply` for the bytes."""

    name: str
    rule: str
    apply: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Disturbance:
    """What is wrong with a load: shares of all events between 0 and 1, and times in seconds.

    broken: records of `FAULTS`, each way equally often. duplicate: records sent twice (the events carry no id, so both
    are counted). late: records whose event time lies `late_by_s` back. disorder_s: every event time is moved back by a
    random time of up to this.
    """

    broken: float = 0.0
    duplicate: float = 0.0
    late: float = 0.0
    late_by_s: float = 60.0
    disorder_s: float = 0.0

    def __post_init__(self) -> None:
        for name, share in (("broken", self.broken), ("duplicate", self.duplicate), ("late", self.late)):
            if not 0.0 <= share <= 1.0:
                raise DeclarationError(
                    "PS-BENCH-003", f"the share of {name} events is invalid", expected="from 0 to 1", got=str(share)
                )
        for name, seconds in (("late_by", self.late_by_s), ("disorder", self.disorder_s)):
            if not 0.0 <= seconds < 1e9:
                raise DeclarationError(
                    "PS-BENCH-003", f"{name} is invalid", expected="seconds from 0 up", got=str(seconds)
                )

    @property
    def quiet(self) -> bool:
        return not (self.broken or self.duplicate or self.late or self.disorder_s)


def _replace(pattern: bytes, replacement: bytes | Callable[[re.Match[bytes]], bytes]) -> Callable[[bytes], bytes]:
    expression = re.compile(pattern)
    return lambda record: expression.sub(replacement, record, count=1)


def _in_the_future(match: re.Match[bytes]) -> bytes:
    return b'"event_time_ns":%d' % (int(match[1]) + _FAR_NS)


FAULTS: tuple[Fault, ...] = (
    Fault("truncated", "json", lambda record: record[:-20]),
    Fault("text for a number", "type", _replace(rb'"event_time_ns":(\d+)', rb'"event_time_ns":"\1"')),
    Fault("fraction for an integer", "type", _replace(rb'"campaign_id":(\d+)', rb'"campaign_id":\1.5')),
    Fault("field left out", "missing", _replace(rb'"ad_type":"\w+",', b"")),
    Fault("null", "null", _replace(rb'"user_id":"[^"]+"', b'"user_id":null')),
    Fault("unknown word", "one_of", _replace(rb'"event_type":"\w+"', b'"event_type":"glance"')),
    Fault("negative", "gt", _replace(rb'"produce_time":', b'"produce_time":-')),
    Fault("not an address", "pattern", _replace(rb'"ip_address":"[^"]+"', b'"ip_address":"300.1.2.3"')),
    Fault("unknown ad", "reference", _replace(rb'"ad_id":"........', b'"ad_id":"00000000')),
    Fault("in the future", "future", _replace(rb'"event_time_ns":(\d+)', _in_the_future)),
    Fault("not UTF-8", "encoding", _replace(rb'"page_id":"..', b'"page_id":"\xff\xfe')),
    Fault("key twice", "duplicate_key", _replace(rb"\}$", b',"campaign_id":1}')),
)

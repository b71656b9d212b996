"""The ceiling: the ads job by hand for DuckDB, over the very segments of the log, with one commit at the end.

It knows this one contract, this one layout and no epochs, watermarks, dead letters or changes. Checks: all of them. A
record is trusted in SQL only when its length proves that nothing but the values of a lenient parse is in it; any other
is judged in Python by `_judged`, which is strict about types, repeated fields, encoding and white space.
"""

from __future__ import annotations

import ipaddress
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from penstock.bench.peers.harness import Row, Work
from penstock.connectors.log_frame import arrays_of_body
from penstock.connectors.log_reader import PartitionReader
from penstock.connectors.log_topic import LogTopic

UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
AD_TYPES = ("image", "video", "carousel", "text", "story", "shopping", "collection")
EVENT_TYPES = ("view", "click", "purchase")
TEXTS = ("user_id", "page_id", "ad_id", "ad_type", "event_type", "ip_address")
ORIGIN_US = 946_857_600_000_000
MAX_AHEAD_NS = 3_600 * 10**9
FIELDS = (*TEXTS[:5], "event_time_ns", "window_id", "ip_address", "campaign_id", "produce_time")
EMPTY_RECORD = "{" + ",".join(f'"{name}":""' if name in TEXTS else f'"{name}":' for name in FIELDS) + "}"


class Script:
    """One database per run; within it one statement and one commit."""

    def versions(self) -> Mapping[str, str]:
        return {"duckdb": duckdb.__version__, "pyarrow": pa.__version__}

    def prepare(self, work: Work) -> None:
        """The scratch folder is enough."""

    def run(self, work: Work) -> None:
        records = pa.table({"j": pa.chunked_array(list(_records(work.inputs["log"])), pa.string())})
        with duckdb.connect(f"{work.folder}/results.duckdb") as connection:
            connection.execute(f"SET threads = {work.cores}; SET preserve_insertion_order = false")
            connection.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            connection.register("records", records)
            campaigns = _campaigns(work.inputs["campaigns"])
            connection.register("campaigns", campaigns)
            limit_ns = time.time_ns() + MAX_AHEAD_NS
            try:
                _count(connection, work, limit_ns, guarded=False)
            except duckdb.InvalidInputException:  # a record is not JSON: look before parsing
                _count(connection, work, limit_ns, guarded=True)

    def results(self, work: Work) -> Iterable[Row]:
        with duckdb.connect(f"{work.folder}/results.duckdb", read_only=True) as connection:
            return connection.execute("SELECT * FROM results").fetchall()

    def close(self) -> None:
        """There is nothing to close."""


def open_peer(work: Work) -> Script:
    return Script()


def _records(topic_folder: str) -> Iterator[pa.Array]:
    """The records of all frames, as text over the pages of the segment files."""
    topic = LogTopic.open(topic_folder)
    for partition in range(topic.partitions):
        reader = PartitionReader(topic, partition)
        try:
            for frame in reader.frames(reader.seek(reader.earliest())):
                yield _text(arrays_of_body(frame.header, frame.body)[0])
        finally:
            reader.close()


def _text(values: pa.BinaryArray) -> pa.StringArray:
    text = values.view(pa.string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([_utf8(value) for value in values.to_pylist()], pa.string())
    return text


def _utf8(value: bytes) -> str:
    """What is not UTF-8 is no record at all: JSON that no check lets through."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "null"


def _campaigns(file: str) -> pa.Table:
    rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    return pa.Table.from_pylist(rows, pa.schema([("ad_id", pa.string()), ("campaign_id", pa.int64())]))


def _count(connection: duckdb.DuckDBPyConnection, work: Work, limit_ns: int, *, guarded: bool) -> None:
    window_us = round(work.window_s * 1e6)
    connection.execute("BEGIN")
    try:
        connection.execute(f"CREATE TEMP TABLE counted AS {_statement(window_us, limit_ns, guarded=guarded)}")
        doubtful = connection.execute("SELECT unnest(doubtful) FROM counted").fetchall()
        judged = [row for (record,) in doubtful if (row := _judged(record, limit_ns, window_us)) is not None]
        if judged:
            connection.executemany("INSERT INTO counted VALUES (?, ?, ?, 1, ?, ?, ?, ?, [])", judged)
        connection.execute(RESULTS)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


RESULTS = """
CREATE TABLE results AS
SELECT c.campaign_id, window_start_us, sum(count)::BIGINT AS count, sum(views)::BIGINT AS views,
    sum(clicks)::BIGINT AS clicks, sum(purchases)::BIGINT AS purchases, max(max_produce_time) AS max_produce_time
FROM counted JOIN campaigns c ON c.ad_id = counted.ad_id AND c.campaign_id = counted.campaign_id
WHERE count > 0
GROUP BY ALL
"""


def _statement(window_us: int, limit_ns: int, *, guarded: bool) -> str:
    """Counts per ad, stated campaign and window, and the records that SQL cannot be sure of."""
    types = {name: "VARCHAR" if name in TEXTS else "BIGINT" for name in FIELDS}
    parse = f"from_json(j, '{json.dumps(types)}')"
    parsed = f"CASE WHEN json_valid(j) THEN {parse} END" if guarded else parse
    kinds = ", ".join(f"count(*) FILTER (WHERE ok AND event_type = '{kind}') AS {kind}s" for kind in EVENT_TYPES)
    start = f"{ORIGIN_US} + ((event_time_ns // 1000 - {ORIGIN_US}) // {window_us}) * {window_us}"
    # The verdicts are columns of a select list: in a WHERE the parse would be repeated for each use of a field.
    return f"""
        SELECT ad_id, campaign_id, {start} AS window_start_us, count(*) FILTER (WHERE ok) AS count,
            {kinds}, max(produce_time) FILTER (WHERE ok) AS max_produce_time,
            list(j) FILTER (WHERE NOT proven) AS doubtful
        FROM (SELECT j, s.ad_id, s.campaign_id, s.event_time_ns, s.event_type, s.produce_time, proven,
                  CASE WHEN proven THEN {_checks(limit_ns)} ELSE false END AS ok
              FROM (SELECT j, s, CASE WHEN {_proof()} THEN true ELSE false END AS proven
                    FROM (SELECT j, {parsed} AS s FROM records)))
        GROUP BY ALL
    """


def _proof() -> str:
    """Whether the record is exactly the compact text of the values that the lenient parse gave.

    By length, for the usual sizes of the numbers: no spelling of such a value is shorter than its digits (exponents
    need trailing zeros; a fraction above 2**60 is a multiple of 256), a bare word in place of a text fails the checks
    after it, and whatever else is in a record makes it longer. Otherwise by writing the record again.
    """
    lengths = " + ".join(f"strlen(s.{name})" for name in TEXTS)
    digits = " + ".join(f"CASE WHEN s.{name} < 10 THEN 1 ELSE 2 END" for name in ("window_id", "campaign_id"))
    usual = (
        f"s.event_time_ns BETWEEN {2**60} AND {2**63 - 1} AND s.event_time_ns % 100 <> 0 AND s.event_time_ns % 256 <> 0"
        " AND s.produce_time BETWEEN 1000000000000 AND 9007199254740991 AND s.produce_time % 100 <> 0"
        " AND s.produce_time <= 9999999999999 AND s.window_id BETWEEN 0 AND 99 AND s.campaign_id BETWEEN 0 AND 99"
    )
    parts: list[str] = []
    for name in FIELDS:
        quote = '"' if name in TEXTS else ""
        parts += [f"""'{"," if parts else "{"}"{name}":{quote}'""", f"s.{name}", *([f"'{quote}'"] if quote else [])]
    by_length = f"strlen(j) = {len(EMPTY_RECORD) + 19 + 13} + {lengths} + {digits}"
    return f"CASE WHEN {by_length} AND {usual} THEN true ELSE j = concat({', '.join(parts)}, '}}') END"


def _checks(limit_ns: int) -> str:
    """The rules of the contract; the pattern of ad_id follows from its being in the reference."""
    return f"""s.ad_type IN {AD_TYPES} AND s.event_type IN {EVENT_TYPES} AND s.produce_time > 0
        AND s.event_time_ns BETWEEN 1 AND {limit_ns} AND s.window_id IS NOT NULL
        AND regexp_full_match(concat(s.user_id, ' ', s.page_id, ' ', s.ip_address), '{UUID} {UUID} ({_address()})')"""


def _address() -> str:
    v4 = rf"{OCTET}(\.{OCTET}){{3}}"
    group = "[0-9a-fA-F]{1,4}"
    forms = [rf"({group}:){{7}}{group}", rf"({group}:){{1,7}}:", rf":((:{group}){{1,7}}|:)"]
    forms += [rf"({group}:){{{n}}}(:{group}){{1,{7 - n}}}" for n in range(1, 7)]
    forms += [rf"({group}:){{6}}{v4}", rf"::({group}:){{0,5}}{v4}"]
    forms += [rf"({group}:){{{n}}}(:{group}){{0,{5 - n}}}:{v4}" for n in range(1, 6)]
    return "|".join([v4, *forms])


def _judged(record: str, limit_ns: int, window_us: int) -> tuple[object, ...] | None:
    """A doubtful record as a row of counts, None if it is dead."""
    try:
        value = json.loads(record, object_pairs_hook=_unique, parse_constant=_refused)
        texts = [value[name] for name in TEXTS]
        numbers = [value[name] for name in FIELDS if name not in TEXTS]
        address = ipaddress.ip_address(value["ip_address"]) if isinstance(value["ip_address"], str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if address is None or "%" in value["ip_address"] or not _typed(texts, numbers):
        return None
    event_ns, _, campaign, produced = numbers
    if not all(re.fullmatch(UUID, text) for text in texts[:3]) or texts[3] not in AD_TYPES:
        return None
    if texts[4] not in EVENT_TYPES or not 1 <= event_ns <= limit_ns or produced < 1:
        return None
    start_us = ORIGIN_US + (event_ns // 1000 - ORIGIN_US) // window_us * window_us
    return (texts[2], campaign, start_us, *(int(texts[4] == kind) for kind in EVENT_TYPES), produced)


def _typed(texts: Sequence[object], numbers: Sequence[object]) -> bool:
    return all(isinstance(text, str) for text in texts) and all(
        isinstance(number, int) and not isinstance(number, bool) and -(2**63) <= number < 2**63 for number in numbers
    )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a field occurs twice")
    return dict(pairs)


def _refused(name: str) -> object:
    raise ValueError(name)

"""One backlog of ad events for Penstock and its peers, and what counts as a right answer to it.

All read the same bytes: Penstock and the DuckDB script the segments of the log, the others lines that are exported from
them. A single producer writes, so that every partition is in the order of event times: engines with a watermark drop
what comes late, each by its own rule, and those rules are not what is compared.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from penstock.apps.ads.counts import CellCounts, Counts, differences, total
from penstock.apps.ads.faults import Disturbance
from penstock.apps.ads.fleet import Fleet
from penstock.apps.ads.job import Workplace
from penstock.apps.ads.mapping import create_ad_campaign_mappings, write_mapping
from penstock.apps.ads.producer import Production
from penstock.apps.ads.recount import Recount, recount
from penstock.bench.arrivals import Load
from penstock.bench.peers.environments import Environment
from penstock.bench.peers.harness import Row
from penstock.bench.peers.runner import Contender, Shape
from penstock.connectors.log import LogTopic
from penstock.connectors.log_frame import arrays_of_body
from penstock.connectors.log_reader import PartitionReader
from penstock.errors import DeclarationError, RunError

OWN = "penstock"
WINDOW_S = 10.0
WATERMARK_S = 5.0
PARTITIONS = 2
CORES = 2
EVENTS_PER_S = 100_000.0
# One segment per partition, hence one file of lines: a reader of files takes each in order, but not the next after it.
SEGMENT_BYTES = 1 << 40
PROGRAMS = {
    OWN: "penstock_job.py",
    "spark": "spark_job.py",
    "flink": "flink_job.py",
    "polars": "polars_job.py",
    "duckdb": "duckdb_script.py",
}
PEERS = tuple(name for name in PROGRAMS if name != OWN)
ENVIRONMENTS = {
    "spark": Environment("spark", ("pyspark==4.0.2",), ((3, 11), (3, 12), (3, 13)), java=True, megabytes=430),
    "flink": Environment("flink", ("apache-flink==2.3.0",), ((3, 11),), java=True, megabytes=650),
    "polars": Environment("polars", ("polars==2.1.0",), ((3, 11), (3, 12), (3, 13)), megabytes=50),
}


@dataclass(frozen=True)
class Material:
    """A backlog, the files that peers read, and the independent recount of it."""

    place: Workplace
    inputs: Mapping[str, str]
    counted: Recount

    @property
    def events(self) -> int:
        return self.counted.records

    def check(self, rows: Sequence[Row]) -> str:
        """What is wrong with a peer's rows (`COLUMNS`), compared with the recount; empty when nothing is."""
        cells: CellCounts = {}
        for campaign, start_us, *counts in rows:
            if (campaign, start_us) in cells:
                return f"campaign {campaign} and window {start_us} occur twice"
            cells[campaign, start_us] = Counts(*counts)
        wrong = differences(self.counted.accepted, cells)
        if not wrong:
            return ""
        expected, got = total(self.counted.accepted).count, total(cells).count
        first = wrong[0]
        return (
            f"wrong counts: {expected:,} events expected, {got:,} got; {len(wrong)} cells differ, the first of them"
            f" {first.cell}: {first.expected or 'nothing'} expected, {first.got or 'nothing'} got"
        )


def write_material(place: Workplace, events: int, *, seed: int = 20_000, broken: float = 0.0) -> Material:
    """Write a backlog of `events` events into an empty workplace, export it, and count it independently.

    Raises:
        RunError: PS-BENCH-004, a producer failed. PS-BENCH-001, some events came late.
    """
    mapping = create_ad_campaign_mappings()
    LogTopic.create(place.events, PARTITIONS, segment_bytes=SEGMENT_BYTES)
    LogTopic.create(place.campaigns, 1)
    write_mapping(LogTopic.open(place.campaigns), mapping)
    production = Production(
        topic=place.events,
        ledger=place.ledger,
        producers=1,
        load=Load(EVENTS_PER_S),
        # Arrivals are random: somewhat more time than is needed on average, and a stop at the exact number.
        duration_s=events / EVENTS_PER_S * 1.2 + 1,
        total=events,
        window_s=WINDOW_S,
        seed=seed,
        fsync="none",
        disturbance=Disturbance(broken=broken),
    )
    with Fleet(production, "backlog") as fleet:
        fleet.run()
    lines = place.folder / "lines"
    export(LogTopic.open(place.events), lines)
    campaigns = place.folder / "campaigns.jsonl"
    pairs = ({"ad_id": ad, "campaign_id": campaign} for ad, campaign in mapping.items())
    campaigns.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    counted = recount(place.events, mapping, window_s=WINDOW_S, watermark_s=WATERMARK_S)
    if counted.late:
        raise RunError("PS-BENCH-001", "a backlog for peers has no late events", expected="0", got=str(counted.late))
    inputs = {
        "workplace": str(place.folder.absolute()),
        "log": str(Path(place.events).absolute()),
        "events": str(lines.absolute()),
        "campaigns": str(campaigns.absolute()),
    }
    return Material(place, inputs, counted)


def export(topic: LogTopic, folder: Path) -> None:
    """Write the records of a topic as lines, a file per partition.

    Raises:
        RunError: PS-BENCH-004, a record holds a line break.
    """
    folder.mkdir(parents=True)
    for partition in range(topic.partitions):
        reader = PartitionReader(topic, partition)
        try:
            with (folder / f"part-{partition:05}.json").open("wb") as file:
                for frame in reader.frames(reader.seek(reader.earliest())):
                    values = arrays_of_body(frame.header, frame.body)[0]
                    if pc.any(pc.match_substring(values, "\n")).as_py():
                        raise RunError("PS-BENCH-004", "a record cannot be a line", got="a record with a line break")
                    file.write(_as_lines(values))
        finally:
            reader.close()


def _as_lines(values: pa.BinaryArray) -> pa.Buffer:
    nothing, end = pa.scalar(b"", pa.binary()), pa.scalar(b"\n", pa.binary())
    lines = pc.binary_join_element_wise(values, nothing, end)
    _, _, data = lines.buffers()
    return data


def contenders(peers: Sequence[str]) -> list[Contender]:
    """Penstock and all variants of the named peers.

    Raises:
        DeclarationError: PS-BENCH-003, a peer is unknown.
    """
    for peer in peers:
        if peer not in PEERS:
            raise DeclarationError("PS-BENCH-003", "a peer is unknown", expected=", ".join(PEERS), got=peer)
    folder = Path(__file__).parent
    variants = tomllib.loads((folder / "peers.toml").read_text(encoding="utf-8"))
    return [
        Contender(name, variant, folder / PROGRAMS[name], options, ENVIRONMENTS.get(name))
        for name in (OWN, *(peer for peer in PEERS if peer in peers))
        for variant, options in variants[name].items()
    ]


def shape(repeat: int) -> Shape:
    """What is the same for all: windows, watermark, two cores."""
    return Shape(WINDOW_S, WATERMARK_S, CORES, repeat)

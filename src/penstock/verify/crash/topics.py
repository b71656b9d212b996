"""What both ends of a scenario's topics are asked at the end: all records, and those that a producer was promised."""

from __future__ import annotations

import json
from pathlib import Path

from penstock.connectors.log import LogSource, LogTopic


def records(topic: Path) -> list[bytes]:
    """The values of a topic, partition by partition."""
    source = LogSource(LogTopic.open(topic))
    found: list[bytes] = []
    for partition in source.partitions():
        offset = source.earliest(partition)
        while (batch := source.read(partition, offset, 10_000, 64 << 20)) is not None:
            offset = batch.next_offset
            found += batch.values.to_pylist()
    source.close()
    return found


def broken_promises(folder: Path, topics: tuple[str, ...]) -> list[str]:
    """What a producer's ledger says is durable, and is not in its topic; and topics that none wrote to."""
    promised: dict[tuple[str, int], int] = {}
    for line in (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines():
        name, partition, upto = json.loads(line)
        promised[name, partition] = max(promised.get((name, partition), 0), upto)
    problems = []
    for (name, partition), upto in sorted(promised.items()):
        latest = LogTopic.open(folder / "log" / name).latest(partition)
        if latest < upto:
            problems.append(f"topic {name}, partition {partition}: {upto - latest} durable records are gone")
    if {name for name, _ in promised} != set(topics):
        problems.append(f"the producers wrote to {sorted({name for name, _ in promised})} only")
    return problems

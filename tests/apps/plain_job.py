"""The ads job in plain Python, as somebody else would write it: `penstock bench ads --job "python plain_job.py"`.

Reads the topic of PENSTOCK_EVENTS, writes a row to PENSTOCK_RESULTS whenever a count has changed, and creates the file
PENSTOCK_READY when it reads. For loads without broken and late events. `--lose` and `--double` make it wrong by one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from penstock.apps.ads.counts import window_start_us
from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.durations import parse_duration


def main(fault: str) -> None:
    window_us = round(parse_duration(os.environ["PENSTOCK_WINDOW"]).total_seconds() * 1e6)
    source = LogSource(LogTopic.open(os.environ["PENSTOCK_EVENTS"].removeprefix("log:")))
    writer = LogWriter(LogTopic.open(os.environ["PENSTOCK_RESULTS"].removeprefix("log:")), fsync="none")
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    cells: dict[tuple[int, int], dict[str, int]] = {}
    offsets = {partition: source.earliest(partition) for partition in source.partitions()}
    Path(os.environ["PENSTOCK_READY"]).touch()
    while not stopping:
        changed = set()
        for partition, offset in offsets.items():
            batch = source.read(partition, offset, 10_000, 1 << 20)
            if batch is None:
                continue
            offsets[partition] = batch.next_offset
            for value in batch.values.to_pylist():
                event = json.loads(value)
                cell = (event["campaign_id"], window_start_us(event["event_time_ns"] // 1_000, window_us))
                row = cells.setdefault(cell, {"view": 0, "click": 0, "purchase": 0, "newest": 0})
                row[event["event_type"]] += {"--lose": 0, "--double": 2}.get(fault, 1)
                fault = ""
                row["newest"] = max(row["newest"], event["produce_time"])
                changed.add(cell)
        if changed:
            writer.append(0, [json.dumps(result(cell, cells[cell], window_us)).encode() for cell in sorted(changed)])
        else:
            source.wait(0.01)
    writer.close()


def result(cell: tuple[int, int], row: dict[str, int], window_us: int) -> dict[str, object]:
    return {
        "campaign_id": cell[0],
        "window_start": datetime.fromtimestamp(cell[1] / 1e6, UTC).isoformat(),
        "window_end": datetime.fromtimestamp((cell[1] + window_us) / 1e6, UTC).isoformat(),
        "count": row["view"] + row["click"] + row["purchase"],
        "views": row["view"],
        "clicks": row["click"],
        "purchases": row["purchase"],
        "click_through_rate": row["click"] / row["view"] if row["view"] else None,
        "max_produce_time": row["newest"],
    }


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")

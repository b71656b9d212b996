"""How long a page of a table of 100,000 rows takes on the live page, while the job commits.

`python scripts/bench_page.py [PAGES]` prints P50, P95 and the longest, in ms, from the request to the last byte.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from penstock.connectors.log import LogTopic, LogWriter

PIPELINE = """
CREATE TABLE accounts (id BIGINT PRIMARY KEY, name VARCHAR NOT NULL, amount DECIMAL(18,2) NOT NULL, at TIMESTAMP);
CREATE VIEW totals AS
    SELECT id, name, sum(amount) AS total, count(*) AS n, max(at) AS last FROM accounts GROUP BY id, name;
"""
ROWS = 100_000
ASKED = (
    "",
    "sort=total&descending=true",
    "sort=name",
    "sort=last&offset=99800",
    "offset=50000",
    "search=99",
    "search=name+12",
)


def record(draw: random.Random, number: int) -> bytes:
    """One account."""
    row = {"id": number, "name": f"name {draw.randrange(10**6)}", "amount": f"{draw.randrange(10**7) / 100:.2f}"}
    return json.dumps(row | {"at": "2026-01-01T00:00:00"}).encode()


def main(pages: int) -> None:
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "totals.sql").write_text(PIPELINE)
        topic = LogTopic.create(Path(folder, ".penstock/log/accounts"), 1)
        command = [sys.executable, "-m", "penstock.cli.main", "run", "totals.sql", "--ui", "--ui-port", "0"]
        with LogWriter(topic, "commit") as writer:
            writer.append(0, [record(draw, n) for n in range(ROWS)])
            with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as job:
                try:
                    assert job.stderr is not None
                    url = next(m[1] for line in job.stderr if (m := re.search(r"page at (http://\S+)", line)))
                    measure(url, writer, draw, pages)
                finally:
                    job.terminate()


def measure(url: str, writer: LogWriter, draw: random.Random, pages: int) -> None:
    while page(url, "")[1] < ROWS:
        time.sleep(0.2)
    found = []
    for number in range(pages):
        # The job is at work: an epoch of ten rows for each page.
        writer.append(0, [record(draw, draw.randrange(ROWS)) for _ in range(10)])
        found.append(page(url, ASKED[number % len(ASKED)])[0] * 1000)
        time.sleep(0.05)
    found.sort()
    print(f"P50 {found[pages // 2]:.1f}  P95 {found[pages * 95 // 100]:.1f}  longest {found[-1]:.1f} ms, {pages} pages")


def page(url: str, asked: str) -> tuple[float, int]:
    """The seconds that a page of 200 rows took, and the rows that the view has."""
    started = time.perf_counter()
    with urllib.request.urlopen(f"{url}api/table/totals?limit=200&{asked}") as reply:
        body = reply.read()
    return time.perf_counter() - started, int(json.loads(body)["total"])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 140)

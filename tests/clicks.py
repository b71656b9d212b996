"""The clicks pipeline that verify, the simulation and bench are tried on, as a user would have it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

CONTRACTS = """
from datetime import datetime
import penstock as ps

class Click(ps.Contract):
    user_id: int = ps.Field(ge=0)
    at: datetime

class User(ps.Contract):
    id: int
    city: str | None = None

pipeline = ps.Pipeline("clicks")
pipeline.stream("clicks", Click, event_time="at", watermark="5 seconds", state="unbounded")
pipeline.table("users", User, key="id")
"""
PER_MINUTE = """
pipeline.view(
    "per_minute",
    "SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n, sum(user_id * 0.1::DOUBLE) AS s "
    "FROM clicks GROUP BY ALL",
    emit="final",
)
"""
PER_CITY = """
pipeline.view(
    "per_city",
    "SELECT city, count(*) AS n FROM clicks LEFT JOIN users ON users.id = user_id GROUP BY city",
    state="unbounded",
)
"""


def write_records(
    folder: Path,
    clicks: int,
    users: int,
    *,
    names: tuple[str, str] = ("user_id", "id"),
    most: int = 9,
    whole_seconds: bool = False,
) -> list[str]:
    """clicks.jsonl with broken and late ones, and users.jsonl with deletes; the lines of the first.

    names: of the user's field in both. most: users. whole_seconds: so that rows of one key come at one moment.
    """
    draw = random.Random(7)
    found, second = [], 0.0
    for _ in range(clicks):
        second += draw.random() * 2
        late = draw.choice((0, 0, 0, 8, 90)) if draw.random() < 0.3 else 0
        at = float(int(max(second - late, 0))) if whole_seconds else max(second - late, 0)
        stamp = f"2026-01-01T{int(at // 3600):02d}:{int(at // 60 % 60):02d}:{at % 60:09.6f}"
        found.append(json.dumps({names[0]: draw.randrange(-1, most), "at": stamp}) + "\n")
    table = [
        json.dumps(
            {names[1]: draw.randrange(most), "city": draw.choice(("Rome", "Oslo", None))}
            | ({"_op": "-D"} if draw.random() < 0.2 else {})
        )
        + "\n"
        for _ in range(users)
    ]
    (folder / "clicks.jsonl").write_text("".join(found))
    (folder / "users.jsonl").write_text("".join(table))
    return found


def penstock(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def verify(folder: Path, sources: tuple[str, ...], *options: str) -> subprocess.CompletedProcess[str]:
    """`penstock verify p.py` over the files of the sources."""
    inputs = [part for name in sources for part in ("--input", f"{name}=file:{name}.jsonl")]
    return penstock(folder, "verify", "p.py", *inputs, "--seed", "3", *options)

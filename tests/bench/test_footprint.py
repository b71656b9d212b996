"""What a job takes: seen from outside, and judged by a rule that is stated."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock.bench.footprint import MEMORY, Footprint, Sampler, memory_mb, size_mb


def of(values: list[float]) -> Footprint:
    return Footprint(1.0, {MEMORY: tuple(values)})


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([400.0] * 120, "flat"),
        ([float(n) for n in range(100, 400, 10)] + [400.0] * 60, "flat"),  # warms up in the first third
        ([400.0, 460.0] * 60, "flat"),  # goes up and down
        ([400.0] * 80 + [419.0] * 40, "flat"),  # within 5%
        ([400.0] * 80 + [421.0] * 40, "grows"),
        ([100.0] * 80 + [115.0] * 40, "flat"),  # within 16 MB
        ([100.0] * 80 + [117.0] * 40, "grows"),
        ([300.0 + n for n in range(120)], "grows"),
        ([300.0 - n for n in range(120)], "flat"),
        ([400.0] * 59, "too short to tell"),
    ],
)
def test_flat_is_what_the_rule_says(values: list[float], verdict: str) -> None:
    assert of(values).verdict(MEMORY) == verdict


def test_the_slope_is_per_minute_and_leaves_the_warm_up_out() -> None:
    assert of([0.0] * 60 + [100.0 + n / 2 for n in range(120)]).slope(MEMORY) == pytest.approx(30.0)
    assert of([5.0]).slope(MEMORY) == 0.0


def test_table_and_charts_say_the_same() -> None:
    found = Footprint(1.0, {MEMORY: (1.0, 3.0, 2.0), "state": (0.5, 0.5, 0.7)})
    assert found.table().rows == (
        (MEMORY, 1.0, 2.0, 3.0, 2.0, pytest.approx(-60.0), "too short to tell"),
        ("state", 0.5, 0.5, 0.7, 0.7, pytest.approx(12.0), "too short to tell"),
    )
    memory, disk = found.series()
    assert [line.name for line in (*memory.lines, *disk.lines)] == [MEMORY, "state"]
    assert Footprint().series() == ()


def test_memory_that_a_process_takes_and_bytes_that_it_writes_are_seen(tmp_path: Path) -> None:
    program = (
        "import sys, time; time.sleep(0.5); held = bytearray(b'x' * 80_000_000); "
        "open(sys.argv[1], 'wb').write(held[:5_000_000]); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "file")])
    try:
        with Sampler(process.pid, {"disk": tmp_path}, every_s=0.05) as sampler:
            deadline = time.monotonic() + 30
            while size_mb(tmp_path) < 5.0 and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    memory, disk = sampler.footprint.lines_mb[MEMORY], sampler.footprint.lines_mb["disk"]
    assert len(memory) == len(disk)
    assert max(memory) - memory[0] > 70.0
    assert (disk[0], disk[-1]) == (0.0, 5.0)
    assert memory_mb(process.pid) is None

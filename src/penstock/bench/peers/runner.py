"""Runs peers one after the other over the same inputs, watches their processes, and lets no wrong count through.

Every variant of a peer gets a process of its own. Its first run is cold: it counts from the start of the process to the
first committed result. The best of the later runs is warm. Each run's result is checked; a peer with one wrong result
has no figures at all.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penstock.bench.peers import harness
from penstock.bench.peers.environments import Environment
from penstock.bench.peers.harness import Row, Work
from penstock.errors import RunError

SAMPLE_S = 0.2
Check = Callable[[Sequence[Row]], str]
"""What is wrong with a result; empty when it is right."""


@dataclass(frozen=True)
class Contender:
    """One variant of one peer. program: a file with `open_peer`. environment: None for Penstock's own."""

    name: str
    variant: str
    program: Path
    options: Mapping[str, str]
    environment: Environment | None = None


@dataclass(frozen=True)
class Figures:
    """What one variant took over `events` events. memory_mb, cpu_s: None where the system does not tell."""

    cold_s: float
    warm_s: float
    warm_cpu_s: float | None
    memory_mb: float | None


@dataclass(frozen=True)
class Outcome:
    """How one variant did. figures: None unless every result was right; `wrong` says why not."""

    name: str
    variant: str
    figures: Figures | None
    wrong: str = ""
    runs_s: tuple[float, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Shape:
    """What is the same for all peers. repeat: warm runs."""

    window_s: float
    watermark_s: float
    cores: int
    repeat: int


def measure(contender: Contender, inputs: Mapping[str, str], folder: Path, shape: Shape, check: Check) -> Outcome:
    """Run one variant `shape.repeat` times warm after one cold run.

    Raises:
        RunError: PS-BENCH-004, the process could not be started. A peer that fails by itself is an outcome.
    """
    folder.mkdir(parents=True)
    work = Work(inputs, str(folder), shape.window_s, shape.watermark_s, shape.cores, contender.options)
    order, report, log = folder / "order.json", folder / "report.jsonl", folder / "output.log"
    given = {"program": str(contender.program), "report": str(report), "runs": 1 + shape.repeat, "work": asdict(work)}
    order.write_text(json.dumps(given), encoding="utf-8")
    python = str(contender.environment.python) if contender.environment else sys.executable
    began = time.monotonic()
    # The interpreter of another environment must not find the packages of this one.
    hidden = ("PYTHONPATH", "PYTHONHOME") if contender.environment else ()
    code, memory_mb = _process([python, str(Path(harness.__file__)), str(order)], log, hidden)
    lines = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()] if report.exists() else []
    runs = [line for line in lines if "seconds" in line]
    versions: dict[str, str] = next((line["versions"] for line in lines if "versions" in line), {})
    wrong = next(filter(None, (check([tuple(row) for row in run["rows"]]) for run in runs)), "")
    if len(runs) <= shape.repeat or not versions:
        wrong = wrong or f"exit code {code}: {_last_line(log)} (all of it in {log})"
    figures = None
    if not wrong:
        warm = min(runs[1:], key=lambda run: float(run["seconds"]))
        cold_s = runs[0]["ended_monotonic_s"] - began
        figures = Figures(cold_s, warm["seconds"], warm["cpu_s"], memory_mb)
    seconds = tuple(run["seconds"] for run in runs)
    return Outcome(contender.name, contender.variant, figures, wrong, seconds, versions, contender.options)


def _process(command: Sequence[str], log: Path, hidden: Sequence[str]) -> tuple[int, float | None]:
    """Run a process group to its end; its exit code, and the peak of its memory."""
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
    except OSError as problem:
        raise RunError(
            "PS-BENCH-004", "a peer could not be started", expected=" ".join(command), got=str(problem)
        ) from problem
    memory = _Memory(process.pid)
    memory.start()
    try:
        return process.wait(), memory.stop()
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Nothing that a peer has started stays behind, whatever became of it."""
    with contextlib.suppress(ProcessLookupError):  # all of them may have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Memory(threading.Thread):
    """Looks at the memory of a process tree several times a second.

    Files that are mapped are not counted: they are the system's page cache, which it takes back when it needs to.
    """

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._ended = threading.Event()
        self._peak_bytes = 0

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            tree = harness.process_tree(self._process)
            self._peak_bytes = max(self._peak_bytes, sum(map(_own_bytes, tree)))

    def stop(self) -> float | None:
        """The peak in MB, None where the system does not tell."""
        self._ended.set()
        self.join()
        return self._peak_bytes / 1e6 or None


def _own_bytes(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return sum(int(fields.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssShmem")) * 1_024


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return " / ".join(line.strip() for line in lines[-2:]) if lines else "no output"

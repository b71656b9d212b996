"""Runs one peer's program and writes down what each of its runs took.

This file is run as a script by the interpreter of the peer's own environment: the standard library is all it may use.
A run counts from the call to the committed result; preparing before it and reading the results after it do not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

PARENT_CHECK_S = 1.0
Row = tuple[int, ...]
"""One row of a result, in the order that the caller of the peers knows; all of them integers."""


@dataclass(frozen=True)
class Work:
    """What a peer is to do.

    inputs: files and folders by name. folder: the run's own scratch folder, which does not exist yet. window_s,
    watermark_s: seconds. cores: how many threads it may use. options: the peer's configuration.
    """

    inputs: Mapping[str, str]
    folder: str
    window_s: float
    watermark_s: float
    cores: int
    options: Mapping[str, str]


class Peer(Protocol):
    """What the function `open_peer(work)` of a peer's program returns: an engine that has been started."""

    def versions(self) -> Mapping[str, str]:
        """What is compared, by name."""
        ...

    def prepare(self, work: Work) -> None:
        """Make what a run needs beside its scratch folder; not timed."""
        ...

    def run(self, work: Work) -> None:
        """From the inputs to a committed result in `work.folder`; timed."""
        ...

    def results(self, work: Work) -> Iterable[Row]:
        """The committed result, read again; not timed."""
        ...

    def close(self) -> None: ...


def main(order: str) -> None:
    """Do what the JSON file `order` says; a line of JSON per run goes to its `report`."""
    given = json.loads(Path(order).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    work = Work(**given["work"])
    if hasattr(os, "sched_setaffinity"):  # of Linux: no engine finds more cores than another
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work.cores])
    report = Path(given["report"])
    with report.open("a", encoding="utf-8") as lines:
        peer = _load(Path(given["program"])).open_peer(work)
        try:
            for number in range(given["runs"]):
                taken = _measured(peer, replace(work, folder=f"{work.folder}/run-{number}"))
                lines.write(json.dumps(taken) + "\n")
                lines.flush()
            lines.write(json.dumps({"versions": dict(peer.versions())}) + "\n")
        finally:
            peer.close()


def _measured(peer: Peer, work: Work) -> dict[str, object]:
    Path(work.folder).mkdir(parents=True)
    peer.prepare(work)
    cpu_before, began = _cpu_seconds(), time.monotonic()
    peer.run(work)
    ended, cpu_after = time.monotonic(), _cpu_seconds()
    cpu_s = None if cpu_before is None or cpu_after is None else cpu_after - cpu_before
    # The monotonic clock is the system's, so that the runner can tell how long ago it started this process.
    return {
        "seconds": ended - began,
        "ended_monotonic_s": ended,
        "cpu_s": cpu_s,
        "rows": [list(row) for row in peer.results(work)],
    }


def _load(program: Path):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(program.stem, program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[program.stem] = module
    spec.loader.exec_module(module)
    return module


def process_tree(root: int) -> list[int]:
    """A process and all its descendants by /proc; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += children.get(process, [])
    return found if children else []


def _cpu_seconds() -> float | None:
    """User and system time of this process and its descendants, the ended ones too; None where there is no /proc."""
    tree = process_tree(os.getpid())
    ticks = sum(sum(int(field) for field in fields[11:15]) for fields in map(_stat, tree) if fields)
    return ticks / os.sysconf("SC_CLK_TCK") if tree else None


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when the process has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _end_with_parent(parent: int) -> None:
    """A Java process outlives its Python; nothing may outlive whoever asked for the run."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1])

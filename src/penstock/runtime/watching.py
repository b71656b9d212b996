"""What a run is asked to do, and what others see of it: options, the snapshot, observers and the control channel."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from penstock.engines.base import EpochResult

if TYPE_CHECKING:
    from penstock.runtime.runner import Runner


class Until(Enum):
    """When a run ends by itself."""

    STOPPED = "stopped"
    DRAINED = "drained"
    IDLE = "idle"


@dataclass(frozen=True)
class RunOptions:
    """How long to run, and how large an epoch may be.

    flush: close windows at the end (T4). for_s: stop after so many seconds. max_rows, max_bytes: of one epoch.
    journal: replay exactly these epochs, then stop. accept_changes: a changed pipeline may delete state and read its
    sources again.
    """

    until: Until = Until.STOPPED
    flush: bool = True
    for_s: float | None = None
    max_rows: int = 250_000
    max_bytes: int = 256 << 20
    journal: Path | None = None
    threads: int | None = None
    memory_limit: str | None = None
    accept_changes: bool = False


@dataclass
class Snapshot:
    """What a person wants to see of a running job."""

    epoch: int = -1
    rows: int = 0
    rows_per_s: float = 0.0
    epoch_s: float = 0.0
    lag: int = 0
    watermark_us: int | None = None
    dead: int = 0
    late: int = 0
    waiting: int = 0
    started_at: float = field(default_factory=time.time)
    alerts: list[str] = field(default_factory=list)


class Observer(Protocol):
    """Who is told of every epoch (metrics, logs, the live line). Called in the loop's thread: be quick."""

    def started(self, runner: Runner) -> None: ...

    def epoch(self, runner: Runner, result: EpochResult) -> None: ...

    def alert(self, runner: Runner, message: str) -> None: ...

    def stopped(self, runner: Runner, error: BaseException | None) -> None: ...


class Control(Protocol):
    """Requests of other processes, served between epochs."""

    def serve(self, runner: Runner) -> bool:
        """Do what was asked for since the last call; whether anything was."""
        ...

    def close(self) -> None: ...

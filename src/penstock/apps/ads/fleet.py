"""The producer processes of one load: started together, told when to begin, watched until they end.

Every process says that it is ready before any of them begins, so that no schedule starts while another process still
imports. A process whose parent is gone ends.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Literal, Self

from penstock.apps.ads.ledger import Ledger
from penstock.apps.ads.priority import step_forward
from penstock.apps.ads.producer import Production, Progress, produce, write_backlog
from penstock.bench.leash import follow_parent
from penstock.errors import Error, RunError

Pace = Literal["paced", "backlog"]
Message = Literal["ready"] | Progress | Ledger | str

# What a producer needs to make its tables and its first blocks, with other processes beside it.
START_DELAY_NS = 1_000_000_000
READY_WITHIN_S = 60.0
# How long a thread that renders or counts may keep the one that sends waiting.
SWITCH_S = 0.000_2


class Fleet:
    """All producers of a production, a process each. Use it as a context: leaving it ends what still runs.

    Args:
        pace: `paced` sends each event when it is due; `backlog` sends as fast as it can, with event times that end
            about now.
    """

    def __init__(self, production: Production, pace: Pace = "paced") -> None:
        context = get_context("spawn")
        self.production = production
        self.pace: Pace = pace
        self.progress: dict[int, Progress] = {}
        self.ledgers: dict[int, Ledger] = {}
        self.base_ns = 0
        self._links: dict[int, Connection] = {}
        self._processes: list[SpawnProcess] = []
        for index in range(production.producers):
            here, there = context.Pipe()
            process = context.Process(target=_main, args=(production, index, pace, there), daemon=True)
            process.start()
            there.close()
            self._links[index] = here
            self._processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            if process.is_alive():
                process.terminate()
        for process in self._processes:
            process.join()

    @property
    def process_ids(self) -> list[int]:
        return [process.pid or 0 for process in self._processes]

    @property
    def sent(self) -> int:
        return sum(progress.sent for progress in self.progress.values())

    @property
    def running(self) -> bool:
        return bool(self._links)

    def begin(self, base_ns: int | None = None) -> int:
        """Wait until all processes are ready, then start them; the base event time in ns since 1970.

        Raises:
            RunError: PS-BENCH-004, a process ended or was not ready within a minute.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        for index, link in self._links.items():
            if not link.poll(max(0.0, deadline - time.monotonic())) or self._receive(index) != "ready":
                raise _failed(index, "it did not become ready")
        if base_ns is None:
            back_ns = round(self.production.duration_s * 1e9) if self.pace == "backlog" else -START_DELAY_NS
            base_ns = time.time_ns() - back_ns
        self.base_ns = base_ns
        for link in self._links.values():
            link.send(base_ns)
        return base_ns

    def poll(self, timeout_s: float) -> bool:
        """Take in what the processes say within `timeout_s`; whether some still run.

        Raises:
            RunError: PS-BENCH-004, a process failed or was killed.
        """
        indexes = {id(link): index for index, link in self._links.items()}
        for ready in wait(list(self._links.values()), timeout_s):
            index = indexes[id(ready)]
            match self._receive(index):
                case Progress() as progress:
                    self.progress[index] = progress
                case Ledger() as ledger:
                    self.ledgers[index] = ledger
                    self._links.pop(index).close()
                case str() as message:
                    raise _failed(index, message)
        return self.running

    def run(self, watch: Callable[[Fleet], None] = lambda fleet: None, base_ns: int | None = None) -> list[Ledger]:
        """Begin, wait for the end, and return the ledgers by producer; `watch` is called a few times a second."""
        self.begin(base_ns)
        while self.poll(0.1):
            watch(self)
        watch(self)
        return [self.ledgers[index] for index in sorted(self.ledgers)]

    def _receive(self, index: int) -> Message:
        try:
            message: Message = self._links[index].recv()
            return message
        except EOFError:
            self._processes[index].join()
            return f"it ended with exit code {self._processes[index].exitcode}"


def _main(production: Production, index: int, pace: Pace, link: Connection) -> None:
    follow_parent()
    # Ctrl-C reaches the whole terminal group; the parent decides when producers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    step_forward()
    sys.setswitchinterval(SWITCH_S)
    try:
        link.send("ready")
        base_ns: int = link.recv()
        send = produce if pace == "paced" else write_backlog
        link.send(send(production, index, base_ns, link.send))
    except (BrokenPipeError, EOFError):
        raise SystemExit(1) from None
    except (Error, OSError) as error:
        link.send(str(error))
        raise SystemExit(1) from None


def _failed(index: int, message: str) -> RunError:
    return RunError("PS-BENCH-004", f"producer {index} failed", expected="a producer that ends by itself", got=message)

"""The ads job as a process of its own, and the topics it is bound to.

The job only sees its topics: any program that reads them and writes results could stand in its place.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from penstock.apps.ads.mapping import write_mapping
from penstock.bench.leash import Leash
from penstock.connectors.log import LogTopic
from penstock.durations import format_duration, parse_duration
from penstock.errors import DeclarationError, RunError

STOPPED = (0, 143, -signal.SIGTERM)
STOP_WITHIN_S = 60.0
TAIL_LINES = 15


@dataclass(frozen=True)
class Workplace:
    """The folders of one run: topics, ledgers, the job's state and its log.

    inputs: the workplace whose events and campaigns are read, None for its own.
    """

    folder: Path
    inputs: Path | None = None

    @property
    def events(self) -> str:
        return str((self.inputs or self.folder) / "log" / "events")

    @property
    def campaigns(self) -> str:
        return str((self.inputs or self.folder) / "log" / "campaigns")

    @property
    def results(self) -> str:
        return str(self.folder / "log" / "results")

    @property
    def ledger(self) -> str:
        return str(self.folder / "ledger")

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def profile(self) -> Path:
        return self.folder / "profile.json"

    @property
    def job_log(self) -> Path:
        return self.folder / "job.log"

    def job_is_ready(self) -> bool:
        """Whether the shipped job has begun to read: imports, planning and opening its state lie behind it then."""
        return self.job_log.exists() and "loop started" in self.job_log.read_text(errors="replace")

    def prepare(self, mapping: dict[str, int], partitions: int, retention: timedelta | None = None) -> None:
        """Make the topics anew, and the campaigns complete, before anything reads them. retention: of the results."""
        LogTopic.create(self.events, partitions)
        LogTopic.create(self.campaigns, 1)
        LogTopic.create(self.results, 1, retention=retention)
        write_mapping(LogTopic.open(self.campaigns), mapping)


def job_bindings(place: Workplace) -> list[str]:
    """What the job's sources and its sink are bound to, as `--bind` takes it."""
    folders = {"events": place.events, "campaigns": place.campaigns, "sink:results": place.results}
    return [f"{name}=log:{folder}" for name, folder in folders.items()]


def job_values(window_s: float, watermark_s: float) -> dict[str, str]:
    """The parameters of the job, as `--set` takes them."""
    return {
        name: format_duration(parse_duration(f"{seconds}s"))
        for name, seconds in (("window", window_s), ("watermark", watermark_s))
    }


def job_command(
    place: Workplace, *, window_s: float, watermark_s: float, pipeline: str = "ads", options: Sequence[str] = ()
) -> list[str]:
    """The command line that runs the shipped job over a workplace."""
    values = job_values(window_s, watermark_s)
    return [
        *(sys.executable, "-m", "penstock", "run", pipeline, "--state", str(place.state)),
        *(part for bind in job_bindings(place) for part in ("--bind", bind)),
        *(part for name, value in values.items() for part in ("--set", f"{name}={value}")),
        *options,
    ]


@dataclass(frozen=True)
class JobPlan:
    """How a job is started, how one sees that it reads, and how what is left is drained after it was stopped.

    environment: added to this process's own. drain: a second command that ends by itself (None: the job flushes what it
    holds when it is told to stop). is_ready: whether it reads, as far as can be seen from outside.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    drain: tuple[str, ...] | None = None
    is_ready: Callable[[], bool] = lambda: True

    def start(self) -> JobProcess:
        return JobProcess(self.command, self.log, self.environment)


def shipped_job(
    place: Workplace, *, window_s: float, watermark_s: float, pipeline: str = "ads", options: Sequence[str] = ()
) -> JobPlan:
    """Penstock's own job over a workplace. options: of the run that the load meets, not of the drain after it."""
    runs = [
        job_command(place, window_s=window_s, watermark_s=watermark_s, pipeline=pipeline, options=given)
        for given in (options, ("--once",))
    ]
    return JobPlan("penstock run ads", tuple(runs[0]), place.job_log, {}, tuple(runs[1]), place.job_is_ready)


def other_job(
    place: Workplace, text: str, *, window_s: float, watermark_s: float, ready_line: str | None = None
) -> JobPlan:
    """Any program that reads the topic `events` and writes `results`; no shell is involved.

    Words of `text` may hold {events}, {campaigns}, {results} (URLs), {window}, {watermark} (durations), {state} (a
    folder of its own) and {ready} (a file to create when it reads); the same are in the environment as PENSTOCK_EVENTS
    and so on. ready_line: a pattern that a line of its output matches when it reads; without it the file is waited for.

    Raises:
        DeclarationError: PS-BENCH-003, the command cannot be split into words, or the pattern is wrong.
    """
    folder = Workplace(place.folder.resolve(), place.inputs)
    values = {
        "events": f"log:{folder.events}",
        "campaigns": f"log:{folder.campaigns}",
        "results": f"log:{folder.results}",
        **job_values(window_s, watermark_s),
        "state": str(folder.state),
        "ready": str(folder.folder / "ready"),
    }
    try:
        words = shlex.split(text)
        pattern = re.compile(ready_line) if ready_line is not None else None
    except (ValueError, re.error) as problem:
        raise _wrong_job(text, str(problem)) from None
    if not words or shutil.which(words[0]) is None:
        raise _wrong_job(text, f"no program {words[0]}" if words else "no words")
    known = re.compile(r"\{(" + "|".join(values) + r")\}")
    command = tuple(known.sub(lambda found: values[found[1]], word) for word in words)
    environment = {f"PENSTOCK_{name.upper()}": value for name, value in values.items()}

    def is_ready() -> bool:
        if pattern is None:
            return Path(values["ready"]).exists()
        return place.job_log.exists() and pattern.search(place.job_log.read_text(errors="replace")) is not None

    return JobPlan(words[0], command, place.job_log, environment, None, is_ready)


def _wrong_job(text: str, problem: str) -> DeclarationError:
    return DeclarationError(
        "PS-BENCH-003",
        "the job cannot be started",
        expected="a program and its arguments, split as a shell would, but without a shell",
        got=f"{text!r}: {problem}",
    )


class JobProcess:
    """A running job, in a process group of its own, which ends with this process; its output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._leash = Leash(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise RunError PS-BENCH-004 if the job has ended by itself."""
        if self._process.poll() is not None:
            raise self._failed("a job that runs until it is told to stop")

    def wait_until(self, ready: Callable[[], bool], within_s: float) -> None:
        """Return when `ready` is true.

        Raises:
            RunError: PS-BENCH-004, the job ended, or it is not ready in time.
        """
        deadline = time.monotonic() + within_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise self._failed(f"a job that is ready within {within_s:g} s")
            time.sleep(0.02)

    def wait(self) -> None:
        """Wait until the job ends by itself. Raises RunError PS-BENCH-004 unless its exit code is 0."""
        code = self._process.wait()
        self._leash.let_go()
        if code != 0:
            raise self._failed("exit code 0")

    def stop(self) -> None:
        """Ask the job to stop, and wait until it has. Raises RunError PS-BENCH-004 if it does not stop cleanly."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            code = self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise self._failed(f"a job that stops within {STOP_WITHIN_S:g} s") from None
        self._leash.let_go()
        if code not in STOPPED:
            raise self._failed("exit code 0 or 143")

    def kill(self) -> None:
        """End the job and all its processes at once; what it made durable stays."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._leash.let_go()

    def _failed(self, expected: str) -> RunError:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        code = self._process.poll()
        state = "still running" if code is None else f"exit code {code}"
        return RunError(
            "PS-BENCH-004",
            "the job failed",
            expected=expected,
            got="\n".join([state, *lines]),
            hint=f"its whole output is in {self.log}",
        )

"""What goes wrong outside of the program is a clear error, and nothing is lost: the next start goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from penstock.connectors import log_writer
from penstock.connectors.log import LogTopic, LogWriter
from penstock.storage import failpoints

pytestmark = pytest.mark.slow

PIPELINE = """
import penstock as ps

class Event(ps.Contract):
    kind: str
    n: int

pipeline = ps.Pipeline("events")
pipeline.stream("events", Event, state="unbounded")
pipeline.view("per_kind", "SELECT kind, count(*) AS n, sum(n) AS total FROM events GROUP BY kind", state="unbounded")
pipeline.sink("per_kind", view="per_kind")
"""


class Place:
    """A pipeline with a topic, a state and a sink file of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.sink = folder / "out" / "per_kind.jsonl"
        self.topic = LogTopic.create(folder / "events")
        self.sent: Counter[str] = Counter()
        (folder / "p.py").write_text(PIPELINE)

    def send(self, rows: int) -> None:
        kinds = [("a", "b", "c")[n % 3] for n in range(rows)]
        with LogWriter(self.topic, fsync="commit") as writer:
            writer.append(0, [json.dumps({"kind": kind, "n": 1}).encode() for kind in kinds])
        self.sent.update(kinds)

    def command(self, *options: str) -> list[str]:
        binds = ("--bind", f"events=log:{self.topic.path}", "--bind", f"sink:per_kind=file:{self.sink}")
        run = (sys.executable, "-m", "penstock", "run", str(self.folder / "p.py"))
        return [*run, *binds, "--state", str(self.state), "--quiet", *options]

    def run(self, *options: str, armed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*(options or ("--once",))),
            env=os.environ | {failpoints.ARM_VARIABLE: armed},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            start_new_session=True,
        )

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def counted(self) -> Counter[str]:
        """What the sink's file folds to; every retraction must take away what is there."""
        rows: dict[str, int] = {}
        for line in self.sink.read_text().splitlines() if self.sink.exists() else []:
            change = json.loads(line)
            if change["_op"] in ("-U", "-D"):
                assert rows.pop(change["kind"]) == change["n"]
            else:
                assert change["kind"] not in rows
                rows[change["kind"]] = change["n"]
        return Counter(rows)

    def goes_on(self) -> None:
        """The next start is clean and counts everything once."""
        self.send(30)
        done = self.run()
        assert done.returncode == 0, done.stderr
        assert self.counted() == self.sent

    def wait_for(self, rows: int) -> None:
        deadline = time.monotonic() + 60
        while sum(self.counted().values()) < rows:
            assert time.monotonic() < deadline, "the job delivers nothing"
            time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.send(90)
    return found


def refused(done: subprocess.CompletedProcess[str], code: str, exit_code: int = 1) -> None:
    assert done.returncode == exit_code, done.stderr
    assert f"{code}: " in done.stderr
    assert "Traceback" not in done.stderr


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hit", [1, 2])
def test_a_mark_that_cannot_be_written(place: Place, hit: int) -> None:
    refused(place.run("--once", "--max-epoch-rows", "30", armed=f"mark.before@{hit}=error"), "PS-STATE-005")
    place.goes_on()


SINK_POINTS = ("file_sink.write", "file_sink.sync", "file_sink.mark", "file.write", "file.rename")


@pytest.mark.parametrize("point", SINK_POINTS)
def test_a_sink_that_fails_once_is_tried_again(place: Place, point: str) -> None:
    done = place.run("--once", "--max-epoch-rows", "30", armed=f"{point}@2=error")
    assert done.returncode == 0, done.stderr
    place.goes_on()


def test_a_sink_that_goes_on_failing_stops_the_job(place: Place) -> None:
    always = ",".join(f"file_sink.sync@{n}=error" for n in range(2, 40))
    refused(place.run("--once", "--max-epoch-rows", "30", armed=always), "PS-CONN-003")
    place.goes_on()


def mount(folder: Path, options: str) -> None:
    """A file system of its own in `folder`, or the test is skipped."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system is not allowed here; the fail points stand in for it")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    mount(folder, "size=24m")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "fixed"
    if os.geteuid() != 0:
        folder.mkdir(mode=0o555)
        yield folder
        return
    mount(folder, "ro")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while file.write(b"\0" * 512):
            continue


@pytest.mark.parametrize("full", ["state", "out"])
def test_a_disk_that_is_really_full(place: Place, small_disk: Path, full: str) -> None:
    assert place.run().returncode == 0
    folder = place.state if full == "state" else place.sink.parent
    shutil.move(folder, small_disk / full)
    folder.symlink_to(small_disk / full)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        fill(ballast)
    place.send(3_000)
    done = place.run("--once", "--max-epoch-rows", "100")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert any(code in done.stderr for code in ("PS-STATE-005: ", "PS-CONN-003: ")), done.stderr
    ballast.unlink()
    place.goes_on()


def test_a_state_folder_that_may_not_be_written(place: Place, read_only: Path) -> None:
    right, place.state = place.state, read_only / "state"
    refused(place.run(), "PS-STATE-005")
    place.state = right
    place.goes_on()


def test_a_sink_folder_that_may_not_be_written(place: Place, read_only: Path) -> None:
    right, place.sink = place.sink, read_only / "per_kind.jsonl"
    refused(place.run(), "PS-CONN-003")
    place.sink = right
    place.goes_on()


# -- the state ---------------------------------------------------------------------------------------------------------


def test_two_jobs_on_one_state(place: Place) -> None:
    first = place.start()
    try:
        place.wait_for(90)
        second = place.run()
        refused(second, "PS-STATE-001")
        assert f"pid {first.pid}" in second.stderr
    finally:
        first.terminate()
        first.communicate()
    assert first.returncode == 143
    place.goes_on()


def test_a_state_behind_its_mark(place: Place) -> None:
    assert place.run().returncode == 0
    database = place.state / "state.duckdb"
    shutil.copy(database, place.folder / "older")
    place.send(30)
    assert place.run().returncode == 0
    shutil.copy(database, place.folder / "newest")
    delivered = place.sink.read_bytes()
    shutil.copy(place.folder / "older", database)
    refused(place.run(), "PS-STATE-002")
    assert place.sink.read_bytes() == delivered
    shutil.copy(place.folder / "newest", database)
    place.goes_on()


def test_the_state_of_another_run(place: Place, tmp_path: Path) -> None:
    assert place.run().returncode == 0
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    assert other.run().returncode == 0
    mine = place.state / "state.duckdb"
    shutil.copy(mine, place.folder / "mine")
    shutil.copy(other.state / "state.duckdb", mine)
    refused(place.run(), "PS-STATE-002")
    shutil.copy(place.folder / "mine", mine)
    place.goes_on()


def test_a_damaged_mark(place: Place) -> None:
    assert place.run().returncode == 0
    mark = place.state / "mark"
    whole = mark.read_bytes()
    mark.write_bytes(b"\0" * len(whole))
    refused(place.run(), "PS-STATE-002")
    mark.write_bytes(whole)
    place.goes_on()


def test_a_database_that_is_none(place: Place) -> None:
    assert place.run().returncode == 0
    database = place.state / "state.duckdb"
    whole = database.read_bytes()
    database.write_bytes(b"not a database" * 1_000)
    refused(place.run(), "PS-STATE-005")
    database.write_bytes(whole)
    place.goes_on()


def test_a_state_of_a_newer_format(place: Place) -> None:
    assert place.run().returncode == 0
    shutil.copy(place.state / "state.duckdb", place.folder / "mine")
    with duckdb.connect(str(place.state / "state.duckdb")) as connection:
        connection.execute("UPDATE _ps.meta SET value = '99' WHERE key = 'format'")
    refused(place.run(), "PS-STATE-003")
    shutil.copy(place.folder / "mine", place.state / "state.duckdb")
    place.goes_on()


def test_a_changed_plan(place: Place) -> None:
    assert place.run().returncode == 0
    (place.folder / "p.py").write_text(PIPELINE.replace("sum(n)", "max(n)"))
    refused(place.run(), "PS-STATE-004")
    (place.folder / "p.py").write_text(PIPELINE)
    place.goes_on()


# -- the log -----------------------------------------------------------------------------------------------------------


def test_a_damaged_log_segment(place: Place) -> None:
    assert place.run().returncode == 0
    place.send(30)
    place.send(30)
    (segment,) = place.topic.folder(0).glob("*.log")
    whole = segment.read_bytes()
    # In the middle of what has not been read yet: the frame behind it stays whole, so this is no torn tail.
    position = whole.rindex(b"PSF1", 0, whole.rindex(b"PSF1")) + 100
    segment.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
    refused(place.run(), "PS-CONN-004")
    assert sum(place.counted().values()) == 90
    segment.write_bytes(whole)
    place.goes_on()


def test_a_clock_that_goes_backwards(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Append times never go back, so what was accepted when it came is accepted whenever it is read."""
    assert place.run().returncode == 0
    now = time.time_ns()
    monkeypatch.setattr(log_writer.time, "time_ns", lambda: now - 7_200_000_000_000)
    place.send(30)
    monkeypatch.undo()
    place.goes_on()
    with duckdb.connect(str(place.state / "state.duckdb")) as connection:
        epochs = [row[0] for row in connection.execute("SELECT epoch FROM _ps.journal ORDER BY epoch").fetchall()]
    assert epochs == list(range(len(epochs)))


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly(place: Place, number: signal.Signals, code: int) -> None:
    job = place.start()
    place.wait_for(90)
    job.send_signal(number)
    _, told = job.communicate(timeout=30)
    assert job.returncode == code, told
    assert "Traceback" not in told
    assert place.counted() == place.sent
    place.goes_on()


def test_a_second_ctrl_c_ends_at_once(place: Place) -> None:
    """Both signals are there before the job can serve the first one."""
    job = place.start()
    place.wait_for(90)
    os.kill(job.pid, signal.SIGSTOP)
    place.send(30)
    job.send_signal(signal.SIGINT)
    job.send_signal(signal.SIGTERM)
    os.kill(job.pid, signal.SIGCONT)
    _, told = job.communicate(timeout=30)
    assert job.returncode in (130, 143), told
    assert "Traceback" not in told
    place.goes_on()


def test_signals_at_any_time(place: Place) -> None:
    """Wherever a signal finds the job, a later start counts everything once."""
    for pause_s in (0.05, 0.4, 0.6, 0.8):
        job = place.start()
        time.sleep(pause_s)
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=30)
        assert job.returncode in (143, -signal.SIGTERM)
        place.send(9)
    place.goes_on()

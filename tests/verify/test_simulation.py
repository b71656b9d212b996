"""`penstock test --faults`: right jobs pass, broken ones are found, and a seed replays to the same failing step."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from tests import soak
from tests.clicks import CONTRACTS, PER_CITY, PER_MINUTE, penstock

from penstock.connectors.file_sink import AppendSink
from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.connectors.log_topic import BEFORE_DROP
from penstock.engines.base import SourceInput, SourceProgress
from penstock.engines.duckdb import epoch, outbox
from penstock.engines.duckdb.engine import DuckState
from penstock.engines.duckdb.scope import EpochScope
from penstock.errors import VerificationError
from penstock.runtime.delivery import Delivery
from penstock.runtime.feed import ReferenceFeed
from penstock.storage import failpoints, unsynced
from penstock.verify.simulation.outputs import LEAST_RETENTION_BYTES, SEGMENT_BYTES, Follower, sink_url
from penstock.verify.simulation.parts import Clock, OrderedDelivery, Ticks
from penstock.verify.simulation.run import Course
from penstock.verify.simulation.schedule import (
    TORN_COMMIT,
    Crash,
    Scene,
    Schedule,
    SinkKind,
    calm,
    draw_schedule,
)
from penstock.verify.simulation.simulate import Rig, SimulatedSpec, simulate, told
from penstock.verify.simulation.world import World

SOAK_SCHEDULES = 300
SOAK_PARTS = 6
PAGED = CONTRACTS.replace("    at: datetime", '    page: str = ps.Field(pattern="^/[a-z]{1,3}$")\n    at: datetime', 1)
PIPELINE = PAGED + PER_MINUTE + PER_CITY


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSpec:
    file = tmp_path_factory.mktemp("simulated") / "clicks.py"
    file.write_text(PIPELINE)
    return SimulatedSpec(str(file), {})


@pytest.fixture(scope="module")
def scene(subject: SimulatedSpec) -> Scene:
    with Rig(subject.load()) as rig:
        assert not any(course.failed for course in rig.rehearse())
        return rig.scene


@pytest.fixture
def rig(subject: SimulatedSpec, scene: Scene) -> Iterator[Rig]:
    with Rig(subject.load(), scene) as made:
        yield made


def first_failure(rig: Rig, seeds: range) -> Course:
    for seed in seeds:
        course = rig.run(seed)
        if course.failed:
            return course
    raise AssertionError(f"none of the seeds {seeds} found the fault")


def test_schedules_follow_from_their_seed_alone() -> None:
    points = {"file": {"mark.before": 9, "file_sink.torn": 3}, "log": {"mark.before": 8, "log.torn": 4}}
    scene = Scene(2, ("v", "w"), ("s",), points, 200)  # type: ignore[arg-type]
    assert draw_schedule(7, scene) == draw_schedule(7, scene)
    assert len({str(draw_schedule(seed, scene)) for seed in range(50)}) == 50
    for seed in range(50):
        schedule = draw_schedule(seed, scene)
        known = {TORN_COMMIT, *scene.passed(schedule.sinks.values())}
        assert {f.point for start in schedule.starts for f in start.faults if isinstance(f, Crash)} <= known
        assert schedule.starts[-1].upto == 1.0
    assert calm(1, scene, 0, {}).starts[0].faults == ()
    starts = [start for seed in range(50) for start in draw_schedule(seed, scene).starts]
    assert {start.idle for start in starts} == {False, True}
    assert {start.references for start in starts} == {"last", "shuffled", "earlier"}
    assert {start.references for start in starts if start.upto == 1.0} == {"last"}


def test_an_ordered_delivery_has_all_that_the_loop_asks_a_delivery_for() -> None:
    asked = {name for name in dir(Delivery) if not name.startswith("_")} - {"close"}
    assert asked <= set(dir(OrderedDelivery)), asked - set(dir(OrderedDelivery))


def test_one_schedule_with_a_crash_comes_to_its_end(subject: SimulatedSpec) -> None:
    views = ("per_minute", "per_city")
    scene = Scene(1, views, ("clicks", "users"), {}, 150)
    whole = calm(3, scene, 0, dict.fromkeys(views, "file"))
    crashed = replace(whole.starts[0], upto=0.5, faults=(Crash("mark.before", 2, "nothing"),))
    with Rig(subject.load(), scene) as rig:
        course = rig.perform(replace(whole, starts=(crashed, *whole.starts)))
    assert course.faults == ["crash at mark.before, hit 2"]
    assert not course.failed
    assert set(course.compared) == set(views)


@pytest.mark.slow
def test_every_fail_point_that_the_job_passes_is_crashed_at(scene: Scene) -> None:
    faults = [f for seed in range(400) for start in draw_schedule(seed, scene).starts for f in start.faults]
    crashed = {fault.point for fault in faults if isinstance(fault, Crash)}
    passed = {point for points in scene.points.values() for point in points}
    assert crashed == passed | {TORN_COMMIT}, "every fail point that the job passes is crashed at"
    assert {"epoch.before_commit", "mark.before", "sink.after", "log.torn", "file_sink.torn"} <= passed
    assert {type(fault).__name__ for fault in faults} == {
        *("Crash", "FullDisk", "ShortWrite", "SinkFault", "SourceFault")
    }


@pytest.mark.slow
def test_a_right_job_passes_and_a_seed_takes_the_same_course_twice(rig: Rig) -> None:
    courses = [rig.run(seed) for seed in range(6)]
    assert [told(c.schedule, c) for c in courses if c.failed] == []
    assert sum(len(c.faults) for c in courses) > 4
    assert all(c.accepted for c in courses)
    assert all(set(c.compared) == {"per_minute", "per_city"} for c in courses)
    again = [rig.run(seed) for seed in range(0, 6, 3)]
    for first, second in zip(courses[::3], again, strict=True):
        assert (first.steps, first.hits, first.compared) == (second.steps, second.hits, second.compared)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "point", "passed"),
    [("log", "log.torn", "log.cut"), ("retained", "log.drop", "log.drop"), ("retained", "log.roll", "log.drop")],
)
def test_logs_are_right_after_crashes_in_torn_frames_and_in_retention(
    rig: Rig, kind: SinkKind, point: str, passed: str
) -> None:
    whole = calm(3, rig.scene, 0, dict.fromkeys(rig.scene.views, kind))
    crashed = replace(whole.starts[0], upto=0.5, faults=(Crash(point, 1, "nothing"),))
    course = rig.perform(replace(whole, starts=(crashed, *whole.starts)))
    assert course.faults == [f"crash at {point}, hit 1"]
    assert course.hits[passed] > 0
    assert not course.failed


def lose_the_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed and not delivered is forgotten by a restart."""
    monkeypatch.setattr(DuckState, "outbox", lambda state, sink, after: iter(()))


def forget_deliveries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An appended file does not know what it has: epochs come twice."""
    monkeypatch.setattr(AppendSink, "delivered", lambda sink: -1)
    deliver = AppendSink.deliver

    def blind(sink: AppendSink, number: int, changes: object) -> None:
        sink._mark = replace(sink._mark, epoch=-1)
        deliver(sink, number, changes)  # type: ignore[arg-type]

    monkeypatch.setattr(AppendSink, "deliver", blind)


def lose_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine drops some of what it has to tell."""
    whole = outbox.numbered_sql

    def lossy(scope: EpochScope, name: str) -> str:
        return f"SELECT * FROM ({whole(scope, name)}) WHERE n % 3 <> 0"

    monkeypatch.setattr(outbox, "numbered_sql", lossy)


@pytest.mark.slow
@pytest.mark.parametrize("seeded", [lose_the_outbox, forget_deliveries, lose_changes])
def test_a_fault_in_the_engine_is_found_and_its_seed_replays_to_the_same_step(
    seeded: object, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded(monkeypatch)  # type: ignore[operator]
    found = first_failure(rig, range(40))
    again = rig.run(found.schedule.seed)
    assert again.schedule == found.schedule
    assert again.steps == found.steps
    assert again.difference == found.difference
    assert again.difference is not None


PAGES = """
from datetime import datetime
import penstock as ps

class Click(ps.Contract):
    page: str
    at: datetime

class Page(ps.Contract):
    page: str
    title: str | None = None

pipeline = ps.Pipeline("clicks")
pipeline.stream("clicks", Click, event_time="at", watermark="5 seconds", state="unbounded")
pipeline.reference("pages", Page, key="page")
pipeline.view(
    "per_title", "SELECT title, count(*) AS n FROM clicks JOIN pages USING (page) GROUP BY title", state="unbounded"
)
pipeline.view(
    "per_minute", "SELECT time_bucket(INTERVAL '1 minute', at) AS minute, count(*) AS n FROM clicks GROUP BY ALL"
)
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSpec:
    file = tmp_path_factory.mktemp("pages") / "pages.py"
    file.write_text(PAGES)
    return SimulatedSpec(str(file), {})


def in_three_starts(**options: object) -> Schedule:
    """Two partitions, the second far behind until the last start; event times a quarter of a minute apart.

    options: of the first two starts.
    """
    views: tuple[str, ...] = ("per_title", "per_minute")
    sinks: dict[str, SinkKind] = dict.fromkeys(views, "file")
    whole = replace(calm(3, Scene(1, views, ("clicks",), {}, 150), 0, sinks), event_step_us=15_000_000)
    (last,) = whole.starts
    starts = tuple(replace(last, upto=upto, **options) for upto in (0.3, 0.6))  # type: ignore[arg-type]
    return replace(whole, starts=(*starts, last), skew=3.0)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"idle": True}, {"references": "earlier"}, {"references": "shuffled"}], ids=str)
def test_idle_partitions_and_other_versions_of_references_change_no_answer(
    pages: SimulatedSpec, options: dict[str, object]
) -> None:
    with Rig(pages.load()) as rig:
        course = rig.perform(in_three_starts(**options))
    assert not course.failed, told(course.schedule, course)
    assert set(course.compared) == {"per_title", "per_minute"}


def wake_without_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that wakes has its own watermark again, so that its rows meet closed windows."""

    def forgetful(source: object, idle: tuple[int, ...], progress: SourceProgress) -> None:
        progress.idle = idle

    monkeypatch.setattr(epoch, "take_idle", forgetful)


def keep_the_first_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference's later versions are taken for its first one."""
    whole, first = ReferenceFeed.poll, {}

    def stale(feed: ReferenceFeed, *, now: bool = False) -> SourceInput | None:
        given = whole(feed, now=now)
        return given and replace(given, batches=first.setdefault(feed.declared.name, given.batches))

    monkeypatch.setattr(ReferenceFeed, "poll", stale)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeded", "options"), [(wake_without_a_floor, {"idle": True}), (keep_the_first_version, {"references": "earlier"})]
)
def test_what_goes_wrong_with_them_is_found(
    seeded: Callable[[pytest.MonkeyPatch], None],
    options: dict[str, object],
    pages: SimulatedSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Rig(pages.load()) as rig:
        seeded(monkeypatch)
        course = rig.perform(in_three_starts(**options))
    assert course.difference is not None


def test_unsynced_writes_are_lost_whole_or_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for loss, least, most in (("nothing", 100, 100), ("unsynced", 40, 40), ("torn", 40, 100)):
        world = World(tmp_path / str(loss) / "world", random.Random(3))
        monkeypatch.setenv(unsynced.VARIABLE, str(world.unsynced))
        file = world.sinks / "f"
        unsynced.opened(file, 0, created=True)
        file.write_bytes(b"x" * 40)
        unsynced.synced(file, 40)
        unsynced.settled(unsynced.pending(world.sinks))
        file.write_bytes(b"x" * 100)
        world.freeze(Crash("p", 1, loss))  # type: ignore[arg-type]
        file.unlink()  # what the dying job's handlers do is lost
        world.restore()
        assert least <= file.stat().st_size <= most


def test_a_torn_commit_keeps_a_part_of_the_databases_log_and_never_its_last_byte(tmp_path: Path) -> None:
    for seed in range(20):
        world = World(tmp_path / str(seed) / "world", random.Random(seed))
        world.state.mkdir()
        wal = world.state / "state.duckdb.wal"
        wal.write_bytes(b"a" * 50)
        world.before_commit()
        wal.write_bytes(b"a" * 50 + b"b" * 10)
        world.freeze(Crash(TORN_COMMIT, 1, "nothing"))
        assert world.restore()
        assert 50 <= wal.stat().st_size < 60


def test_a_follower_has_what_left_a_topic_and_not_what_a_crash_took(tmp_path: Path) -> None:
    url = sink_url("retained", tmp_path, "v")
    topic = LogTopic.create(url.path, segment_bytes=SEGMENT_BYTES, retention_bytes=LEAST_RETENTION_BYTES)
    follower = Follower(tmp_path, ["v", "w"])

    def append(numbers: range) -> None:
        with LogWriter(topic, fsync="none") as writer:
            for n in numbers:
                writer.append(0, [b"%d" % n + b" " * 500])

    class Reading:
        def hit(self, name: str) -> None:
            if name == BEFORE_DROP:
                follower.take()

        def crash(self, name: str) -> NoReturn:
            raise AssertionError(name)

    with failpoints.driven(Reading()):
        append(range(30))
    assert LogSource(topic).earliest(0) > 0
    follower.take()
    assert [int(value) for value in follower.values("v")] == list(range(30))
    assert follower.values("w") == []
    newest = max(path for path in Path(url.path).rglob("*.log"))
    # The last record is torn, and nothing says that it was durable.
    newest.write_bytes(newest.read_bytes()[:-1])
    (newest.parent / "synced").unlink()
    follower.forget_lost()
    assert [int(value) for value in follower.values("v")] == list(range(29))
    append(range(70, 72))
    follower.take()
    assert [int(value) for value in follower.values("v")] == [*range(29), 70, 71]


def test_the_simulated_clock_jumps_and_its_ticks_follow() -> None:
    clock = Clock(10_000_000)
    ticks = Ticks(1_000_000, clock)
    assert ticks.latest(0) == 11
    clock.jump(5_000_000)
    assert ticks.latest(0) == 16
    clock.jump(-9_000_000)
    assert ticks.latest(0) == 7


def test_a_step_alone_or_an_impossible_contract_is_nothing_to_test(tmp_path: Path) -> None:
    file = tmp_path / "p.py"
    file.write_text(
        "import penstock as ps\n"
        "class A(ps.Contract):\n    n: int = ps.Field(ge=3, lt=3)\n"
        "pipeline = ps.Pipeline('p')\n"
        "pipeline.stream('a', A, state='unbounded')\n"
        "pipeline.view('v', 'SELECT n FROM a')\n"
    )
    with pytest.raises(VerificationError, match="nothing to test"):
        simulate(SimulatedSpec(str(file), {}).load(), seed=1, runs=1)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return penstock(folder, "test", *words)


@pytest.mark.slow
def test_the_command_exits_with_0_2_3_and_1_and_replays_a_seed(tmp_path: Path) -> None:
    small = PAGED + PER_MINUTE
    (tmp_path / "p.py").write_text(small)
    done = run(tmp_path, "p.py", "--faults", "--seed", "3", "--runs", "2", "--output", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] == 2
    assert found["failed"] is None
    assert set(found["compared"]) == {"per_minute"}
    assert run(tmp_path, "p.py", "--seed", "3").returncode == 2
    broken = (
        "\nfrom penstock.connectors.file_sink import AppendSink\n"
        "import sys\n"
        "if 'penstock.verify.simulation.run' in sys.modules:\n"
        "    from penstock.engines.duckdb.engine import DuckState\n"
        "    DuckState.outbox = lambda state, sink, after: iter(())\n"
    )
    (tmp_path / "p.py").write_text(small + broken)
    failed = run(tmp_path, "p.py", "--faults", "--seed", "0", "--runs", "40", "--jobs", "2")
    assert failed.returncode == 3, failed.stderr
    again = failed.stderr.partition("penstock test p.py ")[2].split()
    assert again[:2] == ["--faults", "--seed"]
    replayed = run(tmp_path, "p.py", *again)
    assert replayed.returncode == 3
    assert replayed.stderr.partition("PS-VERIFY")[2] == failed.stderr.partition("PS-VERIFY")[2]
    course = failed.stdout.partition("FAILED")[2]
    assert course
    assert replayed.stdout.partition("FAILED")[2] == course
    overflow = small.replace("count(*) AS n", "sum(9223372036854775807 + user_id)::BIGINT AS n")
    (tmp_path / "p.py").write_text(overflow)
    stopped = run(tmp_path, "p.py", "--faults", "--seed", "1", "--runs", "2")
    assert stopped.returncode == 1, stopped.stdout + stopped.stderr
    assert "failed by itself" in stopped.stderr


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_many_schedules_hold(subject: SimulatedSpec, part: int) -> None:
    runs = soak.count(SOAK_SCHEDULES // SOAK_PARTS)
    found = simulate(subject.load(), seed=soak.SEED % 1_000_000 + part * SOAK_SCHEDULES, runs=runs)
    soak.record(
        "simulated schedules",
        found.seconds,
        runs=found.runs,
        epochs=found.epochs,
        rows=found.rows,
        problems=[] if found.failed is None else [str(step) for step in found.failed.steps],
    )
    assert found.failed is None
    assert found.runs >= runs

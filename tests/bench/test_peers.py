"""Peers: wrong counts give no figure, every peer refuses what its docstring says, environments are found or made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.apps.ads.counts import total
from penstock.apps.ads.faults import FAULTS
from penstock.apps.ads.mapping import create_ad_campaign_mappings
from penstock.apps.ads.peers.contest import ENVIRONMENTS, Material, contenders, export, shape, write_material
from penstock.apps.ads.recount import recount
from penstock.apps.ads.trial import clear_workplace
from penstock.bench.peers import harness
from penstock.bench.peers.environments import Environment, java_home
from penstock.bench.peers.harness import Row
from penstock.bench.peers.runner import Contender, Outcome, Shape, measure
from penstock.cli.main import run
from penstock.connectors.log import LogSource, LogTopic, LogWriter
from penstock.errors import DeclarationError, RunError

EVENTS = 3_000
PROGRAM = """
import subprocess, sys, time
class Toy:
    def __init__(self): self.runs = 0
    def versions(self): return {"toy": "1"}
    def prepare(self, work): self.runs += 1
    def run(self, work):
        time.sleep(0.05 * (self.runs > 1))
        if work.options.get("fails") == str(self.runs): raise ValueError("the toy broke")
        if "child" in work.options:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            open(work.options["child"], "w").write(str(child.pid))
    def results(self, work): return [[1, 0, 5 - (work.options.get("wrong") == str(self.runs))]]
    def close(self): pass
def open_peer(work): return Toy()
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return write_material(clear_workplace(tmp_path_factory.mktemp("clean")), EVENTS)


def toy(folder: Path, **options: str) -> Outcome:
    program = folder / "toy.py"
    program.write_text(PROGRAM)

    def check(rows: Sequence[Row]) -> str:
        return "" if list(rows) == [(1, 0, 5)] else "wrong counts"

    return measure(Contender("toy", "only", program, options), {}, folder / "runs", Shape(10, 5, 1, 2), check)


def test_a_right_peer_has_one_cold_run_and_the_best_warm_one(tmp_path: Path) -> None:
    found = toy(tmp_path)
    assert found.figures is not None, found.wrong
    assert len(found.runs_s) == 3
    assert found.figures.warm_s == min(found.runs_s[1:])
    assert found.figures.cold_s > found.runs_s[0]
    assert found.versions == {"toy": "1"}


@pytest.mark.parametrize("number", ["1", "2", "3"])
def test_one_wrong_count_in_any_run_leaves_no_figure(tmp_path: Path, number: str) -> None:
    found = toy(tmp_path, wrong=number)
    assert (found.figures, found.wrong) == (None, "wrong counts")


def test_a_peer_that_fails_leaves_no_figure_and_says_why(tmp_path: Path) -> None:
    found = toy(tmp_path, fails="2")
    assert found.figures is None
    assert "exit code 1" in found.wrong
    assert "the toy broke" in found.wrong


def test_nothing_that_a_peer_has_started_outlives_it(tmp_path: Path) -> None:
    assert toy(tmp_path, child=str(tmp_path / "pid")).figures
    wait_until_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
def test_a_peer_ends_when_whoever_measures_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(PROGRAM.replace("time.sleep(0.05 * (self.runs > 1))", "time.sleep(600)"))
    order = {"program": str(tmp_path / "toy.py"), "report": str(tmp_path / "report"), "runs": 1, "work": {
        "inputs": {}, "folder": str(tmp_path / "runs"), "window_s": 10, "watermark_s": 5, "cores": 1, "options": {},
    }}  # fmt: skip
    (tmp_path / "order.json").write_text(json.dumps(order))
    command = [sys.executable, harness.__file__, str(tmp_path / "order.json")]
    start = f"import subprocess; print(subprocess.Popen({command}, start_new_session=True).pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as measuring:
        assert measuring.stdout is not None
        peer = int(measuring.stdout.readline())
        while not (tmp_path / "runs" / "run-0").exists():
            time.sleep(0.05)
        measuring.kill()
    wait_until_gone(peer)


def wait_until_gone(process: int) -> None:
    """Killed at once; whoever adopts orphans here may take its time to bury them."""
    deadline = time.monotonic() + 30
    status = Path(f"/proc/{process}/status")
    while status.exists() and "zombie" not in status.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_recount_is_the_measure(clean: Material) -> None:
    cells = [(*cell, c.count, c.views, c.clicks, c.purchases, c.max_produce_time_ms)
             for cell, c in clean.counted.accepted.items()]  # fmt: skip
    assert clean.check(cells) == ""
    assert "differ" in clean.check(cells[1:])
    assert "differ" in clean.check([*cells[1:], (*cells[0][:2], cells[0][2] + 1, *cells[0][3:])])
    assert "differ" in clean.check([*cells[1:], (*cells[0][:-1], cells[0][-1] + 1)])
    assert "twice" in clean.check([*cells, cells[0]])


@pytest.mark.slow
def test_a_peer_with_tampered_counts_gets_no_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = contenders(["duckdb"])[1]
    text = honest.program.read_text()
    tampered = tmp_path / "tampered.py"
    tampered.write_text(text.replace("count(*) FILTER (WHERE ok) AS count", "count(*) FILTER (WHERE ok) + 1 AS count"))
    assert tampered.read_text() != text
    monkeypatch.setattr("penstock.cli.bench_peers.contenders", lambda names: [honest, replace(honest, program=tampered,
                                                                              variant="tampered")])  # fmt: skip
    arguments = ["bench", "peers", "ads", "--peers", "duckdb", "--events", "2000", "--repeat", "1", "--output", "json"]
    assert run([*arguments, "--folder", str(tmp_path / "bench")]) == 1
    right, wrong = json.loads(capsys.readouterr().out)["outcomes"]
    assert right["warm_events_per_s"] > 0
    assert right["figures"]["warm_s"] > 0
    assert (wrong["figures"], wrong["warm_events_per_s"], wrong["penstock_is_times_faster"]) == (None, None, None)
    assert "wrong counts" in wrong["wrong"]


@pytest.mark.slow
def test_the_command_shows_penstock_and_the_peer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "peers", "ads", "--peers", "duckdb", "--events", "2000", "--repeat", "1"]
    assert run([*arguments, "--folder", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "penstock, shipped" in shown
    assert "duckdb, script" in shown
    assert "1.00" in shown


def spoilt(clean: Material, folder: Path, without: Collection[str]) -> Material:
    """The clean backlog, and after each of its first records one of every kind of broken ones."""
    faults = [fault for fault in FAULTS if fault.name not in without]
    place = clear_workplace(folder)
    source = LogSource(LogTopic.open(clean.place.events))
    topic = LogTopic.create(place.events, 2)
    with LogWriter(topic, fsync="commit") as writer:
        for partition in range(2):
            batch = source.read(partition, 0, EVENTS, 1 << 30)
            records = batch.values.to_pylist() if batch else []
            broken = [fault.apply(record) for record in records[:40] for fault in faults]
            if records:
                writer.append(partition, records + broken)
    source.close()
    export(topic, folder / "lines")
    counted = recount(place.events, create_ad_campaign_mappings(), window_s=10, watermark_s=5, workers=0)
    assert sum(counted.dead.values()) == 40 * len(faults)
    assert total(counted.accepted) == total(clean.counted.accepted)
    inputs = dict(clean.inputs) | {"log": place.events, "events": str(folder / "lines"), "workplace": str(folder)}
    shutil.copytree(Path(clean.place.campaigns), Path(place.campaigns))
    return Material(place, inputs, counted)


def compete(name: str, material: Material, folder: Path, variant: str, **options: str) -> Outcome:
    contender = next(c for c in contenders([name]) if (c.name, c.variant) == (name, variant))
    contender = replace(contender, options={**contender.options, **options})
    if contender.environment is not None:
        try:
            contender.environment.set_up()
        except DeclarationError as error:  # no Java, or no Python that the peer runs on
            pytest.skip(f"{error.message}: {error.got}")
    return measure(contender, material.inputs, folder / "runs", shape(1), material.check)


def test_the_duckdb_script_refuses_every_broken_record(clean: Material, tmp_path: Path) -> None:
    found = compete("duckdb", spoilt(clean, tmp_path / "spoilt", ()), tmp_path, "script")
    assert found.figures, found.wrong


def test_the_duckdb_script_takes_other_spellings(clean: Material, tmp_path: Path) -> None:
    topic = LogTopic.open(clean.place.events)
    source = LogSource(topic)
    batch = source.read(0, 0, 4, 1 << 30)
    assert batch is not None
    record, *_ = batch.values.to_pylist()
    source.close()
    spelled = [json.dumps(json.loads(record)).encode(), record.replace(b'"view', b'"vi\\u0065w'), record]
    spelled.append(record[:-1] + b',"unknown":[1,{"a":null}]}')
    place = clear_workplace(tmp_path / "place")
    with LogWriter(LogTopic.create(place.events, 1), fsync="commit") as writer:
        writer.append(0, spelled)
    counted = recount(place.events, create_ad_campaign_mappings(), window_s=10, watermark_s=5, workers=0)
    assert total(counted.accepted).count == 4
    material = Material(place, dict(clean.inputs) | {"log": place.events}, counted)
    found = compete("duckdb", material, tmp_path, "script")
    assert found.figures, found.wrong


@pytest.mark.slow
def test_penstock_itself_is_measured_by_the_same_harness(clean: Material, tmp_path: Path) -> None:
    contender = contenders([])[0]
    found = measure(contender, clean.inputs, tmp_path / "runs", shape(1), clean.check)
    assert found.figures, found.wrong
    assert set(found.versions) >= {"penstock", "duckdb", "pyarrow"}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["default", "tuned"])
def test_polars_refuses_what_it_can_see(clean: Material, tmp_path: Path, variant: str) -> None:
    material = spoilt(clean, tmp_path / "spoilt", ("truncated", "not UTF-8", "key twice"))
    found = compete("polars", material, tmp_path, variant)
    assert found.figures, found.wrong


@pytest.mark.slow
def test_a_broken_line_ends_polars_which_then_has_no_figure(clean: Material, tmp_path: Path) -> None:
    others = [fault.name for fault in FAULTS if fault.name != "truncated"]
    found = compete("polars", spoilt(clean, tmp_path / "spoilt", others), tmp_path, "tuned")
    assert found.figures is None
    assert "error parsing line" in found.wrong


@pytest.mark.slow
def test_spark_refuses_what_it_can_see(clean: Material, tmp_path: Path) -> None:
    material = spoilt(clean, tmp_path / "spoilt", ("key twice",))
    # What is asked here is asked once: the compiler that makes Java fast would take most of the time.
    java = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1", "spark.driver.memory": "1g"}
    found = compete("spark", material, tmp_path, "tuned", **java)
    assert found.figures, found.wrong
    assert found.versions["spark"] == "4.0.2"


@pytest.mark.soak
def test_flink_refuses_what_it_can_see(clean: Material, tmp_path: Path) -> None:
    unseen = ("key twice", "text for a number", "fraction for an integer")
    found = compete(
        "flink", spoilt(clean, tmp_path / "spoilt", unseen), tmp_path, "tuned", jvm="-XX:TieredStopAtLevel=1 -Xmx1g"
    )
    assert found.figures, found.wrong
    assert found.versions["flink"] == "2.3.0"


def test_a_missing_environment_is_named_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run(["bench", "peers", "ads", "--peers", "polars", "--folder", str(tmp_path / "bench")]) == 2
    shown = capsys.readouterr().err
    assert "PS-BENCH-008" in shown
    assert "penstock bench peers --setup polars" in shown
    assert run(["bench", "peers"]) == 0
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()[::2]] == ["missing"] * len(ENVIRONMENTS)
    assert listed.count("--setup") == len(ENVIRONMENTS)


def test_a_java_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(DeclarationError) as caught:
        ENVIRONMENTS["spark"].demand()
    assert caught.value.code == "PS-BENCH-008"
    assert str(tmp_path) in caught.value.got


@pytest.mark.parametrize(("says", "old"), [('openjdk version "11.0.2"', True), ('java version "1.8.0_372"', True),
                                           ('openjdk version "21.0.1" 2023-10-17', False)])  # fmt: skip
def test_the_version_of_java_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, old: bool
) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if old:
        with pytest.raises(DeclarationError, match="no Java"):
            java_home()
    else:
        assert java_home() == tmp_path


def test_an_unknown_peer_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "peers", "ads", "--peers", "storm"]) == 2
    assert "spark, flink, polars, duckdb" in capsys.readouterr().err


@pytest.mark.slow
def test_an_attempt_that_failed_is_not_taken_for_an_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = Environment("nothing", (str(tmp_path / "no-such-package"),), ((3, 11), (3, 12), (3, 13)))
    with pytest.raises(RunError) as caught:
        environment.set_up()
    assert caught.value.code == "PS-BENCH-004"
    assert environment.python.exists()
    assert not environment.ready

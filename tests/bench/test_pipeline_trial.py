"""`penstock bench PIPELINE` from end to end: a checked run with its report, and a job that fails."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.clicks import CONTRACTS, PER_CITY, penstock

from penstock.bench.report import read_report
from penstock.cli.main import run

PIPELINE = (
    CONTRACTS
    + """
class Page(ps.Contract):
    path: str
    title: str

class View(ps.Contract):
    path: str = ps.Field(references="pages.path")
    at: datetime

pipeline.stream("visits", View, event_time="at", watermark="5 seconds", state="unbounded")
pipeline.reference("pages", Page, key="path")
pipeline.view(
    "per_second",
    "SELECT time_bucket(INTERVAL '1 second', at) AS second, count(*) AS n FROM clicks GROUP BY ALL",
)
"""
    + PER_CITY
    + """pipeline.view("per_title", "SELECT title, count(*) AS n FROM visits JOIN pages USING (path) GROUP BY title")
"""
)


def bench(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return penstock(folder, "bench", "p.py", "--report", "out", *options)


@pytest.mark.slow
def test_every_sink_is_compared_and_the_report_accounts_for_all_records(tmp_path: Path) -> None:
    (tmp_path / "p.py").write_text(PIPELINE)
    wrong = ("--broken", "0.1", "--late", "0.05", "--late-by", "1m", "--deletes", "0.1", "--producers", "2")
    done = bench(tmp_path, "--rate", "300", "--updates", "30", "--duration", "2s", "--warmup", "1s", *wrong)
    found = read_report(tmp_path / "out.json")
    # On a busy machine the latencies may not count; the comparison does.
    assert found.judgement.status != "wrong", done.stderr
    assert done.returncode == (0 if found.judgement.status == "right" else 1), done.stderr
    for view in ("per_second", "per_city", "per_title"):
        assert f"rows of {view}" in found.judgement.headline
    counts = found.counts
    assert counts["lost"] == counts["doubled"] == 0
    assert counts["dead"] > 20
    assert 600 < counts["records"] < 1_500
    latency = found.latency("record")
    assert latency is not None
    assert 300 < latency.count < 900
    assert (tmp_path / "out.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_job_that_loses_changes_is_wrong_and_one_that_fails_is_told(tmp_path: Path) -> None:
    lossy = """
import sys
if "penstock.bench.pipeline.job" in getattr(sys.modules["__main__"], "__file__", "").replace("/", "."):
    import pyarrow as pa
    sink = sys.modules["__main__"]._TimedSink
    whole = sink.deliver
    def drop(self, epoch, changes):
        whole(self, epoch, changes.filter(pa.array([n % 3 > 0 for n in range(len(changes))], pa.bool_())))
    sink.deliver = drop
"""
    (tmp_path / "p.py").write_text(PIPELINE + lossy)
    done = bench(tmp_path, "--rate", "200", "--duration", "1s", "--warmup", "1s")
    assert done.returncode == 1
    assert "PS-BENCH-001" in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["judgement"]["status"] == "wrong"
    (tmp_path / "p.py").write_text(
        PIPELINE.replace("count(*) AS n FROM visits", "sum(1 // 0 + error('no'))::INT AS n FROM visits")
    )
    failed = bench(tmp_path, "--rate", "200", "--duration", "1s", "--warmup", "1s")
    assert failed.returncode in (1, 2)
    assert "PS-" in failed.stderr


def test_a_share_above_one_and_an_unknown_pipeline_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.py").write_text(PIPELINE)
    assert run(["bench", "p.py", "--broken", "1.5"]) == 2
    assert run(["bench", "nothing.py"]) == 2
    assert "there is no such file" in capsys.readouterr().err

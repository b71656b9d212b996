"""A journal run into a fresh state gives the same change records, byte for byte (semantics E1)."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from penstock.cli.main import run
from penstock.connectors.log import LogTopic, LogWriter

PIPELINE = '''
from datetime import datetime

import penstock as ps


class Click(ps.Contract):
    user_id: int = ps.Field(ge=0, pii=True)
    url: str
    at: datetime


class Page(ps.Contract):
    url: str
    section: str


pipeline = ps.Pipeline("shop")
pipeline.stream("clicks", Click, event_time="at", watermark="5 seconds", references={"url": "pages.url"},
    state="unbounded")
pipeline.reference("pages", Page, key="url")
pipeline.view("per_minute", """
    SELECT time_bucket(INTERVAL '1 minute', at) AS minute, url, count(*) AS n FROM clicks GROUP BY ALL""", emit="final")
pipeline.view("per_section", """
    SELECT section, count(*) AS n FROM clicks JOIN pages USING (url) GROUP BY section""")
pipeline.sink("minutes", view="per_minute")
pipeline.sink("sections", view="per_section")
'''


def click(user: int, url: str, minute: int, second: int) -> bytes:
    return json.dumps({"user_id": user, "url": url, "at": f"2026-01-01T00:{minute:02}:{second:02}"}).encode()


def write(topic: str, records: Sequence[bytes]) -> None:
    with LogWriter(LogTopic.open(f".penstock/log/{topic}"), "commit") as writer:
        writer.append(0, records)


def publish(pages: dict[str, str]) -> None:
    with LogWriter(LogTopic.open(".penstock/log/pages"), "commit") as writer:
        writer.append(0, [json.dumps({"url": url, "section": section}).encode() for url, section in pages.items()])
        writer.end_version(0)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose history has late rows and their correction, dead letters and their replay, two references."""
    folder = tmp_path_factory.mktemp("history")
    with contextlib.chdir(folder):
        make_history()
    return folder


@pytest.fixture
def shop(history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(history, tmp_path / "shop")
    monkeypatch.chdir(tmp_path / "shop")
    return tmp_path / "shop"


def make_history() -> None:
    Path("pipeline.py").write_text(PIPELINE)
    for name in ("clicks", "pages"):
        LogTopic.create(Path(f".penstock/log/{name}"), 1)
    publish({"/": "home"})
    write("clicks", [click(1, "/", 0, 10), click(-1, "/", 0, 11), click(2, "/new", 0, 20), b"{"])
    once()
    write("clicks", [click(3, "/", 2, 0), click(4, "/", 0, 30), click(5, "/", 2, 1)])
    once("--max-epoch-rows", "1")
    publish({"/": "start", "/new": "news"})
    once()
    assert run(["dlq", "replay", "pipeline.py", "--all", "--rule", "references"]) == 0
    once()
    assert run(["late", "apply", "pipeline.py"]) == 0
    once("--no-flush")
    write("clicks", [click(6, "/new", 5, 0)])
    once()


BOUND = ("--bind", "minutes=file:{folder}/minutes.jsonl", "--bind", "sections=file:{folder}/sections.jsonl")


def bound(folder: str) -> list[str]:
    return [word.format(folder=folder) for word in BOUND]


def once(*options: str) -> None:
    assert run(["run", "pipeline.py", "--once", "--quiet", *bound("first"), *options]) == 0


def records(folder: str, sink: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(folder, f"{sink}.jsonl").read_text().splitlines()]


def test_e1_a_journal_gives_the_same_records_again(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "journal", "pipeline.py", "--to", "journal.jsonl"]) == 0
    again = ["run", "pipeline.py", "--quiet", "--journal", "journal.jsonl", "--state", "fresh", *bound("second")]
    assert run(again) == 0
    for sink in ("minutes", "sections"):
        assert Path("second", f"{sink}.jsonl").read_bytes() == Path("first", f"{sink}.jsonl").read_bytes()
    # The history holds what makes a replay hard, or the comparison would show little.
    written = records("first", "minutes")
    assert any(r["_correction"] for r in written)
    assert {r["url"] for r in written} == {"/", "/new"}
    assert {r["section"] for r in records("first", "sections") if r["_op"] == "+I"} >= {"home", "start", "news"}
    capsys.readouterr()
    answers = []
    for state in ([], ["--state", "fresh"]):
        assert run(["status", "pipeline.py", "--output", "json", *state]) == 0
        told = json.loads(capsys.readouterr().out)
        answers.append({name: told[name] for name in ("epoch", "sources", "views", "open_dead_letters")})
    assert answers[0] == answers[1]
    assert answers[0]["open_dead_letters"] == 2


def test_a_journal_goes_on_where_the_state_is_and_is_done_once(shop: Path) -> None:
    assert run(["state", "journal", "pipeline.py", "--to", "journal.jsonl"]) == 0
    lines = Path("journal.jsonl").read_text().splitlines(keepends=True)
    Path("half.jsonl").write_text("".join(lines[: len(lines) // 2]))
    for journal in ("half.jsonl", "journal.jsonl", "journal.jsonl"):
        assert run(["run", "pipeline.py", "--quiet", "--journal", journal, "--state", "fresh", *bound("second")]) == 0
    for sink in ("minutes", "sections"):
        assert Path("second", f"{sink}.jsonl").read_bytes() == Path("first", f"{sink}.jsonl").read_bytes()


@pytest.mark.parametrize("damage", ["gap", "plan", "no json"])
def test_a_journal_that_does_not_fit_is_refused(shop: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["state", "journal", "pipeline.py"]) == 0
    lines = capsys.readouterr().out.splitlines()
    if damage == "gap":
        del lines[1]
    elif damage == "plan":
        lines[1] = json.dumps(json.loads(lines[1]) | {"plan": "another"})
    else:
        lines[1] = lines[1][:-5]
    Path("journal.jsonl").write_text("\n".join(lines))
    again = ["run", "pipeline.py", "--quiet", "--journal", "journal.jsonl", "--state", "fresh", *bound("second")]
    assert run(again) == 1
    told = capsys.readouterr().err
    assert "PS-STATE-008" in told
    assert "journal.jsonl:2" in told


def test_records_that_are_gone_stop_the_replay(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "journal", "pipeline.py", "--to", "journal.jsonl"]) == 0
    LogTopic.open(".penstock/log/clicks").clear()
    again = ["run", "pipeline.py", "--quiet", "--journal", "journal.jsonl", "--state", "fresh", *bound("second")]
    assert run(again) == 1
    assert "PS-CONN-005" in capsys.readouterr().err

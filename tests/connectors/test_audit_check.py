"""Whatever is done to an audit trail is found, and the record is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.cli.main import run
from penstock.connectors.audit_check import Checked, check_trail
from penstock.connectors.audit_trail import hash_of
from penstock.errors import ConnectorError, VerificationError
from penstock.formats.canonical import canonical
from tests.connectors.conformance import epoch_changes
from tests.connectors.test_audit_sink import open_audit

KEY = b"desk"
RECORDS = 24
Lines = list[tuple[Path, bytes]]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One chain of 24 records in several hours, its head signed."""
    folder = tmp_path_factory.mktemp("audit") / "trail"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DESK_KEY", KEY.decode())
        sink = open_audit(f"audit:{folder}?key_env=DESK_KEY")
        for epoch in range(8):
            sink.deliver(epoch, epoch_changes(epoch, 3))
        sink.close()
    return folder


@pytest.fixture
def trail(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy", dirs_exist_ok=True))


def read_lines(trail: Path) -> Lines:
    paths = sorted(trail.glob("year=*/*/*/*/part-*.jsonl"))
    return [(path, line) for path in paths for line in path.read_bytes().splitlines(keepends=True)]


def write_lines(lines: Lines) -> None:
    content: dict[Path, list[bytes]] = {}
    for path, line in lines:
        content.setdefault(path, []).append(line)
    for path, some in content.items():
        path.write_bytes(b"".join(some))


def forged(line: bytes, **changed: object) -> bytes:
    """A record that says something else, with a hash that fits."""
    body: dict[str, Any] = json.loads(line)
    body["record"] |= changed
    return canonical(body | {"hash": hash_of(body)}) + b"\n"


def change(lines: Lines, n: int) -> set[int]:
    path, line = lines[n]
    lines[n] = path, line.replace(b'"n":', b'"n":9')
    return {n + 1}


def forge(lines: Lines, n: int) -> set[int]:
    lines[n] = lines[n][0], forged(lines[n][1], n=77)
    return {n + 1}


def forge_all_after(lines: Lines, n: int) -> set[int]:
    """Someone who knows how chains are made makes the whole rest anew; only the head gives it away."""
    previous = json.loads(lines[n][1])["previous"]
    for position in range(n, len(lines)):
        body = json.loads(lines[position][1]) | {"previous": previous}
        body["record"]["n"] = 77
        previous = hash_of(body)
        lines[position] = lines[position][0], canonical(body | {"hash": previous}) + b"\n"
    return {RECORDS}


def remove(lines: Lines, n: int) -> set[int]:
    path, _ = lines.pop(n)
    lines.append((path, b""))
    return {n + 1}


def cut_tail(lines: Lines, n: int) -> set[int]:
    lines[n:] = [(path, b"") for path, _ in lines[n:]]
    return set(range(n + 1, RECORDS + 1))


def swap(lines: Lines, n: int) -> set[int]:
    other = (n + 1) % len(lines)
    (first, a), (second, b) = lines[n], lines[other]
    lines[n], lines[other] = (first, b), (second, a)
    return {min(n, other) + 1} if other else {1}


def add_again(lines: Lines, n: int) -> set[int]:
    lines.insert(n, lines[n])
    return {n + 1}


def add_at_the_end(lines: Lines, n: int) -> set[int]:
    path, last = lines[-1]
    body = json.loads(last)
    body |= {"previous": body["hash"], "sequence": RECORDS + 1, "record": json.loads(lines[n][1])["record"]}
    body["record"]["at"] = json.loads(last)["record"]["at"]
    lines.append((path, canonical(body | {"hash": hash_of(body)}) + b"\n"))
    return {RECORDS + 1}


def tear(lines: Lines, n: int) -> set[int]:
    path, line = lines[n]
    lines[n] = path, line[: len(line) // 2] + b"\n"
    return {n + 1}


ATTACKS = [change, forge, forge_all_after, remove, cut_tail, swap, add_again, add_at_the_end, tear]


@pytest.mark.parametrize("attack", ATTACKS)
@given(n=st.integers(0, RECORDS - 1))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_done_to_records_is_named(
    original: Path, tmp_path: Path, attack: Callable[[Lines, int], set[int]], n: int
) -> None:
    trail = Path(shutil.copytree(original, tmp_path / "copy", dirs_exist_ok=True))
    lines = read_lines(trail)
    assert len(lines) == RECORDS
    touched = attack(lines, n)
    write_lines(lines)
    found = {finding.sequence for finding in check_trail(trail, KEY).findings}
    assert touched <= found, check_trail(trail, KEY).findings
    shutil.rmtree(trail)


def kinds(checked: Checked) -> set[str]:
    return {finding.kind for finding in checked.findings}


def test_an_untouched_trail_has_no_findings(trail: Path) -> None:
    checked = check_trail(trail, KEY)
    assert (checked.findings, checked.records, checked.signed) == ((), RECORDS, True)


@pytest.mark.parametrize("name", ["part-00.jsonl", "part-00.closed.json"])
def test_a_file_that_is_gone(trail: Path, name: str) -> None:
    min(trail.glob(f"year=*/*/*/*/{name}")).unlink()
    assert "missing" in kinds(check_trail(trail, KEY))


def test_a_file_in_another_hour(trail: Path) -> None:
    last = max(trail.glob("year=*/*/*/hour=*"))
    last.rename(last.with_name("hour=23"))
    assert "moved" in kinds(check_trail(trail, KEY))


def test_a_closed_hour_that_says_something_else(trail: Path) -> None:
    path = min(trail.glob("year=*/*/*/*/part-00.closed.json"))
    path.write_bytes(path.read_bytes().replace(b'"last":', b'"last":1'))
    assert kinds(check_trail(trail, KEY)) == {"changed"}


def test_files_that_are_not_of_the_trail(trail: Path) -> None:
    min(trail.glob("year=*/*/*/hour=*")).joinpath("part-01.jsonl").write_bytes(b"")
    (trail / "notes.txt").write_bytes(b"x")
    assert [finding.kind for finding in check_trail(trail, KEY).findings] == ["added", "added"]


def test_a_tail_that_is_cut_together_with_the_head_needs_the_key(original: Path, trail: Path) -> None:
    lines = read_lines(trail)
    write_lines([*lines[:-1], (lines[-1][0], b"")])
    head = json.loads((trail / "head.json").read_bytes())
    (chain,) = head["chains"]
    chain |= {"sequence": RECORDS - 1, "hash": json.loads(lines[-2][1])["hash"]}
    (trail / "head.json").write_bytes(canonical(head))
    assert check_trail(trail).findings == ()
    with pytest.raises(ConnectorError, match="signed with the key"):
        check_trail(trail, KEY)
    del head["signature"]
    (trail / "head.json").write_bytes(canonical(head))
    with pytest.raises(ConnectorError, match="signed with the key"):
        check_trail(trail, KEY)
    (trail / "head.json").unlink()
    assert "added" in kinds(check_trail(trail, KEY))


def test_a_folder_without_a_trail(tmp_path: Path) -> None:
    with pytest.raises(VerificationError) as caught:
        check_trail(tmp_path)
    assert caught.value.code == "PS-VERIFY-002"


def test_the_command(trail: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DESK_KEY", KEY.decode())
    assert run(["audit", "verify", str(trail), "--key-env", "DESK_KEY"]) == 0
    assert "24 records in 1 chains; the head: its signature fits" in capsys.readouterr().out
    lines = read_lines(trail)
    change(lines, 6)
    write_lines(lines)
    assert run(["audit", "verify", str(trail)]) == 3
    told = capsys.readouterr()
    assert "changed: partition 0 record 7: " in told.out
    assert "PS-VERIFY-003" in told.err
    assert run(["audit", "verify", str(trail), "--output", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["findings"][0]["sequence"] == 7

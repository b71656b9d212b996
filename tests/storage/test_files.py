"""What was synced survives; what was not is taken away by `drop_unsynced`, as a power loss may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.storage import failpoints, files, unsynced

RUN = """
import sys
from pathlib import Path
from penstock.storage import files
folder = Path(sys.argv[1])
"""


def crash(tmp_path: Path, program: str, plan: str = "") -> list[str]:
    """Run a program that ends by a kill, then drop what it had not synced."""
    environment = os.environ | {unsynced.VARIABLE: str(tmp_path / "records"), failpoints.ARM_VARIABLE: plan}
    (tmp_path / "data").mkdir(exist_ok=True)
    program = RUN + program + "\nimport os; os.kill(os.getpid(), 9)\n"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data")], env=environment, start_new_session=True, check=False
    )
    assert done.returncode == -9
    return unsynced.drop_unsynced(tmp_path / "records")


def test_appends_are_kept_up_to_the_last_sync(tmp_path: Path) -> None:
    undone = crash(
        tmp_path,
        "f = files.AppendFile(folder / 'a'); f.write([b'one']); f.sync(); f.write([b'two']); f.write([b'three'])",
    )
    assert (tmp_path / "data" / "a").read_bytes() == b"one"
    assert len(undone) == 1


def test_what_a_file_held_before_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").write_bytes(b"old")
    crash(tmp_path, "f = files.AppendFile(folder / 'a'); f.write([b'new'])")
    assert (tmp_path / "data" / "a").read_bytes() == b"old"


def test_a_cut_file_keeps_no_more_than_what_was_left(tmp_path: Path) -> None:
    crash(
        tmp_path,
        "f = files.AppendFile(folder / 'a'); f.write([b'onetwo']); f.sync(); f.truncate(3); f.write([b'xyz'])",
    )
    assert (tmp_path / "data" / "a").read_bytes() == b"one"


def test_writes_of_several_processes_are_told_apart(tmp_path: Path) -> None:
    program = """
import subprocess
f = files.AppendFile(folder / 'a'); f.write([b'one'])
subprocess.run([sys.executable, '-c', '''
import sys
from pathlib import Path
from penstock.storage import files
f = files.AppendFile(Path(sys.argv[1]) / "a"); f.write([b"two"]); f.sync(); f.write([b"three"])
''', str(folder)], check=True)
"""
    crash(tmp_path, program)
    assert (tmp_path / "data" / "a").read_bytes() == b"onetwo"


def test_write_atomic_is_durable_when_it_returns(tmp_path: Path) -> None:
    crash(tmp_path, "files.write_atomic(folder / 'a', b'old'); files.write_atomic(folder / 'a', b'new')")
    assert (tmp_path / "data" / "a").read_bytes() == b"new"


@pytest.mark.parametrize("point", ["file.write", "file.rename", "file.renamed"])
def test_a_kill_inside_write_atomic_leaves_the_old_content(tmp_path: Path, point: str) -> None:
    crash(
        tmp_path,
        "files.write_atomic(folder / 'a', b'old'); files.write_atomic(folder / 'a', b'new')",
        plan=f"{point}@2",
    )
    assert (tmp_path / "data" / "a").read_bytes() == b"old"


def test_a_new_name_is_lost_without_a_sync_of_its_folder(tmp_path: Path) -> None:
    crash(tmp_path, "files.write_atomic(folder / 'a', b'new')", plan="file.renamed@1")
    assert not (tmp_path / "data" / "a").exists()


def test_removal_is_durable(tmp_path: Path) -> None:
    crash(tmp_path, "files.write_atomic(folder / 'a', b'x'); files.remove(folder / 'a'); files.remove(folder / 'b')")
    assert not (tmp_path / "data" / "a").exists()


def test_a_failed_write_atomic_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomic(tmp_path / "a", b"old")
    monkeypatch.setenv(failpoints.ARM_VARIABLE, "file.rename@1=error")
    failpoints.reload()
    try:
        with pytest.raises(OSError, match="No space"):
            files.write_atomic(tmp_path / "a", b"new")
    finally:
        monkeypatch.undo()
        failpoints.reload()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    assert files.is_temporary(files.temporary_name(tmp_path / "x"))


def test_a_rename_that_did_not_come_to_pass_cuts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(unsynced.VARIABLE, str(tmp_path / "records"))
    target, shorter = tmp_path / "mark", tmp_path / "new"
    files.write_atomic(target, b"a longer content")
    shorter.write_bytes(b"short")
    unsynced.renaming(shorter, target)
    unsynced.drop_unsynced(tmp_path / "records")
    assert target.read_bytes() == b"a longer content"


def test_a_kill_while_a_rename_is_settled_leaves_the_new_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = tmp_path / "records"
    monkeypatch.setenv(unsynced.VARIABLE, str(records))
    target = tmp_path / "mark"
    files.write_atomic(target, b"old")
    removed: list[str] = []
    unlink = Path.unlink

    def die_at_the_second(path: Path, missing_ok: bool = False) -> None:
        if path.parent == records and path.suffix in (".change", ".backup"):
            removed.append(path.suffix)
            if len(removed) == 2:
                raise InterruptedError
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", die_at_the_second)
    with pytest.raises(InterruptedError):
        files.write_atomic(target, b"new")
    monkeypatch.undo()
    unsynced.drop_unsynced(records)
    assert target.read_bytes() == b"new"
    assert list(records.glob("*.backup")) == []

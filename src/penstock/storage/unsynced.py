"""A record of what a power loss would take away, for crash tests.

SIGKILL leaves the page cache alone, so killing a process never tests fsync. With `PENSTOCK_UNSYNCED=FOLDER` set,
`penstock.storage.files` records here the length up to which each file was synced, and each creation, rename and
removal whose folder was not. After the kill, `drop_unsynced(FOLDER)` makes the disk look as the least that a power
loss must leave. Several processes may record into one folder. Not used outside of tests.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

VARIABLE = "PENSTOCK_UNSYNCED"


def tracking() -> bool:
    """Whether this process records."""
    return VARIABLE in os.environ


def opened(path: Path, length: int, *, created: bool) -> None:
    """A file was opened for appending: what it held before counts as synced, unless another record says less."""
    with _locked() as folder:
        record = _length_record(folder, path)
        if created:
            _operation(folder, "create", path, backup=None)
        if created or not record.exists():
            _write(
                record,
                {"path": str(path.absolute()), "synced": 0 if created else length},
            )


def synced(path: Path, length: int) -> None:
    """All bytes of `path` below `length` are durable."""
    with _locked() as folder:
        record = _length_record(folder, path)
        known = json.loads(record.read_text())["synced"] if record.exists() else 0
        _write(record, {"path": str(path.absolute()), "synced": max(known, length)})


def truncated(path: Path, length: int) -> None:
    """The file was cut: nothing beyond `length` can be durable any more."""
    with _locked() as folder:
        record = _length_record(folder, path)
        known = json.loads(record.read_text())["synced"] if record.exists() else length
        _write(record, {"path": str(path.absolute()), "synced": min(known, length)})


def renaming(source: Path, target: Path) -> None:
    """`source` is about to become `target`; until its folder is synced, the old target may come back."""
    with _locked() as folder:
        _operation(folder, "replace", target, backup=target if target.exists() else None)
        _length_record(folder, source).unlink(missing_ok=True)
        _write(
            _length_record(folder, target),
            {"path": str(target.absolute()), "synced": source.stat().st_size},
        )


def removing(path: Path) -> None:
    """`path` is about to be deleted; until its folder is synced, it may come back."""
    if path.exists():
        with _locked() as folder:
            _operation(folder, "remove", path, backup=path)


def pending(folder: Path) -> tuple[Path, ...]:
    """The recorded name changes in `folder`: those that a sync of it, started now, settles."""
    with _locked() as records:
        wanted = str(folder.absolute())
        return tuple(path for path, change in _operations(records) if change["folder"] == wanted)


def settled(operations: Iterable[Path]) -> None:
    """Forget name changes that are durable now.

    The change goes first: a kill between the two must not leave a change that seems to have replaced nothing.
    """
    for operation in operations:
        operation.unlink(missing_ok=True)
        operation.with_suffix(".backup").unlink(missing_ok=True)


def drop_unsynced(folder: Path, survive: Callable[[int], int] = lambda unsynced: 0) -> list[str]:
    """Undo all that was not synced, forget the records, and say what was undone, a sentence each.

    survive: of a file's last bytes that were not synced (given: how many), the number that is on the disk all the same.
    """
    undone = []
    for operation, change in sorted(_operations(folder), reverse=True):
        path = Path(str(change["path"]))
        backup = operation.with_suffix(".backup")
        if backup.exists():
            os.replace(backup, path)
            # The record of its length may be that of a file whose rename never came to pass.
            _write(_length_record(folder, path), {"path": str(path), "synced": int(change["synced"])})
            undone.append(f"{change['kind']} of {path}: the old file is back")
        elif change["kind"] != "remove" and path.exists():
            path.unlink()
            undone.append(f"{change['kind']} of {path}: the file is gone")
        operation.unlink()
    for orphan in folder.glob("*.backup"):
        orphan.unlink()
    for record in sorted(folder.glob("*.length")):
        entry = json.loads(record.read_text())
        path = Path(entry["path"])
        unsynced = path.stat().st_size - entry["synced"] if path.exists() else 0
        lost = unsynced - survive(unsynced) if unsynced > 0 else 0
        if lost > 0:
            undone.append(f"{path}: {lost} bytes lost")
            os.truncate(path, path.stat().st_size - lost)
        record.unlink()
    return undone


def _operation(folder: Path, kind: str, path: Path, backup: Path | None) -> None:
    stamp = f"{time.time_ns():020d}-{os.getpid()}"
    change: dict[str, object] = {
        "kind": kind,
        "path": str(path.absolute()),
        "folder": str(path.parent.absolute()),
    }
    if backup is not None:
        content = backup.read_bytes()
        (folder / f"{stamp}.backup").write_bytes(content)
        record = _length_record(folder, backup)
        change["synced"] = json.loads(record.read_text())["synced"] if record.exists() else len(content)
    _write(folder / f"{stamp}.change", change)


def _operations(folder: Path) -> list[tuple[Path, dict[str, str]]]:
    found = []
    for path in folder.glob("*.change"):
        with contextlib.suppress(FileNotFoundError):  # another process settles its own
            found.append((path, json.loads(path.read_text())))
    return found


def _length_record(folder: Path, path: Path) -> Path:
    return folder / (hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32] + ".length")


def _write(path: Path, entry: dict[str, object] | dict[str, str]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.new")
    temporary.write_text(json.dumps(entry))
    os.replace(temporary, path)


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    folder = Path(os.environ[VARIABLE])
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(descriptor)

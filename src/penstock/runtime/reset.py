"""`reset`: a new state in the place of the old one, with the old one's dead letters and late rows.

The new state is written and synced beside the old one and takes its name in one rename; the old file keeps a name of
its own from before. Until that rename a crash leaves the old state, which a job goes on with; after it the new one.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.engines.duckdb.carry import Carried, build, read
from penstock.engines.duckdb.engine import DATABASE, compile_for_duckdb
from penstock.engines.duckdb.redo_log import redo_path
from penstock.errors import StateError
from penstock.pipeline import Graph
from penstock.runtime.lock import StateLock
from penstock.storage import failpoints, files

BUILT = failpoints.register("reset.built", "the new state is durable under a temporary name, the old one is in force")
KEPT = failpoints.register("reset.kept", "the old state has a second name, and is still in force")
UNMARKED = failpoints.register("reset.unmarked", "the high-water mark is gone, the old state is still in force")
_MARK = "mark"


@dataclass(frozen=True)
class Reset:
    """kept: the old state's file. carried: None where the old state could not be read."""

    kept: Path
    carried: Carried | None


def reset_state(graph: Graph, folder: Path) -> Reset:
    """Put a fresh state in the place of the one in `folder`.

    Raises:
        StateError: PS-STATE-001 while a job runs on it, PS-STATE-005 when the folder cannot be written.
        DeclarationErrors: everything that is wrong with the pipeline.
    """
    plan = compile_for_duckdb(graph, in_memory=False)
    lock = StateLock.take(folder)
    try:
        with _writing(folder):
            database, fresh = folder / DATABASE, folder / f".{DATABASE}.fresh"
            for left in (fresh, _wal(fresh)):
                left.unlink(missing_ok=True)
            handed = read(database)
            if handed is None:
                return Reset(_set_aside(folder, database), None)
            carried = build(plan, handed, fresh)
            return Reset(_take_place(folder, database, fresh), carried)
    finally:
        lock.release()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise StateError(
            "PS-STATE-005",
            "the state folder cannot be written",
            expected=f"free space and a folder that this user may write: {folder}",
            got=problem.strerror or str(problem),
            hint="nothing is lost; do it again",
        ) from problem


def _take_place(folder: Path, database: Path, fresh: Path) -> Path:
    with open(fresh, "rb") as file:
        files.sync(file.fileno(), fresh)
    failpoints.hit(BUILT)
    kept = _keep(database)
    files.sync_folder(folder)
    failpoints.hit(KEPT)
    # Before the rename: a mark of the old state would refuse the new one, and the old one runs without it.
    files.remove(folder / _MARK)
    # It is settled, and would refuse the new state.
    files.remove(redo_path(database))
    failpoints.hit(UNMARKED)
    files.replace(fresh, database)
    return kept


def _keep(database: Path) -> Path:
    """Give the old file a second name; the one that a reset which was killed here gave it is taken again."""
    kept = _free_name(database)
    last = _name(database, int(kept.name.rpartition("-")[2]) - 1)
    if last.exists() and last.samefile(database):
        return last
    try:
        os.link(database, kept)
    except OSError:
        # A file system without hard links.
        temporary = files.temporary_name(kept)
        shutil.copyfile(database, temporary)
        with open(temporary, "rb") as file:
            files.sync(file.fileno(), temporary)
        files.replace(temporary, kept)
    return kept


def _set_aside(folder: Path, database: Path) -> Path:
    """A file that cannot be read goes as it is. The logs first, the mark last: what is left in between is refused."""
    kept = _free_name(database)
    for log, kept_log in ((_wal(database), _wal(kept)), (redo_path(database), redo_path(kept))):
        if log.exists():
            files.replace(log, kept_log)
    files.replace(database, kept)
    files.remove(folder / _MARK)
    return kept


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _name(database: Path, number: int) -> Path:
    return database.with_name(f"{database.name}.before-reset-{number}")


def _free_name(database: Path) -> Path:
    """A second reset keeps what the first one kept."""
    names = (_name(database, n) for n in itertools.count(1))
    return next(name for name in names if not any(p.exists() for p in (name, _wal(name), redo_path(name))))

"""Folders that a measurement may empty: its own of earlier times, and no other."""

from __future__ import annotations

import shutil
from pathlib import Path


def emptied(folder: Path, mark: str, owner: str) -> None:
    """Leave `folder` empty but for the file `mark`; one that was marked before is emptied, any other is left alone.

    Raises:
        FileExistsError: the folder has something in it and no mark; the message names the `owner`.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / mark).exists():
            raise FileExistsError(f"{folder} is not empty, and not of an earlier {owner}")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mark).touch()

"""Waiting wakes on change with inotify and with polling alike."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from penstock.connectors import watch
from penstock.connectors.watch import FolderWatch


@pytest.mark.parametrize("poll", [False, True], ids=["native", "poll"])
def test_a_change_wakes_and_silence_ends_on_time(tmp_path: Path, poll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if poll:
        monkeypatch.setattr(watch, "_inotify", lambda folders: -1)
    watched = FolderWatch([tmp_path, tmp_path / "not there"] if poll else [tmp_path])
    began = time.monotonic()
    watched.wait(0.05)
    assert 0.04 < time.monotonic() - began < 15
    for change in (
        lambda: (tmp_path / "a").write_bytes(b"1"),
        lambda: (tmp_path / "a").write_bytes(b"22"),
        lambda: (tmp_path / "a").rename(tmp_path / "b"),
    ):
        timer = threading.Timer(0.05, change)
        timer.start()
        began = time.monotonic()
        watched.wait(30)
        assert time.monotonic() - began < 15
        timer.join()
        watched.wait(0)
    watched.close()


def test_a_change_between_two_waits_is_not_missed(tmp_path: Path) -> None:
    watched = FolderWatch([tmp_path])
    (tmp_path / "a").write_bytes(b"1")
    began = time.monotonic()
    watched.wait(30)
    assert time.monotonic() - began < 15
    watched.close()


@pytest.mark.parametrize("poll", [False, True], ids=["native", "poll"])
def test_ignored_names_wake_nobody(tmp_path: Path, poll: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if poll:
        monkeypatch.setattr(watch, "_inotify", lambda folders: -1)
    watched = FolderWatch([tmp_path], ignored=frozenset({"synced"}))
    (tmp_path / "synced").write_bytes(b"1")
    began = time.monotonic()
    watched.wait(0.05)
    assert time.monotonic() - began > 0.04
    (tmp_path / "synced").write_bytes(b"22")
    (tmp_path / "a").write_bytes(b"1")
    watched.wait(30)
    assert time.monotonic() - began < 15
    watched.close()

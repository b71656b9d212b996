"""Waiting wakes on change with inotify and with polling alike."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from penstock.connectors import watch
from penstock.connectors.watch import FolderWatch, wait_for_any


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


class Plain:
    """Can only be waited for alone."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def wait(self, timeout_s: float) -> None:
        self.waited_s.append(timeout_s)


@pytest.mark.skipif(sys.platform != "linux", reason="inotify")
def test_news_of_any_end_the_wait_for_all(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    watches = [FolderWatch([folder]) for folder in folders]
    began = time.monotonic()
    wait_for_any(watches, 0.05)
    assert time.monotonic() - began >= 0.04
    writer = threading.Timer(0.1, (folders[1] / "x").write_bytes, (b"x",))
    writer.start()
    wait_for_any(watches, 60)
    assert time.monotonic() - began < 30
    writer.join()
    wait_for_any(watches, 0.5)
    began = time.monotonic()
    wait_for_any(watches, 0.05)
    assert time.monotonic() - began >= 0.04
    for each in watches:
        each.close()


def test_one_that_can_only_be_waited_for_alone_gets_a_slice(tmp_path: Path) -> None:
    plain, watched = Plain(), FolderWatch([tmp_path])
    began = time.monotonic()
    wait_for_any([plain, watched], 60)
    assert time.monotonic() - began < 30
    assert plain.waited_s == [pytest.approx(0.0025)]
    watched.close()

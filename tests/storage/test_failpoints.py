"""Fail points fire at the stated hit, once, and only when armed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.storage import failpoints

POINT = failpoints.register("test.point", "a point of this test")
HALF = failpoints.register("test.half", "a point that tears")


@pytest.fixture(autouse=True)
def _disarm(monkeypatch: pytest.MonkeyPatch):
    yield
    monkeypatch.undo()
    failpoints.reload()


def arm(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(failpoints.ARM_VARIABLE, text)
    failpoints.reload()


def test_error_at_the_stated_hit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, f"{POINT}@2=error")
    failpoints.hit(POINT)
    with pytest.raises(OSError, match=POINT) as caught:
        failpoints.hit(POINT)
    assert caught.value.errno == errno.ENOSPC
    failpoints.hit(POINT)


def test_registering_one_name_for_two_things_is_refused() -> None:
    assert failpoints.register(POINT, "a point of this test") == POINT
    with pytest.raises(ValueError, match="twice"):
        failpoints.register(POINT, "another")
    assert failpoints.registered()[POINT] == "a point of this test"


@pytest.mark.parametrize("text", ["a", "a@", "a@0", "a@x", "a@1=stop"])
def test_a_wrong_plan_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ValueError, match="NAME@COUNT"):
        arm(monkeypatch, text)


def test_hits_are_logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(failpoints.LOG_VARIABLE, str(tmp_path / "hits"))
    failpoints.reload()
    failpoints.hit(POINT)
    assert failpoints.torn(HALF, b"abcd") == b"abcd"
    assert (tmp_path / "hits").read_text().split() == [POINT, HALF]


PROGRAM = """
import sys
from penstock.storage import failpoints
file = open(sys.argv[1], "wb", buffering=0)
for _ in range(5):
    failpoints.hit("test.point")
    file.write(failpoints.torn("test.half", b"abcd"))
    failpoints.torn_kill("test.half")
"""


@pytest.mark.parametrize(
    ("plan", "left"), [("test.point@3", b"abcdabcd"), ("test.half@2", b"abcdab"), ("", b"abcd" * 5)]
)
def test_a_kill_ends_the_process_group_and_may_tear(tmp_path: Path, plan: str, left: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "out")],
        env=os.environ | {failpoints.ARM_VARIABLE: plan},
        start_new_session=True,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if plan else 0)
    assert (tmp_path / "out").read_bytes() == left

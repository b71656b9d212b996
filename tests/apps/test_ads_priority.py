"""Who is scheduled first, seen from inside a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STEPS = """
import os
from penstock.apps.ads.priority import step_back, step_in
step_back()
seen = [os.nice(0), os.getsid(0) == os.getpid()]
step_in()
print(*seen, os.nice(0))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sessions are scheduled on Linux only")
def test_stepping_back_is_taken_back_where_that_is_allowed() -> None:
    found = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    back, alone, after = found.stdout.split()
    assert int(back) == os.nice(0) + 10
    assert alone == "True"
    assert int(after) == (0 if os.geteuid() == 0 else int(back))

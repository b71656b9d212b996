"""Who goes first where processors are short: the load, then the job, then what only watches.

Linux shares processors among sessions first, and priorities only count within one: so a session of its own, and a
priority for both. Only some users may have a better one, and not every system knows sessions; the lag of the producers
shows what that costs.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PREFERENCE = 10
_AUTOGROUP = Path("/proc/self/autogroup")


def step_forward() -> None:
    """Ask to be scheduled before the job, for a schedule that waits for the system under test is no schedule."""
    _prefer(-PREFERENCE)


def step_back() -> None:
    """Ask to be scheduled after the job: following it must not take from what is measured."""
    _prefer(PREFERENCE)


def step_in() -> None:
    """No more than others again, once there is nothing left to be measured."""
    with contextlib.suppress(OSError):
        os.nice(-os.nice(0))
        _AUTOGROUP.write_text("0")


def _prefer(nice: int) -> None:
    with contextlib.suppress(OSError):
        os.setsid()
        os.nice(nice)
        _AUTOGROUP.write_text(str(nice))

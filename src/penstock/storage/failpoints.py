"""Named points at which a crash test can kill the process (semantics P2).

Every durable step registers a name when its module is loaded and calls `hit(name)` when it runs. Nothing happens
unless the environment arms a point:

- `PENSTOCK_FAILPOINTS="log.append@3,log.sync@1=error"`: at the third hit of `log.append` the whole process group is
  killed (SIGKILL); at the first hit of `log.sync` an OSError (no space left on device) is raised instead.
- `PENSTOCK_FAILPOINT_LOG=FILE`: the name of every hit is appended to FILE, a line each.

A point that is not armed costs a function call and one comparison.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NoReturn, Protocol

ARM_VARIABLE = "PENSTOCK_FAILPOINTS"
LOG_VARIABLE = "PENSTOCK_FAILPOINT_LOG"

Action = Literal["kill", "error"]

_registered: dict[str, str] = {}


@dataclass
class _Plan:
    armed: dict[str, dict[int, Action]]
    log: str
    hits: dict[str, int] = field(default_factory=dict)


_plan: _Plan | None = None
_loaded = False


def register(name: str, meaning: str) -> str:
    """Make `name` known and return it; a name that is registered twice with two meanings is a mistake."""
    if _registered.setdefault(name, meaning) != meaning:
        raise ValueError(f"fail point {name} is registered twice")
    return name


def registered() -> dict[str, str]:
    """All names known so far (of the modules loaded), with their meanings."""
    return dict(sorted(_registered.items()))


def reload() -> None:
    """Read the environment again and count hits from zero; for tests that arm points in their own process."""
    global _plan, _loaded
    _plan = _read_environment()
    _loaded = True


class Driver(Protocol):
    """Decides, in the process itself, what becomes of each hit (simulation)."""

    def hit(self, name: str) -> Action | None:
        """What is due at this hit of `name`."""
        ...

    def crash(self, name: str) -> NoReturn:
        """The process is to end here: raise what stands for that."""
        ...


@contextlib.contextmanager
def driven(driver: Driver) -> Iterator[None]:
    """Within the block every hit is the driver's, whatever the environment says."""
    global _driver
    _driver = driver
    _torn.clear()
    try:
        yield
    finally:
        _driver = None
        _torn.clear()


_driver: Driver | None = None


def hit(name: str) -> None:
    """The named step is about to run, or has just run."""
    if not _loaded:
        reload()
    if (_plan is not None or _driver is not None) and (action := _due(name)) is not None:
        _act(action, name)


def active() -> bool:
    """Whether any point is armed or hits are logged; spares work that only crash tests need."""
    if not _loaded:
        reload()
    return _plan is not None or _driver is not None


def torn(name: str, data: bytes) -> bytes:
    """`data`, or its first half when a kill is due at this hit: write it, then call `torn_kill(name)`."""
    if not _loaded:
        reload()
    if _plan is None and _driver is None:
        return data
    action = _due(name)
    if action == "error":
        _act(action, name)
    if action == "kill":
        _torn.add(name)
        return data[: len(data) // 2]
    return data


_torn: set[str] = set()


def torn_kill(name: str) -> None:
    """Kill the process group if the last `torn(name, ...)` gave half of its data."""
    if name in _torn:
        _act("kill", name)


def _read_environment() -> _Plan | None:
    text = os.environ.get(ARM_VARIABLE, "")
    log = os.environ.get(LOG_VARIABLE, "")
    if not text and not log:
        return None
    armed: dict[str, dict[int, Action]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        target, _, action = part.partition("=")
        name, _, count = target.partition("@")
        if action not in ("", "kill", "error") or not count.isdigit() or int(count) < 1:
            raise ValueError(f"{ARM_VARIABLE}: {part!r} is not NAME@COUNT or NAME@COUNT=error")
        armed.setdefault(name, {})[int(count)] = "error" if action == "error" else "kill"
    return _Plan(armed, log)


def _due(name: str) -> Action | None:
    if _driver is not None:
        return _driver.hit(name)
    return _count(_plan, name) if _plan is not None else None


def _count(plan: _Plan, name: str) -> Action | None:
    plan.hits[name] = count = plan.hits.get(name, 0) + 1
    if plan.log:
        with open(plan.log, "a", encoding="utf-8") as log:
            log.write(name + "\n")
    return plan.armed.get(name, {}).get(count)


def _act(action: Action, name: str) -> None:
    if action == "error":
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (fail point {name})")
    if _driver is not None:
        _driver.crash(name)
    _kill_group()


def _kill_group() -> NoReturn:
    os.kill(0, signal.SIGKILL)
    while True:  # the signal may be delivered a moment later: nothing may run in between
        signal.pause()

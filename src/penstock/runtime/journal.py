"""Reading a journal back: the epochs of one run, to be run again exactly (semantics E1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import StateError
from penstock.plan.plan import Plan


@dataclass(frozen=True)
class JournalEntry:
    """One recorded epoch.

    ranges: source -> partition -> (from, to). requests: corrections as (kind, source, partition, offset).
    """

    epoch: int
    ranges: Mapping[str, Mapping[int, tuple[int, int]]]
    idle: Mapping[str, tuple[int, ...]]
    versions: Mapping[str, str]
    advance: Mapping[str, int]
    flush: bool
    correction: bool
    requests: tuple[tuple[str, str, int, int], ...]
    at_us: int


def read_journal(path: Path, plan: Plan) -> Iterator[JournalEntry]:
    """The entries of a file with one JSON object a line, as `penstock state journal` writes it.

    Raises:
        StateError: PS-STATE-008 when the file is missing, damaged, has a gap or belongs to another plan.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise _unusable(path, 0, "a readable file", str(problem)) from None
    expected = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            entry = _entry(raw)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise _unusable(path, number, "a journal entry", f"{type(problem).__name__}: {problem}") from None
        if entry.epoch != expected:
            raise _unusable(path, number, f"epoch {expected}", f"epoch {entry.epoch}")
        if raw.get("plan") != plan.fingerprint:
            raise _unusable(path, number, f"plan {plan.fingerprint}", f"plan {raw.get('plan')}")
        expected += 1
        yield entry


def _entry(raw: dict[str, object]) -> JournalEntry:
    sources: dict[str, dict[str, object]] = raw["sources"]  # type: ignore[assignment]
    ranges = {
        name: {int(p): (int(r[0]), int(r[1])) for p, r in s["ranges"].items()}  # type: ignore[attr-defined]
        for name, s in sources.items()
    }
    return JournalEntry(
        int(raw["epoch"]),  # type: ignore[call-overload]
        ranges,
        {name: tuple(s["idle"]) for name, s in sources.items()},  # type: ignore[arg-type]
        {name: str(s["version"]) for name, s in sources.items() if s["version"] is not None},
        dict(raw.get("advance", {})),  # type: ignore[call-overload]
        bool(raw["flush"]),
        bool(raw["correction"]),
        tuple(tuple(r) for r in raw.get("requests", [])),  # type: ignore[attr-defined]
        int(raw["at_us"]),  # type: ignore[call-overload]
    )


def _unusable(path: Path, line: int, expected: str, got: str) -> StateError:
    place = f"{path}:{line}" if line else str(path)
    return StateError("PS-STATE-008", f"the journal {place} cannot be replayed", expected=expected, got=got)

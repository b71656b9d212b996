"""The input of one epoch as a journal has it (semantics E1, R3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from penstock.connectors.base import Batch
from penstock.engines.base import EpochInput, Progress, SourceInput
from penstock.errors import StateError
from penstock.runtime.feed import Feed, ReferenceFeed
from penstock.runtime.journal import JournalEntry


def recorded_input(
    entry: JournalEntry, progress: Progress, feeds: Sequence[Feed], references: Sequence[ReferenceFeed]
) -> EpochInput:
    """Exactly what the recorded epoch was given, read again from the sources.

    Raises:
        ConnectorError: PS-CONN-005 when records of that epoch are gone.
        StateError: PS-STATE-008 when a reference's version is gone.
    """
    sources: dict[str, SourceInput] = {}
    for feed in feeds:
        name = feed.declared.name
        ranges = entry.ranges.get(name, {})
        feed.next_offsets = {p: start for p, (start, _) in ranges.items()}
        given = feed.read_exactly({p: end for p, (_, end) in ranges.items()})
        sources[name] = SourceInput(given.batches, ranges, advance_us=entry.advance.get(name))
    for reference in references:
        name = reference.declared.name
        wanted = entry.versions.get(name)
        if wanted is not None and wanted != progress.sources[name].version:
            sources[name] = _version(reference, wanted, entry.epoch, progress)
    return EpochInput(
        entry.epoch,
        sources,
        entry.idle,
        flush=entry.flush,
        replay_to=None if entry.correction else progress.replay_offset,
        at_us=entry.at_us,
    )


def _version(reference: ReferenceFeed, wanted: str, epoch: int, progress: Progress) -> SourceInput:
    name = reference.declared.name
    given = reference.recall(wanted)
    if given is None:
        raise StateError(
            "PS-STATE-008",
            f"the journal needs a version of {name} that is gone",
            expected=f"version {wanted} in epoch {epoch}",
            got=f"version {progress.sources[name].version}, and another one at its source",
            hint="put the reference back as it was",
        )
    return given


def stamped(given: EpochInput) -> EpochInput:
    """Records of sources without append times get the time at which they were first read, as journaled (R3)."""
    if all(b.times is not None for s in given.sources.values() for b in s.batches):
        return given
    sources = {
        name: replace(s, batches=tuple(b if b.times is not None else _with_time(b, given.at_us) for b in s.batches))
        for name, s in given.sources.items()
    }
    return replace(given, sources=sources)


def _with_time(batch: Batch, at_us: int) -> Batch:
    times = pa.repeat(pa.scalar(at_us, pa.timestamp("us")), batch.rows)
    return replace(batch, times=pa.chunked_array([times]))

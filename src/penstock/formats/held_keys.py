"""The keys that a reference holds, laid out for the compiled kernel: an open-addressing hash table that never changes.

A row is `width` words: of an integer its bits; of a text its length in bytes, then its bytes in words, the last one
filled with zeros. A slot has the number of a row, or -1; a row lies in the first free slot from its hash on. At most
half of the slots are taken, so that a search ends. Rows are compared word by word: a hash proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.contract.schema import ForeignKey

# What does not fit into a processor's cache is looked up as fast by a join.
MOST_ROWS = 1_000_000
LONGEST_TEXT = 64
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class References:
    """What foreign keys look into. versions: in the order of the keys; fetch: the keys that a reference holds, each
    once, asked for when a version is new; most: so many rows of a reference are held."""

    versions: tuple[object, ...]
    fetch: Callable[[ForeignKey], pa.Table]
    most: int = MOST_ROWS


@dataclass(frozen=True)
class HeldKeys:
    """One reference's rows. columns: the word at which each column begins."""

    rows: NDArray[np.uint64]
    slots: NDArray[np.int64]
    columns: NDArray[np.int64]

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])


def hold_keys(table: pa.Table, integers: Sequence[bool], most: int = MOST_ROWS) -> HeldKeys | None:
    """The keys in a table's rows, none of them twice; None where they cannot be laid out like this.

    integers: which columns of the record are integers, the others are texts; a reference may hold other types. A row
    with a NULL is found by no record, and is left out.
    """
    if table.num_rows > most:
        return None
    laid: list[tuple[Words, NDArray[np.int64] | None]] = []
    for column, integer in zip(table.drop_null().columns, integers, strict=True):
        part = _integers(column) if integer else _texts(column)
        if part is None:
            return None
        laid.append(part)
    widths = [words.shape[1] for words, _ in laid]
    columns = np.cumsum([0, *widths])[:-1].astype(np.int64)
    rows = np.ascontiguousarray(np.hstack([words for words, _ in laid]))
    return HeldKeys(rows, _slots(_hashes(laid)), columns)


def _integers(column: pa.ChunkedArray) -> tuple[Words, None] | None:
    if not pa.types.is_integer(column.type) or column.type == pa.uint64():
        return None
    return column.cast(pa.int64()).to_numpy().view(np.uint64).reshape(-1, 1), None


def _texts(column: pa.ChunkedArray) -> tuple[Words, NDArray[np.int64]] | None:
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return None
    texts = [text.encode() for text in column.to_pylist()]
    lengths = np.array([len(text) for text in texts], np.int64)
    longest = int(lengths.max(initial=1))
    if longest > LONGEST_TEXT:
        return None
    size = -(-longest // 8)
    padded = np.array(texts, f"S{8 * size}").view("<u8").reshape(len(texts), size)
    return np.hstack([lengths.view(np.uint64).reshape(-1, 1), padded.astype(np.uint64)]), lengths


def _hashes(laid: Sequence[tuple[Words, NDArray[np.int64] | None]]) -> Words:
    """As `_is_held` of the kernel computes them."""
    hashes = np.zeros(len(laid[0][0]), np.uint64)
    for words, lengths in laid:
        for place in range(words.shape[1]):
            mixed = (hashes ^ words[:, place]) * _MIX
            mixed ^= mixed >> _HALF
            # a text's hash ends with the text, not with its filling
            hashes = mixed if lengths is None or place == 0 else np.where(lengths > 8 * (place - 1), mixed, hashes)
    return hashes


def _slots(hashes: Words) -> NDArray[np.int64]:
    size = 1 << max(1, (2 * len(hashes)).bit_length())
    slots = np.full(size, -1, np.int64)
    at = (hashes & np.uint64(size - 1)).astype(np.int64)
    waiting = np.arange(len(hashes))
    while len(waiting):
        free = waiting[slots[at[waiting]] < 0]
        # of those that want one slot, the last written has it
        slots[at[free]] = free
        waiting = waiting[slots[at[waiting]] != waiting]
        at[waiting] = (at[waiting] + 1) & (size - 1)
    return slots

"""Arrow columns from numpy: decimals, dates, times, and texts drawn from a list.

Everything is drawn from a seeded generator, so that two runs on any machine see the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Integers = NDArray[np.int64]
_TEXT = (
    "accounts packages theodolites pinto beans foxes ideas dependencies instructions platelets asymptotes somas "
    "dugouts sauternes warhorses sheaves tithes requests deposits courts dolphins multipliers sleep wake nag haggle "
    "cajole use boost affix detect integrate among across above against along furiously slyly carefully blithely "
    "quickly fluffily final even regular express special pending ironic bold unusual silent ruthless daring"
)
_WORDS = tuple(_TEXT.split())


def cents(values: Integers) -> pa.Array:
    """Hundredths as DECIMAL(15, 2)."""
    wide = np.stack([values.astype(np.int64), values.astype(np.int64) >> 63], axis=1)
    buffer = pa.py_buffer(np.ascontiguousarray(wide).tobytes())
    return pa.Array.from_buffers(pa.decimal128(15, 2), len(values), [None, buffer])


def dates(days: Integers) -> pa.Array:
    """Days since 1970 as dates."""
    return pa.array(days.astype(np.int32), pa.date32())


def moments(microseconds: Integers) -> pa.Array:
    """Microseconds since 1970 as times."""
    return pa.array(microseconds.astype(np.int64), pa.timestamp("us"))


def picked(words: Sequence[str], places: Integers) -> pa.Array:
    """The word at each place."""
    return pa.array(words, pa.string()).take(pa.array(places))


def drawn(random: np.random.Generator, words: Sequence[str], rows: int) -> pa.Array:
    """One of the words for each row, all alike likely."""
    return picked(words, random.integers(0, len(words), rows))


def sentences(seed: int, count: int, salt: Sequence[str] = (), every: int = 0) -> list[str]:
    """Short texts to draw comments from; every so many of them holds the words of `salt`, in that order."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        words = [_WORDS[place] for place in random.integers(0, len(_WORDS), 6)]
        if every and number % every == 0:
            words[1:5] = [salt[0], words[2], salt[1], words[4]]
        found.append(" ".join(words))
    return found

"""The driver of the compiled kernel: batches of JSON records into the rows that it proves and the records it doubts.

The kernel needs the extra `fast` (numba). Loading it takes a moment, so it is loaded in a thread of its own once that
pays, and until then (or without the extra) every record is judged by SQL. Verdicts are the same either way.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.connectors.base import RawBatch
from penstock.contract.schema import Column, ForeignKey
from penstock.formats.held_keys import HeldKeys, References, hold_keys
from penstock.formats.judge_sql import Judgement
from penstock.formats.provable import LIMITS, bounds, is_token, kind_of, proven_rules, text_rule

# A process loads the kernel when it has judged so many records, or for so long; earlier SQL is done sooner.
WORTHWHILE_ROWS = 20_000
WORTHWHILE_S = 2.0
# What SQL takes for a record: so long the first of them wait for the kernel, which is loaded sooner than compiled.
SQL_S = 2e-6
# Smaller chunks are put together first: each run of the kernel costs as much as some hundred records.
LEAST_CHUNK = 4_096
# Starting threads takes as long as the kernel needs for some thousand records.
WORTH_THREADS = 10_000
MOST_FIELDS = 60
SWITCH = "PENSTOCK_COMPILED"


class Kernel(Protocol):
    """The module `kernel`."""

    PAD: int
    TEXT: int
    INTEGER: int
    BOOLEAN: int
    TOKEN: int
    ANY: int
    UUID: int
    IP: int
    CHOICE: int

    def prove(self, *arguments: object) -> int: ...


class Loader:
    """Loads the kernel once per process. The environment variable PENSTOCK_COMPILED says `never`, `now` or `auto`."""

    def __init__(self) -> None:
        self._kernel: Kernel | None = None
        self._thread: threading.Thread | None = None
        self._rows = 0
        self._since = time.monotonic()
        self._never = False

    def kernel(self, rows: int) -> Kernel | None:
        """The kernel if it is there; otherwise loading begins when the records that came make it worthwhile."""
        if self._kernel is not None or self._never:
            return self._kernel
        self._rows += rows
        match os.environ.get(SWITCH, "auto"):
            case "never":
                self._never = True
            case "now":
                self.load()
            case _:
                worthwhile = self._rows >= WORTHWHILE_ROWS or time.monotonic() - self._since >= WORTHWHILE_S
                if worthwhile and self._thread is None:
                    self._thread = threading.Thread(target=self._load_aside, name="penstock-kernel", daemon=True)
                    self._thread.start()
                    self._thread.join(rows * SQL_S)
        return self._kernel

    def prepare(self) -> None:
        """A run begins that will last: load it now, for later it would hold up the records of a moment."""
        if self._kernel is None and self._thread is None and os.environ.get(SWITCH, "auto") != "never":
            self._load_aside()

    def _load_aside(self) -> None:
        try:
            self.load()
        except Exception as problem:  # noqa: BLE001 - an installation that is broken in whatever way; SQL judges on
            self._never = True
            logging.getLogger("penstock").warning("the compiled kernel cannot be loaded, SQL judges alone: %s", problem)

    def load(self) -> Kernel | None:
        """Load it now; None without the extra."""
        if self._kernel is None:
            if importlib.util.find_spec("numba") is None:
                self._never = True
            else:
                self._kernel = cast("Kernel", importlib.import_module("penstock.formats.kernel"))
        return self._kernel


loader = Loader()

Watch = Callable[[RawBatch, NDArray[np.int16], int], None]
"""Hears of a piece: its doubtful records, `Split.unheld` of them, and how many of its records are proven."""


@dataclass(frozen=True)
class Split:
    """What the kernel made of batches. proven: rows in columns (`_ps_p`, `_ps_o`, `_ps_t` and the contract's, tokens as
    JSON text); doubtful: the other records, as they came. keyed: the references hold the foreign keys of the proven.
    typed: none of their columns is a token. unheld: per doubtful batch and record the number of the foreign key that no
    reference holds, where nothing else is doubted, or -1."""

    proven: pa.Table
    doubtful: tuple[RawBatch, ...]
    unheld: tuple[NDArray[np.int16], ...] = ()
    keyed: bool = False
    typed: bool = False


class CompiledJudge:
    """One contract as the arrays that the kernel reads."""

    def __init__(self, judgement: Judgement) -> None:
        self.columns = judgement.schema.columns
        self._foreign = judgement.schema.foreign_keys
        self._specs: dict[tuple[str, ...], _Spec] = {}
        self._held: Held | None = None
        self._required = {c.name for c in self.columns if not c.nullable or c.default or c.name in judgement.key}
        plain = {c.name for c in self.columns if c.name in self._required and kind_of(c) in ("text", "integer")}
        self._typed = not any(is_token(column) for column in self.columns)
        self._plain_keys = all(set(key.columns) <= plain for key in self._foreign)

    @staticmethod
    def fits(judgement: Judgement) -> bool:
        """Whether the kernel can read such records at all."""
        names = [column.name for column in judgement.schema.columns]
        plain = all(name.isascii() and name.isprintable() and not set('"\\') & set(name) for name in names)
        return not judgement.nested and plain and 0 < len(names) <= MOST_FIELDS

    def hold(self, references: References) -> Held | None:
        """What the references hold, if the kernel can see to all foreign keys."""
        if not self._foreign or not self._plain_keys:
            return None
        if self._held is None or not self._held.serves(references):
            integers = {column.name: kind_of(column) == "integer" for column in self.columns}
            keys = [
                hold_keys(references.fetch(key), [integers[name] for name in key.columns], references.most)
                for key in self._foreign
            ]
            self._held = Held(references, self.columns, self._foreign, keys)
        return self._held if self._held.whole else None

    def split(
        self,
        kernel: Kernel,
        batches: Sequence[RawBatch],
        columns: Collection[str],
        threads: int,
        held: Held | None = None,
        watch: Watch | None = None,
    ) -> Split:
        """Judge all records. columns: those to give. held: the foreign keys are seen to as well. watch: is told of each
        piece's doubts, in their order, while threads judge the next ones."""
        wanted = tuple(columns)
        keys = held.arguments if held is not None else _NO_KEYS
        spec = self._specs.get(wanted) or _Spec(kernel, self.columns, self._required, wanted)
        self._specs[wanted] = spec
        pieces = [(batch, piece) for batch in batches for piece in _pieces(batch)]

        def run(job: tuple[RawBatch, pa.RecordBatch]) -> _Judged:
            return _judge_piece(kernel, spec, keys, *job)

        if threads > 1 and len(pieces) > 1 and sum(piece.num_rows for _, piece in pieces) >= WORTH_THREADS:
            with ThreadPoolExecutor(threads) as pool:
                done = _watched(pool.map(run, pieces), watch)
        else:
            done = _watched(map(run, pieces), watch)
        doubts = [doubt for _, doubt in done if doubt is not None]
        return Split(
            pa.Table.from_batches([batch for proven, _ in done for batch in proven], spec.schema),
            tuple(doubtful for doubtful, _ in doubts),
            tuple(unheld for _, unheld in doubts),
            held is not None,
            self._typed,
        )


class Held:
    """The keys of all references of a contract, as the kernel takes them. whole: no reference is left out."""

    def __init__(
        self,
        references: References,
        columns: Sequence[Column],
        foreign: Sequence[ForeignKey],
        keys: Sequence[HeldKeys | None],
    ) -> None:
        self._versions, self._most = references.versions, references.most
        held = [each for each in keys if each is not None]
        self.whole = len(held) == len(keys)
        numbers = {column.name: number for number, column in enumerate(columns)}
        fields = [[numbers[name] for name in key.columns] for key in foreign]
        self.arguments: Arguments = _key_arguments(fields, held) if self.whole else _NO_KEYS

    def serves(self, references: References) -> bool:
        """Whether nothing is to be fetched: these versions are held, or were found to be too large."""
        return self._versions == references.versions and (self.whole or references.most <= self._most)


Arguments = tuple[NDArray[Any], ...]


def _key_arguments(fields: Sequence[Sequence[int]], held: Sequence[HeldKeys]) -> Arguments:
    """keys: of each its first place and the one behind its last, the words of a row, its first slot, its last (counted
    from there), its first word; places: of each its field and its word in a row; slots; words."""
    keys, places = np.zeros((len(held), 6), np.int64), [np.empty((0, 2), np.int64)]
    behind = slot = word = 0
    for number, (key, each) in enumerate(zip(fields, held, strict=True)):
        first, behind = behind, behind + len(key)
        keys[number] = first, behind, each.width, slot, each.slots.size - 1, word
        places.append(np.column_stack([np.array(key, np.int64), each.columns]))
        slot, word = slot + each.slots.size, word + each.rows.size
    slots = np.concatenate([np.empty(0, np.int64), *(each.slots for each in held)])
    words = np.concatenate([np.empty(0, np.uint64), *(each.rows.ravel() for each in held)])
    return keys, np.ascontiguousarray(np.vstack(places)), slots, words


_NO_KEYS = _key_arguments([], [])


@dataclass(frozen=True)
class _Place:
    """Where the kernel writes a column. choices: what the numbers of a choice mean."""

    name: str
    text: bool
    slot: int
    required: bool
    choices: pa.StringArray | None

    @property
    def type(self) -> pa.DataType:
        if self.choices is not None:
            return pa.dictionary(pa.int16(), pa.string())
        return pa.string() if self.text else pa.int64()


class _Spec:
    """The kernel's view of a contract and of the columns wanted."""

    def __init__(
        self, kernel: Kernel, columns: Sequence[Column], required: Collection[str], wanted: Collection[str]
    ) -> None:
        # with the colon that follows, nearly always at once
        names = [f'"{column.name}":'.encode() for column in columns]
        name_words, name_masks, name_at = _words(names)
        name_length = np.array([len(name) for name in names], np.int32)
        self.longest = max(len(name) for name in names)
        # whether no record has had another character yet
        self.ascii = True
        kinds = [kind_of(column) for column in columns]
        codes = {"text": kernel.TEXT, "integer": kernel.INTEGER, "boolean": kernel.BOOLEAN, "token": kernel.TOKEN}
        kind_codes = np.array([codes[kind] for kind in kinds], np.int8)
        rules = np.array([self._rule(kernel, column) for column in columns], np.int8)
        needed = np.array([column.name in required for column in columns], np.bool_)
        limits = np.array([_bounds(column) for column in columns], np.int64)
        choices = [_choices(column) for column in columns]
        choice_first = np.cumsum([0, *map(len, choices)]).astype(np.int32)
        flat = [choice for some in choices for choice in some] or [b""]
        choice_words = np.array([[_word(c[:8]), _word(c[8:])] for c in flat], np.uint64)
        choice_masks = np.array([[_mask(len(c[:8])), _mask(len(c[8:]))] for c in flat], np.uint64)
        choice_length = np.array([len(c) for c in flat], np.int64)
        number_slot = np.full(len(columns), -1, np.int32)
        text_slot = np.full(len(columns), -1, np.int32)
        self.places: list[_Place] = []
        for place, (column, kind) in enumerate(zip(columns, kinds, strict=True)):
            if column.name in wanted or kind == "token":
                text = kind in ("text", "token") and rules[place] != kernel.CHOICE
                slots = text_slot if text else number_slot
                slots[place] = int(slots.max()) + 1
                chosen = pa.array([c.decode() for c in choices[place]]) if rules[place] == kernel.CHOICE else None
                self.places.append(_Place(column.name, text, int(slots[place]), bool(needed[place]), chosen))
        self.number_slots, self.text_slots = int(number_slot.max()) + 1, int(text_slot.max()) + 1
        fields = [pa.field(place.name, place.type) for place in self.places]
        self.schema = pa.schema([("_ps_p", pa.int32()), ("_ps_o", pa.int64()), ("_ps_t", pa.timestamp("us")), *fields])
        self.arguments: Arguments = (
            *(name_words, name_masks, name_at, name_length, kind_codes, rules, needed, limits),
            *(choice_first, choice_words, choice_masks, choice_length, number_slot, text_slot),
        )

    @staticmethod
    def _rule(kernel: Kernel, column: Column) -> int:
        covered = proven_rules(column) if kind_of(column) == "text" else ()
        match text_rule(covered[0]) if covered else None:
            case "UUID":
                return kernel.UUID
            case "IP":
                return kernel.IP
            case "CHOICE":
                return kernel.CHOICE
        return kernel.ANY


def _word(part: bytes) -> int:
    return int.from_bytes(part, "little")


def _mask(length: int) -> int:
    return (1 << 8 * length) - 1


def _words(texts: Sequence[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32]]:
    words, masks, at = [], [], [0]
    for text in texts:
        for start in range(0, len(text), 8):
            part = text[start : start + 8]
            words.append(_word(part))
            masks.append(_mask(len(part)))
        at.append(len(words))
    return np.array(words, np.uint64), np.array(masks, np.uint64), np.array(at, np.int32)


def _bounds(column: Column) -> tuple[int, int]:
    if kind_of(column) != "integer":
        return LIMITS
    low, high = bounds(column)
    # bounds that leave nothing: no integer of 64 bits is proven
    return (low, high) if low <= high and low <= LIMITS[1] and high >= LIMITS[0] else (LIMITS[1], LIMITS[0])


def _choices(column: Column) -> list[bytes]:
    for rule in proven_rules(column):
        if rule.name == "one_of" and isinstance(rule.argument, tuple):
            return [str(value).encode() for value in rule.argument]
    return []


_Doubt = tuple[RawBatch, NDArray[np.int16]]
_Judged = tuple[list[pa.RecordBatch], _Doubt | None]


def _watched(pieces: Iterable[_Judged], watch: Watch | None) -> list[_Judged]:
    done = []
    for judged in pieces:
        done.append(judged)
        batches, doubt = judged
        if doubt is not None and watch is not None:
            watch(*doubt, sum(batch.num_rows for batch in batches))
    return done


def _pieces(batch: RawBatch) -> list[pa.RecordBatch]:
    """The batch in chunks of a good size: values, offsets, append times, keys if there are any."""
    times = batch.times
    if times is None:
        times = pa.chunked_array([pa.nulls(batch.rows, pa.timestamp("us"))])
    values = batch.values if batch.values.type == pa.binary() else batch.values.cast(pa.binary())
    offsets = batch.offsets if isinstance(batch.offsets, pa.ChunkedArray) else pa.chunked_array([batch.offsets])
    keys = [batch.keys] if batch.keys is not None else []
    names = ["v", "o", "t", "k"][: 3 + len(keys)]
    table = pa.Table.from_arrays([values, offsets, times.cast(pa.timestamp("us")), *keys], names)
    whole = [piece for piece in table.to_batches() if piece.num_rows]
    if len(whole) > 1 and table.num_rows < LEAST_CHUNK * len(whole):
        pieces = []
        for start in range(0, table.num_rows, 4 * LEAST_CHUNK):
            pieces += table.slice(start, 4 * LEAST_CHUNK).combine_chunks().to_batches()
        return pieces
    return whole


def _judge_piece(kernel: Kernel, spec: _Spec, keys: Arguments, batch: RawBatch, piece: pa.RecordBatch) -> _Judged:
    values, rows = piece.column(0), piece.num_rows
    if values.null_count:
        # tombstones are rare where records are plain JSON: all of the piece is doubted
        return [], _doubtful(batch, piece, np.zeros(rows, np.int16))
    proven = np.empty(rows, np.int16)
    parts = _proven_parts(kernel, spec, keys, values, proven)
    offsets, times, doubtful = piece.column(1), piece.column(2), None
    if proven.min() < 1:
        mask = pa.array(proven == 1)
        offsets, times = offsets.filter(mask), times.filter(mask)
        doubtful = _doubtful(batch, piece, proven)
    batches, start = [], 0
    for count, columns in parts:
        partition = pa.repeat(pa.scalar(batch.partition, pa.int32()), count)
        place = [partition, offsets.slice(start, count), times.slice(start, count)]
        batches.append(pa.RecordBatch.from_arrays([*place, *columns], schema=spec.schema))
        start += count
    return batches, doubtful


def _proven_parts(
    kernel: Kernel, spec: _Spec, keys: Arguments, values: pa.BinaryArray, proven: NDArray[np.int16]
) -> list[tuple[int, list[pa.Array]]]:
    # The kernel trusts the places of the records.
    values.validate(full=True)
    # Nearly all sources are ASCII; where one is not, its bytes are looked at before the kernel reads them.
    ascii_only = spec.ascii or not _is_utf8(values)
    foreign = np.zeros(1, np.bool_)
    rows = len(values)
    ends = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + rows + 1]
    data = np.frombuffer(values.buffers()[2] or b"", np.uint8)
    pad = kernel.PAD + spec.longest
    # The last records lie too near to the end of the buffer to be read by words: they are read from a copy.
    safe = max(0, int(np.searchsorted(ends, len(data) - pad, "right")) - 1)
    parts = (
        [_run(kernel, spec, keys, data, ends[: safe + 1], proven[:safe], foreign, ascii_only=ascii_only)]
        if safe
        else []
    )
    if safe < rows:
        tail = np.concatenate([data[ends[safe] : ends[-1]], np.zeros(pad, np.uint8)])
        parts.append(
            _run(kernel, spec, keys, tail, ends[safe:] - ends[safe], proven[safe:], foreign, ascii_only=ascii_only)
        )
    if foreign[0] and spec.ascii:
        spec.ascii = False
        return _proven_parts(kernel, spec, keys, values, proven)
    return parts


def _doubtful(batch: RawBatch, piece: pa.RecordBatch, proven: NDArray[np.int16]) -> _Doubt:
    doubted = proven < 1
    some = piece.filter(pa.array(doubted))
    found = replace(
        batch,
        values=pa.chunked_array([some.column(0)]),
        offsets=pa.chunked_array([some.column(1)]),
        times=None if batch.times is None else pa.chunked_array([some.column(2)]),
        keys=None if batch.keys is None else pa.chunked_array([some.column(3)]),
    )
    return found, -1 - proven[doubted]


def _is_utf8(values: pa.BinaryArray) -> bool:
    try:
        values.view(pa.string()).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _run(
    kernel: Kernel,
    spec: _Spec,
    keys: Arguments,
    data: NDArray[np.uint8],
    ends: NDArray[np.int32],
    proven: NDArray[np.int16],
    foreign: NDArray[np.bool_],
    *,
    ascii_only: bool,
) -> tuple[int, list[pa.Array]]:
    rows = len(proven)
    size = int(ends[-1]) - int(ends[0]) + kernel.PAD
    # what is not given is zero, so that it is a choice as well: Arrow looks at no number of one
    numbers = np.zeros((max(1, spec.number_slots), rows), np.int64)
    number_present = np.empty(numbers.shape, np.bool_)
    # only what is written becomes memory
    texts = np.empty((max(1, spec.text_slots), size), np.uint8)
    text_ends = np.zeros((max(1, spec.text_slots), rows + 1), np.int32)
    text_present = np.empty((max(1, spec.text_slots), rows), np.bool_)
    columns = (numbers, number_present, texts, text_ends, text_present)
    count = kernel.prove(data, ends, ascii_only, spec.arguments, keys, proven, foreign, columns)
    arrays = []
    for place in spec.places:
        given = (text_present if place.text else number_present)[place.slot, :count]
        valid = None if place.required else pa.py_buffer(np.packbits(given, bitorder="little"))
        if place.text:
            buffers = [valid, pa.py_buffer(text_ends[place.slot, : count + 1]), pa.py_buffer(texts[place.slot])]
            arrays.append(pa.Array.from_buffers(pa.string(), count, buffers))
        elif place.choices is not None:
            chosen = pa.py_buffer(numbers[place.slot, :count].astype(np.int16))
            index = pa.Array.from_buffers(pa.int16(), count, [valid, chosen])
            arrays.append(pa.DictionaryArray.from_arrays(index, place.choices, safe=False))
        else:
            values = pa.py_buffer(numbers[place.slot, :count])
            arrays.append(pa.Array.from_buffers(pa.int64(), count, [valid, values]))
    return count, arrays

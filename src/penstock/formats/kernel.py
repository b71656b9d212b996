"""The compiled part of judging: flat JSON objects read byte by byte, only those that are right in every way proven.

`prove` is a strict reader of one record: an object with exactly the contract's fields, each once, in any order, with
blanks between tokens, and with values that keep the rules it knows. Whatever else it meets (escapes, unknown fields,
other white space, nested values, a value out of bounds) leaves the record *doubtful*, never wrong: doubtful records go
to the statement of `judge_sql`. So a record's verdict does not depend on whether this file is used.

Only this file imports numba. Reading is by words of eight bytes, so the data must go on for `PAD` bytes and the longest
field name behind the last record that is looked at. The loop is one function: calls would cost as much as the work.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, int8, int32, int64, njit, uint8, uint64, void
from numba.core.types import Array

PAD = 64
TEXT, INTEGER, BOOLEAN, TOKEN = range(4)
ANY, UUID, IP, CHOICE = range(4)

_U = np.uint64
_HIGH = _U(0x8080808080808080)
_FROM_0 = _U(0x5050505050505050)  # sets the high bit of bytes from "0" on
_PAST_9 = _U(0x4646464646464646)
_FROM_A = _U(0x1F1F1F1F1F1F1F1F)  # of bytes from "a" on
_PAST_F = _U(0x1919191919191919)
_LOWER = _U(0x2020202020202020)
_ZEROS = _U(0x3030303030303030)
# the dashes of a UUID in its second word (bytes 8 and 13) and third word (18 and 23), and what makes them zeros
_DASHES_2, _IN_2, _ZERO_2 = _U(0x00002D000000002D), _U(0x0000FF00000000FF), _U(0x00001D000000001D)
_DASHES_3, _IN_3, _ZERO_3 = _U(0x2D000000002D0000), _U(0xFF00000000FF0000), _U(0x1D000000001D0000)


@njit(inline="always")
def _digits(word):
    return (((word + _FROM_0) & ~(word + _PAST_9)) & ~word & _HIGH) == _HIGH


@njit(inline="always")
def _hexadecimal(word):
    lower = word | _LOWER
    digit = (word + _FROM_0) & ~(word + _PAST_9)
    letter = (lower + _FROM_A) & ~(lower + _PAST_F)
    return ((digit | letter) & ~word & _HIGH) == _HIGH


@njit(inline="always")
def _number(word):
    """Eight digits as their number: neighbours are added in pairs, then fours, then eights."""
    word = word - _ZEROS
    word = (word * _U(10)) + (word >> _U(8))
    low = (word & _U(0x000000FF000000FF)) * _U(0x000F424000000064)
    high = ((word >> _U(16)) & _U(0x000000FF000000FF)) * _U(0x0000271000000001)
    return (low + high) >> _U(32)


@njit(inline="always")
def _is_uuid(words, at):
    second, third = words[at + 8], words[at + 16]
    if (second & _IN_2) != _DASHES_2 or (third & _IN_3) != _DASHES_3:
        return False
    ends = _hexadecimal(words[at]) and _hexadecimal(words[at + 24]) and _hexadecimal(words[at + 28])
    return ends and _hexadecimal(second ^ _ZERO_2) and _hexadecimal(third ^ _ZERO_3)


@njit(inline="always")
def _is_digit(byte):
    return 48 <= byte <= 57


@njit(inline="always")
def _is_hexadecimal(byte):
    return 48 <= byte <= 57 or 97 <= (byte | 32) <= 102


@njit
def _is_ipv4(data, at, end):
    for part in range(4):
        if part > 0:
            if at >= end or data[at] != 46:
                return False
            at += 1
        start, value = at, 0
        while at < end and at - start < 4 and _is_digit(data[at]):
            value = value * 10 + np.int64(data[at]) - 48
            at += 1
        if at == start or at - start > 3 or value > 255 or (at - start > 1 and data[start] == 48):
            return False
    return at == end


@njit
def _is_ipv6(data, at, end):
    groups, gap = 0, False
    if end - at < 2:
        return False
    if data[at] == 58:
        if data[at + 1] != 58:
            return False
        gap = True
        at += 2
        if at == end:
            return True
    while True:
        start = at
        while at < end and at - start < 5 and _is_hexadecimal(data[at]):
            at += 1
        if at < end and data[at] == 46:
            if not _is_ipv4(data, start, end):
                return False
            groups += 2
            break
        if at == start or at - start > 4:
            return False
        groups += 1
        if at == end:
            break
        if data[at] != 58 or at + 1 == end:
            return False
        at += 1
        if data[at] == 58:
            if gap:
                return False
            gap = True
            at += 1
            if at == end:
                break
    return groups <= 7 if gap else groups == 8


@njit(inline="always")
def _same(words, at, wanted, masks, first, last):
    for place in range(first, last):
        if (words[at] & masks[place]) != wanted[place]:
            return False
        at += 8
    return True


@njit
def _number_end(data, at, end):
    """Behind a JSON number, or -1."""
    if data[at] == 45:
        at += 1
    start = at
    while at < end and _is_digit(data[at]):
        at += 1
    if at == start or (at - start > 1 and data[start] == 48):
        return -1
    if at < end and data[at] == 46:
        at += 1
        start = at
        while at < end and _is_digit(data[at]):
            at += 1
        if at == start:
            return -1
    if at < end and (data[at] | 32) == 101:
        at += 1
        if at < end and (data[at] == 43 or data[at] == 45):
            at += 1
        start = at
        while at < end and _is_digit(data[at]):
            at += 1
        if at == start:
            return -1
    return at


@njit(inline="always")
def _literal(words, at):
    """The length of `true`, `false` or `null` that begins here; 0 for none."""
    four = words[at] & _U(0xFFFFFFFF)
    if four == _U(0x65757274) or four == _U(0x6C6C756E):
        return 4
    if (words[at] & _U(0xFFFFFFFFFF)) == _U(0x65736C6166):
        return 5
    return 0


@njit(inline="always")
def _mixed(hashed, word):
    hashed = (hashed ^ word) * _U(0x9E3779B97F4A7C15)
    return hashed ^ (hashed >> _U(32))


@njit(inline="always")
def _part(words, at, left):
    """The word at `at`, of which `left` bytes belong to the text."""
    return words[at] if left >= 8 else words[at] & ((_U(1) << _U(8 * left)) - _U(1))


@njit
def _is_held(words, begins, lengths, values, kinds, fields, columns, slots, held, width):
    """Whether a reference has a row with these values."""
    hashed = _U(0)
    for field in fields:
        if kinds[field] == INTEGER:
            hashed = _mixed(hashed, values[field])
            continue
        hashed = _mixed(hashed, _U(lengths[field]))
        for step in range(0, lengths[field], 8):
            hashed = _mixed(hashed, _part(words, begins[field] + step, lengths[field] - step))
    last = np.int64(len(slots) - 1)
    slot = np.int64(hashed & _U(last))
    while slots[slot] >= 0:
        row, same = np.int64(slots[slot]) * width, True
        for place in range(len(fields)):
            field, at = fields[place], row + np.int64(columns[place])
            if kinds[field] == INTEGER:
                same = same and held[at] == values[field]
                continue
            same = same and held[at] == _U(lengths[field])
            for step in range(0, lengths[field] if same else 0, 8):
                at += 1
                same = same and held[at] == _part(words, begins[field] + step, lengths[field] - step)
        if same:
            return True
        slot = (slot + 1) & last
    return False


def _read_only(kind: object, dimensions: int = 1) -> object:
    return Array(kind, dimensions, "C", readonly=True)


_WORDS = Array(uint64, 1, "A", readonly=True, aligned=False)
_SIGNATURE = int64(
    *(_read_only(uint8), _WORDS, _read_only(int32), boolean),
    *(_read_only(uint64), _read_only(uint64), _read_only(int32), _read_only(int32)),
    *(_read_only(int8), _read_only(int8), _read_only(boolean), _read_only(int64, 2)),
    *(_read_only(int32), _read_only(uint64, 2), _read_only(uint64, 2), _read_only(int64)),
    *(_read_only(int32), _read_only(int32)),
    *(_read_only(int32), _read_only(int32), _read_only(int32), _read_only(int32)),
    *(_read_only(int64), _read_only(int32), _read_only(int64), _read_only(uint64)),
    *(boolean[::1], int64[:, ::1], boolean[:, ::1]),
    *(Array(uint64, 2, "A", aligned=False), int32[:, ::1], boolean[:, ::1]),
)


@njit(void(Array(uint64, 2, "A", aligned=False), int64, int64, _WORDS, int64, int64), inline="always")
def _copy(texts, slot, to, words, start, length):
    for step in range(0, length, 8):
        texts[slot, to + step] = words[start + step]


@njit(_SIGNATURE, nogil=True, cache=True)
def prove(
    data,
    words,
    ends,
    ascii_only,
    name_words,
    name_masks,
    name_at,
    name_length,
    kinds,
    rules,
    required,
    bounds,
    choice_first,
    choice_words,
    choice_masks,
    choice_length,
    number_slot,
    text_slot,
    key_first,
    key_fields,
    key_columns,
    key_width,
    slots_at,
    slots,
    rows_at,
    held,
    proven,
    numbers,
    number_present,
    texts,
    text_ends,
    text_present,
):
    """Judge the records between `ends`; the values of those proven are written one after the other. How many they are.

    data, words: the bytes, and the same bytes as the eight-byte word that begins at each. proven: per record.
    key_first to held: foreign keys and what their references hold, as `formats/held_keys.py` lays it out.
    numbers: [slot, row], of a choice its place. texts: words of the bytes of [slot]; text_ends: [slot, row + 1], the
    first is 0.
    """
    fields = len(kinds)
    expected = np.arange(fields)
    # where the values of the record lie that is being read, or what they are
    begins, lengths, values = np.zeros(fields, np.int64), np.zeros(fields, np.int64), np.zeros(fields, np.uint64)
    needed = _U(0)
    for field in range(fields):
        if required[field]:
            needed |= _U(1) << _U(field)
    rows = 0
    for record in range(len(ends) - 1):
        at, end = np.int64(ends[record]), np.int64(ends[record + 1])
        proven[record] = False
        if at >= end or data[at] != 123:
            continue
        seen, place, good = _U(0), 0, False
        at += 1
        for field in range(fields):
            if number_slot[field] >= 0:
                number_present[number_slot[field], rows] = False
            if text_slot[field] >= 0:
                text_present[text_slot[field], rows] = False
                text_ends[text_slot[field], rows + 1] = text_ends[text_slot[field], rows]
        while place < fields:
            while at < end and data[at] == 32:
                at += 1
            field = expected[place]
            if not _same(words, at, name_words, name_masks, name_at[field], name_at[field + 1]):
                field = -1
                for other in range(fields):
                    if _same(words, at, name_words, name_masks, name_at[other], name_at[other + 1]):
                        field = other
                        break
                if field < 0:
                    break
                expected[place] = field
            bit = _U(1) << _U(field)
            if seen & bit:
                break
            seen |= bit
            at += name_length[field]
            while at < end and data[at] == 32:
                at += 1
            if at >= end or data[at] != 58:
                break
            at += 1
            while at < end and data[at] == 32:
                at += 1
            if at >= end:
                break
            first, kind = data[at], kinds[field]
            if first == 34 and kind in (TEXT, TOKEN):
                start = at + 1
                at = start
                rule = rules[field]
                if rule == UUID:
                    if at + 36 >= end or data[at + 36] != 34 or not _is_uuid(words, at):
                        break
                    at += 36
                else:
                    while at < end and data[at] != 34 and data[at] != 92 and data[at] >= 32:
                        if ascii_only and data[at] >= 128:
                            break
                        at += 1
                    if at >= end or data[at] != 34:
                        break
                    length = at - start
                    if rule == IP:
                        if not _is_ipv4(data, start, at) and not _is_ipv6(data, start, at):
                            break
                    elif rule == CHOICE:
                        hit = False
                        for choice in range(choice_first[field], choice_first[field + 1]):
                            if (
                                choice_length[choice] == length
                                and (words[start] & choice_masks[choice, 0]) == choice_words[choice, 0]
                                and (words[start + 8] & choice_masks[choice, 1]) == choice_words[choice, 1]
                            ):
                                hit = True
                                if number_slot[field] >= 0:
                                    numbers[number_slot[field], rows] = choice - choice_first[field]
                                    number_present[number_slot[field], rows] = True
                                break
                        if not hit:
                            break
                begins[field], lengths[field] = start, at - start
                at += 1
                slot = text_slot[field]
                if slot >= 0:
                    # a token keeps its quotes
                    if kind == TOKEN:
                        start -= 1
                    stop = at if kind == TOKEN else at - 1
                    to = np.int64(text_ends[slot, rows])
                    _copy(texts, slot, to, words, start, stop - start)
                    text_ends[slot, rows + 1] = to + stop - start
                    text_present[slot, rows] = True
            elif kind == INTEGER and (first == 45 or _is_digit(first)):
                negative = first == 45
                if negative:
                    at += 1
                start, value = at, _U(0)
                while at - start < 16 and _digits(words[at]):
                    value = value * _U(100000000) + _number(words[at])
                    at += 8
                while at - start < 20 and _is_digit(data[at]):
                    value = value * _U(10) + _U(data[at] - 48)
                    at += 1
                # 19 digits fit into 64 bits without a sign
                if at == start or at > end or at - start > 19 or (at - start > 1 and data[start] == 48):
                    break
                if value > _U(9223372036854775807) or (negative and value == _U(0)):
                    break
                number = -np.int64(value) if negative else np.int64(value)
                if number < bounds[field, 0] or number > bounds[field, 1]:
                    break
                values[field] = np.uint64(number)
                slot = number_slot[field]
                if slot >= 0:
                    numbers[slot, rows] = number
                    number_present[slot, rows] = True
            else:
                length = _literal(words, at)
                if length == 4 and first == 110:
                    if required[field]:
                        break
                    at += 4
                elif kind == BOOLEAN and length > 0:
                    at += length
                    slot = number_slot[field]
                    if slot >= 0:
                        numbers[slot, rows] = 5 - length
                        number_present[slot, rows] = True
                elif kind == TOKEN:
                    start = at
                    at = at + length if length > 0 else _number_end(data, at, end)
                    # a bare -0 loses its sign in JSON parsers
                    if at < 0 or (at == start + 2 and first == 45 and data[at - 1] == 48):
                        break
                    slot = text_slot[field]
                    to = np.int64(text_ends[slot, rows])
                    _copy(texts, slot, to, words, start, at - start)
                    text_ends[slot, rows + 1] = to + at - start
                    text_present[slot, rows] = True
                else:
                    break
            place += 1
            while at < end and data[at] == 32:
                at += 1
            if at >= end:
                break
            if data[at] == 44:
                at += 1
                continue
            good = data[at] == 125 and at + 1 == end and (seen & needed) == needed
            break
        for key in range(len(key_width)):
            good = good and _is_held(
                words,
                begins,
                lengths,
                values,
                kinds,
                key_fields[key_first[key] : key_first[key + 1]],
                key_columns[key_first[key] : key_first[key + 1]],
                slots[slots_at[key] : slots_at[key + 1]],
                held[rows_at[key] : rows_at[key + 1]],
                np.int64(key_width[key]),
            )
        if good:
            proven[record] = True
            rows += 1
    return rows

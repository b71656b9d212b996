"""The compiled part of judging: flat JSON objects read byte by byte, only those that are right in every way proven.

`prove` is a strict reader of one record: an object with exactly the contract's fields, each once, in any order, with
blanks between tokens, and with values that keep the rules it knows. Whatever else it meets (escapes, unknown fields,
other white space, nested values, a value out of bounds) leaves the record *doubtful*, never wrong: doubtful records go
to the statement of `judge_sql`. So a record's verdict does not depend on whether this file is used.

Only this file imports numba: machine code on disk is known to be old by this file alone. The loop is one function, for
calls would cost as much as the work. Bytes are read and written by address (an index that might be negative costs as
much as the check that it is for), by words of eight, and nothing checks an address. It stays inside because:

- *The caller sees to it* that `ends` ascend, that the data go on for `PAD` bytes and the longest field name behind the
  last of them, that each row of `texts` has room for all bytes between `ends` and `PAD` more, the other columns for a
  value per record (`text_ends` for one more), and that the `slots` of a key are a power of two, at least one of them
  -1 and the others rows of `held`, whose texts lie there in full.
- *Loads*: at the beginning of a step `at` is at most `end`. A name, a literal (5 bytes) and an integer (20) may end
  behind it; a comparison with `end` follows each and leaves the record doubtful. So loads lie before `end` or close
  behind it: a name with its colon in whole words (7 bytes more), an integer (20), a choice or address (16), a text (7).
- *Stores*: a field is read once per record, so its texts are no longer than the records so far; a copy in whole words
  writes at most 7 bytes more, of a literal 8. `rows` grows by at most one per record.
- *Indices* come from the contract or count records. A slot that may be -1 is asked first; tokens always have one.
"""

from __future__ import annotations

import numpy as np
from llvmlite.ir import IntType
from numba import boolean, int8, int16, int32, int64, njit, uint8, uint64, void
from numba.core.types import Array, Tuple
from numba.cpython.unsafe.numbers import trailing_zeros
from numba.extending import intrinsic

PAD = 64
TEXT, INTEGER, BOOLEAN, TOKEN = range(4)
ANY, UUID, IP, CHOICE = range(4)
_U, _EACH = np.uint64, 0x0101010101010101
# added, they set the high bit of bytes from "0" on, of those behind "9", from "a" on, behind "f"
_FROM_0, _PAST_9, _FROM_A, _PAST_F = map(_U, (0x50 * _EACH, 0x46 * _EACH, 0x1F * _EACH, 0x19 * _EACH))
_ONES, _LOWER, _ZEROS, _HIGH = map(_U, (_EACH, 0x20 * _EACH, 0x30 * _EACH, 0x80 * _EACH))
_QUOTES, _DOTS, _BACKSLASHES, _SEVENS = map(_U, (0x22 * _EACH, 0x2E * _EACH, 0x5C * _EACH, 0x7F * _EACH))
# the dashes of a UUID in its second word (bytes 8 and 13) and third word (18 and 23), and what makes them zeros
_DASHES_2, _IN_2, _ZERO_2 = _U(0x00002D000000002D), _U(0x0000FF00000000FF), _U(0x00001D000000001D)
_DASHES_3, _IN_3, _ZERO_3 = _U(0x2D000000002D0000), _U(0xFF00000000FF0000), _U(0x1D000000001D0000)
_GATHER = _U(0x0102040810204080)  # brings the lowest bits of eight bytes together in the highest byte


def _at(builder, address, bits):
    return builder.inttoptr(address, IntType(bits).as_pointer())


@intrinsic
def _word(context, address):
    """The eight bytes at an address."""
    return uint64(int64), lambda _, builder, __, given: builder.load(_at(builder, given[0], 64), align=1)


@intrinsic
def _byte(context, address):
    """The byte at an address, as a number."""
    return int64(int64), lambda _, builder, __, given: builder.zext(
        builder.load(_at(builder, given[0], 8), align=1), IntType(64)
    )


@intrinsic
def _put(context, address, word):
    """Write eight bytes at an address."""
    return void(int64, uint64), lambda _, builder, __, given: builder.store(
        given[1], _at(builder, given[0], 64), align=1
    )


@njit(inline="always")
def _digits(word):
    return (((word + _FROM_0) & ~(word + _PAST_9)) & ~word & _HIGH) == _HIGH


@njit(inline="always")
def _hexadecimal(word):
    """The highest bit of each byte that is a hexadecimal digit."""
    lower = word | _LOWER
    digit = (word + _FROM_0) & ~(word + _PAST_9)
    letter = (lower + _FROM_A) & ~(lower + _PAST_F)
    return (digit | letter) & ~word & _HIGH


@njit(inline="always")
def _number(word):
    """Eight digits as their number: neighbours are added in pairs, then fours, then eights."""
    word = word - _ZEROS
    word = (word * _U(10)) + (word >> _U(8))
    low = (word & _U(0x000000FF000000FF)) * _U(0x000F424000000064)
    high = ((word >> _U(16)) & _U(0x000000FF000000FF)) * _U(0x0000271000000001)
    return (low + high) >> _U(32)


@njit(inline="always")
def _is_uuid(at):
    second, third = _word(at + 8), _word(at + 16)
    dashes = ((second & _IN_2) ^ _DASHES_2) | ((third & _IN_3) ^ _DASHES_3)
    ends = _hexadecimal(_word(at)) & _hexadecimal(_word(at + 24)) & _hexadecimal(_word(at + 28))
    middle = _hexadecimal(second ^ _ZERO_2) & _hexadecimal(third ^ _ZERO_3)
    return ((ends & middle) ^ _HIGH) | dashes == _U(0)


@njit(inline="always")
def _is_digit(byte):
    return 48 <= byte <= 57


@njit(inline="always")
def _dots(word):
    """One bit for each byte that is a dot."""
    word ^= _DOTS
    zeros = ~(((word & _SEVENS) + _SEVENS) | word | _SEVENS)
    return ((zeros >> _U(7)) * _GATHER) >> _U(56)


@njit
def _is_ipv4(at, end):
    length = end - at
    if length < 7 or length > 15:
        return False
    dots = (_dots(_word(at)) | (_dots(_word(at + 8)) << _U(8))) & ((_U(1) << _U(length)) - _U(1))
    wrong = _U(0)
    for part in range(4):
        if (dots == _U(0)) != (part == 3):
            return False
        stop = at + np.int64(trailing_zeros(dots)) if part < 3 else end
        size = stop - at
        if size < 1 or size > 3:
            return False
        # the digits as numbers, moved so that the last of them is the third byte
        empty = _U(24 - 8 * size)
        digits = ((_word(at) ^ _ZEROS) << empty) & _U(0xFFFFFF)
        wrong |= (digits | (digits + _U(0x767676))) & _U(0x808080)
        value = (digits & _U(0xFF)) * _U(100) + ((digits >> _U(8)) & _U(0xFF)) * _U(10) + (digits >> _U(16))
        if value > _U(255) or (size > 1 and (digits >> empty) & _U(0xFF) == _U(0)):
            return False
        # the places of the dots that follow are counted from behind this one
        dots = dots >> _U(size + 1)
        at = stop + 1
    return wrong == _U(0)


@njit
def _is_ipv6(at, end):
    groups, gap = 0, False
    if end - at < 2 or (_byte(at) == 58 and _byte(at + 1) != 58):
        return False
    if _byte(at) == 58:
        gap, at = True, at + 2
        if at == end:
            return True
    while True:
        start = at
        # how many bytes from here on are digits, at most eight
        at = min(end, at + np.int64(trailing_zeros(_hexadecimal(_word(at)) ^ _HIGH) >> 3))
        if at < end and _byte(at) == 46:
            if not _is_ipv4(start, end):
                return False
            groups += 2
            break
        if at == start or at - start > 4:
            return False
        groups += 1
        if at == end:
            break
        if _byte(at) != 58 or at + 1 == end:
            return False
        at += 1
        if _byte(at) == 58:
            if gap:
                return False
            gap, at = True, at + 1
            if at == end:
                break
    return groups <= 7 if gap else groups == 8


@njit(inline="always")
def _same(at, wanted, masks, first, last):
    for place in range(first, last):
        if (_word(at) & masks[place]) != wanted[place]:
            return False
        at += 8
    return True


@njit(inline="always")
def _past_blanks(at, end):
    while at < end and _byte(at) == 32:
        at += 1
    return at


@njit
def _field_at(at, words, masks, places):
    """The field whose name begins here, perhaps with blanks between it and its colon; -1 for none."""
    for field in range(len(places) - 1):
        last = places[field + 1] - 1
        differs = _word(at + 8 * (last - places[field])) ^ words[last]
        # the last byte is the colon
        if _same(at, words, masks, places[field], last) and differs & (masks[last] >> _U(8)) == _U(0):
            return field
    return -1


@njit
def _number_end(at, end):
    """Behind a JSON number, or -1."""
    if _byte(at) == 45:
        at += 1
    start = at
    while at < end and _is_digit(_byte(at)):
        at += 1
    if at == start or (at - start > 1 and _byte(start) == 48):
        return -1
    if at < end and _byte(at) == 46:
        at += 1
        start = at
        while at < end and _is_digit(_byte(at)):
            at += 1
        if at == start:
            return -1
    if at < end and (_byte(at) | 32) == 101:
        at += 1
        if at < end and (_byte(at) == 43 or _byte(at) == 45):
            at += 1
        start = at
        while at < end and _is_digit(_byte(at)):
            at += 1
        if at == start:
            return -1
    return at


@njit(inline="always")
def _literal(at):
    """The length of `true`, `false` or `null` that begins here; 0 for none."""
    four = _word(at) & _U(0xFFFFFFFF)
    if four == _U(0x65757274) or four == _U(0x6C6C756E):
        return 4
    if (_word(at) & _U(0xFFFFFFFFFF)) == _U(0x65736C6166):
        return 5
    return 0


@njit(inline="always")
def _mixed(hashed, word):
    hashed = (hashed ^ word) * _U(0x9E3779B97F4A7C15)
    return hashed ^ (hashed >> _U(32))


@njit(inline="always")
def _part(at, left):
    """The word at `at`, of which `left` bytes belong to the text."""
    return _word(at) if left >= 8 else _word(at) & ((_U(1) << _U(8 * left)) - _U(1))


@njit
def _is_held(begins, lengths, values, kinds, keys, key, places, slots, held):
    """Whether a reference has a row with these values. slots, held: addresses."""
    first, behind, width, last = keys[key, 0], keys[key, 1], keys[key, 2], keys[key, 4]
    slots += 8 * keys[key, 3]
    held += 8 * keys[key, 5]
    hashed = _U(0)
    for place in range(first, behind):
        field = places[place, 0]
        if kinds[field] == INTEGER:
            hashed = _mixed(hashed, values[field])
            continue
        begin, length = begins[field], lengths[field]
        hashed = _mixed(hashed, _U(length))
        for step in range(0, length, 8):
            hashed = _mixed(hashed, _part(begin + step, length - step))
    slot = np.int64(hashed) & last
    row = np.int64(_word(slots + 8 * slot))
    while row >= 0:
        differs = _U(0)
        for place in range(first, behind):
            field, at = places[place, 0], held + 8 * (row * width + places[place, 1])
            if kinds[field] == INTEGER:
                differs |= _word(at) ^ values[field]
                continue
            begin, length = begins[field], lengths[field]
            differs |= _word(at) ^ _U(length)
            for step in range(0, length if differs == _U(0) else 0, 8):
                differs |= _word(at + 8 + step) ^ _part(begin + step, length - step)
        if differs == _U(0):
            return True
        slot = (slot + 1) & last
        row = np.int64(_word(slots + 8 * slot))
    return False


def _read_only(kind: object, dimensions: int = 1) -> object:
    return Array(kind, dimensions, "C", readonly=True)


_CONTRACT = Tuple((
    *(_read_only(uint64), _read_only(uint64), _read_only(int32), _read_only(int32)),
    *(_read_only(int8), _read_only(int8), _read_only(boolean), _read_only(int64, 2)),
    *(_read_only(int32), _read_only(uint64, 2), _read_only(uint64, 2), _read_only(int64)),
    *(_read_only(int32), _read_only(int32)),
))  # fmt: skip
_REFERENCES = Tuple((_read_only(int64, 2), _read_only(int64, 2), _read_only(int64), _read_only(uint64)))
_COLUMNS = Tuple((int64[:, ::1], boolean[:, ::1], uint8[:, ::1], int32[:, ::1], boolean[:, ::1]))
_SIGNATURE = int64(
    *(_read_only(uint8), _read_only(int32), boolean, _CONTRACT, _REFERENCES),
    *(int16[::1], boolean[::1], _COLUMNS),
)


@njit(inline="always")
def _copy(to, start, length):
    for step in range(0, length, 8):
        _put(to + step, _word(start + step))


@njit(inline="always")
def _text_end(at, end, ascii_only):
    """Where a text has its first byte that is a quote, a backslash, a control character or (perhaps) not ASCII."""
    while at < end:
        word = _word(at)
        quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
        # a borrow makes bytes look like these only behind the first that is one
        found = ((quote - _ONES) & ~quote) | ((backslash - _ONES) & ~backslash) | ((word - _LOWER) & ~word)
        if ascii_only:
            found |= word
        found &= _HIGH
        if found != _U(0):
            return at + (np.int64(trailing_zeros(found)) >> 3)
        at += 8
    return at


@njit(_SIGNATURE, nogil=True, cache=True)
def prove(data, ends, ascii_only, contract, references, proven, foreign, columns):
    """Judge the records between `ends`; the values of those proven are written one after the other. How many they are.

    contract, references: as `formats/compiled.py` lays them out. proven: per record 1, or 0 for a doubt, or (if nothing
    else is doubted) -1 less the number of the first key that no reference holds. foreign: set where a byte that is not
    ASCII gave a doubt. columns, to be filled by slot: numbers (of a choice its place) and where they are given; the
    bytes of texts, their ends (the first is 0) and where they are given.
    """
    name_words, name_masks, name_at, name_length, kinds, rules, required, bounds = contract[:8]
    choice_first, choice_words, choice_masks, choice_length, number_slot, text_slot = contract[8:]
    keys, key_places, slots, held = references
    numbers, number_present, texts, text_ends, text_present = columns
    fields = len(kinds)
    expected = np.arange(fields)
    # where the values of the record lie that is being read, or what they are
    begins, lengths, values = np.zeros(fields, np.int64), np.zeros(fields, np.int64), np.zeros(fields, np.uint64)
    needed = _U(0)
    for field in range(fields):
        if required[field]:
            needed |= _U(1) << _U(field)
    base, texts_at, texts_size = np.int64(data.ctypes.data), np.int64(texts.ctypes.data), np.int64(texts.shape[1])
    slots_from, held_from = np.int64(slots.ctypes.data), np.int64(held.ctypes.data)
    rows = 0
    for record in range(len(ends) - 1):
        at, end = base + ends[record], base + ends[record + 1]
        proven[record], seen, place, good = 0, _U(0), 0, False
        if at >= end or _byte(at) != 123:
            continue
        at += 1
        for slot in range(len(number_present)):
            number_present[slot, rows] = False
        for slot in range(len(text_present)):
            text_present[slot, rows] = False
            text_ends[slot, rows + 1] = text_ends[slot, rows]
        while place < fields:
            field, at = expected[place], _past_blanks(at, end)
            if _same(at, name_words, name_masks, name_at[field], name_at[field + 1]):
                at += name_length[field]
            else:
                field = _field_at(at, name_words, name_masks, name_at)
                if field < 0:
                    break
                expected[place] = field
                at = _past_blanks(at + name_length[field] - 1, end)
                if at >= end or _byte(at) != 58:
                    break
                at += 1
            bit = _U(1) << _U(field)
            if seen & bit:
                break
            seen |= bit
            at = _past_blanks(at, end)
            if at >= end:
                break
            first, kind = _byte(at), kinds[field]
            if first == 34 and kind in (TEXT, TOKEN):
                at += 1
                start, rule = at, rules[field]
                if rule == UUID:
                    if at + 36 >= end or _byte(at + 36) != 34 or not _is_uuid(at):
                        break
                    at += 36
                else:
                    at = _text_end(at, end, ascii_only)
                    if at >= end or _byte(at) != 34:
                        foreign[0] |= at < end and _byte(at) >= 128
                        break
                    length = at - start
                    if rule == IP:
                        if not _is_ipv4(start, at) and not _is_ipv6(start, at):
                            break
                    elif rule == CHOICE:
                        hit = -1
                        first_word, second_word = _word(start), _word(start + 8)
                        for choice in range(choice_first[field], choice_first[field + 1]):
                            differs = (first_word & choice_masks[choice, 0]) ^ choice_words[choice, 0]
                            differs |= (second_word & choice_masks[choice, 1]) ^ choice_words[choice, 1]
                            differs |= _U(choice_length[choice] ^ length)
                            # no branch: which choice it is cannot be foreseen
                            hit = choice if differs == _U(0) else hit
                        if hit < 0:
                            break
                        if number_slot[field] >= 0:
                            numbers[number_slot[field], rows] = hit - choice_first[field]
                            number_present[number_slot[field], rows] = True
                begins[field], lengths[field] = start, at - start
                at += 1
                slot = text_slot[field]
                if slot >= 0:
                    # a token keeps its quotes
                    if kind == TOKEN:
                        start -= 1
                    stop = at if kind == TOKEN else at - 1
                    to = np.int64(text_ends[slot, rows])
                    _copy(texts_at + slot * texts_size + to, start, stop - start)
                    text_ends[slot, rows + 1] = to + stop - start
                    text_present[slot, rows] = True
            elif kind == INTEGER and (first == 45 or _is_digit(first)):
                negative = first == 45
                at += negative
                start, value = at, _U(0)
                while at - start < 16 and _digits(_word(at)):
                    value = value * _U(100000000) + _number(_word(at))
                    at += 8
                while at - start < 20 and _is_digit(_byte(at)):
                    value = value * _U(10) + _U(_byte(at) - 48)
                    at += 1
                # 19 digits fit into 64 bits without a sign
                if at == start or at > end or at - start > 19 or (at - start > 1 and _byte(start) == 48):
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
                length = _literal(at)
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
                    at = at + length if length > 0 else _number_end(at, end)
                    # a bare -0 loses its sign in JSON parsers
                    if at < 0 or (at == start + 2 and first == 45 and _byte(at - 1) == 48):
                        break
                    slot = text_slot[field]
                    to = np.int64(text_ends[slot, rows])
                    _copy(texts_at + slot * texts_size + to, start, at - start)
                    text_ends[slot, rows + 1] = to + at - start
                    text_present[slot, rows] = True
                else:
                    break
            place += 1
            at = _past_blanks(at, end)
            if at >= end:
                break
            if _byte(at) == 44:
                at += 1
                continue
            good = _byte(at) == 125 and at + 1 == end and (seen & needed) == needed
            break
        proven[record] = good
        for key in range(len(keys) if good else 0):
            if not _is_held(begins, lengths, values, kinds, keys, key, key_places, slots_from, held_from):
                proven[record] = -1 - key
                break
        rows += proven[record] == 1
    return rows

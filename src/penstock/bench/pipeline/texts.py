"""Texts that a pattern matches, generated from the pattern itself.

Contracts take RE2, whose syntax is nearly a subset of Python's: the pattern is read with Python's own parser, one text
is drawn from its tree, and every text is checked with RE2 before it is used, so that a difference between the two can
only cost an attempt, never give a wrong text.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNBOUNDED_REPEATS = 5
_ATTEMPTS = 40
_IDLE_ATTEMPTS = 2
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_PRINTABLE = string.ascii_letters + string.digits + " _-.,:/@#%+=!()"
_POSIX = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "space": r"\s",
    "word": r"\w",
    "xdigit": "0-9a-fA-F",
    "punct": r"!-/:-@\[-`{-~",
}
_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_WORD": string.ascii_letters + string.digits + "_",
    "CATEGORY_SPACE": " \t",
    "CATEGORY_NOT_DIGIT": string.ascii_letters + "-_.",
    "CATEGORY_NOT_WORD": " -.:/",
    "CATEGORY_NOT_SPACE": string.ascii_letters + string.digits,
}

Node = tuple[Any, Any]


class NoText(Exception):
    """No text can be generated; the message says why."""


def matching(pattern: str, rng: np.random.Generator, count: int, *, shortest: int = 0, longest: int = 200) -> list[str]:
    """Up to `count` different texts in which RE2 finds `pattern`, of `shortest` to `longest` characters.

    Raises:
        NoText: the pattern cannot be read, or no text of such a length was found.

    Example:
        >>> [len(text) for text in matching("^[a-f]{4}$", np.random.default_rng(1), 2)]
        [4, 4]
    """
    tree = _tree(pattern)
    found: dict[str, None] = {}
    idle = 0
    for _ in range(_ATTEMPTS):
        before = len(found)
        drawn = [_fitted(text, pattern, shortest, rng) for text in _draw_many(tree, rng, count)]
        sized = [text for text in drawn if shortest <= len(text) <= longest and not _UNUSABLE.search(text)]
        found |= dict.fromkeys(_confirmed(sized, pattern))
        idle = idle + 1 if len(found) == before else 0
        if len(found) >= count or (found and idle == _IDLE_ATTEMPTS):
            break
    if not found:
        raise NoText(f"no text of {shortest} to {longest} characters that matches {pattern} was found")
    return list(found)[:count]


def _draw_many(tree: Sequence[Node], rng: np.random.Generator, count: int) -> list[str]:
    return ["".join(_draw(tree, rng, False)) for _ in range(count)]


def _tree(pattern: str) -> Sequence[Node]:
    python = re.sub(r"\[:(\w+):\]", lambda match: _POSIX.get(match[1], match[0]), pattern).replace(r"\z", r"\Z")
    # RE2 takes flags in the middle of a pattern, Python only at its beginning or around a group.
    flags = re.match(r"\(\?([a-zA-Z]+)\)", python)
    try:
        return list(_parser.parse(python, re.IGNORECASE if flags and "i" in flags[1] else 0))
    except (re.error, OverflowError) as problem:
        raise NoText(f"the pattern {pattern} cannot be read for generating: {problem}") from None


def _fitted(text: str, pattern: str, shortest: int, rng: np.random.Generator) -> str:
    """Where the pattern is not anchored, anything may follow: fill up to the length that is wanted."""
    if len(text) >= shortest or pattern.endswith(("$", r"\z")):
        return text
    return text + "".join(_pick(string.ascii_lowercase, rng) for _ in range(shortest - len(text)))


def _confirmed(texts: Sequence[str], pattern: str) -> list[str]:
    if not texts:
        return []
    given = pa.array(texts, pa.string())
    kept: list[str] = given.filter(pc.match_substring_regex(given, pattern)).to_pylist()
    return kept


def _pick(choices: str, rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _draw(tree: Sequence[Node], rng: np.random.Generator, ignore_case: bool) -> list[str]:
    parts: list[str] = []
    for operator, argument in tree:
        parts += _one(str(operator), argument, rng, ignore_case)
    return parts


def _one(operator: str, argument: Any, rng: np.random.Generator, ignore_case: bool) -> list[str]:
    match operator:
        case "LITERAL":
            return [_cased(chr(argument), rng, ignore_case)]
        case "NOT_LITERAL":
            return [_pick("".join(c for c in _PRINTABLE if c != chr(argument)), rng)]
        case "ANY":
            return [_pick(_PRINTABLE, rng)]
        case "IN":
            return [_cased(_member(argument, rng), rng, ignore_case)]
        case "BRANCH":
            branches = argument[1]
            return _draw(branches[int(rng.integers(len(branches)))], rng, ignore_case)
        case "SUBPATTERN":
            _, added, _, inner = argument
            return _draw(inner, rng, ignore_case or bool(added & re.IGNORECASE))
        case "ATOMIC_GROUP":
            return _draw(argument, rng, ignore_case)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = argument
            times = int(rng.integers(least, min(int(most), least + UNBOUNDED_REPEATS) + 1))
            return [part for _ in range(times) for part in _draw(inner, rng, ignore_case)]
        case "AT":
            return []
    raise NoText(f"{operator.lower()} has no meaning in RE2")


def _cased(character: str, rng: np.random.Generator, ignore_case: bool) -> str:
    return character.swapcase() if ignore_case and rng.random() < 0.5 else character


def _member(members: Sequence[Node], rng: np.random.Generator) -> str:
    if str(members[0][0]) == "NEGATE":
        outside = [c for c in _PRINTABLE if not any(_has(member, c) for member in members[1:])]
        if not outside:
            outside = [chr(code) for code in range(0xC0, 0x180) if not any(_has(m, chr(code)) for m in members[1:])]
        if not outside:
            raise NoText("a class of characters is empty")
        return _pick("".join(outside), rng)
    # A range counts by its size, so that [0-9a-f] gives each of its characters as often.
    sizes = np.array([_size(member) for member in members], np.float64)
    operator, argument = members[int(rng.choice(len(members), p=sizes / sizes.sum()))]
    match str(operator):
        case "LITERAL":
            return chr(argument)
        case "RANGE":
            low, high = argument
            return chr(int(rng.integers(low, high + 1)))
    return _pick(_CATEGORIES[str(argument)], rng)


def _size(member: Node) -> int:
    match str(member[0]):
        case "RANGE":
            low, high = member[1]
            return int(high) - int(low) + 1
        case "CATEGORY":
            return len(_CATEGORIES[str(member[1])])
    return 1


def _has(member: Node, character: str) -> bool:
    operator, argument = member
    tests: dict[str, Callable[[], bool]] = {
        "LITERAL": lambda: ord(character) == argument,
        "RANGE": lambda: bool(argument[0] <= ord(character) <= argument[1]),
        "CATEGORY": lambda: re.fullmatch(_CLASS[str(argument)], character) is not None,
    }
    return tests[str(operator)]()


_CLASS = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_NOT_WORD": r"\W",
    "CATEGORY_NOT_SPACE": r"\S",
}

"""A strict JSON reader that keeps what a verdict needs: repeated names, and every number's own text.

Strict means RFC 8259: no NaN, no trailing comma, no control character, no lone surrogate, no byte-order mark. It keeps
its own stack, so that no depth of nesting can exhaust Python's. It is written apart from the vectorised check, as its
oracle and as the one that names what is wrong.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_BLANK, _TEXT = r"[ \t\r\n]*+", r'"[^"\\\x00-\x1f]*+"'
_SCALAR = rf"(?:{_TEXT}|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+|true|false|null)"
# What a text that is no JSON may well begin with: plain fields of an object, each with the comma behind it.
_SOUND = re.compile(rf"{_BLANK}\{{(?:{_BLANK}{_TEXT}{_BLANK}:{_BLANK}{_SCALAR}{_BLANK},)*+")
_SURROGATE = re.compile("[\ud800-\udfff]")


class NotJson(Exception):
    """The text is not JSON; the message says what and where."""


@dataclass(slots=True)
class Number:
    """A number as it is written."""

    text: str


@dataclass(slots=True)
class Object:
    """Pairs in their order; a name may be repeated."""

    pairs: list[tuple[str, Json]]

    def get(self, name: str) -> Json:
        return next((value for key, value in self.pairs if key == name), None)

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.pairs)

    def repeated(self) -> str | None:
        seen: set[str] = set()
        for name, _ in self.pairs:
            if name in seen:
                return name
            seen.add(name)
        return None


Json = Object | list["Json"] | Number | str | bool | None


def read_json(text: str) -> Json:
    """The value that `text` is.

    Raises:
        NotJson: it is not exactly one JSON value.
    """
    # The standard library's reader is many times faster, and as strict in what is neither escaped nor deep.
    if "\\u" not in text:
        try:
            return _PLAIN.decode(text)  # type: ignore[no-any-return]
        except ValueError:
            return _Reader(text).read_behind(_SOUND)
        except RecursionError:
            return _Reader(text).read()
    return _Reader(text).read()


def _refuse(word: str) -> Json:
    raise ValueError(word)


_PLAIN = json.JSONDecoder(object_pairs_hook=Object, parse_int=Number, parse_float=Number, parse_constant=_refuse)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self) -> Json:
        return self._read([], "")

    def read_behind(self, sound: re.Pattern[str]) -> Json:
        """The same for a text that is thought to be no JSON: what is wrong with it lies behind its sound fields."""
        match = sound.match(self._text)
        if match is not None and match[0].endswith(","):
            self._at = match.end()
            self._read([(Object([]), "")], self._name())
            # It is JSON after all.
            self._at = 0
        return self.read()

    def _read(self, stack: list[tuple[Object | list[Json], str]], name: str) -> Json:
        while True:
            value, opened = self._value()
            if opened and not self._closes(value):
                stack.append((value, name))  # type: ignore[arg-type]
                name = self._name() if isinstance(value, Object) else ""
                continue
            while True:
                if not stack:
                    self._space()
                    if self._at != len(self._text):
                        raise self._wrong("text after the record")
                    return value
                container, outer = stack[-1]
                if isinstance(container, Object):
                    container.pairs.append((name, value))
                else:
                    container.append(value)
                if self._take(","):
                    name = self._name() if isinstance(container, Object) else ""
                    break
                if not self._take("}" if isinstance(container, Object) else "]"):
                    raise self._wrong("a comma or an end is missing")
                value, name = container, outer
                stack.pop()

    def _value(self) -> tuple[Json, bool]:
        self._space()
        head = self._text[self._at : self._at + 1]
        if head == "{":
            self._at += 1
            return Object([]), True
        if head == "[":
            self._at += 1
            return [], True
        if head == '"':
            return self._string(), False
        if match := _NUMBER.match(self._text, self._at):
            self._at = match.end()
            return Number(match[0]), False
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._at):
                self._at += len(word)
                return value, False
        raise self._wrong("a value is missing" if head else "the text ends too early")

    def _closes(self, value: Json) -> bool:
        return self._take("}" if isinstance(value, Object) else "]")

    def _name(self) -> str:
        self._space()
        if self._text[self._at : self._at + 1] != '"':
            raise self._wrong("a field name is missing")
        name = self._string()
        if not self._take(":"):
            raise self._wrong("a colon is missing")
        return name

    def _string(self) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            raise self._wrong("a text is not closed, or has a control character or an unknown escape")
        value: str = json.loads(match[0])
        if _SURROGATE.search(value):
            raise self._wrong("a lone surrogate")
        self._at = match.end()
        return value

    def _take(self, mark: str) -> bool:
        self._space()
        if self._text.startswith(mark, self._at):
            self._at += 1
            return True
        return False

    def _space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _wrong(self, what: str) -> NotJson:
        return NotJson(f"{what} at character {self._at + 1}")

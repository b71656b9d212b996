"""An SQL text as words with their places, and a cursor that expects what a statement needs.

Every word knows where it starts and ends in the text, so that queries and conditions are taken over verbatim and every
mistake has a line and a column.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

import sqlglot
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from penstock.errors import Where


class Kind(Enum):
    """What a word is: an unquoted word, a "quoted name", a 'string', a number, or a mark such as a comma."""

    WORD = "word"
    QUOTED = "quoted name"
    STRING = "string"
    NUMBER = "number"
    MARK = "mark"


@dataclass(frozen=True)
class Word:
    """text: unescaped for quoted names and strings. The word is `source[start:end]`."""

    kind: Kind
    text: str
    start: int
    end: int


class Mistake(Exception):
    """A statement is wrong at `offset`; the reader turns it into an error and goes on with the next statement."""

    def __init__(self, message: str, offset: int, expected: str, got: str, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.expected = expected
        self.got = got
        self.hint = hint
        self.code = code or "PS-DECL-006"


class Script:
    """A whole SQL text with the name of its file."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._line_starts = [0] + [match.end() for match in re.finditer("\n", text)]

    def where(self, offset: int) -> Where:
        """The line and column of an offset, both from 1."""
        line = bisect_right(self._line_starts, offset)
        return Where(self.file, line, offset - self._line_starts[line - 1] + 1)

    def statements(self) -> list[Cursor]:
        """The statements between the semicolons, without empty ones.

        Raises:
            Mistake: a quote or comment is never closed.
        """
        statements: list[list[Word]] = [[]]
        for word in self._words():
            if word.kind is Kind.MARK and word.text == ";":
                statements.append([])
            else:
                statements[-1].append(word)
        return [Cursor(self, words) for words in statements if words]

    def _words(self) -> list[Word]:
        try:
            tokens = sqlglot.tokenize(self.text, read="duckdb")
        except TokenError as problem:
            raise self._unclosed(str(problem)) from None
        return [word for token in tokens for word in self._split(token)]

    def _split(self, token: Token) -> list[Word]:
        start, end = token.start, token.end + 1
        source = self.text[start:end]
        if token.token_type is TokenType.IDENTIFIER:
            return [Word(Kind.QUOTED, token.text, start, end)]
        if token.token_type is TokenType.NUMBER:
            return [Word(Kind.NUMBER, token.text, start, end)]
        if source[:1] in ("'", "$") and token.token_type is not TokenType.PARAMETER:
            return [Word(Kind.STRING, token.text, start, end)]
        if re.match(r"\w", source):
            # The tokenizer joins some pairs (PRIMARY KEY, ORDER BY); the grammar here reads single words.
            return [Word(Kind.WORD, m[0], start + m.start(), start + m.end()) for m in re.finditer(r"\S+", source)]
        return [Word(Kind.MARK, source, start, end)]

    def _unclosed(self, problem: str) -> Mistake:
        place = re.search(r"(\d+):(\d+)", problem)
        offset = len(self.text.rstrip())
        if place and int(place[1]) <= len(self._line_starts):
            offset = self._line_starts[int(place[1]) - 1] + max(int(place[2]) - 1, 0)
        return Mistake(
            "the text cannot be read as SQL",
            min(offset, len(self.text)),
            "every quote and comment closed",
            "one that is not closed",
        )


class Cursor:
    """Reads the words of one statement."""

    def __init__(self, script: Script, words: list[Word]) -> None:
        self.script = script
        self._words = words
        self._next = 0

    @property
    def done(self) -> bool:
        return self._next >= len(self._words)

    @property
    def offset(self) -> int:
        """Where the next word starts, or where the statement ends."""
        return self._words[-1].end if self.done else self._words[self._next].start

    @property
    def where(self) -> Where:
        return self.script.where(self.offset)

    def peek(self, ahead: int = 0) -> Word | None:
        position = self._next + ahead
        return self._words[position] if position < len(self._words) else None

    def at(self, *words: str) -> bool:
        """Whether the next words are these (words in any case, marks as they are)."""
        return all(self._is(self.peek(ahead), word) for ahead, word in enumerate(words))

    @staticmethod
    def _is(found: Word | None, wanted: str) -> bool:
        return found is not None and found.kind in (Kind.WORD, Kind.MARK) and found.text.upper() == wanted

    def accept(self, *words: str) -> bool:
        """Step over these words if they come next."""
        if not self.at(*words):
            return False
        self._next += len(words)
        return True

    def expect(self, *words: str, hint: str = "") -> None:
        if not self.accept(*words):
            self.fail(" ".join(words), hint)

    def take(self) -> Word:
        word = self.peek()
        if word is None:
            self.fail("more of the statement")
        self._next += 1
        return word

    def name(self, what: str) -> str:
        """A plain or quoted name."""
        word = self.peek()
        if word is None or word.kind not in (Kind.WORD, Kind.QUOTED):
            self.fail(what)
        self._next += 1
        return word.text

    def string(self, what: str) -> str:
        word = self.peek()
        if word is None or word.kind is not Kind.STRING:
            self.fail(what)
        self._next += 1
        return word.text

    def names(self, what: str) -> tuple[str, ...]:
        """Names in parentheses, separated by commas."""
        self.expect("(")
        found = [self.name(what)]
        while self.accept(","):
            found.append(self.name(what))
        self.expect(")")
        return tuple(found)

    def until(self, *stops: str) -> tuple[str, int]:
        """The verbatim text before the first of `stops` outside of parentheses (or the end), and its offset."""
        depth, start, end = 0, self.offset, self.offset
        while (word := self.peek()) is not None:
            if depth == 0 and any(self._is(word, stop) for stop in stops):
                break
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(word.text, 0) if self._mark(word) else 0
            if depth < 0:
                break
            end = word.end
            self._next += 1
        return self.script.text[start:end], start

    def parenthesised(self) -> tuple[str, int]:
        """The verbatim text between the next parentheses, and its offset."""
        self.expect("(")
        text, start = self.until()
        if not text.strip():
            self.fail("an expression")
        self.expect(")")
        return text, start

    @staticmethod
    def _mark(word: Word) -> bool:
        return word.kind is Kind.MARK

    def skip_item(self) -> None:
        """Step to the comma or parenthesis that ends an item of a list."""
        self.until(",")

    def fail(self, expected: str, hint: str = "") -> NoReturn:
        word = self.peek()
        got = "the end of the statement" if word is None else self.script.text[word.start : word.end]
        raise Mistake("the statement cannot be read", self.offset, expected, got, hint)

"""One family of errors: a stable code, where it happened, what was expected, what was got, a hint.

Every error that Penstock raises on purpose is a `penstock.Error`. Codes (`PS-<AREA>-NNN`) live in `CODES`,
are never reused, and each has a page under docs/errors/ generated from that registry.
"""

from __future__ import annotations

from dataclasses import dataclass

CODES: dict[str, str] = {}


def _codes(area: str, titles: dict[int, str]) -> None:
    CODES.update({f"PS-{area}-{number:03d}": title for number, title in titles.items()})


_codes(
    "DECL",
    {
        1: "a name is invalid or reserved",
        2: "a name is declared twice",
        3: "a declaration refers to something that is not declared",
        4: "a contract cannot be used",
        5: "an option has an invalid value",
        6: "the SQL of a declaration cannot be parsed",
        7: "a view does not fit its sources",
        8: "a function is volatile or not deterministic",
        9: "the views depend on each other in a circle",
        10: "nothing bounds the state of a relation",
        11: "a sink needs a key that its view does not have",
        12: "`emit = 'final'` needs an event-time window in the key",
        13: "several declarations are wrong",
        14: "a pipeline cannot be found or loaded",
        15: "a parameter is missing or wrong",
        16: "hop(...) or session(...) is no window here",
        17: "an Ibis expression cannot be a view",
        18: "Ibis is not installed",
    },
)
_codes(
    "PLAN",
    {
        1: "the engine cannot hold this view",
    },
)
_codes(
    "CONF",
    {
        1: "the settings file is wrong",
        2: "a binding is wrong or missing",
        3: "a secret is not set in the environment",
    },
)
_codes(
    "STATE",
    {
        1: "the state is locked by another process",
        2: "the state is behind its high-water mark",
        3: "the state was written by a newer Penstock",
        4: "the state belongs to another plan",
        5: "the state cannot be read or written",
        6: "the DuckDB version is not supported",
        7: "there is no state here",
        8: "the journal cannot be replayed",
    },
)
_codes(
    "CONN",
    {
        1: "a connector is unknown",
        2: "a source cannot be read",
        3: "a sink cannot be written",
        4: "a log segment is damaged",
        5: "an offset is out of range",
        6: "a topic is missing, or exists already",
        7: "a record is too large",
        8: "an option of the URL is unknown or wrong",
        9: "a sink refused a row for good",
    },
)
_codes(
    "DATA",
    {
        1: "rows do not fit the source",
        2: "a dead letter or late row is unknown",
        3: "a correction lies beyond the horizon",
        4: "a reference is empty",
        5: "an account or symbol is unknown",
        6: "an order cannot be read",
        7: "the historical prices are missing",
    },
)
_codes(
    "RUN",
    {
        1: "the run failed",
        2: "a function of the pipeline raised an error",
        3: "the query failed",
        4: "the running job cannot be reached",
        5: "the metrics or the page cannot be served",
    },
)
_codes(
    "VERIFY",
    {1: "the changes and the batch disagree", 2: "there is nothing to verify", 3: "an audit trail was changed"},
)
_codes("TEST", {1: "a pipeline test failed"})
_codes(
    "BENCH",
    {
        1: "events were lost or doubled",
        2: "a generator is unknown",
        3: "a setting of the load is wrong",
        4: "a part of the run failed",
        5: "records cannot be generated from a contract",
        6: "two reports cannot be compared",
        7: "the measurement does not count",
        8: "the environment of a peer is missing",
    },
)


@dataclass(frozen=True)
class Where:
    """A place in the user's files: path, line and column counted from 1 (0: unknown).

    whole: the place is all that is known of a text that the user did not write; lines within it are not theirs.
    """

    file: str = ""
    line: int = 0
    column: int = 0
    whole: bool = False

    def __str__(self) -> str:
        parts = [self.file or "<python>"]
        parts += [str(self.line)] if self.line else []
        parts += [str(self.column)] if self.line and self.column else []
        return ":".join(parts)


class Error(Exception):
    """Base of all errors of Penstock.

    `code` is stable; `retryable` says whether doing the same again may succeed.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: Where | None = None,
        expected: str = "",
        got: str = "",
        hint: str = "",
        retryable: bool = False,
    ) -> None:
        if code not in CODES:
            raise KeyError(code)
        self.code = code
        self.message = message
        self.where = where
        self.expected = expected
        self.got = got
        self.hint = hint
        self.retryable = retryable
        super().__init__(self.render())

    def render(self) -> str:
        """The message with its place and details, a line each."""
        head = f"{self.code}: {self.message}"
        place = f"{self.where}: " if self.where else ""
        details = [
            f"  {label}: {text}"
            for label, text in (("expected", self.expected), ("got", self.got), ("hint", self.hint))
            if text
        ]
        return "\n".join([place + head, *details])

    def to_dict(self) -> dict[str, object]:
        """The error as plain data (for `--output json` and logs)."""
        return {
            "code": self.code,
            "message": self.message,
            "where": str(self.where) if self.where else None,
            "expected": self.expected or None,
            "got": self.got or None,
            "hint": self.hint or None,
            "retryable": self.retryable,
        }


class DeclarationError(Error):
    """Something in a declaration (or in how it is used) is wrong; nothing was started."""


class DeclarationErrors(DeclarationError):
    """All mistakes of a pipeline at once; `errors` holds them in the order of the file."""

    def __init__(self, errors: list[Error]) -> None:
        self.errors = errors
        super().__init__("PS-DECL-013", f"{len(errors)} mistakes in the declarations")

    def render(self) -> str:
        return "\n".join(error.render() for error in self.errors)

    def to_dict(self) -> dict[str, object]:
        return super().to_dict() | {"errors": [error.to_dict() for error in self.errors]}


class Unsupported(Error):
    """The chosen engine cannot hold a view; raised before anything runs."""


class StateError(Error):
    """The stored state cannot be used."""


class ConnectorError(Error):
    """A source or sink failed."""


class DataError(Error):
    """Rows, dead letters or late rows cannot be used as asked."""


class RunError(Error):
    """A run, a query or a function of the pipeline failed."""


class VerificationError(Error):
    """A verification found a difference."""

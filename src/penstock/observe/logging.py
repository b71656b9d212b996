"""Structured logs on stderr: one line per event, as plain text or as JSON.

An event is a short name with fields. What a run is (job_id, user_id, run_context, source_data_path) is logged once at
its start and, in JSON, repeated in every line, so that lines of several jobs can share one file. Secrets never reach a
log: the values given as `secrets` are replaced in every line.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, TextIO

from penstock.observe.redaction import mask_secrets

LOGGER = "penstock"
Form = Literal["text", "json"]
Field = str | int | float | bool | None


@dataclass(frozen=True)
class RunContext:
    """What identifies a run. run_context: `cli`, `session`, `demo` ...; source_data_path: the sources' bindings."""

    job_id: str
    user_id: str
    run_context: str
    source_data_path: str


def current_user() -> str:
    """The name of the user that runs this process; the number where it has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


class Log:
    """Writes events of one run. Made by `configure`.

    Example:
        >>> import io
        >>> out = io.StringIO()
        >>> log = configure(RunContext("clicks-1", "ann", "cli", "log:clicks"), form="json", stream=out)
        >>> log.info("epoch committed", epoch=3, rows=100)
        >>> '"epoch": 3' in out.getvalue()
        True
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Field) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Field) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Field) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Field) -> None:
        self._write(logging.ERROR, event, fields)

    def _write(self, level: int, event: str, fields: Mapping[str, Field]) -> None:
        self._logger.log(level, event, extra={"ps_fields": dict(fields)})


def configure(
    context: RunContext,
    *,
    form: Form = "text",
    level: int = logging.INFO,
    stream: TextIO | None = None,
    secrets: Sequence[str] = (),
) -> Log:
    """Send the logs of this process to `stream` (default: stderr) and write the first line of the run.

    Args:
        secrets: values that are replaced by `***` wherever they occur.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(context, form, tuple(secrets)))
    logger = logging.getLogger(LOGGER)
    for previous in logger.handlers[:]:
        logger.removeHandler(previous)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    log = Log(logger)
    log.info("run started", **asdict(context))
    return log


class _Formatter(logging.Formatter):
    def __init__(self, context: RunContext, form: Form, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._context = asdict(context)
        self._form = form
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Field] = getattr(record, "ps_fields", {})
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = record.getMessage()
        if record.exc_info:
            fields = {**fields, "traceback": self.formatException(record.exc_info)}
        head: dict[str, Field] = {"time": time, "level": record.levelname.lower(), "event": event}
        # Masked before rendering: a quote in a secret would be escaped in JSON and then not be found.
        masked = {name: self._mask(value) for name, value in {**head, **fields}.items()}
        if self._form == "json":
            context = {name: self._mask(value) for name, value in self._context.items()}
            return json.dumps({**context, **masked}, ensure_ascii=False)
        rest = " ".join(f"{name}={_plain(value)}" for name, value in masked.items() if name not in head)
        return f"{time} {record.levelname.lower():7} {masked['event']}" + (f" {rest}" if rest else "")

    def _mask(self, value: Field) -> Field:
        return mask_secrets(value, self._secrets) if isinstance(value, str) else value


def _plain(value: Field) -> str:
    """A value on one line; quoted where it holds spaces, quotes or line ends."""
    text = "" if value is None else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c.isspace() or c in '"=' for c in text) else text

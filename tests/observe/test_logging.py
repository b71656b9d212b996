"""Log lines: plain or JSON, one event each, never a secret."""

from __future__ import annotations

import io
import json

from penstock.observe.logging import Form, Log, RunContext, configure

CONTEXT = RunContext("job-1", "ann", "cli", 'kafka:clicks?password=hun"ter 2')


def log_to(form: Form) -> tuple[Log, io.StringIO]:
    stream = io.StringIO()
    return configure(CONTEXT, form=form, stream=stream, secrets=['hun"ter 2']), stream


def test_json_lines_repeat_the_run() -> None:
    log, stream = log_to("json")
    log.warning("late rows", source="clicks", rows=3)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["event"] == "run started"
    assert second["job_id"] == "job-1"
    assert (second["level"], second["event"], second["rows"]) == ("warning", "late rows", 3)
    assert second["source_data_path"] == "kafka:clicks?password=***"


def test_plain_lines_are_one_line_each() -> None:
    log, stream = log_to("text")
    log.info("epoch committed", rows=3, note="two\nlines")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].endswith('epoch committed rows=3 note="two\\nlines"')


def test_no_secret_in_any_form() -> None:
    for form in ("text", "json"):
        log, stream = log_to(form)
        log.error('failed with hun"ter 2', got='x hun"ter 2')
        assert "ter 2" not in stream.getvalue()


def test_debug_is_off_by_default() -> None:
    log, stream = log_to("text")
    log.debug("detail")
    assert "detail" not in stream.getvalue()

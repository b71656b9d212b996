"""URL options as values, with one way to say that one is wrong."""

from __future__ import annotations

from datetime import timedelta

from penstock.connectors.base import Url
from penstock.durations import parse_duration
from penstock.errors import ConnectorError


def number_option(url: Url, name: str) -> int | None:
    """A positive whole number, None if it is not given. Raises ConnectorError PS-CONN-008."""
    text = url.options.get(name)
    if text is None:
        return None
    if not text.isdecimal() or int(text) == 0:
        raise wrong_option(name, "a whole number above 0", text)
    return int(text)


def duration_option(url: Url, name: str) -> timedelta | None:
    """A duration, None if it is not given. Raises ConnectorError PS-CONN-008."""
    text = url.options.get(name)
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError:
        raise wrong_option(name, "a duration such as 10s", text) from None


def wrong_option(name: str, expected: str, got: str) -> ConnectorError:
    """The error for an option whose value makes no sense."""
    return ConnectorError("PS-CONN-008", f"the option {name} is wrong", expected=expected, got=got)

"""A binding as a value: `scheme:path?option=value`. What a scheme and its options mean is the connectors' business."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from penstock.errors import ConnectorError


@dataclass(frozen=True)
class Url:
    """A binding: `scheme:path?option=value`. For `log:` and `file:` the path is as typed, relative to the project."""

    scheme: str
    path: str
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read a URL. Raises ConnectorError PS-CONF-002 when `text` is none.

        Example:
            >>> Url.parse("log:.penstock/log/clicks?start=latest")
            Url(scheme='log', path='.penstock/log/clicks', options={'start': 'latest'})
        """
        scheme, separator, rest = text.partition(":")
        if not separator or not scheme.isidentifier():
            raise ConnectorError(
                "PS-CONF-002", "a binding is not a URL", expected="scheme:path", got=text, hint="for example log:events"
            )
        path, _, query = rest.partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            raise ConnectorError(
                "PS-CONF-002", "the options of a binding cannot be read", expected="?name=value&name=value", got=text
            ) from None
        return cls(scheme.lower(), path, dict(pairs))

    def __str__(self) -> str:
        query = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.scheme}:{self.path}" + (f"?{query}" if query else "")

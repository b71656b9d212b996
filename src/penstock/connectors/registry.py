"""From a URL to a source, a reference, a sink or the administration of topics.

A connector is found by its scheme and imported only then. Others come as plug-ins: an entry point of the group
`penstock.connectors` named `SCHEME.ROLE` (role: source, versions, sink or topics) that names a class with the
attribute OPTIONS (the URL options it knows) and the class method `open(url)`, for sinks `open(url, context)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Literal, Protocol, cast

from penstock.connectors.base import Sink, SinkContext, Source, Url, VersionSource
from penstock.errors import ConnectorError

Role = Literal["source", "versions", "sink", "topics"]
GROUP = "penstock.connectors"

_BUILT_IN: dict[str, str] = {
    "audit.sink": "penstock.connectors.audit_sink:AuditSink",
    "clock.source": "penstock.connectors.clock:ClockSource",
    "file.sink": "penstock.connectors.file_sink:FileSinks",
    "file.source": "penstock.connectors.file:FileSources",
    "file.versions": "penstock.connectors.file_versions:FileVersions",
    "log.sink": "penstock.connectors.log_sink:LogSink",
    "log.source": "penstock.connectors.log:LogSource",
    "log.topics": "penstock.connectors.log_topics:LogTopics",
    "log.versions": "penstock.connectors.log:LogVersions",
    "none.source": "penstock.connectors.none:NoSource",
    "none.versions": "penstock.connectors.none:NoVersions",
    "stdout.sink": "penstock.connectors.stdout:StdoutSink",
}
_FORMAT_OF_SUFFIX = {".csv": "csv", ".parquet": "parquet"}
_COMPRESSIONS = (".gz", ".zst")


class TopicAdmin(Protocol):
    """Makes, empties, describes and removes one topic of a broker."""

    def create(self, partitions: int) -> None:
        """Make the topic; one that exists with as many partitions is fine. Raises ConnectorError PS-CONN-006."""
        ...

    def clear(self) -> None:
        """Drop all records, keep the partitions. Raises ConnectorError PS-CONN-006 if there is no such topic."""
        ...

    def describe(self) -> dict[str, object]:
        """What the broker says of the topic, as plain data."""
        ...

    def delete(self) -> None:
        """Remove the topic with all its records."""
        ...


class _Opens(Protocol):
    OPTIONS: tuple[str, ...]

    def open(self, url: Url, context: SinkContext | None = None) -> object: ...


def open_source(url: Url, name: str) -> Source:
    """The source behind a URL; name: the source's name in the pipeline, for messages.

    Raises ConnectorError: PS-CONN-001 for an unknown scheme, PS-CONN-008 for an unknown or wrong option, and what the
    connector raises when the source is not there.
    """
    return cast(Source, _connector(url, "source", name).open(url))


def open_versions(url: Url, name: str) -> VersionSource:
    """The versions of a reference behind a URL. Raises as `open_source`."""
    return cast(VersionSource, _connector(url, "versions", name).open(url))


def open_sink(url: Url, context: SinkContext) -> Sink:
    """The sink behind a URL, for one sink of one pipeline. Raises as `open_source`."""
    return cast(Sink, _connector(url, "sink", context.sink).open(url, context))


def topic_admin(url: Url) -> TopicAdmin:
    """The administration of the topic that a URL names. Raises ConnectorError PS-CONN-001 if it has no topics."""
    return cast(TopicAdmin, _connector(url, "topics", url.path).open(url))


def source_format(url: Url) -> str:
    """How a source's records are encoded: the option `format`, else by the file's suffix, else `json`.

    Example:
        >>> source_format(Url.parse("file:people.csv.gz"))
        'csv'
    """
    path = url.path.lower()
    for suffix in _COMPRESSIONS:
        path = path.removesuffix(suffix)
    by_suffix = next((name for suffix, name in _FORMAT_OF_SUFFIX.items() if path.endswith(suffix)), "json")
    return url.options.get("format", by_suffix)


def schemes(role: Role) -> list[str]:
    """The schemes that can be used in a role, plug-ins included."""
    names = [*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))]
    return sorted({name.partition(".")[0] for name in names if name.endswith(f".{role}")})


def _connector(url: Url, role: Role, bound: str) -> _Opens:
    name = f"{url.scheme}.{role}"
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        connector = cast(_Opens, getattr(import_module(module), attribute))
    else:
        points = list(entry_points(group=GROUP, name=name))
        if not points:
            hint = "a memory: topic is an object: hand it to the session or run" if url.scheme == "memory" else ""
            raise ConnectorError(
                "PS-CONN-001",
                f"{bound}: no connector can open {url.scheme}: as {_ARTICLES[role]}",
                expected=", ".join(f"{scheme}:" for scheme in schemes(role)),
                got=str(url),
                hint=hint,
            )
        connector = cast(_Opens, points[0].load())
    _check_options(url, connector.OPTIONS, bound)
    return connector


_ARTICLES: dict[Role, str] = {
    "source": "a source",
    "versions": "a reference",
    "sink": "a sink",
    "topics": "a topic",
}


def _check_options(url: Url, allowed: Iterable[str], bound: str) -> None:
    for option in url.options:
        if option not in allowed:
            raise ConnectorError(
                "PS-CONN-008",
                f"{bound}: {url.scheme}: has no option {option} here",
                expected=", ".join(sorted(allowed)) or "no options",
                got=str(url),
            )

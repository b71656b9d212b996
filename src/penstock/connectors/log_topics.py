"""Administration of embedded topics: what `penstock topics` uses for `log:` URLs."""

from __future__ import annotations

from pathlib import Path

from penstock.connectors.base import Url
from penstock.connectors.log_sink import topic_settings
from penstock.connectors.log_topic import LogTopic


class LogTopics:
    """One topic, by its URL. Options: retention (a duration), retention_bytes, segment_bytes."""

    OPTIONS = ("format", "start", "partitions", "retention", "retention_bytes", "segment_bytes")

    def __init__(self, url: Url) -> None:
        self._url = url

    @classmethod
    def open(cls, url: Url) -> LogTopics:
        """The administration of `log:FOLDER`; the topic need not exist yet."""
        return cls(url)

    def create(self, partitions: int) -> None:
        topic_settings(self._url).create(Path(self._url.path), partitions)

    def clear(self) -> None:
        LogTopic.open(self._url.path).clear()

    def describe(self) -> dict[str, object]:
        return LogTopic.open(self._url.path).describe()

    def delete(self) -> None:
        LogTopic.open(self._url.path).delete()

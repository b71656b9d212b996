"""Connectors are found by scheme and role; what is unknown is said clearly."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from penstock.connectors import registry
from penstock.connectors.base import Url
from penstock.connectors.memory import MemorySource, MemoryTopic
from penstock.connectors.registry import open_sink, open_source, open_versions, schemes, source_format, topic_admin
from penstock.errors import ConnectorError
from tests.connectors.conformance import context


@pytest.mark.parametrize("scheme", ["nonsense", "memory"])
def test_an_unknown_scheme_lists_what_there_is(scheme: str) -> None:
    url = Url(scheme, "x")
    for open_it in (lambda: open_source(url, "clicks"), lambda: open_versions(url, "clicks"), lambda: topic_admin(url)):
        with pytest.raises(ConnectorError, match="log:") as caught:
            open_it()
        assert caught.value.code == "PS-CONN-001"
    with pytest.raises(ConnectorError, match=r"out: no connector .*\n.*stdout:") as caught:
        open_sink(url, context())


@pytest.mark.parametrize("url", ["log:x?nonsense=1", "file:x?retention=1d", "stdout:?roll=1s"])
def test_an_unknown_option_lists_the_allowed_ones(url: str) -> None:
    with pytest.raises(ConnectorError, match="format") as caught:
        open_sink(Url.parse(url), context())
    assert caught.value.code == "PS-CONN-008"


@pytest.mark.parametrize("text", ["log", "log:x?y", ":x", "1x:y"])
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ConnectorError) as caught:
        Url.parse(text)
    assert caught.value.code == "PS-CONF-002"


@pytest.mark.parametrize(
    ("url", "format"),
    [
        ("log:x", "json"),
        ("log:x?format=debezium", "debezium"),
        ("file:a.csv", "csv"),
        ("file:a.CSV.GZ", "csv"),
        ("file:a.jsonl.zst", "json"),
        ("file:a.parquet", "parquet"),
        ("file:a.csv?format=json", "json"),
    ],
)
def test_formats_by_option_then_suffix(url: str, format: str) -> None:
    assert source_format(Url.parse(url)) == format


def test_topics_are_administered_by_url(tmp_path: Path) -> None:
    admin = topic_admin(Url.parse(f"log:{tmp_path}/t?retention=7d&segment_bytes=8192"))
    admin.create(2)
    admin.create(2)
    described = admin.describe()
    assert (described["partitions"], described["segment_bytes"]) == (2, 8192)
    assert described["retention_us"] == 7 * 86_400_000_000
    admin.clear()
    admin.delete()
    assert not (tmp_path / "t").exists()
    for call in (admin.clear, admin.describe, admin.delete):
        with pytest.raises(ConnectorError) as caught:
            call()
        assert caught.value.code == "PS-CONN-006"


class Plugin:
    OPTIONS = ("color",)
    topic = MemoryTopic()

    @classmethod
    def open(cls, url: Url) -> MemorySource:
        return MemorySource(cls.topic)


def test_plugins_are_entry_points_named_by_scheme_and_role(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("pigeon.source", f"{__name__}:Plugin", registry.GROUP)
    monkeypatch.setattr(
        registry, "entry_points", lambda group, name=None: [point] if name in (None, point.name) else []
    )
    assert isinstance(open_source(Url.parse("pigeon:coop?color=grey"), "post"), MemorySource)
    assert "pigeon" in schemes("source")
    assert "pigeon" not in schemes("sink")
    with pytest.raises(ConnectorError, match="color"):
        open_source(Url.parse("pigeon:coop?speed=1"), "post")


def test_a_connector_is_imported_only_when_it_is_used() -> None:
    program = (
        "import sys; from penstock.connectors import registry\n"
        "assert not {'duckdb', 'penstock.connectors.log', 'penstock.connectors.file'} & set(sys.modules)\n"
        "import penstock.connectors.log\n"
        "assert 'duckdb' not in sys.modules, 'a producer must not pay for the engine'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

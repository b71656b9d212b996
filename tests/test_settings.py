"""Targets: defaults, bindings, secrets, and mistakes with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import ConnectorError, DeclarationErrors, Error
from penstock.pipeline import Graph
from penstock.settings import SettingsError, Target, load_settings, resolve
from penstock.sqlfile import read_pipeline
from penstock.url import Url

PIPELINE = """
CREATE STREAM clicks (a INT);
CREATE STREAM counts (a INT);
CREATE CLOCK tick EVERY '250ms';
CREATE VIEW v AS SELECT a FROM clicks;
CREATE SINK counts FROM v;
"""


@pytest.fixture
def graph() -> Graph:
    return read_pipeline(PIPELINE, name="shop").graph()


def target_of(
    folder: Path, graph: Graph, toml: str = "", name: str | None = None, *binds: str, **secrets: str
) -> Target:
    if toml:
        (folder / "penstock.toml").write_text(toml)
    return resolve(graph, load_settings(folder), target=name, binds=binds, environment=secrets)


def test_without_a_file_everything_is_on_the_embedded_log(tmp_path: Path, graph: Graph) -> None:
    target = target_of(tmp_path, graph)
    assert (target.name, target.engine) == ("local", "duckdb")
    assert target.state == tmp_path / ".penstock/state/shop"
    assert target.source("clicks") == Url("log", ".penstock/log/clicks")
    assert target.sink("counts") == Url("log", ".penstock/log/counts")
    assert target.source("tick") == Url("clock", "250ms")


def test_a_target_binds_by_name_and_by_default(tmp_path: Path, graph: Graph) -> None:
    toml = """
[targets.kafka]
engine = "spark"
state = "/var/{pipeline}"
[targets.kafka.spark]
shuffle_partitions = 8
[targets.kafka.bind]
"*" = "kafka:{pipeline}-{name}?acks=all"
clicks = "file:clicks.jsonl"
of_another_pipeline = "log:x"
"""
    target = target_of(tmp_path, graph, toml, "kafka")
    assert (target.engine, str(target.state)) == ("spark", "/var/shop")
    assert target.settings == {"shuffle_partitions": 8}
    assert target.source("clicks") == Url("file", "clicks.jsonl")
    assert target.sink("counts") == Url("kafka", "shop-counts", {"acks": "all"})
    assert target.source("tick") == Url("clock", "250ms")


def test_the_command_line_wins_and_tells_source_from_sink(tmp_path: Path, graph: Graph) -> None:
    target = target_of(tmp_path, graph, "", None, "counts=log:both", "sink:counts=file:out.jsonl")
    assert target.source("counts") == Url("log", "both")
    assert target.sink("counts") == Url("file", "out.jsonl")


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path, graph: Graph) -> None:
    toml = '[targets.local.bind]\n"*" = "kafka:{name}?password=${KAFKA_PASSWORD}"\n'
    target = target_of(tmp_path, graph, toml, KAFKA_PASSWORD="hunter2")
    assert target.source("clicks").options == {"password": "hunter2"}
    assert target.shown["source:clicks"] == "kafka:clicks?password=${KAFKA_PASSWORD}"
    assert "hunter2" not in repr(target)


def test_a_secret_that_is_not_set(tmp_path: Path, graph: Graph) -> None:
    with pytest.raises(SettingsError, match=r"PS-CONF-003.*\n.*the environment variable NOT_SET_HERE"):
        target_of(tmp_path, graph, "", None, "clicks=kafka:x?password=${NOT_SET_HERE}")


@pytest.mark.parametrize(
    ("toml", "line", "got"),
    [
        ('[targets.a]\nengin = "duckdb"', 2, "engin"),
        ('[targets.a]\n\nengine = "duck"', 3, "duck"),
        ("[targets.a]\nstate = 3", 2, "3"),
        ("[targets.a.bind]\nclicks = 3", 2, "3"),
        ('[target.a]\nengine = "duckdb"', 1, "target"),
        ("[targets.a]\n[targets.a.duckdb]\nthreads = [1]", 3, "[1]"),
    ],
)
def test_a_wrong_key_has_its_line(tmp_path: Path, toml: str, line: int, got: str) -> None:
    (tmp_path / "penstock.toml").write_text(toml)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)
    assert caught.value.where is not None
    assert (caught.value.code, caught.value.where.line, caught.value.got) == ("PS-CONF-001", line, got)


def test_all_mistakes_of_the_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[targets.a]\nx = 1\ny = 2\n[targets.b]\nengine = "no"')
    with pytest.raises(DeclarationErrors) as caught:
        load_settings(tmp_path)
    assert len(caught.value.errors) == 3


@pytest.mark.parametrize("content", [b"[targets", b"\xff\xfe", b"a = \n"])
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "penstock.toml").write_bytes(content)
    with pytest.raises(SettingsError, match="PS-CONF-001"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("toml", "name", "bind", "code"),
    [
        ("", "nowhere", "", "PS-CONF-001"),
        ("", None, "nothing=log:x", "PS-CONF-002"),
        ("", None, "clicks", "PS-CONF-002"),
        ("", None, "clicks=no-url", "PS-CONF-002"),
        ("", None, "clicks=log:{unknown}", "PS-CONF-002"),
        ('[targets.local.bind]\nclicks = "log:x"', None, "", "PS-CONF-002"),
    ],
)
def test_targets_and_bindings_that_are_wrong(
    tmp_path: Path, graph: Graph, toml: str, name: str | None, bind: str, code: str
) -> None:
    with pytest.raises(Error) as caught:
        target_of(tmp_path, graph, toml, name, *([bind] if bind else []))
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["log:a/b", "kafka:t?acks=all&x=1", "file:a b.csv", "stdout:"])
def test_urls_round_trip(text: str) -> None:
    assert str(Url.parse(text)) == text


@pytest.mark.parametrize("text", ["", "plain", ":x", "no-scheme:x", "log:x?broken"])
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ConnectorError, match="PS-CONF-002"):
        Url.parse(text)


def test_a_default_url_holds_until_the_source_is_bound_by_name(tmp_path: Path) -> None:
    text = "CREATE STREAM a (x INT) WITH (default = 'none:'); CREATE STREAM b (x INT);"
    graph = read_pipeline(text + "CREATE VIEW v AS SELECT x FROM a UNION ALL SELECT x FROM b;", name="p").graph()
    toml = '[targets.local.bind]\n"*" = "log:topics/{name}"\n'
    assert target_of(tmp_path, graph).source("a") == Url("none", "")
    target = target_of(tmp_path, graph, toml)
    assert (target.source("a"), target.source("b")) == (Url("none", ""), Url("log", "topics/b"))
    assert target_of(tmp_path, graph, toml, None, "a=file:a.jsonl").source("a") == Url("file", "a.jsonl")
    assert target_of(tmp_path, graph, toml + 'a = "log:mine"\n').source("a") == Url("log", "mine")

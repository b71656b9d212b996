"""Sources that are not there, and references that begin with their default."""

from __future__ import annotations

from pathlib import Path

import pytest

import penstock as ps
from penstock.cli.main import run
from penstock.connectors.registry import open_source, open_versions
from penstock.errors import ConnectorError
from penstock.url import Url


def test_it_has_nothing() -> None:
    source = open_source(Url.parse("none:"), "a")
    assert source.partitions() == []
    versions = open_versions(Url.parse("none:"), "a")
    version = versions.poll(None)
    assert version is not None
    assert version.batches == ()
    assert versions.poll(version.id) is None
    assert versions.recall(version.id) == version


def test_a_path_would_not_be_read() -> None:
    with pytest.raises(ConnectorError) as caught:
        open_source(Url.parse("none:a.csv"), "a")
    assert caught.value.code == "PS-CONN-008"


PIPELINE = """
CREATE STREAM a (x INT) WITH (default = 'none:');
CREATE STREAM b (x INT) WITH (state = 'unbounded');
CREATE REFERENCE r (x INT PRIMARY KEY) WITH (default = 'file:{folder}/r.jsonl');
CREATE REFERENCE e (x INT) WITH (default = 'none:', allow_empty = 'true');
CREATE VIEW v AS SELECT x FROM a UNION ALL SELECT b.x FROM b JOIN r ON b.x = r.x WHERE NOT EXISTS (SELECT 1 FROM e);
CREATE SINK out FROM v;
CREATE VIEW total AS SELECT sum(x) AS x FROM v;
"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "r.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    return PIPELINE.replace("{folder}", str(tmp_path))


def test_a_run_goes_on_without_it(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.sql").write_text(text)
    (tmp_path / "b.jsonl").write_text('{"x": 2}\n{"x": 3}\n')
    arguments = ["run", "p.sql", "--once", "--bind", "b=file:b.jsonl", "--bind", "out=file:out.jsonl?mode=snapshot"]
    assert run(arguments) == 0
    assert (tmp_path / "out.jsonl").read_text().split() == ['{"x":2}']
    assert run(["verify", "p.sql", "--runs", "1", "--bind", "b=file:b.jsonl"]) == 0
    capsys.readouterr()


def test_a_session_begins_with_the_default_and_keeps_what_replaced_it(text: str, tmp_path: Path) -> None:
    pipeline = ps.Pipeline.from_sql(text, name="p")
    with pipeline.open(state=tmp_path / "state") as session:
        session.insert("b", [{"x": 1}, {"x": 3}])
        session.commit()
        assert session.read("total").to_pylist() == [{"x": 1}]
        session.replace("r", [{"x": 3}])
        session.commit()
    with pipeline.open(state=tmp_path / "state") as session:
        session.insert("b", [{"x": 1}])
        session.commit()
        assert session.read("total").to_pylist() == [{"x": 3}]

"""A file as a reference: a version is the whole content, or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.connectors import file_versions
from penstock.connectors.base import RawBatch, TypedBatch, Url, Version, VersionSource
from penstock.connectors.registry import open_versions
from penstock.errors import ConnectorError


def opened(path: Path) -> VersionSource:
    return open_versions(Url("file", str(path)), "pages")


def lines(version: Version | None) -> list[bytes]:
    assert version is not None
    return [value for batch in version.batches if isinstance(batch, RawBatch) for value in batch.values.to_pylist()]


def replace(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.rename(path)


def test_each_content_is_one_version(tmp_path: Path) -> None:
    path = tmp_path / "pages.csv"
    path.write_bytes(b"id,name\n1,a\n2,b")
    versions = opened(path)
    first = versions.poll(None)
    assert lines(first) == [b"1,a", b"2,b"]
    assert first is not None
    assert versions.poll(first.id) is None
    replace(path, b"id,name\n1,a\n2,b")
    assert versions.poll(first.id) is None
    replace(path, b"id,name\n3,c\n")
    second = versions.poll(first.id)
    assert lines(second) == [b"3,c"]
    replace(path, b"id,name\n")
    assert second is not None
    assert lines(versions.poll(second.id)) == []
    versions.close()


def test_another_process_knows_the_version_by_its_id(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_bytes(b"{}\n")
    first = opened(path).poll(None)
    assert first is not None
    assert opened(path).poll(first.id) is None


def test_parquet_comes_as_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "pages.parquet")
    version = opened(tmp_path / "pages.parquet").poll(None)
    assert version is not None
    (batch,) = version.batches
    assert isinstance(batch, TypedBatch)
    assert batch.table.to_pylist() == [{"n": 1}, {"n": 2}]


def test_only_the_content_of_now_can_be_recalled(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_bytes(b"old\n")
    versions = opened(path)
    old = versions.poll(None)
    assert old is not None
    assert lines(versions.recall(old.id)) == [b"old"]
    path.write_bytes(b"newer\n")
    assert versions.recall(old.id) is None


def test_a_missing_broken_or_vanished_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError) as caught:
        opened(tmp_path / "none.csv")
    assert caught.value.code == "PS-CONN-002"
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    versions = opened(broken)
    with pytest.raises(ConnectorError) as caught:
        versions.poll(None)
    assert caught.value.code == "PS-CONN-002"
    broken.unlink()
    with pytest.raises(ConnectorError) as caught:
        versions.poll(None)
    assert caught.value.code == "PS-CONN-002"


def test_content_that_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_bytes(b"old\n")
    versions = opened(path)
    open_input = file_versions.open_input
    changes = iter([b"new\n"])

    def changing(name: Path, format: str) -> object:
        content = open_input(name, format)
        data = next(changes, None)
        if data is not None:
            path.write_bytes(data)
            os.utime(path, ns=(1, 1))
        return content

    monkeypatch.setattr(file_versions, "open_input", changing)
    assert lines(versions.poll(None)) == [b"new"]
    changes = iter([b"1\n", b"2\n", b"3\n", b"4\n"])
    path.write_bytes(b"0\n")
    with pytest.raises(ConnectorError, match="keeps changing"):
        versions.poll(None)

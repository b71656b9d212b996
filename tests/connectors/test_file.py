"""Files and folders as sources: the conformance suite per kind, and what can go wrong with files."""

from __future__ import annotations

import gzip
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.connectors.base import RawBatch, Source, Url
from penstock.connectors.file import ORDER_FILE
from penstock.connectors.registry import open_source
from penstock.errors import ConnectorError
from tests.connectors.conformance import SourceConformance, SourceHarness, drain


def source(path: Path | str, **options: str) -> Source:
    return open_source(Url("file", str(path), options), "input")


def values(opened: Source, offset: int | None = None) -> list[object]:
    return [value for _, value in drain(opened, 0, opened.start(0) if offset is None else offset)[0]]


class LinesHarness:
    partitions = 1
    name = "events.jsonl"
    head = b""

    def __init__(self, folder: Path) -> None:
        self.path = folder / self.name
        self.path.write_bytes(self.head)

    def write(self, partition: int, values: list[bytes | None]) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join((value or b"") + b"\n" for value in values))

    def open(self, start: str = "earliest") -> Source:
        return source(self.path, start=start)


class CsvHarness(LinesHarness):
    name = "people.csv"
    head = b"\xef\xbb\xbfname,text\r\n"


class FolderHarness:
    """Each write is a file of its own; names descend, so that every new file sorts before the older ones."""

    partitions = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "landing"
        self.folder.mkdir()
        self.count = 1_000

    def write(self, partition: int, values: list[bytes | None]) -> None:
        self.count -= 1
        draft = self.folder / f".{self.count}"
        draft.write_bytes(b"\n".join(value or b"" for value in values))
        draft.rename(self.folder / f"{self.count:05d}.jsonl")

    def open(self, start: str = "earliest") -> Source:
        return source(f"{self.folder}/", start=start, settle="0s")


class TestLines(SourceConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SourceHarness:
        return LinesHarness(tmp_path)


class TestCsv(SourceConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SourceHarness:
        return CsvHarness(tmp_path)

    def values(self, first: int, count: int) -> list[bytes | None]:
        return [b'name %d,"a ""b"",\nc"' % number for number in range(first, first + count)]

    def test_a_record_larger_than_asked_comes_anyway(self, harness: SourceHarness) -> None:
        large = b'x,"' + b"\n" * 300_000 + b'"'
        harness.write(0, [large, b"y,z"])
        opened = harness.open()
        assert self.seen(drain(opened, 0, opened.start(0), 1_000, 10)[0]) == [large, b"y,z"]


class TestFolder(SourceConformance):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SourceHarness:
        return FolderHarness(tmp_path)


def test_the_header_comes_with_every_batch(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b' id ,"the ""n"""\n1,2\n3,4\n')
    opened = source(tmp_path / "a.csv")
    for offset in (0, opened.start(0), opened.start(0) + 4):
        batch = opened.read(0, offset, 1, 100)
        assert isinstance(batch, RawBatch)
        assert batch.header == ("id", 'the "n"')
    opened.close()


def test_a_partial_last_line_waits_until_the_end_of_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo")
    opened = source(path)
    assert values(opened) == [b"one"]
    assert opened.latest(0) == 4
    opened.finish()
    assert opened.latest(0) == 7
    assert values(opened) == [b"one", b"two"]
    opened.close()
    with path.open("ab") as file:
        file.write(b"\nthree\n")
    again = source(path)
    assert values(again, 7) == [b"three"]
    again.close()


def test_a_last_line_that_grew_after_it_was_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\ntwo")
    opened = source(path)
    opened.finish()
    assert drain(opened, 0, 0)[1] == 7
    with path.open("ab") as file:
        file.write(b" and a half\n")
    with pytest.raises(ConnectorError, match="no longer where a record begins"):
        opened.read(0, 7, 1, 100)
    opened.close()


def test_blank_lines_and_line_ends_of_all_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n\r\none\r\n\n two \n\xff\x00\xfe\n\n")
    opened = source(path)
    assert values(opened) == [b"one", b" two ", b"\xff\x00\xfe"]
    assert drain(opened, 0, opened.start(0))[1] == path.stat().st_size == opened.latest(0)
    opened.close()


@pytest.mark.parametrize("max_bytes", [1, 1 << 20])
def test_a_stray_quote_breaks_its_own_line_only(
    tmp_path: Path, max_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.connectors.file_records.MAX_QUOTED_BYTES", 100_000)
    lines = [b'5" pipe,1', b'"open,2', *(b"x,%d" % number for number in range(40_000))]
    (tmp_path / "a.csv").write_bytes(b"name,n\n" + b"\n".join(lines) + b"\n")
    opened = source(tmp_path / "a.csv")
    rows, _ = drain(opened, 0, opened.start(0), 100_000, max_bytes if max_bytes > 1 else 64)
    assert [value for _, value in rows] == lines
    opened.close()


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_compressed_files_are_read_by_decompressed_offsets(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    lines = [b'{"n": %d}' % number for number in range(50_000)]
    if suffix.endswith("gz"):
        half = len(lines) // 2
        path.write_bytes(
            gzip.compress(b"\n".join(lines[:half]) + b"\n") + gzip.compress(b"\n".join(lines[half:]) + b"\n")
        )
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(b"\n".join(lines) + b"\n")
    opened = source(path)
    rows, end = drain(opened, 0, opened.start(0), 7_000, 100_000)
    assert [value for _, value in rows] == lines
    assert end == opened.latest(0)
    for number in (40_000, 10, 49_999):
        assert drain(opened, 0, rows[number][0]) == (rows[number:], end)
    opened.close()


def test_a_truncated_gzip_file_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(b"%d\n" % number for number in range(100_000)))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    opened = source(tmp_path / "a.jsonl.gz")
    with pytest.raises(ConnectorError) as caught:
        drain(opened, 0, 0)
    assert caught.value.code == "PS-CONN-002"
    opened.close()


def test_parquet_rows_come_as_columns(tmp_path: Path) -> None:
    table = pa.table({"n": list(range(1_000)), "s": [str(n) for n in range(1_000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    opened = source(tmp_path / "a.parquet")
    assert drain(opened, 0, 0, 70) == ([(n, n) for n in range(1_000)], 1_000)
    assert drain(opened, 0, 0, 1_000, 1) == ([(n, n) for n in range(1_000)], 1_000)
    assert drain(opened, 0, 250, 1_000, to=650)[0] == [(n, n) for n in range(250, 650)]
    assert opened.latest(0) == 1_000
    with pytest.raises(ConnectorError) as caught:
        opened.read(0, 1_001, 1, 1)
    assert caught.value.code == "PS-CONN-005"
    opened.close()


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "folder/"])
def test_what_is_not_there_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConnectorError, match="cannot be read") as caught:
        source(f"{tmp_path}/{name}")
    assert caught.value.code == "PS-CONN-002"


def test_a_file_that_is_no_parquet_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConnectorError) as caught:
        source(tmp_path / "a.parquet")
    assert caught.value.code == "PS-CONN-002"


def test_a_file_that_shrinks_or_is_replaced_or_deleted_is_an_error(tmp_path: Path) -> None:
    for name, change in (
        ("shrinks", lambda path: os.truncate(path, 4)),
        (
            "replaced",
            lambda path: (path.with_suffix(".new").write_bytes(b"x\n" * 9), path.with_suffix(".new").rename(path)),
        ),
        ("deleted", lambda path: path.unlink()),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"one\ntwo\n")
        opened = source(path)
        assert drain(opened, 0, 0)[1] == 8
        change(path)
        with pytest.raises(ConnectorError) as caught:
            opened.read(0, 8, 1, 100)
        assert caught.value.code in ("PS-CONN-002", "PS-CONN-005")
        opened.close()


def test_a_file_cut_between_two_runs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"one\n")
    opened = source(tmp_path / "a.jsonl")
    with pytest.raises(ConnectorError, match="shorter than what was read") as caught:
        opened.read(0, 8, 1, 100)
    assert caught.value.code == "PS-CONN-005"
    opened.close()


class TestFolderFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "landing").mkdir()
        return tmp_path / "landing"

    def test_offsets_mean_the_same_after_a_restart_whatever_came_meanwhile(self, folder: Path) -> None:
        for name in ("c", "b"):
            (folder / f"{name}.jsonl").write_bytes(name.encode() * 3 + b"\n")
        first = source(f"{folder}/", settle="0s")
        rows, end = drain(first, 0, first.start(0))
        assert [value for _, value in rows] == [b"bbb", b"ccc"]
        first.close()
        (folder / "a.jsonl").write_bytes(b"aaa")
        second = source(f"{folder}/", settle="0s")
        assert values(second, end) == [b"aaa"]
        assert values(second, rows[1][0]) == [b"ccc", b"aaa"]
        assert values(second) == [b"bbb", b"ccc", b"aaa"]
        second.close()

    def test_mixed_formats_each_with_its_own_header(self, folder: Path) -> None:
        (folder / "a.csv").write_bytes(b"x\n1\n")
        (folder / "b.csv").write_bytes(b"y\n2\n")
        pq.write_table(pa.table({"z": [3]}), folder / "c.parquet")
        opened = source(f"{folder}/", settle="0s")
        assert values(opened) == [b"1", b"2", 3]
        headers = []
        offset = 0
        while isinstance(batch := opened.read(0, offset, 10, 100), RawBatch):
            headers.append(batch.header)
            offset = batch.next_offset
        assert headers == [("x",), ("y",)]
        opened.close()

    def test_unsettled_hidden_and_temporary_files_are_left_alone(self, folder: Path) -> None:
        for name in (".hidden.jsonl", "_SUCCESS", "a.tmp", "b.part"):
            (folder / name).write_bytes(b"no\n")
        (folder / "fresh.jsonl").write_bytes(b"fresh\n")
        opened = source(f"{folder}/", settle="1 hour")
        assert values(opened) == []
        old = time.time() - 7_200
        os.utime(folder / "fresh.jsonl", (old, old))
        assert values(opened) == [b"fresh"]
        (folder / "later.jsonl").write_bytes(b"later")
        assert values(opened) == [b"fresh"]
        opened.finish()
        assert values(opened) == [b"fresh", b"later"]
        opened.close()

    def test_a_file_that_changes_after_it_was_complete_is_an_error_never_a_loss(self, folder: Path) -> None:
        (folder / "a.jsonl").write_bytes(b"one\n")
        opened = source(f"{folder}/", settle="0s")
        assert values(opened) == [b"one"]
        with (folder / "a.jsonl").open("ab") as file:
            file.write(b"two\n")
        with pytest.raises(ConnectorError, match="has changed"):
            opened.read(0, opened.start(0), 10, 100)
        opened.close()

    def test_read_files_may_be_deleted_unread_ones_may_not(self, folder: Path) -> None:
        (folder / "a.jsonl").write_bytes(b"one\n")
        (folder / "b.jsonl").write_bytes(b"two\n")
        opened = source(f"{folder}/", settle="0s")
        rows, _ = drain(opened, 0, 0)
        (folder / "a.jsonl").unlink()
        again = source(f"{folder}/", settle="0s")
        assert again.earliest(0) == rows[1][0]
        assert values(again) == [b"two"]
        with pytest.raises(ConnectorError, match=r"a\.jsonl"):
            again.read(0, 0, 1, 10)
        opened.close()
        again.close()

    def test_an_order_file_with_a_torn_line_goes_on(self, folder: Path) -> None:
        (folder / "a.jsonl").write_bytes(b"one\n")
        source(f"{folder}/", settle="0s").close()
        with (folder / ORDER_FILE).open("ab") as file:
            file.write(b'["half')
        (folder / "b.jsonl").write_bytes(b"two\n")
        opened = source(f"{folder}/", settle="0s")
        assert values(opened) == [b"one", b"two"]
        assert (folder / ORDER_FILE).read_bytes().count(b"\n") == 2
        opened.close()

    def test_the_order_may_lie_elsewhere(self, folder: Path, tmp_path: Path) -> None:
        (folder / "a.jsonl").write_bytes(b"one\n")
        opened = source(f"{folder}/", settle="0s", order=str(tmp_path / "order"))
        assert values(opened) == [b"one"]
        assert (tmp_path / "order").exists()
        assert not (folder / ORDER_FILE).exists()
        opened.close()


@pytest.mark.parametrize("options", [{"start": "2026-01-01"}, {"settle": "soon"}, {"nonsense": "1"}])
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConnectorError) as caught:
        source(f"{tmp_path}/", **options)
    assert caught.value.code == "PS-CONN-008"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"id"),
        ("a.csv", b"id,n\n"),
        ("a.csv", b"\xef\xbb\xbfid\n\n"),
        ("a.jsonl", b""),
        ("a.jsonl", b"\n\n"),
        ("a.jsonl", b"\xef\xbb\xbf"),
        ("a.jsonl", b"\r"),
    ],
)
def test_what_holds_no_record_is_passed_to_its_very_end(tmp_path: Path, name: str, content: bytes) -> None:
    """A drain reads until the latest offset is reached: no file may leave it waiting."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(content)
    (tmp_path / "folder" / f"b{name}").write_bytes(content)
    for path in (tmp_path / "folder" / name, f"{tmp_path}/folder/"):
        opened = source(path)
        opened.finish()
        rows, end = drain(opened, 0, opened.start(0))
        assert all(value == b"\r" for _, value in rows)
        assert end == opened.latest(0)
        opened.close()

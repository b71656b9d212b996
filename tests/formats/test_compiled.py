"""The compiled kernel proves only what is right, in any chunks, and proves all that is plain."""

from __future__ import annotations

import ipaddress
import itertools
import json
import logging
import random
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.connectors.base import RawBatch
from penstock.contract.patterns import IP, UUID
from penstock.contract.schema import Column, ForeignKey, Rule, Schema
from penstock.formats import compiled
from penstock.formats.compiled import SWITCH, WORTHWHILE_ROWS, CompiledJudge, Loader, Split, loader
from penstock.formats.decode import decoder_for
from penstock.formats.held_keys import References
from penstock.formats.judge_sql import Judgement, proven_columns
from tests.examples import examples
from tests.formats.agreement import agree

VISIT = Schema(
    "Visit",
    (
        Column("id", "VARCHAR", rules=(Rule("pattern", UUID),)),
        Column("ip", "VARCHAR", rules=(Rule("pattern", IP),)),
        Column("kind", "VARCHAR", rules=(Rule("one_of", ("view", "click", "é", "a longer choice!")),)),
        Column("n", "BIGINT", rules=(Rule("ge", -5),)),
        Column("small", "TINYINT", nullable=True),
        Column("note", "VARCHAR", nullable=True),
        Column("paid", "BOOLEAN", nullable=True),
        Column("price", "DOUBLE", nullable=True),
    ),
)
VISITS = decoder_for(VISIT, "json")
SOUND = {
    "id": "0ea9c16a-c840-470c-ac03-217d6d80b765",
    "ip": "206.156.142.244",
    "kind": "click",
    "n": 9223372036854775807,
    "small": -128,
    "note": "naïve, {plain}: [text]",
    "paid": True,
    "price": -1.5e-3,
}


def split(records: Sequence[bytes | None], chunks: Sequence[int] = (), threads: int = 1) -> Split:
    """What the kernel makes of records in chunks that begin at these places."""
    kernel = loader.load()
    assert kernel is not None, "the tests need the extra `fast`"
    judgement = Judgement(VISIT, "stream", (), None, None)  # type: ignore[arg-type]
    values = pa.array(records, pa.binary())
    edges = [0, *sorted(chunks), len(records)]
    parts = [values.slice(start, stop - start) for start, stop in itertools.pairwise(edges)]
    offsets = pa.chunked_array([pa.array(range(100, 100 + len(records)), pa.int64())])
    batch = RawBatch(3, pa.chunked_array(parts, pa.binary()), offsets, 100 + len(records))
    return CompiledJudge(judgement).split(kernel, [batch], proven_columns(judgement, None), threads)


def proves(record: dict[str, object] | bytes | str) -> bool:
    text = record if isinstance(record, bytes) else (record if isinstance(record, str) else json.dumps(record)).encode()
    return bool(split([text]).proven.num_rows)


def with_(field: str, text: str) -> str:
    """The sound record with another JSON text in one field."""
    return "{" + ",".join(f'"{k}":{text if k == field else json.dumps(v)}' for k, v in SOUND.items()) + "}"


def test_a_plain_record_is_proven_with_its_values() -> None:
    row = split([json.dumps(SOUND, ensure_ascii=False).encode()]).proven.to_pylist()[0]
    assert (row["_ps_p"], row["_ps_o"], row["_ps_t"]) == (3, 100, None)
    wanted = SOUND | {"paid": 1, "price": "-0.0015"}
    assert {name: row[name] for name in SOUND} == wanted


@pytest.mark.parametrize("order", [(1, 0, 2, 3, 4, 5, 6, 7), (7, 6, 5, 4, 3, 2, 1, 0), (3, 4, 0, 1, 2, 7, 5, 6)])
def test_fields_may_come_in_any_order_and_change_it(order: tuple[int, ...]) -> None:
    names = list(SOUND)
    shuffled = {names[place]: SOUND[names[place]] for place in order}
    found = split([json.dumps(record).encode() for record in (SOUND, shuffled, SOUND, shuffled)])
    # the escape of ï is what is doubted in json.dumps' default
    assert found.proven.num_rows == 0
    plain = [json.dumps(record, ensure_ascii=False).encode() for record in (SOUND, shuffled, SOUND, shuffled)]
    found = split(plain)
    assert found.proven.num_rows == 4
    assert found.proven["n"].to_pylist() == [SOUND["n"]] * 4


@pytest.mark.parametrize("width", range(1, 18))
def test_blanks_may_stand_before_a_colon(width: int) -> None:
    """Whatever the name's length; and a name that only begins like a field's is none of them, blanks or not."""
    name = "n" * width
    schema = Schema("S", (Column(name, "BIGINT"), Column(f"{name}m", "BIGINT", nullable=True)))
    records = [
        *(f'{{"{name}"{before}:{behind}7}}' for before in ("", " ", "  ") for behind in ("", " ")),
        *(f'{{ "{name}m"{blank}: 1 , "{name}"{blank}:7 }}' for blank in ("", " ")),
        *(f'{{"{name}{other}"{blank}:7}}' for other in ("x", "\u007f", "mm") for blank in ("", " ")),
        *(f'{{"{name}{blank}7}}' for blank in ("", " ", ":", '"', '" ', '"  7:')),
        *(f'{{"{name[:-1]}o"{blank}:7}}' for blank in ("", " ")),
    ]
    kernel = loader.load()
    assert kernel is not None
    judge = CompiledJudge(Judgement(schema, "stream", (), None, None))  # type: ignore[arg-type]
    values = pa.chunked_array([[record.encode() for record in records]], pa.binary())
    batch = RawBatch(0, values, pa.chunked_array([pa.array(range(len(records)), pa.int64())]), len(records))
    found = judge.split(kernel, [batch], (name,), 1).proven
    assert found["_ps_o"].to_pylist() == list(range(8))
    assert found[name].to_pylist() == [7] * 8


@pytest.mark.parametrize("field", ["small", "note", "paid", "price"])
def test_nullable_fields_may_be_null_or_missing(field: str) -> None:
    plain = SOUND | {"note": "x"}
    missing = {k: v for k, v in plain.items() if k != field}
    for record in (missing, plain | {field: None}):
        rows = split([json.dumps(record).encode()]).proven.to_pylist()
        assert [row[field] for row in rows] == [None]


@pytest.mark.parametrize("field", ["id", "ip", "kind", "n"])
def test_others_may_not(field: str) -> None:
    plain = SOUND | {"note": "x"}
    assert not proves({k: v for k, v in plain.items() if k != field})
    assert not proves(plain | {field: None})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("id", f'"{i}"') for i in ("0ea9c16ac840470cac03217d6d80b765", "0ea9c16a-c840-470c-ac03-217d6d80b76g")),
        *(("id", t) for t in ('""', "1", "null", '"0ea9c16a-c840-470c-ac03-217d6d80b7655"')),
        *(("n", t) for t in ("-6", "9223372036854775808", "-0", "01", "1.0", "1e3", '"1"', "true")),
        *(("n", t) for t in ("+1", "", "--1", "0x1")),
        *(("small", t) for t in ("128", "-129", "12345678", "123456789", "1234567890123456789012")),
        *(("kind", t) for t in ('"viewer"', '"vie"', '"View"', '"a longer choice"', '"a longer choice!!"', '""')),
        *(("note", t) for t in ('"a\\nb"', '"a\tb"', '"a', "a", "[]", "{}", '"\x7f"x')),
        *(("paid", t) for t in ("1", "TRUE", "tru", "truefalse", '"true"')),
        *(("price", t) for t in ("-0", "1.", ".5", "1e", "NaN", "Infinity", "01.5", "1.5.5", "[1]", "nul")),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_doubted(field: str, text: str) -> None:
    assert proves(with_(field, json.dumps((SOUND | {"note": "x", "price": 1})[field])).replace("\\u00ef", "i"))
    assert not proves(with_(field, text).replace("\\u00ef", "i"))


def test_every_place_of_a_uuid_is_looked_at() -> None:
    sound = str(SOUND["id"])
    records = []
    for at in range(36):
        for wrong in ("/", ":", "@", "G", "`", "g", "0" if sound[at] == "-" else "-"):
            records.append(with_("note", '"x"').replace(sound, sound[:at] + wrong + sound[at + 1 :]).encode())
    assert split(records).proven.num_rows == 0
    capitals = [with_("note", '"x"').replace(sound, sound[:at].upper() + sound[at:]).encode() for at in range(37)]
    assert split(capitals).proven.num_rows == 37


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b" ", b"{", b"{}", b"null", b"[]", b"1", b"\xff\xfe", b'{"id"', b'{"id":', b'{"id":"'),
        with_("note", '"x"')[:-1].encode(),
        with_("note", '"x"').encode() + b"\n",
        with_("note", '"x"').encode() + b"}",
        b" " + with_("note", '"x"').encode(),
        with_("note", '"x"').replace(',"ip"', ',"other":1,"ip"').encode(),
        with_("note", '"x"').replace(',"ip"', ',"n":1,"ip"').encode(),
        # as many fields as the contract has, one of them twice in place of another that may be missing
        with_("note", '"x"').replace(',"small":-128', ',"n":1').encode(),
        with_("note", '"x"').replace(',"ip"', ',,"ip"').encode(),
        with_("note", '"x"').replace("}", ",}").encode(),
        with_("note", '"x"').replace('"ip"', '"i\\u0070"').encode(),
    ],
)
def test_what_is_no_plain_object_is_doubted(text: bytes) -> None:
    assert not proves(text)


def test_text_that_is_not_utf8_is_doubted_alone() -> None:
    good = with_("note", '"x"').encode()
    accented = with_("note", '"é"').encode()
    broken = good.replace(b'"x"', b'"\xff"')
    found = split([good, broken, accented])
    # beside a record that is not UTF-8, those beyond ASCII are looked at by others
    assert found.proven["_ps_o"].to_pylist() == [100]
    assert split([good, accented]).proven.num_rows == 2


def test_tombstones_are_doubted() -> None:
    found = split([with_("note", '"x"').encode(), None])
    assert sum(batch.rows for batch in found.doubtful) == 2


def test_a_kernel_that_cannot_be_loaded_is_told_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> object:
        raise ImportError(f"{name} needs another numpy")

    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr("penstock.formats.compiled.importlib.import_module", broken)
    monkeypatch.setattr(logging.getLogger("penstock"), "propagate", True)
    fresh = Loader()
    with caplog.at_level(logging.WARNING, "penstock"):
        assert fresh.kernel(WORTHWHILE_ROWS - 1) is None
        assert fresh._thread is None
        assert fresh.kernel(1) is None
        assert fresh._thread is not None
        fresh._thread.join()
    assert "SQL judges alone" in caplog.text
    assert fresh.kernel(WORTHWHILE_ROWS) is None


def test_many_records_wait_for_the_kernel_no_longer_than_sql_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    loader.load()
    assert Loader().kernel(WORTHWHILE_ROWS) is not None
    go = threading.Event()

    def compiling(name: str) -> object:
        go.wait(60)
        raise ImportError(name)

    monkeypatch.setattr("penstock.formats.compiled.importlib.import_module", compiling)
    fresh = Loader()
    began = time.monotonic()
    assert fresh.kernel(WORTHWHILE_ROWS) is None
    assert WORTHWHILE_ROWS * compiled.SQL_S <= time.monotonic() - began < 20
    # Only once: what compiles is not waited for again and again.
    began = time.monotonic()
    assert fresh.kernel(10**8) is None
    assert time.monotonic() - began < 20
    go.set()
    assert fresh._thread is not None
    fresh._thread.join()


@pytest.mark.parametrize(("switch", "loaded"), [("never", False), ("now", True)])
def test_the_switch_is_obeyed(monkeypatch: pytest.MonkeyPatch, switch: str, loaded: bool) -> None:
    monkeypatch.setenv(SWITCH, switch)
    assert (Loader().kernel(1) is not None) is loaded


@pytest.mark.parametrize(("switch", "loaded"), [("never", False), ("auto", True)])
def test_a_run_that_will_last_does_not_wait_for_records(
    monkeypatch: pytest.MonkeyPatch, switch: str, loaded: bool
) -> None:
    monkeypatch.setenv(SWITCH, switch)
    fresh = Loader()
    assert fresh.kernel(1) is None
    fresh.prepare()
    assert (fresh.kernel(1) is not None) is loaded


@pytest.fixture(autouse=True)
def _settings_of_the_driver() -> Iterator[None]:
    before = compiled.WORTH_THREADS
    yield
    compiled.WORTH_THREADS = before


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_chunks_and_threads_change_nothing(data: st.DataObject) -> None:
    compiled.WORTH_THREADS = data.draw(st.sampled_from([0, 10_000]))
    good = json.dumps(SOUND, ensure_ascii=False).encode()
    pool = [good, good.replace(b'": ', b'":'), b"{}", good[:-1], good.replace(b"click", b"clack"), b""]
    records = data.draw(st.lists(st.sampled_from(pool), max_size=40))
    chunks = data.draw(st.lists(st.integers(0, len(records)), max_size=5))
    found = split(records, chunks, data.draw(st.sampled_from([1, 2])))
    expected = [100 + place for place, record in enumerate(records) if record in pool[:2]]
    assert sorted(found.proven["_ps_o"].to_pylist()) == expected
    assert set(found.proven["note"].to_pylist()) <= {SOUND["note"]}
    doubted = [o for batch in found.doubtful for o in batch.offsets.to_pylist()]
    assert sorted([*doubted, *expected]) == list(range(100, 100 + len(records)))
    kept = [v for batch in found.doubtful for v in batch.values.to_pylist()]
    assert kept == [records[o - 100] for o in doubted]


@settings(max_examples=examples(300), deadline=None)
@given(
    st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.text("0123456789abcdefF:.", max_size=40))
)
def test_addresses_are_those_of_the_standard_library(text: str) -> None:
    try:
        sound = "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        sound = False
    assert proves(with_("ip", f'"{text}"').replace("\\u00ef", "i")) is sound


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(-(2**70), 2**70))
def test_integers_are_exact(number: int) -> None:
    rows = split([json.dumps(SOUND | {"n": number, "note": "x"}).encode()]).proven["n"].to_pylist()
    assert rows == ([number] if -5 <= number < 2**63 else [])


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(0, 2**32))
def test_a_changed_byte_changes_no_verdict(seed: int) -> None:
    """The kernel and the SQL statement give the same rows for records with some bytes changed."""
    rng = random.Random(seed)
    records = []
    for _ in range(30):
        record = SOUND | {"id": str(uuid.UUID(int=rng.getrandbits(128))), "n": rng.randrange(10**9), "note": "x"}
        text = bytearray(json.dumps(record, separators=rng.choice([(",", ":"), (", ", ": ")])).encode())
        for _ in range(rng.randrange(3)):
            text[rng.randrange(len(text))] = rng.choice(b'0123456789abcdef"{}[],:.-+eE\\ntx ')
        records.append(bytes(text))
    agree(VISITS, records)


# -- foreign keys ------------------------------------------------------------------------------------------------------

PLACES = Schema(
    "Place",
    (Column("city", "VARCHAR"), Column("zone", "INTEGER"), Column("note", "VARCHAR", nullable=True)),
    foreign_keys=(ForeignKey(("city", "zone"), "cities", ("name", "zone")), ForeignKey(("zone",), "zones", ("zone",))),
)


def references(cities: pa.Table, zones: pa.Table) -> References:
    held = {"cities": cities, "zones": zones}
    return References(("1", "1"), lambda key: held[key.reference])


def held_places(cities: Sequence[tuple[str, int]], zones: Sequence[int], records: Sequence[tuple[str, int]]) -> Split:
    """What the kernel makes of records of two columns, with these references."""
    kernel = loader.load()
    assert kernel is not None
    judge = CompiledJudge(Judgement(PLACES, "stream", (), None, None))  # type: ignore[arg-type]
    names, places = pa.array([c for c, _ in cities], pa.string()), pa.array([z for _, z in cities], pa.int64())
    held = judge.hold(
        references(pa.table({"name": names, "zone": places}), pa.table({"zone": pa.array(zones, pa.int64())}))
    )
    assert held is not None
    texts = [json.dumps({"city": city, "zone": zone}, ensure_ascii=False).encode() for city, zone in records]
    offsets = pa.chunked_array([pa.array(range(len(records)), pa.int64())])
    batch = RawBatch(0, pa.chunked_array([texts], pa.binary()), offsets, len(records))
    return judge.split(kernel, [batch], ("zone",), 1, held)


NAMES = st.text(st.sampled_from("ab\0é"), max_size=20)
CITIES = st.lists(st.tuples(NAMES, st.integers(-3, 3)), max_size=40, unique=True)


@settings(max_examples=200, deadline=None)
@given(CITIES, st.lists(st.integers(-3, 3), max_size=4, unique=True), CITIES)
def test_what_no_reference_holds_is_doubted(
    cities: list[tuple[str, int]], zones: list[int], records: list[tuple[str, int]]
) -> None:
    # a NUL is written as an escape, which is doubted anyway; in a reference it is one byte among others
    records = [(city.replace("\0", "b"), zone) for city, zone in [*records, *cities]]
    wanted = [n for n, (city, zone) in enumerate(records) if (city, zone) in cities and zone in zones]
    found = held_places(cities, zones, records)
    assert found.proven["_ps_o"].to_pylist() == wanted
    assert found.proven["zone"].to_pylist() == [records[n][1] for n in wanted]
    assert found.keyed
    doubted = [n for n in range(len(records)) if n not in wanted]
    assert [n for batch in found.doubtful for n in batch.offsets.to_pylist()] == doubted
    assert [key for unheld in found.unheld for key in unheld.tolist()] == [int(records[n] in cities) for n in doubted]


def test_every_row_of_a_large_reference_is_found() -> None:
    cities = [(str(uuid.UUID(int=n * n * 7919)), n) for n in range(5000)]
    near = [(city, zone + 1) for city, zone in cities] + [(city[:-1], zone) for city, zone in cities]
    found = held_places(cities, range(6000), [*cities, *near])
    assert found.proven["_ps_o"].to_pylist() == list(range(5000))


@pytest.mark.parametrize(
    "cities",
    [
        pa.table({"name": pa.array([1], pa.int64()), "zone": [1]}),
        pa.table({"name": ["x"], "zone": pa.array([1], pa.uint64())}),
        pa.table({"name": ["x" * 65], "zone": [1]}),
    ],
    ids=["another type", "too large integers", "long texts"],
)
def test_references_of_other_shapes_are_left_to_sql(cities: pa.Table) -> None:
    judge = CompiledJudge(Judgement(PLACES, "stream", (), None, None))  # type: ignore[arg-type]
    assert judge.hold(references(cities, pa.table({"zone": [1]}))) is None


def test_keys_that_may_be_null_are_left_to_sql() -> None:
    loose = replace(PLACES, foreign_keys=(ForeignKey(("note",), "cities", ("name",)),))
    judge = CompiledJudge(Judgement(loose, "stream", (), None, None))  # type: ignore[arg-type]
    table = pa.table({"name": ["x"], "zone": [1]})
    assert judge.hold(References(("1",), lambda key: table.select(["name"]))) is None


def test_a_reference_is_read_once_per_version() -> None:
    judge = CompiledJudge(Judgement(PLACES, "stream", (), None, None))  # type: ignore[arg-type]
    asked: list[str] = []

    def fetch(key: ForeignKey) -> pa.Table:
        asked.append(key.reference)
        return pa.table({"name": ["x"], "zone": [1]}).select(list(key.reference_columns))

    for versions in (("1", "1"), ("1", "1"), ("1", "2")):
        assert judge.hold(References(versions, fetch)) is not None
    assert asked == ["cities", "zones"] * 2

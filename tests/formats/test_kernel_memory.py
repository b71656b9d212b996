"""The compiled kernel reads and writes nothing outside what it was given, whatever the bytes are."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock, patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.connectors.base import RawBatch
from penstock.contract.schema import Column, ForeignKey, Rule, Schema
from penstock.formats import compiled
from penstock.formats.compiled import CompiledJudge, Kernel, Split, loader
from penstock.formats.held_keys import References
from penstock.formats.judge_sql import Judgement, proven_columns
from tests.examples import examples
from tests.formats.records import TRIED, cut_records, tried_records

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/penstock/formats/kernel.py"


@pytest.mark.skipif(sys.platform == "win32", reason="closes pages with mprotect")
def test_no_byte_outside_is_touched() -> None:
    """Not the pages before and behind the records, the outputs; see `guarded`."""
    count = examples(200)
    command = [sys.executable, "-m", "tests.formats.guarded", "1", str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > count // 5


# -- the same kernel in Python, where each address and index is looked at ----------------------------------------------


class Memory:
    """The arrays that the kernel may read by address, and the rows that it may write."""

    def __init__(self) -> None:
        self.readable: list[NDArray[np.uint8]] = []
        self.writable: list[NDArray[np.uint8]] = []

    def find(self, among: Sequence[NDArray[np.uint8]], address: int, size: int) -> NDArray[np.uint8]:
        for each in among:
            place = address - each.ctypes.data
            if place >= 0 and place + size <= len(each):
                return each[place : place + size]
        raise AssertionError(f"{size} bytes at {address} are outside")

    def word(self, address: int) -> np.uint64:
        return np.uint64(self.find(self.readable, int(address), 8).view(np.uint64)[0])

    def byte(self, address: int) -> int:
        return int(self.find(self.readable, int(address), 1)[0])

    def put(self, address: int, word: np.uint64) -> None:
        self.find(self.writable, int(address), 8)[:] = np.array([word]).view(np.uint8)


class Checked(np.ndarray):  # type: ignore[type-arg]
    """An array whose indices do not count from its end."""

    def __getitem__(self, key: Any) -> Any:
        assert np.min(key) >= 0
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        assert np.min(key) >= 0
        super().__setitem__(key, value)


def checked(array: NDArray[Any]) -> Checked:
    return array.view(Checked)


def _undecorated(*given: Any, **_: Any) -> Any:
    return given[0] if given and callable(given[0]) and not isinstance(given[0], MagicMock) else _undecorated


def python_kernel(memory: Memory) -> ModuleType:
    """The module `kernel`, not compiled."""
    by_name: dict[str, Callable[..., Any]] = {"_word": memory.word, "_byte": memory.byte, "_put": memory.put}
    numbers, extending, numba = MagicMock(), MagicMock(), MagicMock()
    numbers.trailing_zeros = lambda word: (int(word) & -int(word)).bit_length() - 1
    extending.intrinsic = lambda function: by_name[function.__name__]
    numba.njit = _undecorated
    stand_ins = {name: MagicMock() for name in ("llvmlite", "llvmlite.ir", "numba.core.types")}
    stand_ins |= {"numba": numba, "numba.extending": extending, "numba.cpython.unsafe.numbers": numbers}
    found = importlib.util.spec_from_file_location("kernel_in_python", SOURCE)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    with patch.dict(sys.modules, stand_ins):
        found.loader.exec_module(module)
    return module


def outcome(proven: NDArray[np.int16], columns: Sequence[NDArray[Any]], count: int) -> list[object]:
    """All that a caller may look at."""
    numbers, number_present, texts, text_ends, text_present = columns
    return [
        *(proven.tolist(), number_present[:, :count].tolist(), text_present[:, :count].tolist()),
        np.where(number_present[:, :count], numbers[:, :count], 0).tolist(),
        [
            (ends[: count + 1].tolist(), text[: ends[count]].tobytes())
            for text, ends in zip(texts, text_ends, strict=True)
        ],
    ]


class PythonKernel:
    """Runs the kernel in Python, with what its caller has to see to and no more, then the compiled one."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._memory = Memory()
        self._python = python_kernel(self._memory)
        self.proven = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def prove(self, *arguments: Any) -> int:
        data, ends, ascii_only, contract, references, proven, foreign, columns = arguments
        behind = int(ends[-1]) + self._kernel.PAD + int(contract[3].max())
        assert behind <= len(data)
        self._memory.readable = [data[:behind], *(each.view(np.uint8) for each in references[2:])]
        self._memory.writable = list(columns[2])
        columns[2][:] = 0xFF
        with np.errstate(over="ignore"):
            found = self._python.prove(
                *(checked(data), checked(ends), ascii_only),
                *(tuple(map(checked, contract)), tuple(map(checked, references))),
                *(checked(proven), checked(foreign), tuple(map(checked, columns))),
            )
        expected = outcome(proven, columns, found)
        columns[2][:] = 0xFF
        count = self._kernel.prove(*arguments)
        assert outcome(proven, columns, count) == expected
        self.proven += count
        return count


@pytest.fixture(scope="module")
def kernel() -> PythonKernel:
    compiled_kernel = loader.load()
    assert compiled_kernel is not None, "the tests need the extra `fast`"
    return PythonKernel(compiled_kernel)


def split(kernel: Any, schema: Schema, records: Sequence[bytes], skipped: int = 0) -> Split:
    judgement = Judgement(schema, "stream", (), None, None)  # type: ignore[arg-type]
    values = pa.array(records, pa.binary()).slice(skipped)
    places = pa.chunked_array([pa.array(range(len(values)), pa.int64())])
    batch = RawBatch(0, pa.chunked_array([values], pa.binary()), places, len(values))
    found = CompiledJudge(judgement).split(kernel, [batch], proven_columns(judgement, None), 1)
    found.proven.validate(full=True)
    return found


@settings(max_examples=examples(40), deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.lists(st.binary(max_size=60), max_size=4))
def test_each_address_and_index_lies_inside(kernel: PythonKernel, seed: int, skipped: int, noise: list[bytes]) -> None:
    records = [*noise, *tried_records(seed, 8)]
    split(kernel, TRIED, records, skipped)


def test_each_lies_inside_wherever_a_record_is_cut(kernel: PythonKernel) -> None:
    before = kernel.proven
    records = list(cut_records(3))
    for place in range(0, len(records), 50):
        # the last record of a call is the one behind which nothing follows
        split(kernel, TRIED, records[place : place + 50])
    assert kernel.proven > before


# -- what the driver sees to -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [[0, 9, 5], [4, 2**31 - 1, 8], [0, -8, 8]])
def test_records_that_do_not_lie_in_their_buffer_are_refused(kernel: PythonKernel, ends: list[int]) -> None:
    buffers = [None, pa.py_buffer(np.array(ends, np.int32)), pa.py_buffer(b'{"id":1}')]
    values = pa.Array.from_buffers(pa.binary(), 2, buffers, 0)
    spec = compiled._Spec(kernel, TRIED.columns, {"id"}, ["id"])
    with pytest.raises(pa.ArrowInvalid):
        compiled._proven_parts(kernel, spec, compiled._NO_KEYS, values, np.empty(2, np.int16))


def test_a_choice_that_is_not_given_is_a_choice_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at the numbers of a dictionary looks at all of them, whether or not their rows are NULL."""
    schema = Schema("Few", (Column("kind", "VARCHAR", nullable=True, rules=(Rule("one_of", ("a", "b")),)),))
    # what is not written is not zero by chance
    monkeypatch.setattr(compiled.np, "empty", lambda shape, kind: np.full(shape, -1, np.int64).astype(kind))
    found = split(loader.load(), schema, [b'{"kind":"b"}', b'{"kind":null}'] * 1000).proven["kind"]
    for chunk in found.chunks:
        numbers = np.frombuffer(chunk.indices.buffers()[1], np.int16)
        assert set(numbers[: len(chunk)]) <= {0, 1}
    assert found.to_pylist() == ["b", None] * 1000


@pytest.mark.parametrize("count", [2**15, 2**15 + 1])
def test_so_many_choices_are_told_apart(count: int) -> None:
    choices = tuple(f"c{n}" for n in range(count))
    schema = Schema("Many", (Column("kind", "VARCHAR", rules=(Rule("one_of", choices),)),))
    records = [b'{"kind":"%s"}' % choices[n].encode() for n in (0, 32767, count - 1)]
    assert split(loader.load(), schema, records).proven["kind"].to_pylist() == [
        choices[n] for n in (0, 32767, count - 1)
    ]


# -- foreign keys ------------------------------------------------------------------------------------------------------

TOWNS = Schema(
    "Town",
    (Column("town", "VARCHAR"), Column("zone", "INTEGER")),
    foreign_keys=(ForeignKey(("town", "zone"), "towns", ("town", "zone")), ForeignKey(("town",), "names", ("town",))),
)
TOWN_NAMES = st.one_of(st.text(st.sampled_from("abé"), max_size=30), st.sampled_from([n * "x" for n in range(66)]))


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(TOWN_NAMES.filter(lambda name: len(name.encode()) <= 64), max_size=12, unique=True),
    st.lists(st.tuples(TOWN_NAMES, st.integers(-1, 1)), max_size=12),
    st.integers(0, 20),
)
@example(["a"], [(n * "x", 0) for n in range(40, 60)], 0)
def test_keys_are_looked_for_inside_what_is_held(
    kernel: PythonKernel, held: list[str], records: list[tuple[str, int]], cut: int
) -> None:
    judgement = Judgement(TOWNS, "stream", (), None, None)  # type: ignore[arg-type]
    judge = CompiledJudge(judgement)
    towns = pa.table({"town": pa.array(held, pa.string()), "zone": pa.array([0] * len(held), pa.int64())})
    found = judge.hold(References(("1", "1"), lambda key: towns.select(list(key.reference_columns))))
    assert found is not None
    records += [(name, 0) for name in held]
    texts = [json.dumps({"town": name, "zone": zone}, ensure_ascii=False) for name, zone in records]
    # behind the last one, which is cut, nothing follows
    texts = [text.encode() for text in [*texts, *(text[:-cut] for text in texts[-1:] if cut)]]
    places = pa.chunked_array([pa.array(range(len(texts)), pa.int64())])
    batch = RawBatch(0, pa.chunked_array([texts], pa.binary()), places, len(texts))
    proven = judge.split(kernel, [batch], ("town",), 1, found).proven["town"].to_pylist()  # type: ignore[arg-type]
    assert proven == [name for name, zone in records if name in held and not zone]

"""Writing .t7 files: the bytes that Torch7 wrote, values that come back as they went, refusals that leave no file."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import resource
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_tools.errors import T7Error
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Storage, T7Tensor
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.torch7.t7_writer import save_t7, write_t7
from tests.support.golden import DATA, GOLDEN, needs_golden

CASES = json.loads((DATA / "t7" / "index.json").read_text())
FILES = [entry["file"] for case in CASES for entry in case["files"]]
NOT_READ = ["big_endian.t7", "class_custom_write.t7", "class_custom_write.ascii.t7"]
NOT_THE_SAME = {
    "two_objects.t7": "only the first object of a file is read",
    "trailing_bytes.t7": "what follows the object is not read",
    "legacy_function7.t7": "made by hand: its objects are numbered from 1000",
    "legacy_no_version.t7": "made by hand: its objects are numbered from 1000",
}


def bytes_of(value: object, **options: Any) -> bytes:
    file = io.BytesIO()
    write_t7(value, file, **options)
    return file.getvalue()


def rewritten(path: Path) -> bytes:
    long_bytes = 4 if path.name.startswith("longsize4") else 8
    return bytes_of(read_t7(path, long_bytes=long_bytes), ascii=".ascii." in path.name, long_bytes=long_bytes)


def view(storage: T7Storage, torch_type: str, shape: Any, strides: Any, offset: int) -> T7Tensor:
    """The tensor that a file would hold for this."""
    size = storage.itemsize
    tensor = np.ndarray.__new__(
        T7Tensor, shape, storage.dtype, storage, offset * size, [int(n * size) for n in strides]
    )
    tensor.torch_type, tensor.storage, tensor.storage_offset = torch_type, storage, offset
    return tensor


def storage_of(elements: Any, dtype: str = "f4", torch_type: str | None = "torch.FloatStorage") -> T7Storage:
    storage = np.array(elements, dtype).view(T7Storage)
    storage.torch_type = torch_type
    return storage


@pytest.fixture
def back(tmp_path: Path) -> Any:
    def write_and_read(value: object, **options: Any) -> Any:
        path = tmp_path / "value.t7"
        save_t7(value, path, **options)
        assert os.listdir(tmp_path) == ["value.t7"]
        return read_t7(path, long_bytes=options.get("long_bytes"))

    return write_and_read


# Objects of torch7's own classes.


@pytest.mark.parametrize("options", [{}, {"ascii": True}, {"long_bytes": 4}])
def test_timers_and_generators_beside_a_value_are_read_and_written(back: Any, options: dict[str, Any]) -> None:
    timer = LuaObject("torch.Timer", 1)
    # as THGenerator lies in memory: seed, left, seeded, next, state[624], normal_x, normal_y, normal_rho, is_valid
    state = struct.pack("<qiiq624q3dii", 1, 1, 1, 0, *range(624), 0.0, 0.0, 0.0, 0, 0)
    generator = LuaObject("torch.Generator", 1, LuaTable([(b"state", state)]))
    value = LuaTable([(1, timer), (2, generator), (3, timer), (4, b"after")])
    found = back(value, **options)
    assert (found[1].class_name, dict(found[1].fields.items())) == ("torch.Timer", {})
    assert found[3] is found[1]
    assert found[2]["state"] == state
    assert found[4] == b"after"


def test_a_generator_of_another_machine_is_refused(back: Any) -> None:
    generator = LuaObject("torch.Generator", 1, LuaTable([(b"state", b"\xff" * 5048)]))
    with pytest.raises(T7Error, match=r"the state of the generator in torch\.Generator: expected the 624 numbers"):
        back(generator)


def test_a_masked_array_is_refused(back: Any, tmp_path: Path) -> None:
    with pytest.raises(T7Error, match=r"value.*: a masked array; tensors have no masks: fill it first"):
        save_t7(np.ma.masked_array([1.0, 2.0], [True, False]), tmp_path / "value.t7")


@pytest.mark.parametrize("options", [{}, {"ascii": True}])
def test_float16_is_a_half_tensor(back: Any, options: dict[str, Any]) -> None:
    value = np.array([[1.5, -2], [65504, 6e-8]], np.float16)
    found = back(LuaTable([(b"features", value)]), **options)["features"]
    assert (found.torch_type, found.storage.torch_type) == ("torch.HalfTensor", "torch.HalfStorage")
    assert found.tobytes() == value.tobytes()


# What Torch7 wrote.


@pytest.mark.parametrize("file", [file for file in FILES if file not in [*NOT_READ, *NOT_THE_SAME]])
def test_each_case_is_written_as_torch7_wrote_it(file: str) -> None:
    assert rewritten(DATA / "t7" / file) == (DATA / "t7" / file).read_bytes()


@pytest.mark.parametrize("file", NOT_THE_SAME)
def test_what_cannot_be_the_same_is_the_same_in_the_second_round(file: str, tmp_path: Path) -> None:
    original, first = (DATA / "t7" / file).read_bytes(), rewritten(DATA / "t7" / file)
    assert first != original
    (tmp_path / file).write_bytes(first)
    SameAs().compare(read_t7(DATA / "t7" / file), read_t7(tmp_path / file))
    assert rewritten(tmp_path / file) == first
    if "from 1000" in NOT_THE_SAME[file]:
        assert len(first) == len(original)
    else:
        assert original.startswith(first)


@needs_golden
def test_the_whole_golden_folder_is_written_as_torch7_wrote_it() -> None:
    index = json.loads((GOLDEN / "t7" / "index.json").read_text())
    files = [entry["file"] for case in index for entry in case["files"]]
    same = [file for file in files if file not in NOT_READ and rewritten(GOLDEN / "t7" / file) == golden_bytes(file)]
    assert sorted({*files} - {*same}) == sorted([*NOT_READ, *NOT_THE_SAME])
    assert len(same) == 166


def golden_bytes(file: str) -> bytes:
    return (GOLDEN / "t7" / file).read_bytes()


@pytest.mark.parametrize("path", sorted((DATA / "models").glob("*.t7")), ids=lambda path: path.stem)
def test_models_are_written_as_torch7_wrote_them(path: Path) -> None:
    assert rewritten(path) == path.read_bytes()


@needs_golden
@pytest.mark.parametrize("folder", ["models", "scripts", "main", "train"])
def test_all_that_the_training_program_wrote_is_written_the_same(folder: str) -> None:
    paths = sorted((GOLDEN / folder).rglob("*.t7"))
    assert paths
    for path in paths:
        assert rewritten(path) == path.read_bytes(), path.name


# What is read back.


class SameAs:
    """Compares what was written with what was read back, to the bit and with the same identities."""

    def __init__(self, *, nan_bits: bool = True) -> None:
        self.nan_bits = nan_bits  # ascii keeps the sign of a NaN only
        self.found: dict[int, object] = {}  # by id of what was written
        self.written: dict[int, object] = {}  # by id of what was found

    def compare(self, value: Any, found: Any) -> None:
        todo = [(value, found)]
        while todo:
            value, found = todo.pop()
            if value is None or isinstance(value, bool | int | float | np.generic | str | bytes):
                self.compare_plain(value, found)
            elif id(value) in self.found or id(found) in self.written:
                assert self.found.get(id(value)) is found, f"{value!r} was one object and is two"
                assert self.written.get(id(found)) is value, f"{found!r} was two objects and is one"
            else:
                self.found[id(value)], self.written[id(found)] = found, value
                todo += self.parts(value, found)

    def compare_plain(self, value: Any, found: Any) -> None:
        if value is None or isinstance(value, bool | np.bool_):
            assert found is (None if value is None else bool(value))
        elif isinstance(value, str | bytes):
            assert found == (value.encode() if isinstance(value, str) else value)
        else:
            same_bits = struct.pack("<d", value) == struct.pack("<d", found)
            assert same_bits or (math.isnan(value) and math.isnan(found) and not self.nan_bits)

    def parts(self, value: Any, found: Any) -> list[tuple[Any, Any]]:
        if isinstance(value, np.ndarray):
            return self.parts_of_array(value, found)
        if isinstance(value, LuaObject):
            assert (found.class_name, found.version) == (value.class_name, value.version)
            whole = [(value.gpu_assignments, found.gpu_assignments)]
            tds = value.class_name.startswith("tds.")
            return whole + (self.pairs(value.fields, found.fields) if tds else [(value.fields, found.fields)])
        if isinstance(value, LuaFunction):
            assert (found.tag, found.dumped) == (value.tag, value.dumped)
            return [(value.upvalues, found.upvalues)]
        assert type(found) is LuaTable
        return self.pairs(value, found)

    def pairs(self, value: Any, found: LuaTable) -> list[tuple[Any, Any]]:
        items = list(value.items() if isinstance(value, dict) else enumerate(value, 1))
        items = [(key, item) for key, item in items if item is not None]
        assert len(items) == len(found)
        return [pair for ours, its in zip(items, found.items(), strict=True) for pair in zip(ours, its, strict=True)]

    def parts_of_array(self, value: Any, found: Any) -> list[tuple[Any, Any]]:
        assert found.shape == value.shape
        assert found.dtype == value.dtype.newbyteorder("<")
        if self.nan_bits:
            assert found.tobytes() == value.astype(found.dtype).tobytes()
        else:
            np.testing.assert_array_equal(found, value)
        if getattr(value, "torch_type", None) is not None:
            assert found.torch_type == value.torch_type
        if getattr(value, "storage", None) is None:
            return []
        assert found.storage_offset == value.storage_offset
        assert value.size == 0 or found.strides == value.strides
        return [(value.storage, found.storage)]


NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.floats(width=32).map(np.float32))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.binary(max_size=5), st.text(max_size=5))
KEYS = st.one_of(st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=3))
DTYPES = ["u1", "i1", "<i2", ">i2", "<i4", "<i8", ">i8", "<f2", "<f4", ">f4", "<f8"]
TYPES = {
    "u1": "Byte",
    "i1": "Char",
    "i2": "Short",
    "i4": "Int",
    "i8": "Long",
    "f2": "Half",
    "f4": "Cuda",
    "f8": "Double",
}


@st.composite
def arrays(draw: st.DrawFn) -> list[np.ndarray]:
    """Plain arrays, contiguous or not; a storage, and tensors that look into it."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    count = draw(st.integers(1, 12))
    elements = np.frombuffer(draw(st.binary(min_size=count * 8, max_size=count * 8)), dtype)[:count]
    elements = np.where(elements == elements, elements, 0).astype(dtype)  # NaN has tests of its own
    name = TYPES[dtype.str[1:]]
    storage = storage_of(elements, dtype.newbyteorder("<"), f"torch.{name}Storage")
    found = [elements, elements[::-1], elements[::2], elements[:0], np.stack([elements] * 2).T, storage]
    rows = draw(st.integers(1, count))
    offset = draw(st.integers(0, count - rows))
    found.append(view(storage, f"torch.{name}Tensor", (rows, 1), (1, 0), offset))
    found.append(view(storage, f"torch.{name}Tensor", (2, rows, 3), (0, 1, 0), offset))
    return found


@st.composite
def values(draw: st.DrawFn) -> Any:
    """Tables, objects and functions that hold plain values, arrays and each other, again and in circles."""
    kinds = draw(st.lists(st.sampled_from(["dict", "list", "table", "object", "hash", "function"]), max_size=5))
    objects: list[Any] = [make(kind) for kind in ["table", *kinds]]
    inner = st.one_of(PLAIN, st.sampled_from(objects + draw(arrays())), st.tuples(PLAIN, PLAIN))
    tables = [item for item in objects if type(item) is LuaTable]
    for item in objects:
        if isinstance(item, list):
            item += draw(st.lists(inner, max_size=4))
        elif isinstance(item, LuaFunction):
            item.upvalues = draw(st.sampled_from(tables))
        else:
            entries = draw(st.lists(st.tuples(KEYS, inner), max_size=4))
            (item.fields if isinstance(item, LuaObject) else item).update(entries)
    tables[0][draw(st.sampled_from(tables))] = objects[-1]
    return objects[0]


def make(kind: str) -> Any:
    made = {"dict": dict, "list": list, "table": LuaTable, "function": lambda: LuaFunction(8, b"\x1bL\n")}
    made |= {"object": lambda: LuaObject("nn.Thing", 2), "hash": lambda: LuaObject("tds.Hash", 1)}
    return made[kind]()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values(), ascii=st.booleans())
def test_any_value_is_read_back(tmp_path: Path, value: Any, ascii: bool) -> None:
    path = tmp_path / "value.t7"
    save_t7(value, path, ascii=ascii)
    found = read_t7(path)
    SameAs().compare(value, found)
    assert bytes_of(found, ascii=ascii) == path.read_bytes()


@pytest.mark.parametrize("ascii", [False, True])
def test_nan_and_infinities_keep_their_signs(back: Any, ascii: bool) -> None:
    numbers = [math.nan, -math.nan, math.inf, -math.inf, -0.0, 0.0]
    value = [*numbers, np.array(numbers), np.array(numbers, "f4"), np.array(numbers, "f2")]
    found = back(value, ascii=ascii)
    SameAs(nan_bits=False).compare(value, found)
    for signs in (found.to_list()[:6], *found.to_list()[6:]):
        assert np.signbit(signs).tolist() == [False, True, False, True, True, False]


def test_the_ascii_file_is_what_c_prints() -> None:
    value = {
        "x": np.array([[1, 0.1], [-math.nan, 1e-5]], "f4"),
        "": np.array([], "f8"),
        "s": np.array([104, 105], "i1"),
    }
    tensor = "4\n{}\n3\nV 1\n{}\ntorch.{}Tensor\n{}"
    storage = "4\n{}\n3\nV 1\n{}\ntorch.{}Storage\n{}"
    expected = ["3\n1\n3\n"]
    expected += ["2\n1\nx\n", tensor.format(2, 17, "Float", "2\n2 2\n2 1\n1\n")]
    expected += [storage.format(3, 18, "Float", "4\n1 0.100000001 -nan 9.99999975e-06\n")]
    expected += ["2\n0\n", tensor.format(4, 18, "Double", "0\n1\n"), "0\n"]
    expected += ["2\n1\ns\n", tensor.format(5, 16, "Char", "1\n2\n1\n1\n"), storage.format(6, 17, "Char", "2\nhi\n")]
    assert bytes_of(value, ascii=True).decode() == "".join(expected)


@pytest.mark.parametrize("ascii", [False, True])
def test_arrays_longer_than_a_chunk_are_written_whole(back: Any, ascii: bool) -> None:
    long = np.arange(600_000, dtype="i2" if ascii else "f8")
    value = [long, long[::-1], long.reshape(2, -1).T, long.astype("u1")]
    SameAs().compare(value, back(value, ascii=ascii))


def test_tensors_of_one_storage_share_it_again(back: Any) -> None:
    storage = storage_of(range(6), torch_type="torch.CudaStorage")
    whole = view(storage, "torch.CudaTensor", (2, 3), (3, 1), 0)
    value = {"whole": whole, "column": view(storage, "torch.CudaTensor", (2,), (3,), 1), "storage": storage}
    found = back(value)
    SameAs().compare(value, found)
    assert found["column"].tolist() == [1, 4]
    assert np.shares_memory(found["whole"], found["column"])


def test_a_tensor_without_elements_may_have_a_storage(back: Any) -> None:
    empty, storage = np.ndarray.__new__(T7Tensor, (0,), "f4"), storage_of([1, 2])
    empty.torch_type, empty.storage, empty.storage_offset = "torch.FloatTensor", storage, 1
    assert back(empty).storage.tolist() == [1, 2]
    assert back(np.zeros(0, "f4")).storage is None


def test_a_tensor_that_lost_its_storage_gets_one_of_its_own(back: Any) -> None:
    tensor = np.ones((2, 2), "f4").view(T7Tensor)
    tensor.torch_type = "torch.CudaTensor"
    found = back([tensor, tensor[:, 0], storage_of([1, 2])[:1]])
    assert found[1].torch_type == "torch.CudaTensor"
    assert found[1].storage.torch_type == "torch.CudaStorage"
    assert (found[2].torch_type, found[2].shape) == ("torch.FloatTensor", (2,))
    assert (type(found[3]), found[3].torch_type) == (T7Storage, "torch.FloatStorage")


def test_containers_with_a_format_of_their_own(back: Any) -> None:
    table = LuaTable([("dimension", 1)])
    parallel = LuaObject("nn.DataParallelTable", 3, table)
    parallel.gpu_assignments = LuaTable([(1, 1), (2, 4)])
    vector = LuaObject("tds.Vec", 1, LuaTable([(1, b"a"), (2, None), (3, parallel)]))
    value = [parallel, LuaObject("nn.DataParallelTable", 1, table), LuaObject("tds.Hash", 1, table.copy()), vector]
    found = back(value)
    SameAs().compare(value[:3], LuaTable((key, item) for key, item in found.items() if key < 4))
    assert found[4].fields.to_list() == [b"a", None, found[1]]


def test_functions_of_every_age_come_back(back: Any) -> None:
    shared = LuaTable([(1, b"value")])
    functions = [LuaFunction(tag, b"\x1bLJ", shared) for tag in (6, 7, 8)]
    SameAs().compare([*functions, functions[1]], back([*functions, functions[1]]))
    assert len(back(LuaFunction(8, b"")).upvalues) == 0
    many = back([LuaFunction(8, b"") for _ in range(100)]).to_list()
    assert len({id(function.upvalues) for function in many}) == 100


def test_nil_is_no_entry_of_a_table(back: Any) -> None:
    assert dict(back({"a": None, "b": 1})) == {b"b": 1}
    assert dict(back([None, 5])) == {2: 5}


def test_numbers_of_numpy_are_numbers(back: Any) -> None:
    value = [np.int8(-3), np.uint64(2**53), np.float16(0.5), np.float64(0.1), np.bool_(True)]
    assert back(value).to_list() == [-3, 2**53, 0.5, 0.1, True]
    assert back(value)[5] is True


def test_longs_of_4_bytes(back: Any) -> None:
    value = {"long": np.array([1, -5]), "int": np.array([7], "i4"), "float": np.ones((2, 3), "f4")}
    found = back(value, long_bytes=4)
    assert (found["long"].torch_type, found["long"].tolist()) == ("torch.LongTensor", [1, -5])
    assert found["float"].shape == (2, 3)
    longs = back(found)["long"]
    assert (longs.dtype, longs.torch_type, longs.tolist()) == (np.int64, "torch.LongTensor", [1, -5])
    with pytest.raises(T7Error, match=r'value\["long"\]: an element is more than a long of 4 bytes'):
        bytes_of({"long": np.array([0, 2**31])}, long_bytes=4)
    with pytest.raises(ValueError, match="4 or 8"):
        bytes_of(None, long_bytes=2)


@pytest.mark.parametrize("ascii", [False, True])
@pytest.mark.parametrize("through", ["list", "key", "object", "function"])
def test_depth_costs_no_recursion(back: Any, ascii: bool, through: str) -> None:
    wrap = {
        "list": lambda inner: [inner],
        "key": lambda inner: LuaTable([(inner, 1)]),
        "object": lambda inner: LuaObject("nn.Thing", 1, LuaTable([(1, inner)])),
        "function": lambda inner: LuaFunction(8, b"", LuaTable([(1, inner)])),
    }[through]
    value: Any = LuaTable()
    for _ in range(50_000 if through == "list" else 5_000):
        value = wrap(value)
    SameAs().compare(value, back(value, ascii=ascii))


# What is refused.

UNKNOWN_VIEW = view(storage_of([1, 2]), "torch.FloatTensor", (2,), (1,), 0)
UNKNOWN_VIEW.storage = storage_of([1, 2])
NO_STORAGE = view(storage_of([1, 2]), "torch.FloatTensor", (2,), (1,), 0)
NO_STORAGE.storage = np.zeros(2, "f4")  # type: ignore[assignment]
CUDA_IN_FLOAT = view(storage_of([1, 2]), "torch.CudaTensor", (2,), (1,), 0)
SHORT_STORAGE = view(storage_of([1, 2]), "torch.FloatTensor", (2,), (1,), 0)
SHORT_STORAGE.storage = SHORT_STORAGE.storage[:1]  # type: ignore[index]
SPACED_STORAGE = view(storage_of([1, 2]), "torch.FloatTensor", (1,), (1,), 0)
SPACED_STORAGE.storage = storage_of([1, 2, 3])[::2]
BETWEEN_ELEMENTS = view(storage_of([1, 2]), "torch.FloatTensor", (2,), (0.5,), 0)
BACKWARDS = view(storage_of([1, 2]), "torch.FloatTensor", (2,), (-1,), 1)
DEEP: Any = object()
for _ in range(100):
    DEEP = [DEEP]


def typed(array: Any, torch_type: str) -> Any:
    array = array.view(T7Storage if torch_type.endswith("Storage") else T7Tensor)
    array.torch_type = torch_type
    return array


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, 1, 2, object()]}, r'value\["a"\]\[3\]: a builtins.object has no form'),
        ([torch.ones(2)], r"value\[0\]: a torch.Tensor has no form in a .t7 file; give it as a NumPy array"),
        ({b"\xff": {True: 1j}}, r'value\["\\xff"\]\[True\]: a builtins.complex'),
        (LuaObject("nn.A", 1, LuaTable([("weight", {1, 2})])), r'value\["weight"\]: a builtins.set'),
        (LuaFunction(8, b"", LuaTable([(1, object())])), r"value\.upvalues\[1\]: "),
        ([2**53 + 1], r"value\[0\]: an integer beyond 2\*\*53"),
        ({-(10**9999): 1}, r"value, the key <int>: an integer beyond"),
        (np.uint64(2**60), "an integer beyond"),
        (np.longdouble(1), "longdouble"),
        ({None: 1}, "value: a table with the key None"),
        ([{math.nan: 1}], r"value\[0\]: a table with the key nan"),
        ({"a": 1, b"a": 2}, 'the key "a" twice, as str and as bytes'),
        ({("a", object()): 1}, r"value, the key <tuple>\[1\]: "),
        ({"\ud800": 1}, "not Unicode text"),
        ("\ud800", "value: a str that is not Unicode text"),
        (LuaFunction(9, b""), "a function of tag 9"),
        (LuaFunction(8, b"", 5), "with the upvalues 5"),  # type: ignore[arg-type]
        (LuaObject(""), "an object of class ''"),
        (LuaObject("torch.FloatTensor", 1), "an object of class 'torch.FloatTensor'"),
        (LuaObject("nn.A", -1), "in version -1"),
        (LuaObject("nn.A", 1, [1]), "a nn.A whose fields are not a table"),  # type: ignore[arg-type]
        (LuaObject("nn.DataParallelTable", 2), "whose gpu_assignments or fields are not a table"),
        (LuaObject("tds.Vec", 1, LuaTable([(2, 1)])), "a tds.Vec whose fields are not the keys 1 to n"),
        (np.float32([[]]), r"shape \(1, 0\); a tensor has 1 to 32 dimensions"),
        (np.array(1.0), r"shape \(\)"),
        (np.array([True]), "an array of bool; no tensor in Torch has such elements"),
        (np.array(["text"]), "an array of <U4"),
        (np.array([object()]), "an array of object"),
        (np.zeros(2, "u2"), "an array of uint16"),
        (typed(np.zeros(2), "torch.FloatTensor"), "torch.FloatTensor of float64"),
        (typed(np.zeros(2), "torch.OddTensor"), "torch.OddTensor of float64"),
        (typed(np.zeros(2), "torch.DoubleTensor").view(T7Storage), None),
        (typed(np.zeros((2, 2)), "torch.DoubleStorage"), "a storage has one dimension"),
        (UNKNOWN_VIEW, "not a view into its storage at its storage_offset 0"),
        (SHORT_STORAGE, "not a view into its storage at its storage_offset 0"),
        (BETWEEN_ELEMENTS, "not a view into its storage at its storage_offset 0"),
        (BACKWARDS, "not a view into its storage at its storage_offset 1"),
        (SPACED_STORAGE, "whose storage is not a whole torch.FloatStorage"),
        (NO_STORAGE, "whose storage is not a whole torch.FloatStorage"),
        (CUDA_IN_FLOAT, "whose storage is not a whole torch.CudaStorage"),
        (DEEP, r"value(\[0\]){19} \.\.\. (\[0\]){20}: a builtins.object"),
    ],
)
def test_what_has_no_form_is_refused_with_its_place(tmp_path: Path, value: object, message: str | None) -> None:
    path = tmp_path / "value.t7"
    path.write_bytes(b"earlier")
    if message is None:  # derived from a tensor, it has no type that could be wrong
        save_t7(value, path)
        return
    for ascii in (False, True):
        with pytest.raises(T7Error, match=message) as caught:
            save_t7(value, path, ascii=ascii)
        assert str(caught.value).startswith(f"{path}: value")
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["value.t7"]


class Huge(bytes):
    def __len__(self) -> int:
        return 2**31


@pytest.mark.parametrize("ascii", [False, True])
def test_a_string_beyond_2_gib_is_refused(ascii: bool) -> None:
    with pytest.raises(T7Error, match=r"value\[0\]: a length, size or stride that is too large"):
        bytes_of([Huge()], ascii=ascii)


# The file.


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    path, limits = tmp_path / "value.t7", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_bytes(b"earlier")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))  # as a full disk: no byte more
    try:
        with pytest.raises(T7Error, match=r"value\.t7: cannot be written: File too large"):
            save_t7(np.zeros(1_000_000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["value.t7"]


def test_bytes_that_do_not_reach_the_disk_do_not_replace_a_file(tmp_path: Path, monkeypatch: Any) -> None:
    def fail(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(T7Error, match="cannot be written: Input/output error"):
        save_t7(1, tmp_path / "value.t7")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_file_object_that_is_full_says_so_itself() -> None:
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        write_t7([1], file)


@pytest.mark.parametrize("name", ["missing/value.t7", "file/value.t7", "", ".", "x" * 300])
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(T7Error, match=f"^{name}: cannot be written: "):
        save_t7(1, name)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(T7Error, match="cannot be written: Permission denied"):
        save_t7(1, tmp_path / "value.t7")


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.t7")
    with pytest.raises(T7Error, match="a directory or a device has this name"):
        save_t7(1, tmp_path / "pipe.t7")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe.t7").st_mode)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.t7").write_bytes(b"earlier")
    (tmp_path / "link.t7").symlink_to("real.t7")
    save_t7(5, tmp_path / "link.t7")
    assert (tmp_path / "link.t7").is_symlink()
    assert read_t7(tmp_path / "real.t7") == 5


def test_a_file_may_be_replaced_by_what_was_read_from_it(tmp_path: Path) -> None:
    original = (DATA / "t7" / "nn_flattened.t7").read_bytes()
    path = tmp_path / "net.t7"
    path.write_bytes(original)
    net = read_t7(path)
    save_t7(net, path)
    assert path.read_bytes() == original
    assert bytes_of(net) == original


def test_a_file_without_a_buffer_gets_all_bytes() -> None:
    class Slow(io.RawIOBase):
        taken = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.taken += bytes(data[:3])
            return min(3, len(data))

    file, value = Slow(), [1, b"some text", np.arange(9)]
    write_t7(value, file)  # type: ignore[arg-type]
    assert file.taken == bytes_of(value)


def test_storages_are_not_copied_into_memory(tmp_path: Path) -> None:
    pieces: list[tuple[int, bool]] = []

    class Watcher(io.BytesIO):
        def write(self, data: Any) -> int:
            pieces.append((len(data), np.shares_memory(np.frombuffer(data, np.uint8), large)))
            return len(data)

    large = np.zeros(5_000_000, "f4")
    write_t7([large], Watcher())
    parts = [size for size, shared in pieces if shared]
    assert sum(parts) == large.nbytes
    assert max(parts) <= 2**21

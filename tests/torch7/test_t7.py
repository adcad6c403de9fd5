"""Reading .t7 files: every case that the original program wrote, and the values that come out of them.

`data/t7` is a copy of the golden data (without two large files); NAME.json describes what the original reads back.
"""

from __future__ import annotations

import copy
import json
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchfile

from resnet_tools.errors import T7Error
from resnet_tools.torch7.copying import release
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Storage, T7Tensor
from resnet_tools.torch7.t7 import read_t7

DATA = Path(__file__).parents[1] / "data" / "t7"
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "t7"

CASES = {case["case"]: case for case in json.loads((DATA / "index.json").read_text())}
OF_THEIR_OWN = ("bn_version1", "cuda_tensor", "big_endian", "class_custom_write", "legacy_no_version")
FILES = [entry["file"] for name, case in CASES.items() if name not in OF_THEIR_OWN for entry in case["files"]]

NUMBER, STRING, TABLE, TORCH = 1, 2, 3, 4


def assert_as_described(value: Any, folder: Path, file: str) -> None:
    """`value` is what the JSON beside the file describes, to the bit and with the same identities."""
    description = json.loads((folder / f"{file.split('.')[0]}.json").read_text())
    Comparison(folder).compare(value, description["expected"], file)


class Comparison:
    """Walks a description beside the value; `seen` holds the object of each id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[int, Any] = {}

    def compare(self, value: Any, expected: dict[str, Any], where: str) -> None:
        kind = expected["type"]
        if kind == "ref":
            assert value is self.seen[expected["id"]], where
            return
        if "id" in expected:
            assert not any(value is other for other in self.seen.values()), where
            self.seen[expected["id"]] = value
        getattr(self, f"compare_{kind}")(value, expected, where)

    def compare_nil(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert value is None, where

    def compare_boolean(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert value is expected["value"], where

    def compare_number(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert struct.pack("<d", value).hex() == expected["f64"], where
        (double,) = struct.unpack("<d", bytes.fromhex(expected["f64"]))
        whole = double.is_integer() and abs(double) <= 2**53 and str(double) != "-0.0"
        assert type(value) is (int if whole else float), where

    def compare_string(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert type(value) is bytes, where
        assert len(value) == expected["length"], where
        if "hex" in expected:
            assert value.hex() == expected["hex"], where
        else:  # a long one
            assert value.hex().startswith(expected["head_hex"]), where

    def compare_table(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert type(value) is LuaTable, where
        self.compare_items(value, expected["items"], where)

    def compare_items(self, table: LuaTable, items: list[Any], where: str) -> None:
        assert len(table) == len(items) == len(list(table)), where
        for key, item in items:
            if key["type"] in ("ref", "table"):
                (found,) = (k for k in table if not isinstance(k, bool | int | float | bytes))
                self.compare(found, key, f"{where}, a key")
            else:
                found = {"number": key.get("value"), "boolean": key.get("value")}.get(key["type"])
                found = bytes.fromhex(key["hex"]) if key["type"] == "string" else found
                (real,) = (k for k in table if type(k) is type(found) and k == found)
                self.compare(real, key, f"{where}, a key")
            self.compare(table[found], item, f"{where}.{found!r}")

    def compare_object(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert type(value) is LuaObject, where
        assert (value.class_name, value.version) == (expected["class"], expected["version"]), where
        self.compare_items(value.fields, expected["items"], where)

    def compare_function(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert type(value) is LuaFunction, where
        assert len(value.dumped) == expected["bytecode_length"], where
        assert value.upvalues is not None
        upvalues = value.upvalues.to_list()
        assert len(upvalues) == len(expected["upvalues"]), where
        for found, upvalue in zip(upvalues, expected["upvalues"], strict=True):
            if value.tag == torchfile.TYPE_RECUR_FUNCTION:
                assert found["name"].decode() == upvalue["name"], where
                found = found["value"]
            self.compare(found, upvalue["value"], f"{where}, upvalue {upvalue['name']}")

    def compare_storage(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert type(value) is T7Storage, where
        assert value.torch_type == expected["class"], where
        assert value.shape == (expected["size"],), where
        if "npy" in expected:
            self.compare_elements(value, expected["npy"], where)

    def compare_tensor(self, value: Any, expected: dict[str, Any], where: str) -> None:
        assert type(value) is T7Tensor, where
        assert value.torch_type == expected["class"], where
        assert value.storage_offset == expected["storage_offset_1based"] - 1, where
        self.compare(value.storage, expected["storage"], f"{where}, the storage")
        if not expected["size"]:
            assert value.shape == (0,), where
            return
        assert list(value.shape) == expected["size"], where
        assert [step // value.itemsize for step in value.strides] == expected["stride"], where
        first = value.ctypes.data - value.storage.ctypes.data
        assert first == value.storage_offset * value.itemsize, where
        assert np.shares_memory(value, value.storage, max_work=1), where
        self.compare_elements(value, expected["npy"], where)

    def compare_elements(self, value: np.ndarray[Any, Any], npy: str, where: str) -> None:
        expected = np.load(self.folder / npy)
        if not npy.startswith("longsize4"):
            assert value.dtype == expected.dtype, where
        assert value.shape == expected.shape, where
        assert value.astype(expected.dtype).tobytes() == expected.tobytes(), where
        assert not value.flags.writeable, where


@pytest.mark.parametrize("file", FILES)
def test_each_case_reads_as_the_original_reads_it(file: str) -> None:
    assert_as_described(read_t7(DATA / file), DATA, file)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the golden folder beside the repository")
def test_the_whole_golden_folder_reads_as_the_original_reads_it() -> None:
    index = json.loads((GOLDEN / "index.json").read_text())
    assert len(index) == 93
    for case in index:
        for entry in case["files"]:
            if case["case"] not in OF_THEIR_OWN:
                assert_as_described(read_t7(GOLDEN / entry["file"]), GOLDEN, entry["file"])


@pytest.mark.parametrize("file", ["bn_version1.t7", "bn_version1.ascii.t7"])
def test_batch_norm_of_version_1_keeps_its_old_field(file: str) -> None:
    module = read_t7(DATA / file)
    assert isinstance(module, LuaObject)
    assert (module.class_name, module.version) == ("nn.SpatialBatchNormalization", 1)
    for field in ("running_mean", "running_std"):
        assert np.array_equal(module[field], np.load(DATA / f"bn_version1.{field}.npy"))
    assert module["weight"].tolist() == [1, 2, 3]
    assert module["eps"] == 1e-5
    assert "running_var" not in module


def test_cuda_tensors_are_float32_on_one_cuda_storage() -> None:
    table = read_t7(DATA / "cuda_tensor.t7")
    assert isinstance(table, LuaTable)
    assert table["learningRate"] == 0.1
    for field in ("dfdx", "other"):
        assert table[field].torch_type == "torch.CudaTensor"
        assert table[field].dtype == np.float32
        assert np.array_equal(table[field], np.load(DATA / f"cuda_tensor.{field}.npy"))
    assert table["dfdx"].storage is table["other"].storage
    assert table["dfdx"].storage.torch_type == "torch.CudaStorage"


def test_an_object_older_than_class_versions_has_version_0() -> None:
    module = read_t7(DATA / "legacy_no_version.t7")
    assert isinstance(module, LuaObject)
    assert (module.class_name, module.version) == ("nn.Identity", 0)
    assert dict(module.fields) == {b"train": False, b"kind": b"old"}


@pytest.mark.parametrize("file", ["class_custom_write.t7", "class_custom_write.ascii.t7"])
def test_a_class_with_a_format_of_its_own_is_refused_by_name(file: str) -> None:
    with pytest.raises(T7Error, match=r"byte \d+: .* in golden\.Custom: .* format of its own"):
        read_t7(DATA / file)


def test_big_endian_is_refused_by_name() -> None:
    with pytest.raises(T7Error, match="big-endian byte order, which is not supported"):
        read_t7(DATA / "big_endian.t7")


# Containers with a format of their own, as bytes.


def tagged(tag: int, *parts: int | bytes | float) -> bytes:
    """A record: ints have 4 bytes, strings their length before them, floats are doubles."""
    return struct.pack("<i", tag) + packed(*parts)


def packed(*parts: int | bytes | float) -> bytes:
    layout = {int: lambda n: struct.pack("<i", n), bytes: lambda s: struct.pack("<i", len(s)) + s}
    return b"".join(layout.get(type(part), lambda x: struct.pack("<d", x))(part) for part in parts)


def torch_record(index: int, class_name: bytes, payload: bytes, version: int = 1) -> bytes:
    return tagged(TORCH, index, b"V %d" % version, class_name) + payload


def table_record(index: int, *objects: bytes) -> bytes:
    return tagged(TABLE, index, len(objects) // 2) + b"".join(objects)


def longs(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read_bytes(data: bytes, **options: Any) -> Any:
        path = tmp_path / "file.t7"
        path.unlink(missing_ok=True)  # a new file: an earlier one may still be mapped
        path.write_bytes(data)
        return read_t7(path, **options)

    return read_bytes


def test_tds_hash_is_an_object_with_its_entries_as_fields(read: Any) -> None:
    value = read(torch_record(1, b"tds.Hash", longs(2) + b"".join(map(tagged, (2, 1, 1, 1), (b"a", 7.0, 2.0, 8.0)))))
    assert value.class_name == "tds.Hash"
    assert dict(value.fields) == {b"a": 7, 2: 8}


def test_tds_vec_is_an_object_with_its_elements_as_fields(read: Any) -> None:
    value = read(torch_record(1, b"tds.Vec", longs(3) + tagged(STRING, b"a") + tagged(0) + tagged(TORCH, 1)))
    assert value.fields.to_list() == [b"a", None, value]


def test_data_parallel_table_has_gpu_assignments_from_version_2(read: Any) -> None:
    gpus = table_record(2, tagged(NUMBER, 1.0), tagged(NUMBER, 4.0))
    fields = table_record(3, tagged(STRING, b"dimension"), tagged(NUMBER, 1.0), tagged(STRING, b"me"), tagged(TORCH, 1))
    new = read(torch_record(1, b"nn.DataParallelTable", gpus + fields, version=2))
    assert new.gpu_assignments.to_list() == [4]
    assert new["dimension"] == 1
    assert new["me"] is new
    old = read(torch_record(1, b"nn.DataParallelTable", fields, version=1))
    assert old.gpu_assignments is None
    assert old["dimension"] == 1


@pytest.mark.parametrize("name", ["Byte", "Char", "Short", "Int", "Long", "Half", "Float", "Double"])
def test_cuda_classes_are_as_their_cpu_namesakes(read: Any, name: str) -> None:
    size = {"Byte": 1, "Char": 1, "Short": 2, "Int": 4, "Half": 2, "Float": 4}.get(name, 8)
    elements = bytes(range(2 * size))
    cpu, cuda = (
        read(torch_record(1, b"torch.%sStorage" % prefixed.encode(), longs(2) + elements))
        for prefixed in (name, f"Cuda{name}")
    )
    assert cpu.dtype == cuda.dtype
    assert cpu.tobytes() == cuda.tobytes() == elements
    assert cuda.torch_type == f"torch.Cuda{name}Storage"


def test_torchfile_contributes_its_tags_and_number_readers() -> None:
    tags = [torchfile.TYPE_NIL, torchfile.TYPE_NUMBER, torchfile.TYPE_STRING, torchfile.TYPE_TABLE]
    tags += [torchfile.TYPE_TORCH, torchfile.TYPE_BOOLEAN, torchfile.TYPE_FUNCTION]
    tags += [torchfile.LEGACY_TYPE_RECUR_FUNCTION, torchfile.TYPE_RECUR_FUNCTION]
    assert tags == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert issubclass(LuaObject, torchfile.TorchObject)
    from resnet_tools.torch7.reader import T7Reader

    assert T7Reader.read_double is torchfile.T7Reader.read_double
    assert T7Reader.read_boolean is torchfile.T7Reader.read_boolean
    reader = T7Reader(struct.pack("<di", 0.1, 1), "x")
    assert (reader.read_double(), reader.read_boolean()) == (0.1, True)


# The size of a long.


def test_longs_of_4_bytes_are_found_out_or_can_be_asked_for() -> None:
    assert_as_described(read_t7(DATA / "longsize4.t7", long_bytes=4), DATA, "longsize4.t7")
    with pytest.raises(T7Error):
        read_t7(DATA / "longsize4.t7", long_bytes=8)
    with pytest.raises(T7Error):
        read_t7(DATA / "longsize8.t7", long_bytes=4)
    with pytest.raises(ValueError, match="4 or 8"):
        read_t7(DATA / "longsize8.t7", long_bytes=6)


def test_longs_of_4_bytes_are_found_out_behind_an_empty_tensor(read: Any) -> None:
    # Read with 8 bytes, the offset 1 swallows the nil after it, and no long looks too large.
    empty = torch_record(2, b"torch.FloatTensor", struct.pack("<iii", 0, 1, 0))
    table = table_record(1, tagged(STRING, b"output"), empty, tagged(STRING, b"train"), tagged(5, 1))
    value = read(table)
    assert value["output"].shape == (0,)
    assert value["train"] is True


def test_ascii_files_ignore_the_size_of_a_long() -> None:
    for long_bytes in (4, 8):
        assert_as_described(read_t7(DATA / "tensors_all.ascii.t7", long_bytes=long_bytes), DATA, "tensors_all.ascii.t7")


# Values.


def test_a_table_tells_true_from_1_and_false_from_0() -> None:
    table = read_t7(DATA / "dict_mixed.t7")
    assert isinstance(table, LuaTable)
    assert (table[1], table[True], table["1"]) == (b"int one", b"bool true", b"string one")
    assert (table[0], table[False], table[1.0], table[1.5]) == (b"zero", b"bool false", b"int one", b"frac")
    assert table[b"\xff"] == b"byte key"
    assert True in table
    assert [type(key) for key in table if key == 1] == [int, bool]
    assert {type(key) for key, value in table.items() if value == b"bool false"} == {bool}
    del table[True]
    assert True not in table
    assert 1 in table
    assert table.pop(False) == b"bool false"
    assert table.pop(False, None) is None


def test_a_table_is_found_by_text_or_bytes() -> None:
    table = LuaTable([("name", 1), (b"b", 2)])
    assert list(table) == [b"name", b"b"]
    assert (table["name"], table[b"name"], table.get("b"), table.get("c", 3)) == (1, 1, 2, 3)
    assert "name" in table
    assert b"name" in table
    table.update({"b": 5})
    assert table.setdefault("b", 6) == 5
    assert dict(table) == {b"name": 1, b"b": 5} == dict(table.copy()) == {**table}
    with pytest.raises(KeyError, match="missing"):
        table["missing"]


def test_a_table_compares_by_identity_and_can_be_a_key() -> None:
    one, other = LuaTable(), LuaTable()
    assert one != other
    assert LuaTable([(one, 1), (other, 2)])[one] == 1


def test_an_array_can_be_a_key(read: Any) -> None:
    storage = torch_record(2, b"torch.ByteStorage", longs(3) + b"abc")
    table = read(table_record(1, storage, tagged(NUMBER, 1.0), tagged(NUMBER, 5.0), tagged(TORCH, 2)))
    assert table[table[5]] == 1
    assert {table[5]: 2}[table[5]] == 2


def test_a_list_comes_out_of_a_table_only_without_holes() -> None:
    assert LuaTable([(2, "b"), (1, "a")]).to_list() == ["a", "b"]
    for keys in ([1, 3], [0, 1], [1, "x"], [True]):
        with pytest.raises(ValueError, match="not a list"):
            LuaTable((key, None) for key in keys).to_list()


def test_tables_keep_the_order_of_the_file_and_the_last_of_two_values(read: Any) -> None:
    pairs = ((b"z", 1.0), (b"a", 2.0), (b"z", 3.0))
    table = read(
        table_record(1, *(tagged(t, x) for pair in pairs for t, x in zip((STRING, NUMBER), pair, strict=True)))
    )
    assert list(table.items()) == [(b"z", 3), (b"a", 2)]


def test_a_nil_value_is_no_entry(read: Any) -> None:
    assert len(read(table_record(1, tagged(STRING, b"a"), tagged(0)))) == 0


def test_an_object_answers_only_for_its_fields_and_survives_copying() -> None:
    module = read_t7(DATA / "nn_linear.t7")
    assert isinstance(module, LuaObject)
    assert module.torch_typename() == module.class_name == "nn.Linear"
    assert module["weight"] is module.get("weight") is module.fields["weight"]
    assert module.get("nothing", 5) == 5
    with pytest.raises(KeyError, match=r"nn\.Linear has no field 'nothing'"):
        module["nothing"]
    assert not hasattr(module, "weight")
    assert not hasattr(module, "__array__")
    assert "fields" in dir(module)
    for twin in (copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert (twin.class_name, twin.version) == ("nn.Linear", module.version)
        assert np.array_equal(twin["weight"], module["weight"])
    with pytest.raises(AttributeError):
        LuaObject.__new__(LuaObject).anything  # noqa: B018


def test_reprs_are_short_and_do_not_descend() -> None:
    assert repr(read_t7(DATA / "self_reference.t7")) == "<LuaTable of 3>"
    assert repr(read_t7(DATA / "nn_linear.t7")) == "<LuaObject nn.Linear of 7>"
    assert repr(read_t7(DATA / "function_plain.t7")) == "<LuaFunction of 45 bytes>"


def test_what_is_derived_from_a_tensor_is_not_that_tensor() -> None:
    tensor = read_t7(DATA / "tensor_float.t7")
    assert isinstance(tensor, T7Tensor)
    for derived in (tensor[0:1], tensor.copy(), tensor + 1, tensor.T):
        assert getattr(derived, "torch_type", None) is getattr(derived, "storage", None) is None
    assert tensor.torch_type == "torch.FloatTensor"


def test_tensors_are_views_that_cannot_be_written() -> None:
    table = read_t7(DATA / "shared_storage.t7")
    assert isinstance(table, LuaTable)
    assert np.shares_memory(table["a"], table["b"])
    assert table["a"].storage is table["b"].storage is table["storage"]
    with pytest.raises(ValueError, match="read-only"):
        table["a"][0, 0] = 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_released_pages_leave_memory_and_come_back(read: Any) -> None:
    elements = np.random.default_rng(0).random(4_000_000, dtype=np.float32)  # 16 MB
    view = longs(4_000_000) + longs(1) + longs(1)
    storage = torch_record(2, b"torch.FloatStorage", longs(elements.size) + elements.tobytes())
    tensor = read(torch_record(1, b"torch.FloatTensor", struct.pack("<i", 1) + view + storage))

    def resident_file_mb() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssFile"))

    total = tensor.sum()
    before = resident_file_mb()
    release(tensor)
    assert before - resident_file_mb() > 14
    assert tensor.sum() == total
    release(tensor[5:6][::-1])  # derived views too
    release(np.zeros(3))  # and what is not of a file
    release(tensor[:0])
    assert np.array_equal(tensor, elements)

"""Whatever the bytes, read_t7 gives a value or a T7Error: quickly, within bounds, and with a message that helps."""

from __future__ import annotations

import gc
import json
import os
import re
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.errors import T7Error
from resnet_tools.torch7.fast_reader import FastReader
from resnet_tools.torch7.lua import LuaFunction, LuaObject, LuaTable, T7Tensor
from resnet_tools.torch7.reader import T7Reader
from resnet_tools.torch7.sniff import describe_content, looks_like_t7
from resnet_tools.torch7.t7 import read_t7

DATA = Path(__file__).parents[1] / "data" / "t7"
GOLDEN_BAD = Path(__file__).parents[3] / "shared" / "golden" / "t7" / "bad"

# What is wrong is what the message says; the regular expression is searched in it.
TRUNCATED = r"byte \d+: .*expected .*, found \d+ left: the file ends early \(an incomplete download\?\)"
REJECTED = {
    **{f"truncated_{size:05}.t7": TRUNCATED for size in (1, 3, 4, 7, 8, 12, 17, 40, 1801, 2702, 4803, 5398, 5402)},
    "truncated_ascii.t7": TRUNCATED,
    "empty.t7": "byte 0: .*the file is empty",
    "html_error_page.t7": "web page .*the download failed",
    "garbage.t7": "byte 0: a type tag: expected 0 to 8, found 415911333",
    "zeros.t7": "byte 0: the file: expected an object, found a nil and more bytes after it",
    "text.t7": "plain text",
    "pickle.t7": "pickle.*load_checkpoint",
    "zip.t7": "zip archive, as PyTorch checkpoints are: load_checkpoint",
    "gzip.t7": "gzip archive: unpack it first",
    "png.t7": "an image",
    "bigendian_unmarked.t7": "big-endian",
    "type_tag_9.t7": "byte 0: a type tag: expected 0 to 8, found 9",
    "type_tag_99.t7": "found 99",
    "type_tag_-1.t7": "found -1",
    "type_tag_2147483647.t7": "found 2147483647",
    "flipped_tag_inside.t7": r"byte \d+: .* in nn\.Sequential",
    "flipped_tag_tensor.t7": r"byte \d+: a type tag in nn\.Sequential > nn\.SpatialConvolution",
    "string_len_huge.t7": "a string: expected 2147483647 bytes, found 3 left",
    "string_len_negative.t7": "a string: expected a length of 0 or more, found -5",
    "string_short.t7": "a string: expected 10 bytes, found 3 left",
    "table_count_huge.t7": "byte 8: the number of table entries: expected 2147483647 times 12 bytes or more, found 24",
    "table_count_negative.t7": "byte 8: the number of table entries: expected 0 or more, found -4",
    "table_nil_key.t7": "byte 12: a table key: expected anything but nil and NaN, found None",
    "table_nan_key.t7": "byte 12: a table key: expected anything but nil and NaN, found nan",
    "storage_2pow60.t7": r"torch\.FloatStorage: expected 1152921504606846976 times 4 bytes",
    "storage_2pow62_double.t7": r"torch\.DoubleStorage: expected 4611686018427387904 times 8 bytes",
    "storage_negative.t7": "the number of elements .*expected 0 or more, found -6",
    "storage_more_than_file.t7": "expected 1000 times 4 bytes or more, found 24 left",
    "size_2pow60.t7": "the last element would be number",
    "size_negative.t7": "a size is below 1",
    "size_zero.t7": "a size is below 1",
    "size_too_big.t7": r"a view into a storage of 6, found sizes \(3, 3\).*the last element would be number 9",
    "stride_off_storage.t7": "the last element would be number 103",
    "stride_negative.t7": "a stride is not in 0 to",
    "stride_overflow.t7": "a stride is not in 0 to",
    "offset_zero.t7": "offset 0: offsets start at 1",
    "offset_negative.t7": "offset -10: offsets start at 1",
    "offset_beyond.t7": "offset 7: the last element would be number 12",
    "ndim_negative.t7": "byte 36: the number of dimensions in torch.FloatTensor: expected 0 to 32, found -2",
    "ndim_huge.t7": "expected 0 to 32, found 1073741824",
    "storage_missing.t7": "the storage .*expected a storage of float32 elements, found nil",
    "storage_wrong_type.t7": r"found torch\.DoubleStorage",
    "storage_is_table.t7": "expected a storage of float32 elements, found a table",
    "storage_is_itself.t7": "found an object that is itself still being read",
    "class_name_code.t7": 'a class name: expected a name such as nn.Linear, found b"__import__',
    "class_name_empty.t7": "a class name: expected .*found b''",
    "class_name_huge.t7": "a class name: expected 2147483647 bytes, found 9 left",
    "class_name_bytes.t7": r"a class name: expected .*found b'\\xff",
    "class_payload_number.t7": r"byte 28: the fields in nn\.Linear: expected a table, found a number",
    "class_payload_missing.t7": r"byte 28: a type tag in nn\.Linear: .*ends early",
    "version_not_number.t7": "a class version or name: expected .*found b'V one'",
    "index_type_clash.t7": r"object 5: expected a table, found torch\.FloatTensor",
}
READABLE: dict[str, Callable[[Any], bool]] = {
    "deep_10000.t7": lambda value: isinstance(value, LuaTable),
    "deep_50000.t7": lambda value: isinstance(value, LuaTable),
    "deep_keys_3000.t7": lambda value: isinstance(value, LuaTable),
    "expand_bomb.t7": lambda value: value.shape == (2**20, 2**20, 3) and value.storage.size == 6,
    "function_bad_bytecode.t7": lambda value: isinstance(value, LuaFunction),
    "unknown_class.t7": lambda value: isinstance(value, LuaObject) and value.class_name == "evil.Unknown",
    "model_with_number_weight.t7": lambda value: value["modules"][1]["weight"] == 3,
    "model_modules_cycle.t7": lambda value: value["modules"][1] is value,
}


def check_bad_file(path: Path) -> None:
    if path.name in READABLE:
        assert READABLE[path.name](read_t7(path)), path.name
    else:
        with pytest.raises(T7Error, match=REJECTED[path.name]) as caught:
            read_t7(path)
        assert str(caught.value).startswith(f"{path}: byte ")


def bounded(path: Path, read: Callable[[Path], object], seconds: float = 1.0) -> None:
    """Runs `read` and holds it to its time and to memory in proportion to the file."""
    gc.collect()
    tracemalloc.start()
    start = time.process_time()
    try:
        read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5 * seconds  # tracing takes its time
    assert peak < 60 * path.stat().st_size + 200_000


def reads_or_refuses(path: Path) -> None:
    try:
        read_t7(path)
    except T7Error as error:
        assert re.search(r": byte \d+: .*expected .*, found ", str(error), re.DOTALL)  # noqa: PT017


@pytest.mark.parametrize("name", sorted(REJECTED.keys() | READABLE.keys()))
def test_each_bad_file_is_refused_with_a_reason_or_read_safely(name: str) -> None:
    folder = DATA / "bad" if (DATA / "bad" / name).exists() else GOLDEN_BAD
    if not (folder / name).exists():
        pytest.skip("a large file of the golden folder")
    bounded(folder / name, check_bad_file)


def test_the_index_of_bad_files_is_covered() -> None:
    names = {entry["file"] for entry in json.loads((DATA / "bad" / "index.json").read_text())}
    assert names == REJECTED.keys() | READABLE.keys()


# Broken files: good ones, cut and changed.


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write_bytes(data: bytes) -> Path:
        path = tmp_path / "file.t7"
        path.unlink(missing_ok=True)  # a new file: an earlier one may still be mapped
        path.write_bytes(data)
        return path

    return write_bytes


CUT = ["nn_sequential", "tensors_all", "nested", "function_upvalues", "class_version", "legacy_function6", "numbers"]
CUT += ["tensor_empty", "storage_long", "storage_byte", "view_narrowed", "nil", "true", "string_word", "number_one"]


@pytest.mark.parametrize("mode", ["t7", "ascii.t7"])
@pytest.mark.parametrize("name", CUT)
def test_every_truncation_of_a_good_file_is_refused(name: str, mode: str, write: Callable[[bytes], Path]) -> None:
    if not (DATA / f"{name}.{mode}").exists():
        pytest.skip("written in binary only")
    data = (DATA / f"{name}.{mode}").read_bytes()
    for size in range(len(data)):
        with pytest.raises(T7Error, match=r"the file ends early|the file is empty"):
            read_t7(write(data[:size]))


def test_every_truncation_of_short_longs_is_refused_as_such(write: Callable[[bytes], Path]) -> None:
    data = (DATA / "longsize4.t7").read_bytes()
    for size in range(len(data)):
        with pytest.raises(T7Error):
            read_t7(write(data[:size]))
        with pytest.raises(T7Error, match=r"ends early|is empty"):
            read_t7(write(data[:size]), long_bytes=4)


GOOD = [path.read_bytes() for path in sorted(DATA.glob("*.t7")) if path.stat().st_size < 6000]
INTERESTING = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77, 255, 2**16, 2**31 - 1, -1, -2, -(2**31), 0x7FF00000]


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 4, 0)))
        if draw(st.booleans()):
            data[at : at + 4] = struct.pack("<i", draw(st.sampled_from(INTERESTING)))
        else:
            data[at : at + 1] = draw(st.binary(min_size=0, max_size=3))
    return bytes(data)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Bytes that look like the format: tags, small ints, class names, longs."""
    names = [b"torch.FloatTensor", b"torch.LongStorage", b"tds.Hash", b"tds.Vec", b"nn.Linear", b"nn.DataParallelTable"]
    part = st.one_of(
        st.integers(-1, 9).map(lambda n: struct.pack("<i", n)),
        st.sampled_from(INTERESTING).map(lambda n: struct.pack("<q", n)),
        st.floats(width=64).map(lambda x: struct.pack("<d", x)),
        st.sampled_from([b"V 1", b"V 2", *names]).map(lambda s: struct.pack("<i", len(s)) + s),
        st.sampled_from(names).map(lambda s: struct.pack("<iii3si", 4, 1, 3, b"V 2", len(s)) + s),
    )
    return struct.pack("<i", draw(st.integers(0, 8))) + b"".join(draw(st.lists(part, max_size=25)))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "file.t7"


def rewrite(path: Path, data: bytes) -> Path:
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


@given(data=st.one_of(st.binary(max_size=400), st.text("0123456789 \n-.einfaV", max_size=200).map(str.encode)))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_a_value_or_an_error(data: bytes, scratch: Path) -> None:
    reads_or_refuses(rewrite(scratch, data))


@given(data=damaged_files())
@settings(max_examples=1000, deadline=None)
def test_a_damaged_file_is_a_value_or_an_error(data: bytes, scratch: Path) -> None:
    reads_or_refuses(rewrite(scratch, data))


@given(data=records())
@settings(max_examples=1000, deadline=None)
def test_anything_like_the_format_is_a_value_or_an_error(data: bytes, scratch: Path) -> None:
    reads_or_refuses(rewrite(scratch, data))


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    strides=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    offset=st.integers(1, 8),
    elements=st.integers(0, 30),
)
@settings(max_examples=300, deadline=None)
def test_a_tensor_is_read_exactly_if_all_of_it_is_in_its_storage(
    sizes: list[int], strides: list[int], offset: int, elements: int, scratch: Path
) -> None:
    strides = strides[: len(sizes)]
    storage = torch_record(2, b"torch.ShortStorage", longs(elements) + np.arange(elements, dtype="<i2").tobytes())
    shape = struct.pack("<i", len(sizes)) + longs(*sizes, *strides, offset)
    path = rewrite(scratch, torch_record(1, b"torch.ShortTensor", shape + storage))
    where = sum(np.indices(sizes)[axis] * stride for axis, stride in enumerate(strides)) + offset - 1
    if where.max() < elements:
        tensor = read_t7(path)
        assert isinstance(tensor, T7Tensor)
        assert np.array_equal(tensor, where)  # element k of the storage is k
    else:
        with pytest.raises(T7Error, match="the last element would be"):
            read_t7(path)


@given(data=st.one_of(damaged_files(), records()))
@settings(max_examples=600, deadline=None)
def test_the_fast_reader_agrees_with_the_plain_one(data: bytes) -> None:
    outcomes = []
    for reader in (T7Reader(data, "file"), FastReader(data, "file")):
        try:
            outcomes.append((shape_of(reader.read_file()), reader.position, reader.longs))
        except T7Error as error:
            outcomes.append((str(error), type(error), reader.longs))
    assert outcomes[0] == outcomes[1]


def shape_of(value: Any) -> list[Any]:
    """All that is in a value, flat, with indices in the place of what was met before."""
    met: dict[int, int] = {}
    kept, flat, waiting = [], [], [value]
    while waiting:
        value = waiting.pop()
        kept.append(value)  # or its id might be used again
        if isinstance(value, LuaTable | LuaObject | LuaFunction | np.ndarray):
            known = id(value) in met
            flat.append((type(value), met.setdefault(id(value), len(met))))
            if known:
                continue
        if isinstance(value, LuaTable):
            waiting += [x for pair in value.items() for x in pair]
        elif isinstance(value, LuaObject):
            flat.append((value.class_name, value.version))
            waiting += [value.fields, value.gpu_assignments]
        elif isinstance(value, LuaFunction):
            waiting += [value.dumped, value.upvalues]
        elif isinstance(value, np.ndarray):
            flat.append((value.dtype, value.shape, value.strides, value.size and value.ctypes.data, value.torch_type))
        else:
            flat.append((type(value), repr(value)))
    return flat


# Depth and size.


def torch_record(index: int, class_name: bytes, payload: bytes) -> bytes:
    return struct.pack("<iii3si", 4, index, 3, b"V 1", len(class_name)) + class_name + payload


def longs(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def table(index: int, count: int) -> bytes:
    return struct.pack("<iii", 3, index, count)


ONE = struct.pack("<id", 1, 1.0)  # the number 1
DEPTH = 20_000
NESTED = {
    "tables": (lambda i: table(i, 1) + ONE, b"", b""),
    "tables as keys": (lambda i: table(i, 1), b"", ONE),
    "objects": (lambda i: torch_record(2 * i, b"nn.A", table(2 * i + 1, 1) + ONE), b"", b""),
    "functions": (lambda i: struct.pack("<iii", 8, 2 * i, 0) + table(2 * i + 1, 1) + ONE, b"", b""),
    "old functions": (lambda i: struct.pack("<ii", 6, 0) + table(i, 1) + ONE, b"", b""),
    "vectors": (lambda i: torch_record(i, b"tds.Vec", longs(1)), b"", b""),
}


@pytest.mark.parametrize("kind", NESTED)
def test_depth_costs_no_recursion(kind: str, write: Callable[[bytes], Path]) -> None:
    before, _, after = NESTED[kind]
    data = b"".join(map(before, range(DEPTH))) + table(10**6, 0) + after * DEPTH
    bounded(write(data), read_t7, seconds=3)
    with pytest.raises(T7Error, match="ends early"):
        read_t7(write(data[: -len(after) * DEPTH // 2 - 4]))


def test_depth_costs_no_recursion_in_ascii(write: Callable[[bytes], Path]) -> None:
    data = "".join(f"3\n{index}\n1\n1\n1\n" for index in range(DEPTH)) + "0\n"
    bounded(write(data.encode()), read_t7, seconds=3)


def test_tensors_in_the_place_of_storages_are_refused_at_once(write: Callable[[bytes], Path]) -> None:
    tensor = struct.pack("<i", 1) + longs(1, 1, 1)
    data = b"".join(torch_record(index, b"torch.FloatTensor", tensor) for index in range(DEPTH))
    with pytest.raises(T7Error, match=r"the storage .*expected a storage, found torch\.FloatTensor"):
        read_t7(write(data))


def test_a_million_small_entries_take_seconds(write: Callable[[bytes], Path]) -> None:
    count = 1_000_000
    pairs = np.zeros(count, dtype=[("a", "<i4"), ("key", "<f8"), ("b", "<i4"), ("value", "<f8")])
    pairs["a"] = pairs["b"] = 1
    pairs["key"], pairs["value"] = np.arange(count), np.arange(count) + 0.5
    path = write(table(1, count) + pairs.tobytes())
    start = time.process_time()
    value = read_t7(path)
    assert time.process_time() - start < 10
    assert isinstance(value, LuaTable)
    assert len(value) == count


def test_an_ascii_storage_is_bounded_by_its_file(write: Callable[[bytes], Path]) -> None:
    head = b"4\n1\n3\nV 1\n19\ntorch.DoubleStorage\n"
    bounded(write(head + b"200000\n" + b"1 " * 200_000), read_t7)
    with pytest.raises(T7Error, match="expected 9223372036854775807 times 1 bytes or more"):
        read_t7(write(head + b"9223372036854775807\n1 2 3\n"))


@pytest.mark.parametrize("number", ["1_0", "0x10", "١", "1e", "1.5.2", "infinity", "nan(1)", "--1", "1,5", "'1'"])
def test_ascii_numbers_are_strictly_numbers(number: str, write: Callable[[bytes], Path]) -> None:
    with pytest.raises(T7Error, match="byte 2: a number: expected a decimal number"):
        read_t7(write(f"1\n{number}\n".encode()))


@pytest.mark.parametrize(("kind", "number"), [("Short", "70000"), ("Int", "-2147483649"), ("Long", "1.5")])
def test_ascii_elements_must_fit_their_type(kind: str, number: str, write: Callable[[bytes], Path]) -> None:
    name = f"torch.{kind}Storage"
    with pytest.raises(T7Error, match=r"the elements in torch\."):
        read_t7(write(f"4\n1\n3\nV 1\n{len(name)}\n{name}\n2\n1 {number}\n".encode()))


# What is not a .t7 at all.


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "empty"),
        (b"\n\n <HTML><body>404", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "web page"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (struct.pack("<Q", 40) + b'{"weight":{"dtype":"F32"' + bytes(60), "safetensors"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x08\x08\x12\x07pytorch\x1a\x062.12.0", "an ONNX graph"),
        (b"Not Found", "plain text"),
        ("nicht gefunden, schöne Grüße".encode(), "plain text"),
    ],
)
def test_other_files_are_told_by_their_content(head: bytes, says: str, write: Callable[[bytes], Path]) -> None:
    assert says in str(describe_content(head, len(head)))
    with pytest.raises(T7Error, match=says):
        read_t7(write(head))


def test_every_good_file_looks_like_one() -> None:
    for path in DATA.glob("*.t7"):
        head = path.read_bytes()[:512]
        assert looks_like_t7(head) != (path.name == "big_endian.t7"), path.name


def test_the_garbage_collector_is_left_as_it_was() -> None:
    for switch, expected in ((gc.disable, False), (gc.enable, True)):
        switch()
        read_t7(DATA / "nested.t7")
        with pytest.raises(T7Error):
            read_t7(DATA / "bad" / "string_short.t7")
        assert gc.isenabled() is expected


def test_what_cannot_be_opened_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(T7Error, match=r"absent\.t7: .*No such file"):
        read_t7(tmp_path / "absent.t7")
    with pytest.raises(T7Error, match="found a directory or a device"):
        read_t7(tmp_path)
    with pytest.raises(T7Error, match="null"):
        read_t7("a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(T7Error, match="found a directory or a device"):
            read_t7(tmp_path / "pipe")

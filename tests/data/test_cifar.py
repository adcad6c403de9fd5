"""The files of CIFAR: every published form, damaged ones, and pickles that would like to run something."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_tools.data.datasets import read_dataset
from resnet_tools.data.pickled import read_pickle
from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.torch7.t7_writer import save_t7
from tests.support.golden import DATA

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
LABELS = [3, 9, 0, 0, 7, 1, 2, 9, 4, 5, 6, 8]  # two a file of CIFAR-10: five batches and the test
TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def python2_pickle(value: Any) -> bytes:
    """As Python 2's cPickle with protocol 2 wrote the published files, of dicts, lists, str, int and byte arrays."""
    return b"\x80\x02" + python2_object(value) + b"."


def python2_object(value: Any) -> bytes:
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"]q\x05(" + b"".join(map(python2_object, value)) + b"e"
    if isinstance(value, dict):
        return b"}q\x01(" + b"".join(python2_object(item) for pair in value.items() for item in pair) + b"u"
    dtype = b"cnumpy\ndtype\nq\x02U\x02u1K\x00K\x01\x87Rq\x03(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(map(python2_object, value.shape)) + bytes([0x84 + len(value.shape)])
    empty = b"cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + python2_object(value.tobytes()) + b"tb"


def rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


def write_python10(folder: Path, dump: Callable[[Any], bytes] = python2_pickle) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate([f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]):
        part = slice(2 * number, 2 * number + 2)
        files = [b"x_s_%06d.png" % k for k in range(2)]
        batch = {b"batch_label": b"a batch", b"labels": LABELS[part], b"data": rows(IMAGES[part]), b"filenames": files}
        (folder / name).write_bytes(dump(batch))
    meta = {b"num_cases_per_batch": 10000, b"label_names": [name.encode() for name in TEN], b"num_vis": 3072}
    (folder / "batches.meta").write_bytes(dump(meta))
    return folder


def write_binary10(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate([f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]):
        part = range(2 * number, 2 * number + 2)
        (folder / name).write_bytes(b"".join(bytes([LABELS[k]]) + IMAGES[k].tobytes() for k in part))
    (folder / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    return folder


def write_python100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, part in (("train", slice(0, 10)), ("test", slice(10, 12))):
        coarse = {b"coarse_labels": [1] * len(LABELS[part])}
        batch = {b"fine_labels": [label + 90 for label in LABELS[part]], b"data": rows(IMAGES[part]), **coarse}
        (folder / name).write_bytes(python2_pickle(batch))
    return folder


def write_binary100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, part in (("train.bin", range(10)), ("test.bin", range(10, 12))):
        (folder / name).write_bytes(b"".join(bytes([1, LABELS[k] + 90]) + IMAGES[k].tobytes() for k in part))
    return folder


FORMS: dict[str, tuple[str, str, str, Callable[[Path], Path]]] = {
    "python 10": ("cifar10", "cifar-10-batches-py", "cifar-10-python.tar.gz", write_python10),
    "binary 10": ("cifar10", "cifar-10-batches-bin", "cifar-10-binary.tar.gz", write_binary10),
    "python 100": ("cifar100", "cifar-100-python", "cifar-100-python.tar.gz", write_python100),
    "binary 100": ("cifar100", "cifar-100-binary", "cifar-100-binary.tar.gz", write_binary100),
}


def packed(folder: Path, archive: Path, prefix: str = "") -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, prefix + folder.name)
    return archive


@pytest.mark.parametrize("place", ["above the folder", "the folder", "above the archive", "the archive", "./ in it"])
@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_gives_the_images_and_labels(form, place, tmp_path):
    name, folder, archive, write = FORMS[form]
    path = write(tmp_path / "data" / folder)
    if place == "above the folder":
        path = path.parent
    elif place != "the folder":
        (tmp_path / "other").mkdir()
        path = packed(path, tmp_path / "other" / archive, "./" if place == "./ in it" else "")
        path = path.parent if place == "above the archive" else path
    train, val = read_dataset(name, str(path))
    offset = 0 if name == "cifar10" else 90
    assert train.targets + val.targets == [label + offset for label in LABELS]
    assert len(train) == 10
    np.testing.assert_array_equal(np.concatenate([train.images, val.images]), IMAGES.transpose(0, 2, 3, 1))
    assert train.class_names == val.class_names
    assert len(train.class_names) == int(name[5:])
    assert train.class_names[:2] == (TEN[:2] if name == "cifar10" else ["apple", "aquarium_fish"])
    assert train.images.flags.c_contiguous


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_batches_that_python_3_wrote_are_read(protocol, tmp_path):
    def dump(value: Any) -> bytes:
        return pickle.dumps({key.decode(): item for key, item in value.items()}, protocol)

    path = write_python10(tmp_path / "cifar-10-batches-py", dump)
    train, _ = read_dataset("cifar10", str(path))
    np.testing.assert_array_equal(train.images, IMAGES[:10].transpose(0, 2, 3, 1))


def test_the_cache_of_the_original_is_read():
    for path in (DATA / "train" / "cifar10.t7", DATA / "train"):
        train, val = read_dataset("cifar10", str(path))
        assert (len(train), len(val)) == (35, 15)
        assert train.targets == [0, 1, 2, 3, 4, 5, 6] * 5
        table = read_t7(DATA / "train" / "cifar10.t7")
        np.testing.assert_array_equal(val.images[14], np.moveaxis(table["val"]["data"][14], 0, 2))
        assert train.class_names == TEN


def test_a_missing_data_set_is_explained(tmp_path):
    message = (
        r"expected a folder with cifar-10-batches-py/ or cifar-10-python.tar.gz or cifar-10-batches-bin/ or "
        r"cifar-10-binary.tar.gz, or the original's cifar10.t7, but found none of them; get an archive from https://www.cs.toronto"
    )
    with pytest.raises(DataError, match=message):
        read_dataset("cifar10", str(tmp_path))
    write_python10(tmp_path / "cifar-10-batches-py")
    with pytest.raises(DataError, match=r"expected a folder with cifar-100-python"):
        read_dataset("cifar100", str(tmp_path))


def test_a_missing_batch_is_named(tmp_path):
    (write_python10(tmp_path / "cifar-10-batches-py") / "data_batch_3").unlink()
    with pytest.raises(DataError, match=r"cifar-10-batches-py: data_batch_3 missing; get the archive again"):
        read_dataset("cifar10", str(tmp_path))


def test_a_folder_of_images_is_not_taken_for_cifar_100(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="found none of them"):
        read_dataset("cifar100", str(tmp_path))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"labels": [0, 1]}, r"data_batch_1: expected images of 3072 bytes each, found NoneType"),
        ({b"data": rows(IMAGES[:2])}, r"expected 2 labels, one per image, found NoneType"),
        ({b"data": rows(IMAGES[:2]), b"labels": [0]}, r"expected 2 labels, one per image, found 1 label"),
        ({b"data": rows(IMAGES[:2]), b"labels": [0, 10]}, r"expected the numbers of 10 classes, found 10"),
        ({b"data": rows(IMAGES[:2]), b"labels": [0, b"1"]}, r"expected the numbers of 10 classes, found '1'"),
        (
            {b"data": IMAGES[:2, 0].copy().reshape(2, -1), b"labels": [0, 1]},
            r"3072 bytes each, found uint8 \(2, 1024\)",
        ),
        ({b"data": IMAGES[0, 0, 0], b"labels": [0] * 32}, r"found uint8 \(32,\)"),
        ([1], r"expected a dict, found list"),
    ],
)
def test_a_batch_that_holds_something_else_is_named(batch, message, tmp_path):
    path = write_python10(tmp_path / "cifar-10-batches-py")
    (path / "data_batch_1").write_bytes(python2_pickle(batch))
    with pytest.raises(DataError, match=message):
        read_dataset("cifar10", str(tmp_path))


def test_damaged_binary_files_and_archives_are_named(tmp_path):
    path = write_binary10(tmp_path / "a" / "cifar-10-batches-bin")
    archive = packed(path, tmp_path / "cifar-10-binary.tar.gz")
    whole = archive.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", whole[:2000] + b"\0" * 99 + whole[2099:]):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: damaged archive .* download it again from https"):
            read_dataset("cifar10", str(tmp_path))
    (path / "data_batch_2.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(DataError, match=r"data_batch_2.bin: 3072 bytes are not a whole number of records of 3073"):
        read_dataset("cifar10", str(tmp_path / "a"))
    (path / "data_batch_2.bin").write_bytes(b"\x0a" * 3073)
    with pytest.raises(DataError, match=r"data_batch_2.bin: expected the numbers of 10 classes, found 10"):
        read_dataset("cifar10", str(tmp_path / "a"))


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, np.save, bytearray, np.zeros])
def test_a_pickle_that_calls_something_is_refused(function, protocol, tmp_path):
    target = str(tmp_path / "made")
    data = pickle.dumps({"data": Evil(function, target), "labels": []}, protocol)
    with pytest.raises(ValueError, match=r"refused|is in no file of CIFAR"):
        read_pickle(data)
    assert not os.path.exists(target)


def test_a_pickle_cannot_ask_for_memory_that_its_bytes_do_not_have():
    content = rows(IMAGES[:2])
    good = python2_object(content)
    head = b"\x80\x02}q\x01(U\x04data"
    assert read_pickle(head + good + b"u.")["data"].shape == (2, 3072)
    huge = good.replace(python2_object(3072) + b"\x86", python2_object(2**31 - 1) + b"\x86")
    with pytest.raises(ValueError, match="an array of shape"):
        read_pickle(head + huge + b"u.")
    # ten arrays of one string
    [start, end] = good.split(python2_object(content.tobytes()))
    first = start + python2_object(content.tobytes()) + b"q\x63" + end
    many = b"".join(b"U\x01" + b"%d" % k + start + b"h\x63" + end for k in range(10))
    with pytest.raises(ValueError, match="arrays of more bytes than the file has"):
        read_pickle(head + first + many + b"u.")
    with pytest.raises(ValueError, match=r"is in no file of CIFAR|damaged|not enough"):
        read_pickle(b"\x80\x02r\xff\xff\xff\xff.")


BATCH = python2_pickle({b"data": rows(IMAGES[:1]), b"labels": [3], b"filenames": [b"a.png"]})
POSITIONS = st.one_of(st.integers(0, 250), st.integers(len(BATCH) - 60, len(BATCH) - 1), st.integers(0, len(BATCH) - 1))


@settings(max_examples=400, deadline=None)
@given(changes=st.lists(st.tuples(POSITIONS, st.integers(0, 255)), min_size=1, max_size=4), cut=POSITIONS)
def test_a_damaged_pickle_is_an_error_or_plain_data(changes, cut):
    data = bytearray(BATCH)
    for position, value in changes:
        data[position] = value
    for damaged in (bytes(data), bytes(data[:cut])):
        try:
            found = read_pickle(damaged)
        except ValueError:
            continue
        assert isinstance(found, dict)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_an_error_or_plain_data(data):
    try:
        assert isinstance(read_pickle(b"\x80\x02" + data), dict)
    except ValueError as error:
        message = str(error)
        assert message.startswith("byte ")


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_archive_is_an_error_or_whole_data(changes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(write_binary100(folder / "cifar-100-binary"), "cifar-100-binary")
    data = bytearray(buffer.getvalue())
    for position, value in changes:
        data[position % len(data)] = value
    (folder / "cifar-100-binary.tar").write_bytes(bytes(data))
    try:
        train, _ = read_dataset("cifar100", str(folder / "cifar-100-binary.tar"))
    except ResnetToolsError:
        return
    assert train.images.shape == (10, 32, 32, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (lambda: {}, "expected a table of train and val, each of data and labels"),
        (lambda: {"train": {"data": 1, "labels": 2}}, "expected a table of train and val"),
        (
            lambda: cache(IMAGES, [-1] * 12),
            r"t7: the labels are -1 to -1, 1 different ones; expected 1 to 10 or 0 to 9",
        ),
        (lambda: cache(IMAGES, [11] * 12), r"t7: the labels are 11 to 11"),
        (lambda: cache(IMAGES, [1.5] * 12), r"t7: train: expected whole numbers as labels, found \[1.5, "),
        (lambda: cache(IMAGES, [float("inf")] * 12), r"expected whole numbers as labels"),
        (
            lambda: cache(IMAGES[:, :2], [1] * 12),
            r"expected images as bytes, N x 3 x H x W, found uint8 \(12, 2, 32, 32",
        ),
        (lambda: cache(IMAGES, [1] * 11), r"train: has 12 images and 11 labels; expected one for each"),
        (lambda: cache(IMAGES.astype(np.float32), [1] * 12), r"found float32 \(12, 3, 32, 32\)"),
    ],
)
def test_a_t7_that_is_no_cache_is_named(table, message, tmp_path):
    save_t7(table(), tmp_path / "cifar10.t7")
    with pytest.raises(DataError, match=message):
        read_dataset("cifar10", str(tmp_path))


def cache(images: np.ndarray, labels: list[float]) -> dict[str, Any]:
    part = {"data": images, "labels": np.array(labels, np.float64)}
    return {"train": part, "val": part}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("side", "channels", "classes"), [(32, 3, 10), (32, 3, 12), (48, 3, 4), (28, 1, 10)])
def test_a_t7_of_any_side_and_number_of_classes_is_read(tmp_path, first, side, channels, classes):
    images = np.random.default_rng(0).integers(0, 256, (24, channels, side, side), np.uint8)
    targets = [number % classes for number in range(24)]
    save_t7(cache(images, [target + first for target in targets]), tmp_path / "cifar10.t7")
    train, _ = read_dataset("cifar10", str(tmp_path))
    assert list(train.targets) == targets
    assert train.images.shape == (24, side, side, 3)
    np.testing.assert_array_equal(train.images[5][:, :, 2], images[5, -1])
    names = ["class 1", "class 2"] if (side, classes) != (32, 10) else ["airplane", "automobile"]
    assert list(train.class_names[:2]) == names
    assert len(train.class_names) == classes


def test_links_to_nothing_and_in_circles_and_a_damaged_xz_are_damaged_archives(tmp_path):
    for target in ("nothing", "cifar-100-binary/train.bin"):
        with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
            link = tarfile.TarInfo("cifar-100-binary/train.bin")
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        with pytest.raises(DataError, match=r"damaged archive|missing"):
            read_dataset("cifar100", str(tmp_path))
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:xz") as tar:
        tar.add(write_binary100(tmp_path / "x"), "cifar-100-binary")
    whole = (tmp_path / "cifar-100-binary.tar.gz").read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 40)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        (tmp_path / "cifar-100-binary.tar.gz").write_bytes(damaged)
        with contextlib.suppress(DataError):  # a bit in the padding may not matter
            assert read_dataset("cifar100", str(tmp_path))[0].images.shape == (10, 32, 32, 3)

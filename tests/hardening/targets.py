"""Every parser of the package as a target of the fuzzer, with the good files that its inputs are made of."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from resnet_tools import build_resnet, load_checkpoint, read_t7, save_model, save_t7
from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.checkpoints.inspect import inspect_file, report_text
from resnet_tools.checkpoints.onnx_files import OnnxNet
from resnet_tools.data import image, photo_cache
from resnet_tools.data.datasets import read_dataset
from resnet_tools.data.image import load_image, read_image
from resnet_tools.data.labelled import Outputs, labelled_samples
from resnet_tools.data.labels import read_labels
from resnet_tools.data.photographs import photograph
from resnet_tools.data.pickled import read_pickle
from resnet_tools.data.transforms import CIFAR10
from resnet_tools.features.store import FeatureStore
from resnet_tools.history.history import Epoch, read_history, write_history
from resnet_tools.history.training_log import read_run
from resnet_tools.nets.resnet import ResNet
from resnet_tools.torch7.lua import LuaObject, LuaTable, T7Storage, T7Tensor
from tests.hardening.fuzzing import Target
from tests.hardening.mutations import GENERAL, TEXT, after_a_length, change_json, inside_a_line, inside_a_zip
from tests.support.golden import DATA

torch.set_num_threads(
    1
)  # threads of a pool that the parent started do not exist in its children, which would wait for them

SMALL_BYTES = 100_000
LABELLED = 6  # images in the folder whose labels are fuzzed


def _files(*patterns: str, most_bytes: int = SMALL_BYTES) -> list[bytes]:
    found = sorted(path for pattern in patterns for path in DATA.glob(pattern))
    seeds = [path.read_bytes() for path in found if path.is_file() and 0 < path.stat().st_size <= most_bytes]
    assert seeds, patterns
    return seeds


@functools.cache
def _small_checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    model: ResNet = build_resnet(depth=8, dataset="cifar10").eval()
    return Checkpoint(model, model.architecture, [f"name {k}" for k in range(10)], CIFAR10, "new")


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def _saved_by_torch(content: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


# Lua Torch


def _read_and_write_t7(path: Path) -> None:
    """A value that can be written is read back as what writes the same bytes."""
    value = read_t7(path)
    _touch(value)
    copy, again = path.with_suffix(".copy"), path.with_suffix(".again")
    save_t7(value, copy)
    save_t7(read_t7(copy), again)
    assert copy.read_bytes() == again.read_bytes(), "a written value is read back as another"


def _touch(root: Any) -> None:
    """Read the first and the last element of every tensor, which lie in the file's own bytes."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, (T7Tensor, T7Storage)) and value.size:
            str(value.flat[0]), str(value.flat[-1])
        elif isinstance(value, LuaTable):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, LuaObject):
            waiting.append(value.fields)


def _t7_nets() -> list[bytes]:
    small = _written("a.t7", lambda path: save_t7(_lua_net(), path))
    return [small, _written("a.t7", lambda path: save_t7({"model": _lua_net(), "classes": ["a"] * 10}, path))]


@functools.cache
def _lua_net() -> Any:
    from resnet_tools.checkpoints.convert import Target as Output
    from resnet_tools.checkpoints.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        save_model(narrow_cifar_net(), Path(folder) / "a.pt")
        convert(Path(folder) / "a.pt", Output(Path(folder) / "a.t7"))
        return read_t7(Path(folder) / "a.t7")


def narrow_cifar_net() -> Checkpoint:
    from dataclasses import replace

    architecture = replace(_small_checkpoint().architecture, stem_width=2, widths=(2, 4, 8), inner_widths=(2, 4, 8))
    torch.manual_seed(0)
    model = build_resnet(architecture).eval()
    return Checkpoint(model, architecture, [f"name {k}" for k in range(10)], CIFAR10, "new")


def _load_net(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    with torch.inference_mode():
        checkpoint.model(torch.zeros(1, 3, 32, 32))


def _inspect(path: Path) -> None:
    report = inspect_file(path)
    json.dumps(report.to_dict())
    report_text(report)


# PyTorch, safetensors, ONNX


def _tensor_file(path: Path) -> None:
    _inspect(path)
    _load_net(path)


def _pt_seeds(*, zipped: bool) -> list[bytes]:
    checkpoint = narrow_cifar_net()
    state = checkpoint.model.state_dict()
    plain = [_saved_by_torch(state, zipped=zipped), _saved_by_torch({"model": state, "epoch": 3}, zipped=zipped)]
    return [*plain, _written("a.pt", lambda path: save_model(checkpoint, path))] if zipped else plain


def _safetensors_seeds() -> list[bytes]:
    return [_written("a.safetensors", lambda path: save_model(narrow_cifar_net(), path))]


def _onnx_seeds() -> list[bytes]:
    from resnet_tools.checkpoints.convert import Target as Output
    from resnet_tools.checkpoints.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        save_model(narrow_cifar_net(), Path(folder) / "a.pt")
        convert(Path(folder) / "a.pt", Output(Path(folder) / "a.onnx"))
        return [(Path(folder) / "a.onnx").read_bytes()]


def _onnx(path: Path) -> None:
    net = OnnxNet(path)
    net(torch.zeros(1, 3, 32, 32))


# Images


def _image_seeds() -> list[bytes]:
    return [*_files("images/*", most_bytes=20_000), *_made_images()]


def _made_images() -> list[bytes]:
    from PIL import Image

    y, x = np.mgrid[0:24, 0:40]
    picture = Image.fromarray(np.stack([x * 6, y * 10, x + y], 2).astype(np.uint8))
    made = []
    for form, options in (
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
        ("GIF", {}),
        ("JPEG", {"exif": b"Exif\0\0II*\0"}),
    ):
        buffer = io.BytesIO()
        picture.save(buffer, form, **options)
        made.append(buffer.getvalue())
    return made


def _load_with_both(path: Path) -> None:
    load_image(path, exif=True)
    photograph(read_image(path), exif=True).scaled(8, 8)


def _photo_copies() -> list[bytes]:
    """What `--cache` keeps of two images, under the name that the target has."""
    from PIL import Image

    made = []
    for mode in ("RGB", "L"):
        with tempfile.TemporaryDirectory() as name:
            Image.effect_noise((60, 80), 64).convert(mode).save(f"{name}/a.jpg")
            os.utime(f"{name}/a.jpg", ns=(1, 1))
            cache = photo_cache.open_cache(Path(name, "cache"), 32, exif=True)
            cache.photograph(f"{name}/a.jpg")
            [copy] = cache.folder.glob("*.copy")
            made.append(copy.read_bytes())
    return made


def _photo_copy(path: Path) -> None:
    """What lies behind the checksum is not to be trusted either."""
    rest = path.read_bytes()[photo_cache.DIGEST_BYTES :]
    path.write_bytes(photo_cache._digest(path.name, rest) + rest)
    size, changed_ns = photo_cache.HEADER.unpack_from(rest.ljust(photo_cache.HEADER.size, b"\0"))[:2]
    cache = photo_cache.PhotoCache(path.parent, 32, True, 0)
    found = cache._kept(path.name, SimpleNamespace(st_size=size, st_mtime_ns=changed_ns))  # type: ignore[arg-type]
    assert found is None or min(found.scaled(8, 8).pixels.shape[:2]) == 32


def _load_with_pillow(path: Path) -> None:
    codec = image._decode_plain_jpeg
    image._decode_plain_jpeg = lambda _: None  # type: ignore[assignment]
    try:
        load_image(path)
    finally:
        image._decode_plain_jpeg = codec


# Data sets and lists


def _pickles() -> list[bytes]:
    batch = {
        b"data": np.zeros((2, 3072), np.uint8),
        b"labels": [1, 2],
        b"batch_label": b"one",
        b"filenames": [b"a", b"b"],
    }
    return [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]


def _pickle(path: Path) -> None:
    with suppress(ValueError):  # its callers say in which file
        read_pickle(path.read_bytes())


def _cifar_seeds() -> list[bytes]:
    record = bytes([3]) + bytes(range(256)) * 12
    names = b"\n".join(b"name%d" % k for k in range(10)) + b"\n"
    files = {f"data_batch_{k}.bin": record * 2 for k in range(1, 6)} | {
        "test_batch.bin": record,
        "batches.meta.txt": names,
    }
    made = []
    for mode in ("w:gz", "w", "w:xz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
            for name, content in files.items():
                entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        made.append(buffer.getvalue())
    return made


def _cifar_t7_seeds() -> list[bytes]:
    split = {"data": np.zeros((4, 3, 32, 32), np.uint8), "labels": np.array([0, 1, 2, 9], np.uint8)}
    return [_written("cifar10.t7", lambda path: save_t7({"train": split, "val": split}, path))]


def _cifar(path: Path) -> None:
    train, val = read_dataset("cifar10", str(path))
    assert len(train.class_names) > max([*train.targets, *val.targets, 0])


def _label_lists() -> list[bytes]:
    names = [f"name {k}" for k in range(10)]
    forms = ("{v}\n", "{v} {k}\n", "{k}: {v}\n", "{k},{v}\n", "n0144076{k} {v}, other\n")
    return [
        *("".join(form.format(k=k, v=v) for k, v in enumerate(names)).encode() for form in forms),
        json.dumps(names).encode(),
        json.dumps({str(k): [f"n{k}", v] for k, v in enumerate(names)}).encode(),
        repr(dict(enumerate(names))).encode(),
    ]


def _path_lists() -> list[bytes]:
    numbers = range(LABELLED)
    lines = ["".join(f"{k}.png{mark}{k % 2}\n" for k in numbers) for mark in (",", " ", "\t")]
    lines += ["image,label\n" + lines[0], "".join(f"{'ab'[k % 2]}\n" for k in numbers), '"0.png","a"\n"1.png","b"\n']
    return [text.encode() for text in lines]


def _labels_of_images(path: Path) -> None:
    for k in range(LABELLED):
        (path.parent / "val").mkdir(exist_ok=True)
        (path.parent / "val" / f"{k}.png").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labelled_samples(path.parent / "val", Outputs(2, ["a", "b"]), labels=path)


# Runs


def _histories() -> list[bytes]:
    epochs = [Epoch(k, 0.1, 2.5, 80.0, 50.0, 2.4, 79.0, 48.0, 12.5, 100.0) for k in range(1, 4)]
    return [_written("history.csv", lambda path: write_history(epochs, path))]


def _logs() -> list[bytes]:
    return _files("evaluation/*.stdout", "evaluation/*.log.gz")


@functools.cache
def _run_files() -> dict[str, bytes]:
    """What a training of two batches writes."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("train/a", "train/b", "val/a", "val/b"):
            (folder / place).mkdir(parents=True)
            Image.new("RGB", (40, 40), (len(place), 30, 90)).save(folder / place / "1.png")
        save_model(narrow_imagenet_net(), folder / "net.pt")
        words = (
            f"train --data {name} --retrain {name}/net.pt --reset-classifier --n-epochs 1 --batch-size 2 --crop-size 32"
        )
        options = f"--resize-size 36 --workers 0 --save {name}/run --augment none --quiet --no-check"
        # Not in this process: children that it forks would wait for the threads of its pools.
        command = [sys.executable, "-m", "resnet_tools", *words.split(), *options.split()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {path.name: path.read_bytes() for path in (folder / "run").iterdir() if path.is_file()}


def narrow_imagenet_net() -> Checkpoint:
    from dataclasses import replace

    from resnet_tools.data.transforms import IMAGENET

    whole = build_resnet("resnet-18", num_classes=2).architecture
    net = replace(whole, stages=(1, 1, 1, 1), stem_width=2, widths=(2, 4, 6, 8), inner_widths=(2, 4, 6, 8))
    return Checkpoint(build_resnet(net).eval(), net, ["a", "b"], IMAGENET, "new")


def _load_run(path: Path) -> None:
    from resnet_tools.training.saving import load_state

    for name, content in _run_files().items():
        if not (path.parent / name).exists():
            (path.parent / name).write_bytes(content)
    load_state(path.parent)


# Unfinished features


@functools.cache
def _store_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "f.npy"
        with FeatureStore(output, np.dtype(np.float32)) as store:
            store.begin({"layer": "flatten", "files": 9}, resume=True)
            store.open()
            for number in range(3):
                store.add(number, np.full((3, 2), number, np.float32), {1: "bad"} if number == 1 else {})
        inside = Path(folder) / ".f.npy.unfinished"
        return {name: (inside / name).read_bytes() for name in ("job.json", "log-0", "rows-0")}


def _store(path: Path) -> None:
    """Whatever one file of it holds: what is found whole are rows of the batch of that number."""
    inside = path.parent
    for name, content in _store_files().items():
        if not (inside / name).exists():
            (inside / name).write_bytes(content)
    with FeatureStore(inside.parent / "f.npy", np.dtype(np.float32)) as store:
        store.begin({"layer": "flatten", "files": 9}, resume=True)
        done = store.open()
        if path.name != "log-0":  # a log with another sum and other rows is another log
            rows, crc = store.collect(done)
            assert crc == zlib.crc32(np.ascontiguousarray(rows).tobytes()), "the sum is not that of the rows"
            for number, batch in done.items():
                assert (rows[3 * number : 3 * number + batch.count] == number).all(), "rows of another batch"


def _seed(files: Callable[[], dict[str, bytes]], name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [next(content for key, content in files().items() if key.startswith(name))]


READER = ("torch7/t7.py", "torch7/reader.py", "torch7/payloads.py", "torch7/byte_reader.py")
NET = ("torch7/modules.py", "torch7/outline.py", "torch7/template.py", "torch7/weights.py")
LOADER = ("checkpoints/checkpoint.py", "checkpoints/tensor_files.py", "nets/state_dict.py", "nets/architecture.py")
CIFAR = ("data/cifar.py", "data/datasets.py")
IMAGE = ("data/image.py", "data/image_formats.py")
SAVING = ("training/saving.py",)
STORE = ("features/store.py",)
IN_A_ZIP = (inside_a_zip(GENERAL),)
A_LOG = (change_json, inside_a_line(change_json))

TARGETS: dict[str, Target] = {
    "t7": Target(_read_and_write_t7, lambda: _files("t7/*.t7"), "a.t7", (*READER, "torch7/fast_reader.py")),
    "t7-ascii": Target(
        _read_and_write_t7, lambda: _files("t7/*.ascii.t7"), "a.t7", (*READER, "torch7/ascii_reader.py"), TEXT
    ),
    "t7-net": Target(_load_net, _t7_nets, "a.t7", NET),
    "inspect": Target(_inspect, _t7_nets, "a.t7", ("checkpoints/inspect.py", "torch7/printing.py")),
    "pt": Target(_tensor_file, lambda: _pt_seeds(zipped=True), "a.pt", LOADER, IN_A_ZIP),
    "pt-legacy": Target(_tensor_file, lambda: _pt_seeds(zipped=False), "a.pth", LOADER),
    "safetensors": Target(_tensor_file, _safetensors_seeds, "a.safetensors", LOADER, (after_a_length(change_json),)),
    "onnx": Target(_onnx, _onnx_seeds, "a.onnx", ("checkpoints/onnx_files.py",)),
    "image": Target(_load_with_both, _image_seeds, "a.png", IMAGE),
    "image-pillow": Target(_load_with_pillow, _image_seeds, "a.png", IMAGE),
    "photo-copy": Target(_photo_copy, _photo_copies, "a.copy", ("data/photo_cache.py",)),
    "pickle": Target(_pickle, _pickles, "a.pkl", ("data/pickled.py",), TEXT),
    "cifar": Target(_cifar, _cifar_seeds, "cifar-10-binary.tar.gz", CIFAR),
    "cifar-t7": Target(_cifar, _cifar_t7_seeds, "cifar10.t7", CIFAR),
    "labels": Target(read_labels, _label_lists, "labels.txt", ("data/labels.py",), (*TEXT, change_json)),
    "lists": Target(_labels_of_images, _path_lists, "a.csv", ("data/label_files.py", "data/labelled.py"), TEXT),
    "history": Target(read_history, _histories, "history.csv", ("history/history.py",), TEXT),
    "log": Target(read_run, _logs, "training.log", ("history/training_log.py",), TEXT),
    "run-state": Target(_load_run, _seed(_run_files, "optimState"), "optimState_1.pt", SAVING, IN_A_ZIP),
    "run-latest": Target(_load_run, _seed(_run_files, "latest"), "latest.pt", SAVING, IN_A_ZIP),
    "store-job": Target(_store, _seed(_store_files, "job"), ".f.npy.unfinished/job.json", STORE, (change_json,)),
    "store-log": Target(_store, _seed(_store_files, "log"), ".f.npy.unfinished/log-0", STORE, A_LOG),
    "store-rows": Target(_store, _seed(_store_files, "rows"), ".f.npy.unfinished/rows-0", STORE),
}

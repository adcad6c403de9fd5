"""`resnet extract-features`: the original's values, row k is file k, and no stop loses more than a batch."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_tools import load_checkpoint, preprocess, read_t7
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.compute.inference import Loading, prepare
from resnet_tools.compute.processes import Processes
from resnet_tools.data.transforms import IMAGENET
from resnet_tools.errors import FeatureError, ImageError
from resnet_tools.features.extract import Extraction
from resnet_tools.features.layers import FeatureKind, features_of, layer_shapes, may_fold
from tests.support.demo_images import PHOTOS
from tests.support.golden import GOLDEN, needs_golden

IMAGES = DEMO_PATH.parent / "images"
CPU = torch.device("cpu")


def extract(*arguments: object, cwd: Path, code: int = 0, input: str = "") -> subprocess.CompletedProcess[str]:
    """The command in this process, which need not import torch anew."""
    command = ["extract-features", *map(str, arguments)]
    out, errors = io.StringIO(), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(input.encode()))
    with redirect_stdout(out), redirect_stderr(errors), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        patch.chdir(cwd)
        found = run(command)
    assert found == code, errors.getvalue()
    return subprocess.CompletedProcess(command, found, out.getvalue(), errors.getvalue())


def extract_apart(*arguments: object, cwd: Path, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "resnet_tools", "extract-features", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False, **options)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


def saved(path: Path) -> dict[str, object]:
    return torch.load(path, weights_only=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with 23 images in `photos`."""
    (tmp_path / "photos").mkdir()
    for number in range(23):
        shutil.copy(PHOTOS[number % len(PHOTOS)], tmp_path / "photos" / f"{number:03}.png")
    return tmp_path


def golden_runs() -> list[dict[str, object]]:
    if not GOLDEN.is_dir():
        return []
    runs = json.loads((GOLDEN / "scripts" / "scripts.json").read_text())
    return [r for r in runs if r.get("features_t7") and "negative" not in r["name"] and "empty" not in r["name"]]


@needs_golden
@pytest.mark.parametrize("golden", golden_runs(), ids=lambda run: run["name"])
def test_features_are_those_of_the_original(golden, tmp_path):
    for name in ("images", "models"):
        (tmp_path / name).symlink_to(GOLDEN / name)
    expected = read_t7(GOLDEN / "scripts" / golden["features_t7"])
    paths = [os.fsdecode(path).replace("//", "/") for path in expected["image_list"].to_list()]
    theirs = dict(zip(paths, expected["features"], strict=True))
    if "batchdir" in next(iter(theirs)):
        (tmp_path / "batchdir").mkdir()
        for path in theirs:
            shutil.copy(GOLDEN / "images" / Path(path).name, tmp_path / path)
    arguments = ["4" if a == "0x4" else a for a in golden["args"]]
    done = extract(*arguments, cwd=tmp_path)
    assert done.stdout == "saved features to features.pt\n"
    ours = saved(tmp_path / "features.pt")
    found = dict(zip((p.replace("//", "/") for p in ours["image_list"]), ours["features"].numpy(), strict=True))
    assert set(found) == set(theirs)
    if "batchdir" not in arguments[-1]:
        assert list(found) == list(theirs)
    largest = np.abs(expected["features"]).max()
    for path, row in theirs.items():
        assert np.abs(found[path] - row).max() <= 1e-4 * largest


def test_row_k_is_file_k_in_the_order_of_bytes(folder):
    extract("demo", "--dir", "photos", "--batch-size", "4", cwd=folder)
    result = saved(folder / "features.pt")
    assert result["image_list"] == [f"photos/{n:03}.png" for n in range(23)]
    model = prepare(load_checkpoint().model, CPU)
    for number in (0, 7, 22):
        alone = features_of(model, preprocess(folder / result["image_list"][number])[None], FeatureKind())
        torch.testing.assert_close(result["features"][number], alone[0], rtol=1e-6, atol=1e-6)
    assert result["architecture"]["stages"] == [2, 2, 2, 2]
    assert not list(folder.glob(".*"))


def test_all_ways_to_name_the_images_give_the_same(folder):
    names = [f"photos/{n:03}.png" for n in range(23)]
    (folder / "list.txt").write_text("\r\n".join(names), "utf-8-sig")  # as Windows writes it
    for number, arguments in enumerate(
        (["photos"], ["8", "photos"], ["--dir", "photos"], names, ["--from-file", "list.txt"], ["--from-file", "-"])
    ):
        stdin = "\n".join(names) if arguments[-1] == "-" else ""
        extract("demo", *arguments, "--output", f"{number}.npy", cwd=folder, input=stdin)
        assert (folder / f"{number}.npy").read_bytes() == (folder / "0.npy").read_bytes()
        assert (folder / f"{number}.paths.txt").read_text().splitlines() == names


def read_back(path: Path) -> tuple[np.ndarray, list[str]]:
    if path.suffix == ".pt":
        result = saved(path)
        return result["features"].numpy(), result["image_list"]
    if path.suffix.lower() == ".npy":
        return np.load(path), path.with_suffix(".paths.txt").read_text().splitlines()
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return archive["features"], [os.fsdecode(name) for name in archive["image_list"]]
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="np") as file:
            return file.get_tensor("features"), json.loads(file.metadata()["image_list"])
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path).to_pydict()
        return np.array(table["features"], np.float32), table["path"]
    if path.suffix == ".csv":
        _, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
        return np.array([line[1:] for line in lines], np.float64).astype(np.float32), [line[0] for line in lines]
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path) as file:
            assert json.loads(file["provenance"][()])["layer"] == "flatten"
            return file["features"][:], file["image_list"].asstr()[:].tolist()
    table = read_t7(path)
    return np.asarray(table["features"]), [os.fsdecode(name) for name in table["image_list"].to_list()]


@pytest.mark.parametrize("ending", [".pt", ".NPY", ".npz", ".safetensors", ".parquet", ".csv", ".h5", ".t7"])
def test_every_format_holds_the_same(folder, ending):
    extract("demo", "photos", "--output", "expected.pt", cwd=folder)
    extract("demo", "photos", "--output", f"found{ending}", cwd=folder)
    expected, found = read_back(folder / "expected.pt"), read_back(folder / f"found{ending}")
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]
    assert found[0].dtype == np.float32


def test_an_unknown_ending_is_refused_before_any_work(folder):
    done = extract("demo", "photos", "--output", "features.xyz", cwd=folder, code=1)
    assert "the extension '.xyz' is unknown" in done.stderr
    assert sorted(os.listdir(folder)) == ["photos"]


def test_a_path_with_a_newline_is_refused_before_any_work_where_the_format_cannot_hold_it(folder):
    shutil.copy(PHOTOS[0], folder / "photos" / "new\nline.png")
    shutil.copy(PHOTOS[0], os.fsencode(folder / "photos") + b"/l\xe9.png")
    done = extract("demo", "photos", "--output", "features.npy", cwd=folder, code=1)
    assert "'photos/new\\nline.png' holds a newline" in done.stderr
    assert sorted(os.listdir(folder)) == ["photos"]
    for ending in (".pt", ".npz", ".t7"):
        extract("demo", "photos", "--output", f"features{ending}", cwd=folder)
        assert read_back(folder / f"features{ending}")[1][-2:] == ["photos/l\udce9.png", "photos/new\nline.png"]


def test_layers_pooling_length_and_type(folder):
    listed = extract("demo", "--list-layers", cwd=folder).stdout.splitlines()
    assert "layer3\t32x14x14" in listed
    assert listed[-2:] == ["flatten\t64", "fc\t10"]
    extract("demo", "photos", "--layer", "layer3", cwd=folder)
    pooled = saved(folder / "features.pt")["features"]
    extract("demo", "photos", "--layer", "layer3", "--pool", "none", cwd=folder)
    maps = saved(folder / "features.pt")["features"]
    assert maps.shape == (23, 32, 14, 14)
    torch.testing.assert_close(maps.mean((2, 3)), pooled, rtol=1e-5, atol=1e-6)
    extract("demo", "photos", "--l2-normalize", "--dtype", "float16", cwd=folder)
    rows = saved(folder / "features.pt")["features"]
    assert rows.dtype == torch.float16
    torch.testing.assert_close(rows.float().norm(dim=1), torch.ones(23), rtol=1e-2, atol=1e-2)
    done = extract("demo", "photos", "--layer", "layer9", cwd=folder, code=2)
    assert "--layer 'layer9' is not in this net" in done.stderr


@pytest.mark.parametrize(
    "layer", ["conv1", "bn1", "layer1.0.conv1", "layer2.0.downsample.0", "layer4.1", "avgpool", "fc"]
)
def test_each_layer_gives_what_the_plain_net_gives(layer):
    images = torch.stack([preprocess(path) for path in PHOTOS[:2]])
    plain = load_checkpoint().model
    outputs = {}
    hook = plain.get_submodule(layer).register_forward_hook(lambda m, i, output: outputs.update(x=output.clone()))
    with torch.inference_mode():
        plain(images)
    hook.remove()
    expected = outputs["x"]
    net = prepare(plain, CPU, fold=may_fold(layer))
    found = features_of(net, images, FeatureKind(layer, "none"))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert layer_shapes(net, 224)[layer] == tuple(expected.shape[1:])


def test_ten_crops_are_averaged(folder):
    extract("demo", PHOTOS[0], "--ten-crop", cwd=folder)
    found = saved(folder / "features.pt")["features"]
    from resnet_tools.data.transforms import ten_crops

    expected = features_of(prepare(load_checkpoint().model, CPU), ten_crops(PHOTOS[0]), FeatureKind()).mean(0)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("on_error", ["skip", "zero", "fail"])
def test_an_unreadable_image_never_shifts_the_rows(folder, on_error):
    extract("demo", "photos", "--output", "whole.pt", cwd=folder)
    whole = saved(folder / "whole.pt")["features"]
    for bad in ("000.png", "005.png", "022.png"):
        (folder / "photos" / bad).write_bytes(b"no image")
    code = 1 if on_error == "fail" else 0
    done = extract("demo", "photos", "--on-error", on_error, "--batch-size", "3", cwd=folder, code=code)
    assert "photos/000.png" in done.stderr
    if on_error == "fail":
        assert not (folder / "features.pt").exists()
        return
    result = saved(folder / "features.pt")
    assert [path for path, _ in result["errors"]] == [f"photos/{n}.png" for n in ("000", "005", "022")]
    assert "3 of 23 images could not be read." in done.stderr
    assert len(result["image_list"]) == len(result["features"]) == (20 if on_error == "skip" else 23)
    for path, row in zip(result["image_list"], result["features"], strict=True):
        number = int(Path(path).stem)
        expected = torch.zeros(64) if number in (0, 5, 22) else whole[number]
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-6)


def test_only_unreadable_images_give_an_error_and_no_output(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    done = extract("demo", "a.png", "b.png", cwd=tmp_path, code=1)
    assert "none of the 2 images could be used" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


def started(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "resnet_tools",
        "extract-features",
        "demo",
        "photos",
        "--batch-size",
        "1",
        *arguments,
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_rows(folder: Path, rows: int) -> None:
    log = folder / ".features.pt.unfinished" / "log-0"
    for _ in range(3000):
        if log.exists() and log.read_bytes().count(b"\n") >= rows:
            return
        time.sleep(0.01)
    raise AssertionError("no progress")


def wait_for_shard(folder: Path, process: subprocess.Popen[bytes], number: int = 0) -> None:
    while not (folder / f".part-0000{number}.npy.done").exists():
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"it ended before it was stopped: {process.stderr.read().decode()}")
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(folder, sent, code):
    for number in range(23, 120):
        shutil.copy(PHOTOS[number % len(PHOTOS)], folder / "photos" / f"{number:03}.png")
    (folder / "photos" / "050.png").write_bytes(b"no image")
    extract("demo", "photos", "--batch-size", "1", "--output", "expected/features.pt", cwd=make(folder, "expected"))
    for rows in sorted(random.Random(code).sample(range(1, 100), 2)):
        with started(folder) as process:
            wait_for_rows(folder, rows)
            process.send_signal(sent)
            assert process.stderr is not None
            errors = process.stderr.read().decode()
        assert process.returncode == code
        assert "Traceback" not in errors
        assert ("give the same command again" in errors) == (sent != signal.SIGKILL)
    done = len((folder / ".features.pt.unfinished" / "log-0").read_bytes().splitlines())
    assert done >= 1
    extract("demo", "photos", "--batch-size", "1", cwd=folder)
    assert (folder / "features.pt").read_bytes() == (folder / "expected" / "features.pt").read_bytes()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_stopped_inside_its_first_batch_goes_on_and_gives_the_same_bytes(folder, processes):
    big = ["--layer", "layer1", "--pool", "none", "--batch-size", "8"]  # the rows of a batch are larger than the limit
    extract("demo", "photos", *big, "--output", "expected/features.pt", cwd=make(folder, "expected"))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launcher * (processes > 1), "-m", "resnet_tools", "extract-features", "demo", "photos"]
    failed = subprocess.run([*command, *big], cwd=folder, preexec_fn=limit, capture_output=True, timeout=120)
    assert failed.returncode == 1
    unfinished = folder / ".features.pt.unfinished"
    assert (unfinished / "rows-0").stat().st_size == 100_000
    assert not (unfinished / "log-0").exists()
    subprocess.run([*command, *big], cwd=folder, check=True, capture_output=True, timeout=120)
    assert (folder / "features.pt").read_bytes() == (folder / "expected" / "features.pt").read_bytes()


def test_sigterm_while_an_image_is_decoded_stops_the_run_and_leaves_no_error_in_it(folder):
    code = (
        "import os, signal, sys; from resnet_tools.data import image; from resnet_tools.__main__ import main; "
        "decode, count = image._decode, iter(range(99)); "
        "image._decode = lambda *a: (os.kill(os.getpid(), signal.SIGTERM) if next(count) == 5 else 0, decode(*a))[1]; "
        "main()"
    )
    options = ["--workers", "0", "--batch-size", "4"]
    command = [sys.executable, "-c", code, "extract-features", "demo", "photos", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 143
    assert "give the same command again" in done.stderr
    assert "damaged" not in done.stderr
    extract("demo", "photos", *options, cwd=folder)
    assert saved(folder / "features.pt")["errors"] == []


def make(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder


def test_another_job_is_refused_with_what_differs(folder):
    with started(folder) as process:
        wait_for_rows(folder, 2)
        process.kill()
    done = extract("demo", "photos", "--batch-size", "1", "--ten-crop", cwd=folder, code=1)
    assert "a different ten_crop: False, now True" in done.stderr
    done = extract("demo", "photos/001.png", "--batch-size", "1", cwd=folder, code=1)
    assert "a different files: 23, now 1" in done.stderr
    extract("demo", "photos/001.png", "--no-resume", cwd=folder)
    assert saved(folder / "features.pt")["image_list"] == ["photos/001.png"]


@pytest.mark.parametrize("lost", ["rows-0", "job.json"])
def test_what_is_left_of_a_removed_folder_is_never_taken_for_rows(folder, lost):
    extract("demo", "photos", "--batch-size", "1", "--output", "expected/features.pt", cwd=make(folder, "expected"))
    with started(folder) as process:
        wait_for_rows(folder, 2)
        process.kill()
    (folder / ".features.pt.unfinished" / lost).unlink()
    extract("demo", "photos", "--batch-size", "1", cwd=folder)
    assert (folder / "features.pt").read_bytes() == (folder / "expected" / "features.pt").read_bytes()


def test_shards_hold_the_rows_in_order(folder):
    extract("demo", "photos", "--output", "whole.npy", "--batch-size", "5", cwd=folder)
    done = extract("demo", "photos", "--output", "part.npy", "--shard-size", "10", "--batch-size", "5", cwd=folder)
    assert done.stdout == "saved features to part.index.json\n"
    index = json.loads((folder / "part.index.json").read_text())
    assert [shard["file"] for shard in index["shards"]] == [f"part-0000{n}.npy" for n in range(3)]
    rows = np.concatenate([np.load(folder / shard["file"]) for shard in index["shards"]])
    np.testing.assert_allclose(rows, np.load(folder / "whole.npy"), rtol=1e-5, atol=1e-6)
    assert not list(folder.glob(".*"))


def test_a_killed_run_over_shards_goes_on_and_gives_the_same_bytes(folder):
    for number in range(23, 90):
        shutil.copy(PHOTOS[number % len(PHOTOS)], folder / "photos" / f"{number:03}.png")
    for number in range(40, 60):  # a whole shard
        (folder / "photos" / f"{number:03}.png").write_bytes(b"no image")
    options = ["--shard-size", "20", "--output", "part.npy"]
    make(folder, "whole")
    extract("demo", "photos", "--batch-size", "1", *options[:3], "whole/part.npy", cwd=folder)
    with started(folder, *options) as process:
        wait_for_shard(folder, process)
        process.kill()
    assert not (folder / "part.index.json").exists()
    first = (folder / "part-00000.npy").stat().st_mtime_ns
    extract("demo", "photos", "--batch-size", "1", *options, cwd=folder)
    assert (folder / "part-00000.npy").stat().st_mtime_ns == first  # not computed again
    names = sorted(path.name for path in folder.glob("part*"))
    assert len(names) == 16  # five shards with their paths and provenance, and the index
    for name in names:
        assert (folder / name).read_bytes() == (folder / "whole" / name).read_bytes()
    assert len(np.load(folder / "part-00002.npy")) == 0


@pytest.mark.parametrize("name", ["part-00000.npy", "part-00000.paths.txt"])
def test_a_finished_shard_that_changed_is_computed_again(folder, name):
    options = ["--batch-size", "1", "--shard-size", "10", "--output"]
    extract("demo", "photos", *options, "whole/part.npy", cwd=make(folder, "whole"))
    with started(folder, *options[2:], "part.npy") as process:
        wait_for_shard(folder, process)
        process.kill()
    (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"?")
    extract("demo", "photos", *options, "part.npy", cwd=folder)
    assert (folder / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_n_gpu_starts_the_processes(folder):
    extract_apart("demo", "photos", "--batch-size", "4", "--output", "one.npy", cwd=folder)
    options = ["--n-gpu", "2", "--device", "cpu", "--output", "two.npy"]
    done = extract_apart("demo", "photos", "--batch-size", "4", *options, cwd=folder)
    assert done.stdout == "saved features to two.npy\n"
    np.testing.assert_allclose(np.load(folder / "two.npy"), np.load(folder / "one.npy"), rtol=0, atol=1e-5)
    assert (folder / "two.paths.txt").read_bytes() == (folder / "one.paths.txt").read_bytes()


def test_a_job_on_another_kind_of_device_is_another_job(folder):
    with started(folder) as process:
        wait_for_rows(folder, 1)
        process.kill()
    job = folder / ".features.pt.unfinished" / "job.json"
    content = json.loads(job.read_text())
    assert content["device"] == "cpu"
    job.write_text(json.dumps(content | {"device": "cuda"}))
    failed = extract("demo", "photos", "--batch-size", "1", cwd=folder, code=1)
    assert "device" in failed.stderr


def test_two_processes_write_the_same_file_as_one(folder):
    (folder / "photos" / "009.png").write_bytes(b"no image")
    extract("demo", "photos", "--batch-size", "4", "--output", "one/features.pt", cwd=make(folder, "one"))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "resnet_tools",
    ]
    command += ["extract-features", "demo", "photos", "--batch-size", "4"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "saved features to features.pt\n"
    assert (folder / "features.pt").read_bytes() == (folder / "one" / "features.pt").read_bytes()


def test_processes_with_different_files_are_refused():
    other = Processes(1, 2, gather=lambda value: [value, "another list"])
    job = Extraction(load_checkpoint().model, FeatureKind(), Loading(IMAGENET), {}, processes=other)
    with pytest.raises(FeatureError, match="have different files or options"):
        job.run(PHOTOS, Path("features.pt"), None, lambda *_: None)


def test_a_shard_from_before_no_resume_is_computed_again(folder):
    options = ["--shard-size", "10", "--output", "part.npy", "--batch-size", "1"]
    with started(folder, *options) as process:
        wait_for_shard(folder, process, 1)
        process.kill()
    shutil.copy(PHOTOS[5], folder / "photos" / "012.png")
    (folder / "photos" / "000.png").write_bytes(b"no image")
    failed = extract("demo", "photos", *options, "--no-resume", "--on-error", "fail", cwd=folder, code=1)
    assert "photos/000.png" in failed.stderr
    assert not list(folder.glob(".part*.done"))


def test_a_full_disk_keeps_the_earlier_output_and_what_is_done(folder):
    extract("demo", "photos/001.png", cwd=folder)
    earlier = (folder / "features.pt").read_bytes()
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # noqa: E731
    done = extract_apart("demo", "photos", "--batch-size", "2", cwd=folder, code=1, preexec_fn=limit)
    assert "cannot be written" in done.stderr
    assert (folder / "features.pt").read_bytes() == earlier
    extract("demo", "photos", "--batch-size", "2", cwd=folder)
    assert len(saved(folder / "features.pt")["image_list"]) == 23


def test_a_folder_that_does_not_exist_is_named(folder):
    done = extract("demo", "photos", "--output", "no/features.pt", cwd=folder, code=1)
    assert "no/features.pt: cannot be written: there is no folder no\n" in done.stderr


def test_it_works_on_a_system_without_fcntl(folder):
    code = "import sys; sys.modules['fcntl'] = None; from resnet_tools.__main__ import main; main()"
    command = [sys.executable, "-c", code, "extract-features", "demo", "photos", "--output"]
    done = subprocess.run([*command, "found.npy"], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    extract("demo", "photos", "--output", "expected.npy", cwd=folder)
    assert (folder / "found.npy").read_bytes() == (folder / "expected.npy").read_bytes()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("ending", [".npy", ".csv"])
def test_formats_without_room_for_it_get_their_provenance_beside_them(folder, ending):
    (folder / "photos" / "005.png").write_bytes(b"no image")
    extract("demo", "photos", "--output", f"features{ending}", cwd=folder)
    beside = json.loads((folder / "features.provenance.json").read_text())
    assert beside["shape"] == [64]
    assert beside["architecture"]["stages"] == [2, 2, 2, 2]
    assert [path for path, _ in beside["errors"]] == ["photos/005.png"]


@pytest.mark.parametrize("on_error", ["skip", "zero", "fail"])
def test_features_that_are_not_finite_are_treated_as_on_error_says(folder, on_error):
    net = load_checkpoint().model

    class Overflowing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            found = net.forward_features(images)
            found[(images[:, 0].mean((1, 2)) - bright).abs() < 1e-5] = float("inf")
            return found

    paths = [str(folder / "photos" / f"{number:03}.png") for number in range(6)]
    bright = preprocess(paths[2])[0].mean()
    model = load_checkpoint().model
    model.forward_features = Overflowing().forward
    job = Extraction(model, FeatureKind(), Loading(IMAGENET, 4), {}, on_error)
    messages: list[str] = []
    run = lambda: job.run(paths, folder / "features.pt", None, lambda _, found: messages.extend(found))  # noqa: E731
    if on_error == "fail":
        with pytest.raises(ImageError, match=r"002\.png: the net gives NaN or infinite features"):
            run()
        return
    run()
    result = saved(folder / "features.pt")
    assert [path for path, _ in result["errors"]] == [paths[2]]
    assert len(messages) == 1
    assert result["features"].isfinite().all()
    expected = net.forward_features(torch.stack([preprocess(path) for path in paths])).detach()
    expected[2] = 0
    kept = [0, 1, 3, 4, 5] if on_error == "skip" else range(6)
    torch.testing.assert_close(result["features"], expected[list(kept)], rtol=1e-5, atol=1e-6)


def test_what_a_finished_shard_left_over_is_removed_by_the_next_run(folder):
    options = ["--batch-size", "1", "--shard-size", "10", "--output", "part.npy"]
    with started(folder, *options[2:]) as process:
        wait_for_shard(folder, process)
        process.kill()
    left = folder / ".part-00000.npy.unfinished"
    left.mkdir(exist_ok=True)  # as a kill between the mark and the removal leaves it
    (left / "rows-0").write_bytes(b"rows")
    extract("demo", "photos", *options, cwd=folder)
    assert not list(folder.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="needs fifos and devices")
def test_an_output_that_is_no_file_is_refused_before_any_work(folder):
    os.mkfifo(folder / "pipe.npy")
    done = extract("demo", "photos", "--output", "pipe.npy", cwd=folder, code=1)
    assert "pipe.npy: a pipe has this name" in done.stderr
    (folder / "link.npy").symlink_to("target.npy")
    extract("demo", "photos", "--output", "link.npy", cwd=folder)
    assert (folder / "link.npy").is_symlink()
    assert np.load(folder / "target.npy").shape == (23, 64)

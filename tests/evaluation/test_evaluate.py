"""`resnet evaluate`: the original's error rates, each image counted once whatever the number of processes."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_tools import evaluate as evaluate_images
from resnet_tools import load_checkpoint, save_model
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.compute.inference import Loading, logits_of
from resnet_tools.compute.processes import ALONE
from resnet_tools.data.labelled import Outputs, labelled_samples
from resnet_tools.data.transforms import IMAGENET, Preprocessing, ten_crops
from resnet_tools.errors import ImageError, ResnetToolsError
from resnet_tools.evaluation.evaluate import UNREAD, evaluate, evaluate_batches, total_counts
from resnet_tools.evaluation.options import EvaluateOptions
from resnet_tools.metrics import ErrorCounts
from resnet_tools.nets import catalog
from tests.support.golden import DATA, GOLDEN, SHARED, needs_golden

FILES = DATA / "evaluation"
CLASSES = (DEMO_PATH.with_name("fashion-resnet-18.classes.txt")).read_text().splitlines()


@pytest.fixture(scope="session")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with val/, 20 images per class."""
    folder = tmp_path_factory.mktemp("fashion")
    with zipfile.ZipFile(FILES / "fashion-val-200.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def few(fashion: Path, tmp_path: Path) -> Path:
    """The same with three images per class, to be changed by a test."""
    for folder in sorted((fashion / "val").iterdir()):
        (tmp_path / "few" / folder.name).mkdir(parents=True)
        for path in sorted(folder.iterdir())[:3]:
            shutil.copy(path, tmp_path / "few" / folder.name)
    return tmp_path / "few"


def resnet(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """stdout and stderr of a command."""
    found = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out, captured.err


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_outputs_that_are_not_finite_are_told(few, tmp_path, capsys, engine):
    checkpoint = load_checkpoint()
    checkpoint.model.bn1.weight.data *= 1e38  # finite, but the sums that it is part of are not
    save_model(checkpoint, tmp_path / "large.safetensors")
    _, err = resnet(capsys, "evaluate", tmp_path / "large.safetensors", "--data", few, "--engine", engine)
    assert "the net gives NaN or infinite outputs for 30 of 30 images, whose errors mean nothing; a weight may" in err


def test_an_engine_that_there_is_not_is_named_in_python(few):
    with pytest.raises(ResnetToolsError, match=r"engine is \['torch'\]; expected"):
        evaluate_images("demo", few, engine=["torch"])


def test_the_demo_net_has_the_originals_error_on_200_images(fashion, capsys):
    # The original's outputs put 34 of the 200 truths not first and 3 not among the five best.
    logits = np.load(FILES / "fashion-val-200.logits.npy")
    targets = np.repeat(np.arange(10), 20)
    ranks = (logits > logits[np.arange(200), targets][:, None]).sum(1)
    top1, top5 = 100 * (ranks > 0).mean(), 100 * (ranks > 4).mean()
    out, _ = resnet(capsys, "evaluate", "demo", "--data", fashion)
    assert (top1, top5) == (17.0, 1.5)
    assert out == " * Results top1: 17.000  top5:  1.500\n"


def test_the_line_is_the_one_that_the_original_printed(capsys):
    folder = DATA / "main"
    out, err = resnet(capsys, "evaluate", folder / "main_finetune.model_2.t7", "--data", folder / "data")
    assert out == " * Results top1: 85.714  top5: 28.571\n"
    assert out.rstrip() in (folder / "main_test_only.stdout").read_text()
    assert "train/ has 7 classes; the net has 8 outputs" in err


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the validation images of the demo net are not beside the repository")
def test_the_demo_net_has_the_originals_error_on_all_its_images(tmp_path, capsys):
    with zipfile.ZipFile(SHARED / "demo" / "fashion-val.zip") as archive:
        archive.extractall(tmp_path)
    out, _ = resnet(capsys, "evaluate", "demo", "--data", tmp_path)
    assert out == " * Results top1: 15.150  top5:  0.200\n"  # original-training.2.log.gz


def as_folders(pixels: np.ndarray, targets: np.ndarray, top: Path) -> Path:
    """Pixels (N, 3, H, W) uint8 as PNGs in the folders `class 1` ... of the targets, which count from 1."""
    for number, (image, target) in enumerate(zip(pixels, targets, strict=True)):
        (top / f"class {target}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(top / f"class {target}" / f"{number:03}.png")
    return top


@pytest.mark.parametrize("crops", ["validation", "ten_crop"])
def test_a_cifar_net_has_the_errors_of_the_originals_trainer(crops, tmp_path, capsys):
    folder = DATA / "train" / "cifar10_resnet20"
    description, data = json.loads((folder / "train.json").read_text()), np.load(folder / "data.npz")
    expected = description["precisions"]["single"][crops]
    if crops == "ten_crop":
        as_folders(data["tencrop_pixels"], data["tencrop_targets"], tmp_path)
        options = ["--ten-crop", "--resize-size", 40, "--crop-size", 32]
    else:
        chosen = np.concatenate(description["validation_batches_1based_sample_indices"]).astype(int) - 1
        as_folders(data["pixels"][chosen], data["targets"][chosen], tmp_path)
        options = []
    names = tmp_path.parent / "names.txt"
    names.write_text("".join(f"class {number}\n" for number in range(1, 11)))
    out, _ = resnet(
        capsys, "evaluate", folder / "model_1.t7", "--data", tmp_path, "--class-names", names, "--json", *options
    )
    found = json.loads(out)
    assert found["top1_error"] == pytest.approx(expected["top1"])
    assert found["top5_error"] == pytest.approx(expected["top5"])
    assert found["images"] == (3 if crops == "ten_crop" else 45)


@needs_golden
def test_an_imagenet_net_has_the_errors_of_the_originals_trainer(tmp_path, capsys):
    folder = GOLDEN / "train" / "resnet18"
    description, data = json.loads((folder / "train.json").read_text()), np.load(folder / "data.npz")
    chosen = np.concatenate(description["validation_batches_1based_sample_indices"]).astype(int) - 1
    pixels = data["pixels"][chosen].repeat(4, 2).repeat(4, 3)  # 56 x 56 pixels, each 4 x 4 times
    as_folders(pixels, data["targets"][chosen], tmp_path)
    names = tmp_path.parent / "names.txt"
    names.write_text("".join(f"class {number}\n" for number in range(1, 11)))
    options = ["--class-names", names, "--resize-size", 224, "--json"]
    found = json.loads(resnet(capsys, "evaluate", folder / "model_1.t7", "--data", tmp_path, *options)[0])
    expected = description["precisions"]["single"]["validation"]
    assert (found["top1_error"], found["top5_error"]) == (expected["top1"], expected["top5"]) == (80, 10)


def test_softmax_averages_probabilities_and_outputs_average_outputs():
    model = load_checkpoint().model
    image = ten_crops(str(DEMO_PATH.parent / "images" / "shirt.png"), IMAGENET)[None]
    with torch.inference_mode():
        crops = model(image[0])
    torch.testing.assert_close(logits_of(model, image)[0], crops.mean(0), rtol=1e-4, atol=1e-5)
    probabilities = logits_of(model, image, "softmax")[0].exp()
    torch.testing.assert_close(probabilities, crops.softmax(1).mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [[], ["--ten-crop"], ["--ten-crop", "--average", "softmax"]])
def test_ten_crops_and_their_average_reach_the_net(options, few, capsys):
    out, _ = resnet(
        capsys, "evaluate", "demo", "--data", few, "--json", "--crop-size", 64, "--resize-size", 80, *options
    )
    found, images = json.loads(out), sorted(few.rglob("*.png"))
    model, sizes = load_checkpoint().model, Preprocessing(80, 64, IMAGENET.mean, IMAGENET.std)
    rows = torch.stack([ten_crops(path, sizes) for path in images])
    rows = rows if "--ten-crop" in options else rows[:, :1]
    logits = logits_of(model, rows, "softmax" if "softmax" in options else "outputs")
    targets = torch.arange(10).repeat_interleave(3)
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)), rel=1e-4)
    assert found["average"] == (None if not options else "softmax" if "softmax" in options else "outputs")


def test_two_processes_give_the_bytes_of_one(few, tmp_path, capsys):
    (few / "bag" / "broken.png").write_bytes(b"no image")
    arguments = ["evaluate", "demo", "--data", few, "--batch-size", "4"]
    resnet(capsys, *arguments, "--report", tmp_path / "one")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command = [*launch, "resnet_tools", *map(str, arguments), "--report", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" * Results") == 1
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == 9
    assert done.stderr.count(f"saved the report to {tmp_path / 'two' / 'index.html'}\n") == 1
    for name in names:
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_n_gpu_starts_the_processes(few):
    arguments = ["evaluate", "demo", "--data", str(few), "--batch-size", "4", "--device", "cpu", "--json", "--quiet"]
    found = []
    for count in ("1", "2"):
        command = [sys.executable, "-m", "resnet_tools", *arguments, "--n-gpu", count]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    assert (found[0]["images"], found[0]["top1_error"]) == (30, found[1]["top1_error"])
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], abs=1e-5)


def test_records_are_in_the_order_of_the_samples_for_any_batch_size(few):
    (few / "coat" / "00000.png").write_bytes(b"no image")
    model = load_checkpoint().model
    samples = labelled_samples(few, Outputs(10, CLASSES))
    found = [evaluate(model, samples, Loading(IMAGENET, batch_size=size)) for size in (1, 7, 100)]
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].predictions, other.predictions)
        np.testing.assert_allclose(found[0].losses, other.losses, rtol=1e-3, atol=1e-5)
        assert list(found[0].errors) == list(other.errors) == [6]
    assert found[0].ranks[6] == UNREAD
    assert found[0].counts.images == 30


def test_unreadable_images_are_named_and_counted_or_stop_the_work(few, capsys):
    for name in ("dress/a.png", "bag/b.png"):
        (few / name).write_bytes(b"no image")
    out, err = resnet(capsys, "evaluate", "demo", "--data", few, "--json")
    found = json.loads(out)
    assert found["images"] == 30
    assert [Path(image["path"]).name for image in found["unreadable"]] == ["b.png", "a.png"]
    assert "2 of 32 images could not be read." in err
    _, err = resnet(capsys, "evaluate", "demo", "--data", few, "--on-error", "fail", code=1)
    assert "b.png" in err
    for path in few.rglob("*.png"):
        path.write_bytes(b"no image")
    _, err = resnet(capsys, "evaluate", "demo", "--data", few, code=1)
    assert "none of the 32 images could be read" in err


def test_several_models_make_one_table(few, tmp_path, capsys):
    other = tmp_path / "other.t7"
    shutil.copy(DEMO_PATH, other)
    shutil.copy(DEMO_PATH.with_name("fashion-resnet-18.classes.txt"), tmp_path / "other.classes.txt")
    single = json.loads(resnet(capsys, "evaluate", "demo", "--data", few, "--json")[0])
    out, _ = resnet(capsys, "evaluate", "demo", other, "--data", few)
    errors = f"{single['top1_error']:.3f} | {single['top5_error']:.3f}"
    assert out.splitlines() == [
        "| model | images | top-1 error | top-5 error |",
        "| --- | --: | --: | --: |",
        f"| demo | 30 | {errors} |",
        f"| {other} | 30 | {errors} |",
    ]
    out, _ = resnet(capsys, "evaluate", "demo", other, "--data", few, "--csv", "--report", tmp_path / "report")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["model"] for row in rows] == ["demo", str(other)]
    assert float(rows[1]["top1_error"]) == single["top1_error"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["demo", "other"]
    resnet(capsys, "evaluate", "demo", "demo", "--data", few, "--report", tmp_path / "twice")
    assert sorted(path.name for path in (tmp_path / "twice").iterdir()) == ["demo", "demo-2"]


def test_the_name_of_a_model_does_nothing_to_a_terminal_or_a_spreadsheet(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("=1+1", "a\x1b[2J\n"):
        shutil.copy(DEMO_PATH, name)
        shutil.copy(DEMO_PATH.with_name("fashion-resnet-18.classes.txt"), f"{name}.classes.txt")
    options = ("--data", few, "--quiet")
    table, _ = resnet(capsys, "evaluate", "=1+1", "a\x1b[2J\n", *options)
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| =1+1", "| a\\x1b[2J\\n"]
    rows, _ = resnet(capsys, "evaluate", "=1+1", "a\x1b[2J\n", *options, "--csv")
    assert [row[0] for row in csv.reader(io.StringIO(rows))][1:] == ["'=1+1", "a\\x1b[2J\\n"]


def test_predictions_are_the_nets_and_the_page_is_named(few, tmp_path, capsys):
    (few / "coat" / "00000.png").write_bytes(b"no image")
    out, err = resnet(capsys, "evaluate", "demo", "--data", few, "--report", tmp_path / "report", "--json")
    assert err.endswith(f"saved the report to {tmp_path / 'report' / 'index.html'}\n")
    rows = list(csv.reader(io.StringIO((tmp_path / "report" / "predictions.csv").read_text())))
    assert rows[0][:5] == ["path", "truth", "truth_probability", "class_1", "probability_1"]
    assert [row[0] for row in rows[1:]] == [str(path) for path in sorted(few.rglob("*.png"))]
    read = [row for row in rows[1:] if row[2]]
    assert [row[1:] for row in rows[1:] if not row[2]] == [["coat", *[""] * 11]]
    images = torch.stack([ten_crops(row[0], IMAGENET)[0] for row in read])  # the first is the centre
    probabilities = logits_of(load_checkpoint().model, images[:, None]).softmax(1).numpy()  # (30, 10)
    for row, expected in zip(read, probabilities, strict=True):
        assert row[1] == Path(row[0]).parent.name
        best = expected[[CLASSES.index(name) for name in row[3::2]]]
        np.testing.assert_allclose(best, np.sort(expected)[:4:-1], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose([float(cell) for cell in row[4::2]], best, rtol=1e-3, atol=1e-6)
        assert float(row[2]) == pytest.approx(expected[CLASSES.index(row[1])], rel=1e-3, abs=1e-6)
    facts = json.loads(out)
    right = sum(row[1] == row[3] for row in read)
    assert facts["accuracy"] == facts["weighted"]["accuracy"] == pytest.approx(100 * right / 30)
    assert facts["macro"]["classes"] == 10


def test_reports_of_several_models_lie_in_folders_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "run1" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run1" / "sub")
    rest = {field.name: None for field in fields(EvaluateOptions)}
    models = ("demo", "a/Net.t7", "b/net.pt", "..", "/", "demo-2.pt", "demo")
    folders = EvaluateOptions(**rest | {"models": models, "report": Path("r")}).report_folders
    assert [str(folder) for folder in folders] == [
        *("r/demo", "r/Net", "r/net-2", "r/run1", "r/model", "r/demo-2", "r/demo-3")
    ]
    assert EvaluateOptions(**rest | {"models": models[:1], "report": Path("r")}).report_folders == [Path("r")]


def test_a_folder_with_something_else_is_refused_before_any_model_is_evaluated(few, tmp_path, capsys):
    (tmp_path / "report" / "demo-2").mkdir(parents=True)
    (tmp_path / "report" / "demo-2" / "diary.txt").write_text("")
    out, err = resnet(capsys, "evaluate", "demo", "demo", "--data", few, "--report", tmp_path / "report", code=1)
    assert out == ""
    assert f"{tmp_path}/report/demo-2/diary.txt: is not part of an earlier report" in err


def test_what_is_done_is_printed_when_a_later_model_fails(few, tmp_path, capsys):
    (tmp_path / "bad.t7").write_bytes(b"nothing")
    out, err = resnet(capsys, "evaluate", "demo", tmp_path / "bad.t7", "--data", few, code=1)
    assert "| demo | 30 |" in out
    assert "bad.t7" in err


def test_published_errors_stand_beside_ours_with_the_difference(few, capsys, monkeypatch):
    net = load_checkpoint().architecture
    published = catalog.PublishedCheckpoint("demo.t7", net, 10.0, 5.5, 9.0, 4.0, "")
    monkeypatch.setattr(catalog, "PUBLISHED", (published,))
    monkeypatch.setattr(catalog, "PUBLISHED_IMAGES", 30)
    found = json.loads(resnet(capsys, "evaluate", "demo", "--data", few, "--json")[0])
    top1, top5 = found["top1_error"], found["top5_error"]
    assert found["published"] == {"top1_error": 10.0, "top5_error": 5.5}
    out, _ = resnet(capsys, "evaluate", "demo", "--data", few)
    assert out.splitlines()[1] == f" * Published top1: 10.000 ({top1 - 10:+.3f})  top5:  5.500 ({top5 - 5.5:+.3f})"
    out, _ = resnet(capsys, "evaluate", "demo", "demo", "--data", few)
    assert f"| 10.00 | {top1 - 10:+.3f} | 5.50 | {top5 - 5.5:+.3f} |" in out
    out, _ = resnet(capsys, "evaluate", "demo", "--data", few, "--crop-size", "64", "--json")
    assert json.loads(out)["published"] is None


def test_published_errors_are_those_of_the_same_crops():
    net = catalog.named_architecture("published-resnet-200")
    errors = [
        catalog.published_errors(net, images, resize_px=px, crop_px=crop, ten_crop=ten)
        for images, px, crop, ten in (
            (50_000, 256, 224, False),
            (50_000, 256, 224, True),
            (50_000, 320, 320, False),
            (50_000, 320, 320, True),
            (49_999, 256, 224, False),
        )
    ]
    assert errors == [(21.66, 5.79), (20.15, 4.93), (20.1, 4.8), None, None]
    other = catalog.named_architecture("preresnet-200")
    assert catalog.published_errors(other, 50_000, resize_px=256, crop_px=224, ten_crop=False) is None


def test_one_class_of_ten_and_a_net_of_three_classes(few, tmp_path, capsys):
    for folder in few.iterdir():
        if folder.name != "shirt":
            shutil.rmtree(folder)
    out, err = resnet(capsys, "evaluate", "demo", "--data", few, "--json")
    assert json.loads(out)["images"] == 3
    assert re.search(r"9 of the net's 10 classes are not there: ankle boot, .* and 4 more", err)
    if GOLDEN.is_dir():
        names = tmp_path / "names.txt"
        names.write_text("shirt\nhat\nshoe\n")
        model = GOLDEN / "models" / "variant_classes_3.t7"
        options = ["--crop-size", "64", "--resize-size", "64", "--class-names", names, "--json"]
        found = json.loads(resnet(capsys, "evaluate", model, "--data", few, *options)[0])
        assert (found["top5_error"], found["top5_k"]) == (0, 3)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("no model", 2, "nothing.t7: no such model file"),
        ("no data", 2, "does not exist"),
        ("another class", 1, "hat match no class of the net, or several"),
        ("no folders", 1, "has no class folders"),
        ("no images", 1, "holds no images"),
        ("no split", 1, "--split says which part"),
        ("two forms", 2, "--json and --csv exclude each other"),
        ("report in a file", 1, "a folder for the report cannot be made there"),
    ],
)
def test_bad_input_is_named(change, code, message, few, capsys):
    arguments = ["evaluate", "demo", "--data", str(few)]
    if change == "no model":
        arguments[1:2] = ["nothing.t7", "demo"]
    elif change == "no data":
        arguments[3] = str(few / "nothing")
    elif change == "another class":
        (few / "bag").rename(few / "hat")
    elif change == "no folders":
        arguments[3] = str(few / "bag")
    elif change == "no images":
        for path in few.rglob("*.png"):
            path.unlink()
    elif change == "no split":
        arguments += ["--split", "test"]
    elif change == "two forms":
        arguments += ["--json", "--csv"]
    else:
        arguments += ["--report", str(few / "bag" / "file" / "report")]
        (few / "bag" / "file").write_text("")
    _, err = resnet(capsys, *arguments, code=code)
    assert message in err


def test_the_loop_yields_each_batch_with_the_counts_so_far(few):
    min((few / "coat").iterdir()).write_bytes(b"no image")
    samples = labelled_samples(few, Outputs(10, CLASSES))
    model, loading = load_checkpoint().model, Loading(IMAGENET, batch_size=8)
    batches = list(evaluate_batches(model, samples, loading, on_error="skip"))
    places = [(b.number, b.batches, b.start, b.size) for b in batches]
    assert places == [(1, 4, 0, 8), (2, 4, 8, 8), (3, 4, 16, 8), (4, 4, 24, 6)]
    [(bad, reason)] = [item for batch in batches for item in batch.errors.items()]
    assert samples.name(bad) in reason
    assert sum((b.counts for b in batches), ErrorCounts()) == batches[-1].so_far
    whole = evaluate(model, samples, loading).counts
    total = total_counts([(b.number, b.counts) for b in reversed(batches)], ALONE)
    assert (total.images, total.top1_wrong, total.top5_wrong) == (29, whole.top1_wrong, whole.top5_wrong)
    assert total.loss == pytest.approx(whole.loss, rel=1e-12)
    with pytest.raises(ImageError, match="--on-error skip"):
        list(evaluate_batches(model, samples, loading, on_error="fail"))

"""`resnet convert` and `resnet verify`: every format and option, and all that can go wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision

from resnet_tools import load_checkpoint, read_t7, save_model
from resnet_tools.__main__ import run
from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.checkpoints.convert import DTYPES, ENDINGS, Target, convert
from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.checkpoints.saving import extra_content
from resnet_tools.checkpoints.verify import compare_files
from resnet_tools.data.transforms import CIFAR10, IMAGENET
from resnet_tools.errors import CheckpointError, ExportError, ResnetToolsError
from resnet_tools.nets.catalog import architecture, named_architecture
from resnet_tools.nets.resnet import ResNet, build_resnet
from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.t7_writer import save_t7
from tests.support.golden import DATA
from tests.support.lua_nets import lua_net

NAMES = [f"name {number}" for number in range(10)]
SMALL = architecture(8, dataset="cifar10")


def small_checkpoint(**changes: object) -> Checkpoint:
    torch.manual_seed(0)
    return replace(Checkpoint(build_resnet(SMALL).eval(), SMALL, None, CIFAR10, "pt"), **changes)


@pytest.fixture
def source(tmp_path) -> Path:
    save_model(small_checkpoint(), tmp_path / "in.pt")
    return tmp_path / "in.pt"


@pytest.fixture
def resnet18(tmp_path) -> Path:
    """A net that torchvision has, although its weights are few bits."""
    net = named_architecture("published-resnet-18")
    torch.manual_seed(0)
    save_model(Checkpoint(build_resnet(net).eval(), net, None, IMAGENET, "pt"), tmp_path / "in.pt")
    return tmp_path / "in.pt"


def files_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# What is written.


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_killed_run_left_is_removed_by_the_next_one(resnet18, ending):
    target = resnet18.with_name(f"out{ending}")
    left = [f".out.partial{ending}", *([".out.classes.partial.txt"] if ending in (".pth", ".t7") else [])]
    for name in left:
        resnet18.with_name(name).write_bytes(b"the first half")
    convert(resnet18, Target(target), class_names=[f"name {number}" for number in range(1000)])
    assert not list(resnet18.parent.glob(".*"))
    assert target.is_file()


@pytest.mark.parametrize("case", ["cifar10_preresnet20", "published_resnet50", "relative_resnext50"])
@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".onnx", ".t7"])
def test_every_format_computes_the_same(case, ending, tmp_path):
    source, target = DATA / "models" / f"{case}.t7", tmp_path / f"net{ending}"
    done = convert(source, Target(target))
    assert done.comparison.within(1e-4 if ending == ".onnx" else 0)
    assert compare_files(target, source).within(1e-4 if ending == ".onnx" else 0)
    assert files_in(tmp_path) == [target.name]


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_ours_hold_classes_and_preprocessing(ending, tmp_path):
    save_model(small_checkpoint(class_names=NAMES, preprocessing=IMAGENET), tmp_path / "in.pt")
    convert(tmp_path / "in.pt", Target(tmp_path / f"out{ending}"))
    found = load_checkpoint(tmp_path / f"out{ending}")
    assert (found.architecture, found.class_names, found.preprocessing) == (SMALL, NAMES, IMAGENET)


def test_class_names_that_a_format_does_not_hold_go_beside_it(tmp_path):
    save_model(small_checkpoint(class_names=NAMES, preprocessing=IMAGENET), tmp_path / "in.pt")
    done = convert(tmp_path / "in.pt", Target(tmp_path / "out.t7"))
    assert files_in(tmp_path) == ["in.pt", "out.classes.txt", "out.t7"]
    assert load_checkpoint(tmp_path / "out.t7").class_names == NAMES
    assert done.notes[0].startswith(".t7 holds no preprocessing; images are prepared by Preprocessing(resize_px=256")


def test_a_file_without_its_class_names_is_not_written(source, tmp_path):
    (tmp_path / ".out.classes.partial.txt").mkdir()  # in place of a disk that is full by then
    (tmp_path / "out.t7").write_bytes(b"earlier")
    save_model(small_checkpoint(class_names=NAMES), source)
    with pytest.raises(ExportError, match=r"out\.t7: cannot be written"):
        convert(source, Target(tmp_path / "out.t7"), force=True)
    assert (tmp_path / "out.t7").read_bytes() == b"earlier"
    assert files_in(tmp_path) == [".out.classes.partial.txt", "in.pt", "out.t7"]


def test_names_that_were_there_for_another_file_are_noted(source, tmp_path):
    (tmp_path / "out.classes.txt").write_text("\n".join(NAMES))
    [note] = convert(source, Target(tmp_path / "out.safetensors")).notes
    assert note.endswith("out.classes.txt was there; its lines are taken for the class names of out.safetensors")
    assert load_checkpoint(tmp_path / "out.safetensors").class_names == NAMES
    assert convert(source, Target(tmp_path / "out.onnx")).notes == []


def test_other_class_names_beside_it_are_kept(tmp_path):
    save_model(small_checkpoint(class_names=NAMES), tmp_path / "in.pt")
    names = tmp_path / "out.classes.txt"
    names.write_text("a\nb\n")
    with pytest.raises(ExportError, match=r"out\.classes\.txt: this file exists and holds other class names"):
        convert(tmp_path / "in.pt", Target(tmp_path / "out.t7"))
    assert files_in(tmp_path) == ["in.pt", "out.classes.txt"]
    convert(tmp_path / "in.pt", Target(tmp_path / "out.t7"), force=True)
    assert names.read_text().splitlines() == NAMES


@pytest.mark.parametrize("name", ["two\nlines", "", " ", "a\r", "no \ud800 text"])
def test_class_names_that_are_no_lines_cannot_go_beside_it(name, tmp_path):
    save_model(small_checkpoint(class_names=[name, *NAMES[1:]]), tmp_path / "in.pt")
    with pytest.raises(ExportError, match=r"cannot be a line of .*out\.classes\.txt; give others with --classes"):
        convert(tmp_path / "in.pt", Target(tmp_path / "out.t7"))
    convert(tmp_path / "in.pt", Target(tmp_path / "out.t7"), class_names=NAMES)
    assert load_checkpoint(tmp_path / "out.t7").class_names == NAMES


def test_a_t7_has_the_classes_of_cudnn_or_of_nn(source, tmp_path):
    found = {}
    for package in ("cudnn", "nn"):
        convert(source, Target(tmp_path / "out.t7", package=package), force=True)
        tree = module_tree(read_t7(tmp_path / "out.t7"))
        found[package] = {m.class_name for m in tree.walk() if m.kind in ("SpatialConvolution", "ReLU")}
    assert found["cudnn"] == {"cudnn.SpatialConvolution", "cudnn.ReLU"}
    assert found["nn"] == {"nn.SpatialConvolution", "nn.ReLU"}


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_a_pth_loads_strictly_into_the_other_library(layout, resnet18, tmp_path):
    done = convert(resnet18, Target(tmp_path / "out.pth", layout=layout))
    assert done.comparison.within(1e-6)
    net = torchvision.models.resnet18().eval()
    net.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        expected = load_checkpoint(resnet18).model(images)
        assert (net(images) - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".onnx"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_in_16_bits_are_near(dtype, ending, source, tmp_path):
    target = Target(tmp_path / f"out{ending}", dtype=dtype)
    if (dtype, ending) == ("bfloat16", ".onnx"):
        with pytest.raises(ExportError, match="onnxruntime has no convolutions in bfloat16 to verify it with"):
            convert(source, target)
        return
    done = convert(source, target)
    assert 0 < done.comparison.relative < (0.005 if dtype == "float16" else 0.05)
    assert target.path.stat().st_size < 0.7 * source.stat().st_size
    if ending == ".pt":
        stored = torch.load(target.path, weights_only=True)["state_dict"]
        assert {tensor.dtype for tensor in stored.values()} == {DTYPES[dtype], torch.int64}
        assert load_checkpoint(target.path).model.conv1.weight.dtype == torch.float32


def test_folded_batch_norms_make_an_onnx_file_of_fewer_numbers(source, tmp_path):
    sizes = []
    for fold in (False, True):
        done = convert(source, Target(tmp_path / "out.onnx", fold=fold), force=True)
        assert done.comparison.within(1e-5)
        sizes.append((tmp_path / "out.onnx").stat().st_size)
    assert sizes[1] < sizes[0]


def test_what_training_keeps_stays_in_a_pt_unless_it_is_stripped(tmp_path):
    extra = {"recipe": {"epochs": 3}, "training": {"momentum": torch.ones(3), "history": [[1, 2.5]]}}
    save_model(small_checkpoint(), tmp_path / "in.pt", extra=extra)
    assert not convert(tmp_path / "in.pt", Target(tmp_path / "kept.pt")).notes
    assert extra_content(tmp_path / "kept.pt")["recipe"] == {"epochs": 3}
    assert extra_content(tmp_path / "kept.pt")["training"]["momentum"].tolist() == [1, 1, 1]
    for target in (Target(tmp_path / "out.pt", strip=True), Target(tmp_path / "out.safetensors")):
        assert convert(tmp_path / "in.pt", target).notes == ["left out: recipe, training"]
    assert extra_content(tmp_path / "out.pt") == {}


def test_names_are_attached_to_a_checkpoint_without(source, tmp_path):
    convert(source, Target(tmp_path / "out.pt"), class_names=NAMES)
    assert load_checkpoint(tmp_path / "out.pt").class_names == NAMES
    with pytest.raises(ExportError, match="2 class names are given; the net has 10"):
        convert(source, Target(tmp_path / "other.pt"), class_names=["a", "b"])


# What is not written.


def test_what_computes_something_else_is_not_written(source, tmp_path, monkeypatch):
    def wrong(checkpoint: Checkpoint, path: Path, extra: object) -> None:
        checkpoint.model.fc.weight.data[0] += 0.01
        save_model(checkpoint, path)

    monkeypatch.setattr("resnet_tools.checkpoints.convert.write_model", wrong)
    (tmp_path / "out.pt").write_bytes(b"earlier")
    with pytest.raises(
        ExportError, match=r"out\.pt: nothing is written: largest difference 0\.\d+, .*; expected 1e-06"
    ):
        convert(source, Target(tmp_path / "out.pt"), force=True)
    assert (tmp_path / "out.pt").read_bytes() == b"earlier"
    assert files_in(tmp_path) == ["in.pt", "out.pt"]
    convert(source, Target(tmp_path / "out.pt"), force=True, tolerance=1)


def test_a_net_whose_logits_are_no_numbers_is_not_written(tmp_path):
    checkpoint = small_checkpoint()
    checkpoint.model.fc.weight.data[0, 0] = torch.nan
    save_model(checkpoint, tmp_path / "in.pt")
    with (
        pytest.warns(UserWarning, match=r"in\.pt: fc\.weight holds NaN or infinite numbers"),
        pytest.raises(ExportError, match="nothing is written: largest difference nan"),
    ):
        convert(tmp_path / "in.pt", Target(tmp_path / "out.safetensors"))
    assert files_in(tmp_path) == ["in.pt"]


def test_a_weight_that_half_cannot_hold_is_refused(tmp_path):
    checkpoint = small_checkpoint()
    checkpoint.model.layer1[0].bn1.running_var.data[0] = 1e5
    save_model(checkpoint, tmp_path / "in.pt")
    with pytest.raises(ExportError, match=r"layer1\.0\.bn1\.running_var holds 100000, which torch\.float16 cannot"):
        convert(tmp_path / "in.pt", Target(tmp_path / "out.pt", dtype="float16"))
    convert(tmp_path / "in.pt", Target(tmp_path / "out.pt", dtype="bfloat16"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.txt", {}, r"out\.txt: the extension '\.txt' is unknown; expected one of \.pt, \.safetensors, \.pth"),
        ("out", {}, "the extension '' is unknown"),
        ("out.pt", {"layout": "torchvision"}, "--layout is for .pth files"),
        ("out.pt", {"package": "nn"}, "--nn is for .t7 files"),
        ("out.safetensors", {"fold": True}, "--fold-batch-norm is for .onnx; the other formats"),
        ("out.t7", {"dtype": "float16"}, "Torch7 computes in float32 only"),
        ("out.pth", {}, "torchvision cannot express this net: its stem is the 3 x 3 convolution for CIFAR"),
        ("no/out.pt", {}, "cannot be written: there is no folder .*no"),
        ("in.pt", {}, "this is the file that is read"),
        ("link.pt", {}, "this is the file that is read"),
        ("hard.pt", {}, "this is the file that is read"),
        ("folder.pt", {}, "cannot be written: a folder has this name"),
    ],
)
def test_what_cannot_be_written_is_refused(name, options, message, source, tmp_path):
    before = source.read_bytes()
    (tmp_path / "link.pt").symlink_to("in.pt")
    os.link(source, tmp_path / "hard.pt")
    (tmp_path / "folder.pt").mkdir()
    there = files_in(tmp_path)
    with pytest.raises(ExportError, match=message):
        convert(source, Target(tmp_path / name, **options), force=True)
    assert source.read_bytes() == before
    assert files_in(tmp_path) == there


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_exists_is_replaced_by_force_only(ending, resnet18, tmp_path):
    target = tmp_path / f"out{ending}"
    target.write_bytes(b"earlier")
    with pytest.raises(ExportError, match=rf"out\{ending}: this file exists; --force replaces it"):
        convert(resnet18, Target(target))
    assert target.read_bytes() == b"earlier"
    if ending == ".pt":
        convert(resnet18, Target(target), force=True)
        assert load_checkpoint(target).format == "pt"


def test_a_link_stays_a_link(source, tmp_path):
    (tmp_path / "real.pt").write_bytes(b"earlier")
    (tmp_path / "link.pt").symlink_to("real.pt")
    convert(source, Target(tmp_path / "link.pt"), force=True)
    assert (tmp_path / "link.pt").is_symlink()
    assert load_checkpoint(tmp_path / "real.pt").architecture == SMALL


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".onnx", ".t7"])
def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(ending, source, tmp_path):
    target, limits = tmp_path / f"out{ending}", resource.getrlimit(resource.RLIMIT_FSIZE)
    target.write_bytes(b"earlier")
    before = source.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as a full disk: no byte more
    try:
        with pytest.raises(ResnetToolsError, match=rf"out\{ending}: cannot be written: File too large"):
            convert(source, Target(target), force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (target.read_bytes(), source.read_bytes()) == (b"earlier", before)
    assert files_in(tmp_path) == ["in.pt", target.name]


@pytest.mark.parametrize("mode", [0o500, 0o600])
def test_a_folder_that_cannot_be_written_is_an_error(mode, source, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=mode)
    if os.access(folder, os.W_OK | os.X_OK):
        pytest.skip("root may write everywhere")
    with pytest.raises(ExportError, match=r"cannot be written: Permission denied to make files in .*locked"):
        convert(source, Target(folder / "out.pt"))


def test_a_folder_on_a_file_system_without_files_is_an_error(source):
    with pytest.raises(ResnetToolsError, match="cannot be written: "):
        convert(source, Target(Path("/proc/self/out.pt")))


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "in.pt").write_bytes(b"no net")
    with pytest.raises(ResnetToolsError, match=r"in\.pt: "):
        convert(tmp_path / "in.pt", Target(tmp_path / "out.pt"))
    (tmp_path / "in.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")  # as an ONNX graph begins
    with pytest.raises(ExportError, match=r"in\.onnx: holds a graph and no checkpoint"):
        convert(tmp_path / "in.onnx", Target(tmp_path / "out.pt"))
    with pytest.raises(CheckpointError, match=r"missing\.pt: cannot be read"):
        convert(tmp_path / "missing.pt", Target(tmp_path / "out.pt"))


# The commands.


def test_convert_prints_what_is_proven(tmp_path, capsys):
    assert run(["convert", "demo", str(tmp_path / "out.safetensors")]) == 0
    output, errors = capsys.readouterr()
    size = (tmp_path / "out.safetensors").stat().st_size
    assert output.splitlines()[0] == f"wrote {tmp_path}/out.safetensors ({size:,} bytes)"
    assert output.splitlines()[1].startswith("largest difference 0, which is 0 of the largest logit 8.6")
    assert output.splitlines()[1].endswith("the same best class for 13 of 13 images; tolerance 1e-06")
    assert errors == ""


def test_convert_takes_all_its_options(source, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    arguments = ["--dtype", "float16", "--classes", str(tmp_path / "names.txt"), "--strip", "--force"]
    assert run(["convert", str(source), str(tmp_path / "out.pt"), *arguments]) == 0
    assert load_checkpoint(tmp_path / "out.pt").class_names == NAMES
    assert run(["convert", str(source), str(tmp_path / "out.t7"), "--nn"]) == 0
    assert run(["convert", str(source), str(tmp_path / "out.onnx"), "--fold-batch-norm"]) == 0
    capsys.readouterr()
    assert run(["convert", str(source), str(tmp_path / "out.pth"), "--layout", "timm"]) == 1
    assert capsys.readouterr().err.startswith("Error: timm cannot express this net: its stem is")
    assert run(["convert", str(source), str(tmp_path / "other.pt"), "--dtype", "bfloat16", "--tolerance", "0"]) == 1
    assert "nothing is written" in capsys.readouterr().err


def test_verify_says_whether_two_files_are_the_same(source, tmp_path, capsys):
    convert(source, Target(tmp_path / "out.onnx"))
    convert(source, Target(tmp_path / "half.pt", dtype="float16"))
    assert run(["verify", str(source), str(tmp_path / "out.onnx")]) == 0
    assert capsys.readouterr().out.endswith("for 13 of 13 images; tolerance 0.001\n")
    assert run(["verify", str(source), str(tmp_path / "half.pt"), "--tolerance", "1e-6"]) == 1
    assert capsys.readouterr().out.endswith("tolerance 1e-06\n")
    images = str(DEMO_PATH.parent / "images")
    assert run(["verify", str(source), str(source), "--images", images, "--images", f"{images}/bag.png"]) == 0
    assert "for 11 of 11 images" in capsys.readouterr().out


def test_verify_reports_what_is_missing(source, capsys):
    assert run(["verify", "no.t7", "none.t7"]) == 2
    assert "no.t7: no such model file\nnone.t7: no such model file" in capsys.readouterr().err
    assert run(["verify", str(source), "no.onnx"]) == 2
    assert run(["verify", str(source), str(source), "--images", "no.jpg"]) == 2


def test_converting_does_not_load_what_it_does_not_need(tmp_path):
    save_t7(lua_net(SMALL), tmp_path / "in.t7")
    code = (
        "import sys; from resnet_tools.__main__ import run; code = run(sys.argv[1:]); "
        "sys.exit(str({'torchvision', 'timm', 'onnx', 'onnxruntime'} & set(sys.modules) or '') or code)"
    )
    command = [sys.executable, "-c", code, "convert", str(tmp_path / "in.t7"), str(tmp_path / "out.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_new_file_is_as_readable_as_others(source, tmp_path):
    (tmp_path / "other").touch()
    for ending in (".pt", ".safetensors", ".onnx", ".t7"):
        convert(source, Target(tmp_path / f"out{ending}"))
        assert (tmp_path / f"out{ending}").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_every_ending_has_a_way_back(tmp_path):
    assert isinstance(load_checkpoint(DEMO_PATH).model, ResNet)
    for ending in (".pt", ".safetensors", ".t7"):
        convert("demo", Target(tmp_path / f"out{ending}"))
        convert(tmp_path / f"out{ending}", Target(tmp_path / f"back{ending}.t7"))
        assert compare_files(DEMO_PATH, tmp_path / f"back{ending}.t7").difference == 0

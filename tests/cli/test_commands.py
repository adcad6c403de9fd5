"""The commands as users run them: real processes, their output, their exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_tools.checkpoints.model_files import DEMO_PATH
from resnet_tools.torch7.lua import LuaObject, LuaTable
from resnet_tools.torch7.t7_writer import save_t7
from tests.support.golden import DATA, GOLDEN, SHARED, needs_golden

IMAGES = DEMO_PATH.parent / "images"
BAG = str(IMAGES / "bag.png")


def resnet(*arguments: object, cwd: Path | None = None, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "resnet_tools", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def predictions(text: str) -> dict[str, list[tuple[float, str]]]:
    """The original's output -> path -> (probability, label), best first."""
    found: dict[str, list[tuple[float, str]]] = {}
    for line in text.splitlines():
        first, _, second = line.rstrip("\t").partition("\t")
        if first == "Classes for":
            found[second] = current = []
        elif first:
            current.append((float(first), second))
    return found


def assert_same_predictions(found: str, expected: str, rtol: float = 1e-3) -> None:
    ours, theirs = predictions(found), predictions(expected)
    assert list(ours) == list(theirs)
    for path in theirs:
        assert [label for _, label in ours[path]] == [label for _, label in theirs[path]], path
        np.testing.assert_allclose([p for p, _ in ours[path]], [p for p, _ in theirs[path]], rtol=rtol)


def test_classify_prints_what_the_original_prints(tmp_path):
    shutil.copytree(DEMO_PATH.parent, tmp_path / "demo")
    names = sorted(f"images/{path.name}" for path in IMAGES.glob("*.png"))
    done = resnet("classify", "fashion-resnet-18.t7", *names, cwd=tmp_path / "demo")
    assert done.returncode == 0
    assert done.stderr == ""
    expected = (DATA / "expected-classify.txt").read_text()
    assert_same_predictions(done.stdout, expected)
    assert [len(line.split("\t")) for line in done.stdout.splitlines()] == [
        len(line.split("\t")) for line in expected.splitlines()
    ]


def runs_of_the_original() -> list[dict[str, object]]:
    """Its captured runs of classify.lua, but those that need a file that the golden data does not hold."""
    if not GOLDEN.is_dir():
        return []
    runs = json.loads((GOLDEN / "scripts" / "scripts.json").read_text())
    return [r for r in runs if r["name"].startswith("classify_") and not ONLY_THERE & {Path(a).name for a in r["args"]}]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder like the one where the original ran."""
    for folder in ("images", "models"):
        (tmp_path / folder).symlink_to(GOLDEN / folder)
    (tmp_path / "sub" / "dir").mkdir(parents=True)
    shutil.copy(GOLDEN / "images" / "chelsea.png", tmp_path / "sub" / "dir" / "a name with spaces.png")
    return tmp_path


def labels_option(place: Path, model: str) -> list[str]:
    """The original prints ImageNet's first labels for every net; ours does when it is told to."""
    outputs = json.loads((place / model).with_suffix(".json").read_text())["classes"]
    imagenet = json.loads((GOLDEN / "labels" / "imagenet.json").read_text())
    (place / "labels.txt").write_text("".join(f"{label}\n" for label in imagenet[:outputs]))
    return ["--labels", "labels.txt"]


ONLY_THERE = {"truncated.t7", "empty.t7", "linear.t7", "table.t7"}
# Exit code and a piece of the output where we differ from the original on purpose; the README names each.
DIFFERENT = {
    "classify_no_args": (2, "Missing argument"),
    "classify_model_only": (2, "Missing argument"),
    "classify_model_missing": (2, "models/nothing.t7: no such model file"),
    "classify_image_missing": (2, "images/nothing.jpg"),
    "classify_image_is_directory": (1, "Classes for\timages/chelsea.png"),  # a folder is searched for images
    "classify_model_is_image": (1, "this is an image, not a model"),
    "classify_model_is_text": (1, "plain text, not a model"),
    "classify_image_text": (1, "Classes for\timages/coffee.jpg"),  # the others go on
    "classify_image_bmp": (0, "Classes for\timages/photo.bmp"),
    "classify_image_gif": (0, "Classes for\timages/photo.gif"),
    "classify_image_gray_alpha": (0, "Classes for\timages/gray_alpha.png"),
    "classify_image_empty": (1, "images/empty.jpg"),
    "classify_image_truncated_png": (1, "images/truncated.png"),
    "classify_3_classes": (0, "\tclass 2\n"),
    "classify_data_parallel": (0, "Classes for\timages/chelsea.png"),
    "classify_cifar_model": (0, "Classes for\timages/chelsea.png"),
    "classify_resnet18_odd_images": (1, "images/truncated.jpg"),
}


@needs_golden
@pytest.mark.parametrize(
    "run", [r for r in runs_of_the_original() if r["name"] not in DIFFERENT], ids=lambda run: run["name"]
)
def test_classify_gives_the_labels_and_probabilities_of_the_original(run, place):
    done = resnet("classify", *run["args"], *labels_option(place, run["args"][0]), cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same_predictions(done.stdout, (GOLDEN / "scripts" / run["stdout"]).read_text())


@needs_golden
@pytest.mark.parametrize(
    "run", [r for r in runs_of_the_original() if r["name"] in DIFFERENT], ids=lambda run: run["name"]
)
def test_classify_does_better_where_the_original_fails(run, place):
    done = resnet("classify", *run["args"], cwd=place)
    code, text = DIFFERENT[run["name"]]
    assert done.returncode == code
    assert text in done.stdout + done.stderr


@needs_golden
def test_odd_images_have_the_originals_probabilities_but_for_those_it_garbles(place):
    [run] = [r for r in runs_of_the_original() if r["name"] == "classify_resnet18_odd_images"]
    ours = predictions(resnet("classify", *run["args"], cwd=place).stdout)
    theirs = predictions((GOLDEN / "scripts" / run["stdout"]).read_text())
    garbled = {"images/palette_trns.png", "images/cmyk.jpg"}
    assert set(theirs) - set(ours) == {"images/truncated.jpg"}
    for path in set(ours) - garbled:
        assert [label for _, label in ours[path]] == [label for _, label in theirs[path]], path
        np.testing.assert_allclose([p for p, _ in ours[path]], [p for p, _ in theirs[path]], rtol=1e-3)


@needs_golden
def test_the_demo_net_has_the_originals_logits_on_its_validation_images(tmp_path):
    import zipfile

    import torch

    from resnet_tools import load_checkpoint, preprocess
    from resnet_tools.compute.inference import logits_of, prepare

    demo = SHARED / "demo"
    with zipfile.ZipFile(demo / "fashion-val.zip") as archive:
        archive.extractall(tmp_path)
    names = (demo / "fashion-val.files.txt").read_text().splitlines()
    expected = np.load(demo / "fashion-val.logits.npy")
    chosen = range(0, len(names), 20)
    images = torch.stack([preprocess(next(tmp_path.rglob(names[i].removeprefix("val/")))) for i in chosen])
    found = logits_of(prepare(load_checkpoint().model, torch.device("cpu")), images)
    assert np.abs(found.numpy() - expected[chosen]).max() <= 1e-4 * np.abs(expected).max()


def test_json_and_csv_hold_the_same_as_the_text():
    text = predictions(resnet("classify", "demo", BAG, "--top-k", 3).stdout)[BAG]
    [row] = [json.loads(line) for line in resnet("classify", "demo", BAG, "--top-k", 3, "--json").stdout.splitlines()]
    assert row["path"] == BAG
    assert [c["label"] for c in row["classes"]] == [label for _, label in text]
    np.testing.assert_allclose([c["probability"] for c in row["classes"]], [p for p, _ in text], rtol=1e-6)
    rows = list(csv.DictReader(io.StringIO(resnet("classify", "demo", BAG, "--top-k", 3, "--csv").stdout)))
    assert [r["label"] for r in rows] == [label for _, label in text]
    assert [int(r["rank"]) for r in rows] == [1, 2, 3]
    assert [int(r["index"]) for r in rows] == [c["index"] for c in row["classes"]]


def test_labels_of_a_file_replace_the_checkpoints(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"label {n}\n" for n in range(10)))
    assert "\tlabel 1\n" in resnet("classify", "demo", BAG, "--labels", labels).stdout  # `bag` is the second class
    labels.write_text("one\n")
    done = resnet("classify", "demo", BAG, "--labels", labels)
    assert done.returncode in (1, 2)
    assert "10" in done.stderr


def test_folders_and_globs_are_searched():
    folder = predictions(resnet("classify", "demo", IMAGES, "--top-k", 1).stdout)
    assert list(folder) == sorted(str(path) for path in IMAGES.glob("*.png"))
    assert list(predictions(resnet("classify", "demo", f"{IMAGES}/s*.png").stdout)) == [
        str(IMAGES / name) for name in ("sandal.png", "shirt.png", "sneaker.png")
    ]


def test_all_missing_files_are_reported_before_the_model_is_loaded(tmp_path):
    done = resnet("classify", tmp_path / "no.t7", BAG, tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert done.returncode == 2
    assert done.stdout == ""
    for name in ("no.t7", "a.jpg", "b.jpg"):
        assert str(tmp_path / name) in done.stderr


def test_an_unreadable_image_is_named_the_others_go_on_and_the_exit_code_is_1(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(Path(BAG).read_bytes()[:100])
    done = resnet("classify", "demo", BAG, bad, IMAGES / "coat.png")
    assert done.returncode == 1
    assert list(predictions(done.stdout)) == [BAG, str(IMAGES / "coat.png")]
    assert f"Error: {bad}: " in done.stderr
    assert "1 of 3 images could not be read." in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop-size", "300"], "a crop of 300 x 300 does not fit"),
        (["--top-k", "0"], "Invalid value for '--top-k'"),
        (["--device", "tpu"], "device 'tpu' is"),
        (["--device", "cuda:63"], "device 'cuda:63' is not there"),
        (["--precision", "quad"], "'quad' is not one of"),
        (["--colour"], "No such option"),
        (["--json", "--csv"], "--json and --csv exclude each other"),
        (["--batch-size", "1" + 30 * "0"], "Invalid value for '--batch-size'"),
    ],
)
def test_wrong_options_are_named(options, message):
    done = resnet("classify", "demo", BAG, *options)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "demo", "net.pt", "--tolerance"),
        ("verify", "demo", "demo", "--tolerance"),
        ("train", "--data", ".", "--lr"),
        ("train", "--data", ".", "--momentum"),
        ("train", "--data", ".", "--weight-decay"),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path, command):
    for number in ("nan", "inf"):
        refused = resnet(*command, number, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"Invalid value for '{command[-1]}': {number}" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_ends_it_quietly():
    many = [BAG] * 200
    command = [sys.executable, "-m", "resnet_tools", "classify", "demo", *many, "--batch-size", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"Classes for")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_an_interrupt_ends_it_without_a_traceback():
    many = [BAG] * 2000
    command = [sys.executable, "-m", "resnet_tools", "classify", "demo", *many, "--batch-size", "1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells start background jobs without it
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"Classes for")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors.decode().strip().endswith("Stopped.")


def test_labels_are_utf_8_in_every_locale(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"größe {n}\n" for n in range(10)), encoding="utf-8")
    for form in ([], ["--csv"], ["--json"]):
        command = [sys.executable, "-m", "resnet_tools", "classify", "demo", BAG, "--labels", labels, *form]
        environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert ("größe" if form != ["--json"] else "gr\\u00f6\\u00dfe").encode() in done.stdout


@pytest.mark.parametrize("arguments", [["--version"], ["classify", "demo", BAG], ["inspect", "demo"]])
def test_a_closed_output_is_no_reason_for_a_traceback(arguments):
    command = " ".join([sys.executable, "-m", "resnet_tools", *arguments, ">&-"])
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_behind_the_output_is_an_error():
    command = [sys.executable, "-m", "resnet_tools", "classify", "demo", BAG]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_file_names_that_are_not_text_are_printed_as_they_are(tmp_path):
    name = os.fsencode(tmp_path) + b"/b\xe4g.png"
    shutil.copy(BAG, name)
    command = [sys.executable.encode(), b"-m", b"resnet_tools", b"classify", b"demo", name]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"Classes for\t" + name + b"\n")


def test_inspect_shows_the_tree_the_architecture_and_the_tensors():
    done = resnet("inspect", DATA / "models" / "published_resnet50.t7")
    assert done.returncode == 0
    assert "Lua Torch file (binary), 646,043 bytes" in done.stdout
    assert "bn-after-addition order" in done.stdout
    assert "torch.CudaTensor" in done.stdout
    assert "(1): cudnn.SpatialConvolution(3 -> 3, 7x7, 2,2, 3,3)\n" in done.stdout


def test_inspect_as_json():
    done = resnet("inspect", "demo", "--json")
    report = json.loads(done.stdout)
    assert report["architecture"]["stages"] == [2, 2, 2, 2]
    assert report["parameters"] == sum(p.numel() for p in _demo_model().parameters())
    assert report["classes"][1] == "bag"
    assert report["modules"][0]["class"] == "nn.Sequential"


def _demo_model():
    from resnet_tools import load_checkpoint

    return load_checkpoint().model


def test_inspect_shows_the_tree_of_a_net_that_is_not_recognised():
    done = resnet("inspect", DATA / "t7" / "nn_sequential.t7")
    assert done.returncode == 0
    assert "Architecture: not recognised: " in done.stdout
    assert "nn.Sequential {" in done.stdout
    assert "nn.Linear" in done.stdout


@pytest.mark.parametrize("state", [{"a": 1.5}, {"layer1.0.conv1.weight": 2.0}])
def test_inspect_shows_the_keys_of_a_state_dict_that_is_not_recognised(state, tmp_path):
    import torch

    path = tmp_path / "net.pth"
    torch.save({"state_dict": {key: torch.full((2, 3), value).bfloat16() for key, value in state.items()}}, path)
    done = resnet("inspect", path)
    assert done.returncode == 0
    assert "Architecture: not recognised: " in done.stdout
    assert f"state_dict/{next(iter(state))}  2x3  torch.bfloat16" in done.stdout
    assert "Tensors: 1 torch.bfloat16, 6 elements, 12 bytes stored" in done.stdout


def test_inspect_counts_the_zero_biases_that_are_left_out():
    path = DATA / "models" / "published_resnet18.t7"
    expected = json.loads(path.with_suffix(".json").read_text())["parameter_count"]
    report = json.loads(resnet("inspect", path, "--json").stdout)
    assert report["parameters"] + report["zero_biases"] == expected


def test_inspect_shows_what_a_table_holds():
    done = resnet("inspect", DATA / "t7" / "tensors_all.t7")
    assert done.returncode == 0
    assert "there is no network in it" in done.stdout
    assert "'Float': torch.FloatTensor of size 2x3" in done.stdout


@pytest.mark.parametrize("name", ["empty", "html_error_page", "truncated_02702", "zip", "garbage"])
def test_inspect_says_what_is_wrong_with_a_file(name):
    done = resnet("inspect", DATA / "t7" / "bad" / f"{name}.t7")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert f"{name}.t7" in done.stderr


def test_both_ways_to_start_it_are_the_same():
    script = Path(sys.executable).with_name("resnet")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == resnet("--version").stdout


HOSTILE = ["=cmd()", "a\x1b[2J", "new\nline", "\ud800", "\udc9b", "-x", "+y", "@z", "\u202egpj", "tab\there"]


@pytest.mark.parametrize("form", [[], ["--csv"], ["--json"]])
def test_class_names_and_file_names_do_nothing_to_a_terminal_or_a_spreadsheet(tmp_path, form):
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(HOSTILE))
    image = tmp_path / "=x\x1b]0;\n.png"
    shutil.copy(BAG, image)
    (tmp_path / "bad\x1b.png").write_bytes(b"")
    done = resnet("classify", "demo", "--labels", labels, "--top-k", 10, *form, *tmp_path.glob("*.png"))
    assert done.returncode == 1
    for text in (done.stdout, done.stderr):
        assert not {sign for sign in text if ord(sign) < 32} - {"\t", "\n"}
        assert not {"\x7f", "\x9b", "\u202e"} & set(text)
    assert "bad\\x1b.png: empty file" in done.stderr
    if form == ["--json"]:
        [row] = map(json.loads, done.stdout.splitlines())
        assert row["path"] == str(image)
        assert sorted(c["label"] for c in row["classes"]) == sorted(HOSTILE)
    elif form:
        rows = list(csv.reader(done.stdout.splitlines()))
        assert {row[3] for row in rows[1:]} >= {"'=cmd()", "a\\x1b[2J", "new\\nline", "'-x", "'+y", "'@z", "tab\\there"}
        assert all(len(row) == 5 for row in rows)
    else:
        assert len(done.stdout.splitlines()) == 12


def test_names_in_a_file_do_nothing_to_a_terminal_that_shows_it(tmp_path):
    net, state = tmp_path / "a\x1b.t7", tmp_path / "state.pt"
    save_t7(LuaObject("nn.Hostile1", 1, LuaTable([(b"modules", LuaTable())])), net)
    net.write_bytes(net.read_bytes().replace(b"nn.Hostile1", b"nn.\x1b[2J\nfcw"))
    torch.save({"layer\x1b[2J\nforged": torch.zeros(2)}, state)
    for path in (net, state):
        done = resnet("inspect", path)
        assert "\x1b" not in done.stdout + done.stderr
        assert r"\x1b[2J\n" in done.stdout + done.stderr


def test_results_go_to_a_file_with_unreadable_images_as_rows(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"")
    images = [BAG, tmp_path / "bad.png"]
    for name in ("out.CSV", "out.jsonl", "out.txt"):
        done = resnet("classify", "demo", *images, "--top-k", 2, "--output", tmp_path / name)
        assert (done.returncode, done.stdout) == (1, "")
        assert "1 of 2 images could not be read." in done.stderr
    rows = list(csv.DictReader((tmp_path / "out.CSV").read_text().splitlines()))
    assert [row["label"] for row in rows[:1]] == ["bag"]
    assert [(row["path"], row["error"]) for row in rows[2:]] == [(str(tmp_path / "bad.png"), "empty file")]
    good, bad = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert good["classes"][0]["label"] == "bag"
    assert bad == {"path": str(tmp_path / "bad.png"), "error": "empty file"}
    assert (tmp_path / "out.txt").read_text().endswith(f"Classes for\t{tmp_path / 'bad.png'}\nError\tempty file\n\n")
    done = resnet("classify", "demo", BAG, "--output", "/dev/full", "--csv")
    assert done.returncode == 1
    assert "/dev/full: cannot be written: a device has this name" in done.stderr


@pytest.mark.parametrize("kind", ["image", "model", "link", "labels", "list", "features"])
def test_an_output_that_is_an_input_is_refused(tmp_path, kind):
    image, model, labels, images = (tmp_path / name for name in ("bag.png", "net.t7", "labels.txt", "list.txt"))
    shutil.copy(BAG, image)
    shutil.copy(DEMO_PATH, model)
    labels.write_text("".join(f"name {number}\n" for number in range(10)))
    images.write_text(f"{image}\n")
    (tmp_path / "link.csv").symlink_to(image)
    output = {"image": image, "link": tmp_path / "link.csv", "labels": labels, "list": images}.get(kind, model)
    command = ["extract-features"] if kind == "features" else ["classify", "--labels", labels]
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    refused = resnet(*command, model, image, "--from-file", images, "--output", output)
    assert refused.returncode == 2
    assert "this file is read" in refused.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_list_of_images_is_not_overwritten_by_the_paths_beside_an_array(tmp_path):
    images = tmp_path / "photos.paths.txt"
    images.write_text(f"{BAG}\n{__file__}\n")
    refused = resnet("extract-features", "demo", "--from-file", images, "--output", tmp_path / "photos.npy")
    assert refused.returncode == 2
    assert "this file is read" in refused.stderr
    assert images.read_text() == f"{BAG}\n{__file__}\n"
    assert list(tmp_path.iterdir()) == [images]


def test_a_net_that_gives_nan_is_named_with_the_image(tmp_path):
    import torch

    state = _demo_model().state_dict()
    state["fc.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    done = resnet("classify", tmp_path / "nan.pth", BAG)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: {BAG}: the net gives NaN or infinite outputs" in done.stderr


def test_images_come_from_lists_and_stdin(tmp_path):
    expected = resnet("classify", "demo", BAG, IMAGES / "coat.png").stdout
    names = f"{BAG}\n{IMAGES / 'coat.png'}\n"
    (tmp_path / "lines").write_text(names)
    (tmp_path / "nulls").write_text(names.replace("\n", "\0"))
    for name in ("lines", "nulls"):
        assert resnet("classify", "demo", "--from-file", tmp_path / name).stdout == expected
    assert resnet("classify", "demo", "--from-file", "-", input=names).stdout == expected
    command = [sys.executable, "-m", "resnet_tools", "classify", "demo", "-"]
    done = subprocess.run(command, input=Path(BAG).read_bytes(), capture_output=True, check=False)
    assert done.stdout.decode() == resnet("classify", "demo", BAG).stdout.replace(BAG, "-")


@pytest.mark.parametrize("option", ["--from-file", "--labels"])
def test_lists_that_are_devices_or_silent_pipes_are_an_error_at_once(tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (("/dev/zero", "is a device"), (tmp_path / "pipe", "a pipe that nobody writes to")):
        done = resnet("classify", "demo", BAG, option, path)
        assert done.returncode == 1
        assert message in done.stderr


def test_a_closed_stdin_is_an_error():
    for arguments in ("--from-file -", "-"):
        command = f"{sys.executable} -m resnet_tools classify demo {arguments} <&-"
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2)
        assert "stdin" in done.stderr
        assert "Traceback" not in done.stderr


def test_addresses_are_fetched_only_where_that_is_allowed():
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(IMAGES))

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/file":
                self.send_response(302)
                self.send_header("Location", f"file://{BAG}")
                self.end_headers()
            else:
                super().do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        top = f"http://127.0.0.1:{server.server_port}"
        refused = resnet("classify", "demo", f"{top}/bag.png")
        assert refused.returncode == 2
        assert "give --allow-urls" in refused.stderr
        done = resnet("classify", "demo", f"{top}/bag.png", f"{top}/none.png", f"{top}/file", "--allow-urls")
        server.shutdown()
    assert done.stdout == resnet("classify", "demo", BAG).stdout.replace(BAG, f"{top}/bag.png")
    assert f"{top}/none.png: the server answers 404" in done.stderr
    assert f"{top}/file: " in done.stderr
    assert done.returncode == 1


def test_an_address_that_is_none_is_an_error_at_once():
    done = resnet("classify", "demo", "http://[::1", "--allow-urls")
    assert done.returncode == 1
    assert "Error: http://[::1: cannot be fetched" in done.stderr


def test_files_that_are_left_out_of_a_folder_are_counted(tmp_path):
    for name in ("a.png", "b.txt", "c.TXT", "d.heic"):
        shutil.copy(BAG, tmp_path / name)
    done = resnet("classify", "demo", tmp_path)
    assert done.returncode == 0
    expected = "3 files without an image extension: .txt (2), .heic (1)."
    assert done.stderr == f"Left out: {expected}\n"


def test_without_a_command_the_help_is_shown_line_by_line():
    bare, asked = resnet(), resnet("--help")
    assert (bare.returncode, asked.returncode) == (2, 0)
    assert bare.stderr == asked.stdout
    assert "Commands:\n  classify " in bare.stderr

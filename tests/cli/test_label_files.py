"""Label files and lists of images, as the commands take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resnet_tools.__main__ import run
from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.checkpoints.model_files import DEMO_PATH

BAG = str(DEMO_PATH.parent / "images" / "bag.png")
NAMES = [f"name {'abcdefghij'[k]}" for k in range(10)]


@pytest.mark.parametrize(
    "command",
    [
        f"classify demo {BAG} --labels names",
        "convert demo out.pt --classes names",
        "evaluate demo --data data --class-names names",
    ],
)
def test_another_number_of_names_than_outputs_names_the_file(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "names").write_text("".join(f"{name}\n" for name in NAMES[:9]))
    assert run(command.split()) == 1
    assert "Error: names: the net has 10 classes, but 9 names are here" in capsys.readouterr().err
    assert not Path("out.pt").exists()


def test_names_of_json_lines_and_of_coco_are_used_and_their_form_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines").write_text("".join(f"{json.dumps(name)}\n" for name in NAMES))
    assert run(["classify", "demo", BAG, "--labels", "lines", "--top-k", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].endswith("\tname b")
    assert printed.err == "Warning: lines: read as strings in quotes, one per line\n"
    entries = [{"id": 2 * k + 1, "name": name} for k, name in enumerate(NAMES)]
    (tmp_path / "coco.json").write_text(json.dumps({"categories": entries}))
    assert run(["convert", "demo", "out.pt", "--classes", "coco.json"]) == 0
    assert "Warning: coco.json: the ids are 1 to 19 with gaps (none is 2)" in capsys.readouterr().err
    assert load_checkpoint("out.pt").class_names == NAMES


def test_lists_of_images_with_classes_are_lists_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_bytes(f"\ufeffpath;class\r\n{BAG};bag\r\n".encode())
    assert run(["classify", "demo", "--from-file", "list.csv", "--csv", "--top-k", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{BAG},1,1,bag,0.9995")
    (tmp_path / "empty").write_text("\n")
    for command in ("classify demo --from-file empty", "extract-features demo --from-file empty"):
        assert run(command.split()) == 2
        assert "Error: empty: this list names no images" in capsys.readouterr().err


def test_an_empty_image_name_can_be_seen(capsys):
    assert run(["classify", "demo", ""]) == 2
    assert "argument 3 (after demo) is empty" in capsys.readouterr().err

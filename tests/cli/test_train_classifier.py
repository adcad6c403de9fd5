"""`resnet train --classifier-only`: from a folder of class folders to a net that is a model everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_tools.__main__ import run
from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.history.history import read_history
from resnet_tools.training import classifier_only

SMALL = ["--retrain", "demo", "--classifier-only", "--crop-size", "32", "--resize-size", "32", "--quiet"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = draw.integers(0, 90, (32, 32, 3))
                pixels[:, :, channel] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.png")
    return tmp_path / "photos"


def train(photos: Path, folder: Path, *more: str) -> int:
    return run(["train", "--data", str(photos), "--save", str(folder), *SMALL, *more])


def test_the_folder_of_the_run_is_a_model(photos, tmp_path, capsys):
    folder = tmp_path / "run 1"
    assert train(photos, folder) == 0
    said = capsys.readouterr().out
    assert "36 training and 12 validation images, 3 classes; resnet-18 from demo, a new classifier only; CPU" in said
    assert f"; its net is {folder}/model_best.pt" in said
    assert f"  resnet classify '{folder}' " in said
    left = {path.name for path in folder.iterdir()}
    assert left == {"args.json", "confusion.png", "history.csv", "model_best.pt", "report"}
    [figures] = read_history(folder / "history.csv")
    assert figures.val_top1 < 10
    facts = json.loads((folder / "report" / "summary.json").read_text())
    assert facts["top1_error"] == pytest.approx(figures.val_top1)

    image = str(photos / "val" / "blue" / "0.png")
    assert run(["classify", str(folder), image, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["label"] == "blue"
    before, after = load_checkpoint("demo"), load_checkpoint(folder / "model_best.pt")
    assert after.class_names == ["blue", "green", "red"]
    weights, other = before.model.state_dict(), after.model.state_dict()
    assert all(bool((weights[name] == other[name]).all()) for name in weights if not name.startswith("fc."))


def test_it_goes_on_after_an_interruption(photos, tmp_path, monkeypatch, capsys):
    assert train(photos, tmp_path / "whole", "--no-report") == 0
    computed: list[int] = []
    original = classifier_only.features_of

    def features(model, images, kind):
        if len(computed) == 1:
            raise KeyboardInterrupt
        computed.append(len(images))
        return original(model, images, kind)

    with monkeypatch.context() as stopping:
        stopping.setattr(classifier_only, "features_of", features)
        assert train(photos, tmp_path / "part", "--no-report", "--batch-size", "32") == 130
    assert "give the same command again to continue" in capsys.readouterr().err
    assert train(photos, tmp_path / "part", "--no-report", "--batch-size", "32") == 0
    nets = [load_checkpoint(tmp_path / name / "model_best.pt").model.fc.weight for name in ("whole", "part")]
    assert bool((nets[0] == nets[1]).all())
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == ["args.json", "history.csv", "model_best.pt"]


def test_a_finished_run_is_kept_unless_it_is_to_be_overwritten(photos, tmp_path, capsys):
    folder = tmp_path / "run"
    assert train(photos, folder, "--no-report", "--crop-size", "24") == 0
    earlier = (folder / "model_best.pt").read_bytes()
    assert train(photos, folder, "--no-report", "--augment", "none") == 2
    assert run(["train", "--data", str(photos), "--save", str(folder), "--depth", "18"]) == 2
    assert run(["train", "--resume", str(folder)]) == 2
    assert f"start a run with --retrain {folder}/model_best.pt" in capsys.readouterr().err
    assert (folder / "model_best.pt").read_bytes() == earlier
    assert train(photos, folder, "--no-report", "--augment", "none", "--overwrite") == 0
    assert (folder / "model_best.pt").read_bytes() != earlier


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n-epochs", "3"], "leave out --n-epochs"),
        (["--lr", "0.1", "--mixup", "0.2"], "leave out --lr, --mixup"),
        (["--n-gpu", "2"], "leave out --n-gpu"),
        (["--test-only"], "leave out --test-only"),
        (["--augment", "light"], "leave out --augment"),
    ],
)
def test_what_it_has_no_use_for_is_refused(photos, tmp_path, words, said, capsys):
    assert train(photos, tmp_path / "run", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_it_needs_a_net(photos, capsys):
    assert run(["train", "--data", str(photos), "--classifier-only"]) == 2
    assert "give it with --retrain" in capsys.readouterr().err

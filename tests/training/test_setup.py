"""Options -> how a training loads and computes."""

from __future__ import annotations

import pytest
import torch

from resnet_tools.training import setup


def test_on_the_way_to_a_gpu_images_of_our_own_recipes_are_bytes():
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert [setup._as_bytes(name, gpu) for name in ("light", "trivial", "original", "none")] == [
        True,
        True,
        False,
        False,
    ]
    assert not any(setup._as_bytes(name, cpu) for name in ("light", "trivial", "original", "none"))


@pytest.mark.parametrize(
    ("classes", "save", "refused"),
    [
        ("photos", "photos", True),
        ("photos", "photos/run", True),
        ("photos", "photos/a/run", True),
        ("photos", "link/run", True),
        ("photos", "photos/.run", False),
        ("photos", "photos-run", False),
        ("photos/train", "photos/train/run", True),
        ("photos/train", "photos/run", False),
    ],
)
def test_a_run_among_the_class_folders_is_refused_before_it_is_there(tmp_path, monkeypatch, classes, save, refused):
    from contextlib import nullcontext
    from dataclasses import fields

    from resnet_tools.compute.processes import ALONE
    from resnet_tools.errors import TrainingError
    from resnet_tools.training.options import TrainOptions

    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / classes / name).mkdir(parents=True)
        (tmp_path / classes / name / "1.png").touch()
    (tmp_path / "link").symlink_to("photos")
    given = {"data": "photos", "save": save}
    options = TrainOptions(**dict.fromkeys(field.name for field in fields(TrainOptions)) | given)
    complaint = pytest.raises(TrainingError, match="among the class folders of photos") if refused else nullcontext()
    with complaint, setup.held_folder(options, ALONE):
        assert not refused
    assert sorted(path.name for path in (tmp_path / classes).iterdir()) == ["a", "b"]


@pytest.mark.parametrize(("precision", "tf32"), [("single", False), ("tf32", True), ("double", False), ("bf16", True)])
def test_single_is_float32(monkeypatch, precision, tf32):
    from types import SimpleNamespace

    from resnet_tools.compute.processes import ALONE
    from resnet_tools.training.recipe import make_recipe

    told = {}
    monkeypatch.setattr(setup, "configure", lambda *_, **named: told.update(named))
    options = SimpleNamespace(
        precision=precision, cudnn="deterministic", sync_bn=False, compile=False, checkpoint_activations=False
    )
    start = SimpleNamespace(state=SimpleNamespace(recipe=make_recipe("modern", "cifar10")))
    config = setup.set_up_compute(options, start, torch.device("cuda", 0), ALONE)
    assert told == {"allow_tf32": tf32}
    assert (config.precision, config.deterministic) == (precision, True)

"""A classifier on features that are computed once: what it gives, and that a stopped run goes on where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_tools.checkpoints.checkpoint import Checkpoint
from resnet_tools.compute.inference import Loading
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import CIFAR10
from resnet_tools.errors import ImageError, TrainingError
from resnet_tools.training import classifier_only
from resnet_tools.training.classifier_only import ClassifierRun
from resnet_tools.training.initial_net import reset_classifier
from tests.support.small_nets import CPU, small_net


def colours(count: int, seed: int = 0) -> Samples:
    """Noisy images of three colours."""
    draw = np.random.default_rng(seed)
    targets = [k % 3 for k in range(count)]
    pixels = draw.integers(0, 120, (count, 32, 32, 3))
    for k, target in enumerate(targets):
        pixels[k, :, :, target] += 100
    return Samples(pixels.astype(np.uint8), targets, ["red", "green", "blue"])


def job(folder: Path, **changes) -> ClassifierRun:
    model = small_net()
    reset_classifier(model, 3)
    model.eval()
    checkpoint = Checkpoint(model, model.architecture, ["red", "green", "blue"], CIFAR10, "new")
    values = {"train": colours(60), "val": colours(30, 1), "loading": Loading(CIFAR10, 8), "device": CPU}
    return ClassifierRun(checkpoint, "net.pt", folder=folder, **(values | changes))


def quiet(images: int, reasons: list[str]) -> None:
    pass


def test_the_net_gets_a_classifier_that_tells_the_classes_apart(tmp_path):
    run = job(tmp_path)
    before = {name: tensor.clone() for name, tensor in run.checkpoint.model.state_dict().items()}
    checkpoint, _, train, val = run.run(quiet)
    after = checkpoint.model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["fc.weight", "fc.bias"]
    assert (train.images, val.images) == (60, 30)
    assert val.top1_error < 10
    images = torch.stack([CIFAR10(image) for image in run.val.images])
    with torch.inference_mode():
        wrong = (checkpoint.model(images).argmax(1) != torch.tensor(run.val.targets)).float().mean()
    assert 100 * float(wrong) == pytest.approx(val.top1_error)
    run.remove_features()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_goes_on_to_the_same_classifier(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "part").mkdir()
    expected = job(tmp_path / "whole").run(quiet)[1]
    seen = []

    def stopping(images: int, reasons: list[str]) -> None:
        seen.append(images)
        if len(seen) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job(tmp_path / "part").run(stopping)
    computed = []
    original = classifier_only.features_of
    monkeypatch.setattr(classifier_only, "features_of", lambda *a: computed.append(len(a[1])) or original(*a))
    found = job(tmp_path / "part").run(quiet)[1]
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)
    assert 0 < sum(computed) < 60 + 30 - 30


def test_features_of_another_net_or_other_images_are_not_used(tmp_path):
    job(tmp_path).run(quiet)
    folders = set(tmp_path.iterdir())
    other = job(tmp_path, train=colours(60, 2))
    other.run(quiet)
    assert len(set(tmp_path.iterdir()) - folders) == 1
    with torch.no_grad():
        other.checkpoint.model.conv1.weight += 1
    other.run(quiet)
    assert len(set(tmp_path.iterdir()) - folders) == 3


def test_unreadable_images_stop_the_run_or_are_left_out(tmp_path):
    from PIL import Image

    paths = []
    for k, pixels in enumerate(colours(30).images):
        paths.append(str(tmp_path / f"{k:02d}.png"))
        Image.fromarray(pixels).save(paths[-1])
    Path(paths[4]).write_bytes(b"none")
    samples = Samples(paths, [k % 3 for k in range(30)], ["red", "green", "blue"])
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(ImageError, match=r"04\.png.*--on-error skip"):
        job(run, train=samples).run(quiet)
    told = []
    _, _, train, _ = job(run, train=samples, skip_unreadable=True).run(lambda _, reasons: told.extend(reasons))
    assert train.images == 29
    assert len(told) == 1


def test_a_net_that_gives_nan_is_refused(tmp_path):
    run = job(tmp_path)
    with torch.no_grad():
        run.checkpoint.model.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(TrainingError, match=r"net\.pt: gives NaN"):
        run.run(quiet)

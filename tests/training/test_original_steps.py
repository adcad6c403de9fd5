"""The training against the steps that the original program took on fixed batches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.compute.inference import logits_of
from resnet_tools.torch7.modules import module_tree
from resnet_tools.torch7.recognise import recognise_and_bind
from resnet_tools.torch7.t7 import read_t7
from resnet_tools.training.compute_config import ComputeConfig
from resnet_tools.training.initial_net import reset_classifier
from resnet_tools.training.lua_run import lua_momentum, read_latest
from resnet_tools.training.optimizer import momentum_of, set_lr, set_momentum
from resnet_tools.training.recipe import lr_factor, make_recipe
from resnet_tools.training.step import TrainStep
from tests.support.golden import DATA, GOLDEN, error_counts, needs_golden

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class TrainCase:
    """What one folder of golden/train holds."""

    folder: Path

    @property
    def description(self) -> dict[str, Any]:
        return json.loads((self.folder / "train.json").read_text())

    def images(self, name: str = "pixels") -> torch.Tensor:
        """(N, 3, H, W) float32."""
        data = np.load(self.folder / "data.npz")
        images = np.stack([data["lut"][c][data[name][:, c]] for c in range(3)], axis=1)
        return torch.from_numpy(images.repeat(data["repeat"], 2).repeat(data["repeat"], 3))

    def targets(self, name: str = "targets") -> torch.Tensor:
        return torch.from_numpy(np.load(self.folder / "data.npz")[name].astype(np.int64) - 1)

    def train_step(self, model_file: str = "initial.t7", precision: str = "double") -> TrainStep:
        options = self.description["options"]
        made = make_recipe(
            "original",
            options["dataset"],
            lr=options["LR"],
            momentum=options["momentum"],
            weight_decay=options["weightDecay"],
        )
        return TrainStep(load_checkpoint(self.folder / model_file).model, made, ComputeConfig(CPU, precision))

    def flat(self, train_step: TrainStep, layout: str) -> np.ndarray:
        """The net's numbers in the order of the recorded vectors; `layout` is `parameters` or `bn`."""
        _, bound = recognise_and_bind(module_tree(read_t7(self.folder / "initial.t7")))
        keys = {module.path: key for key, (module, _) in bound.items()}
        state = train_step.model.state_dict()
        parts = []
        for name, *_ in self.description[layout]:
            path, _, field = name.rpartition(".")
            parts.append(state[f"{keys[path]}.{field}"].detach().numpy().ravel())
        return np.concatenate(parts)


def take_steps(case: TrainCase, train_step: TrainStep, batches: list[list[int]]) -> list[float]:
    images, targets, losses = case.images(), case.targets(), []
    for batch in batches:
        chosen = torch.tensor(batch) - 1
        train_step.train_mode()
        set_lr(train_step.optimizer, lr_factor(train_step.recipe, 0))
        counts = train_step.backward(images[chosen], targets[chosen], len(chosen), last=True).read()
        train_step.update()
        losses.append(counts.loss)
    return losses


@cache
def trained(case: TrainCase) -> tuple[TrainStep, list[float]]:
    """The net after all recorded steps in double precision, and their losses."""
    train_step = case.train_step()
    return train_step, take_steps(case, train_step, case.description["batches_1based_sample_indices"])


COPIED = [TrainCase(DATA / "train" / name) for name in ("cifar10_batch1", "cifar10_resnet20")]
OTHERS = [TrainCase(path.parent) for path in sorted(GOLDEN.glob("train/*/train.json"))]
OTHERS = [case for case in OTHERS if case.folder.name not in {copied.folder.name for copied in COPIED}]
CASES = [
    *COPIED,
    *(pytest.param(case, marks=needs_golden) for case in OTHERS),
]
names = lambda case: case.folder.name  # noqa: E731


@pytest.mark.parametrize("case", CASES, ids=names)
def test_every_step_in_double_precision_is_the_originals(case):
    (train_step, losses), run = trained(case), case.description["precisions"]["double"]
    assert losses == pytest.approx([step["loss"] for step in run["steps"]], rel=1e-7, abs=1e-9)
    final = np.load(case.folder / "double.npz")
    noise = 10 * case.description["double_noise_growth"]["final_parameters_max_abs"] + 1e-9
    assert np.abs(case.flat(train_step, "parameters") - final["params_final"]).max() < max(noise, 1e-6)
    statistics = case.flat(train_step, "bn")
    assert np.abs(statistics - final["bn_final"]).max() < 1e-6 * np.abs(final["bn_final"]).max()


@pytest.mark.parametrize("case", CASES, ids=names)
def test_the_first_steps_in_single_precision_are_the_originals(case):
    # Later ones differ between any two programs: a ReLU that switches is enough (see the golden data's README).
    batches = case.description["batches_1based_sample_indices"][:2]
    losses = take_steps(case, case.train_step(precision="single"), batches)
    expected = [step["loss"] for step in case.description["precisions"]["single"]["steps"][:2]]
    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", CASES, ids=names)
def test_error_rates_of_the_trained_net_are_the_originals(case):
    (train_step, _), run = trained(case), case.description["precisions"]["double"]
    train_step.model.eval()
    indices = [n - 1 for batch in case.description["validation_batches_1based_sample_indices"] for n in batch]
    counts = error_counts(logits_of(train_step.model, case.images()[indices]), case.targets()[indices])
    assert (counts.top1_error, counts.top5_error) == pytest.approx(
        (run["validation"]["top1"], run["validation"]["top5"])
    )
    if "ten_crop" in run:
        crops, targets = case.images("tencrop_pixels"), case.targets("tencrop_targets")
        views = torch.stack([torch.stack(ten_views(image)) for image in crops])
        counts = error_counts(logits_of(train_step.model, views), targets)
        assert (counts.top1_error, counts.top5_error) == pytest.approx(
            (run["ten_crop"]["top1"], run["ten_crop"]["top5"])
        )


def ten_views(image: torch.Tensor, crop: int = 32) -> list[torch.Tensor]:
    """TenCrop of a (3, H, W) image, by its definition."""
    views = []
    for side in (image, image.flip(2)):
        (_, h, w), m = side.shape, crop
        starts = [(-(-(h - m) // 2), -(-(w - m) // 2)), (0, 0), (0, w - m), (h - m, 0), (h - m, w - m)]
        views += [side[:, y : y + m, x : x + m] for y, x in starts]
    return views


def test_an_original_run_goes_on_with_its_momentum():
    case = TrainCase(DATA / "train" / "cifar10_resnet20")
    latest = read_latest(case.folder)
    assert (latest.epoch, latest.model_file.name) == (1, "model_1.t7")
    train_step = case.train_step("model_1.t7", "single")
    set_momentum(train_step.model, train_step.optimizer, lua_momentum(latest.optim_file, latest.model_file))
    resume = case.description["resume"]
    losses = take_steps(case, train_step, case.description["batches_1based_sample_indices"][:2])
    expected = [step["loss"] for step in resume["two_steps_on_batches_1_and_2"]]
    assert losses == pytest.approx(expected, rel=1e-4)
    after = np.load(case.folder / "single.npz")["resume.params_after_two_steps"]
    assert np.abs(case.flat(train_step, "parameters") - after).max() < 1e-3


def test_momentum_is_taken_over_number_by_number():
    case = TrainCase(DATA / "train" / "cifar10_resnet20")
    train_step = case.train_step("model_1.t7", "single")
    set_momentum(
        train_step.model,
        train_step.optimizer,
        lua_momentum(case.folder / "optimState_1.t7", case.folder / "model_1.t7"),
    )
    ours = {name: tensor.numpy() for name, tensor in momentum_of(train_step.model, train_step.optimizer).items()}
    dfdx = np.asarray(read_t7(case.folder / "optimState_1.t7")["dfdx"])
    assert len(ours) == len(list(train_step.model.parameters()))
    assert np.array_equal(ours["conv1.weight"].ravel(), dfdx[: ours["conv1.weight"].size])  # the first module
    assert np.array_equal(ours["fc.bias"], dfdx[-10:])  # the last
    assert sum(array.size for array in ours.values()) == dfdx.size


RATES = json.loads((DATA / "train" / "learning_rate.json").read_text())["rates"]


@pytest.mark.parametrize("name", RATES)
def test_learning_rates_are_the_originals(name):
    dataset = next(known for known in ("imagenet", "cifar100", "cifar10") if name.startswith(known))
    made = make_recipe("original", dataset, lr=RATES[name][0])
    assert [made.lr * lr_factor(made, epoch) for epoch in range(len(RATES[name]))] == pytest.approx(RATES[name])


RESETS = json.loads((DATA / "train" / "reset_classifier.json").read_text())


@pytest.mark.parametrize("case", RESETS, ids=lambda case: case["model"])
def test_a_reset_classifier_is_drawn_as_the_originals(case):
    path = (GOLDEN if (GOLDEN / "train" / case["model"]).exists() else DATA) / "train" / case["model"]
    if not path.exists():
        pytest.skip("this net is in the whole golden data only")
    model = load_checkpoint(path).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reset_classifier(model, case["nClasses"])
    assert list(model.fc.weight.shape) == case["weight_shape"]
    assert torch.count_nonzero(model.fc.bias) == 0
    largest, bound = float(model.fc.weight.detach().abs().max()), case["bound_1_over_sqrt_inputs"]
    assert 0.9 * bound < largest <= bound
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items() if not name.startswith("fc."))
    assert model.architecture.num_classes == case["nClasses"]

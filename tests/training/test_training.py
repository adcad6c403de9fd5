"""The parts of the training: recipes, batches, steps, averages, memory."""

from __future__ import annotations

import copy
import math
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnet_tools.compute.device import find_precision
from resnet_tools.compute.launcher import run_processes
from resnet_tools.compute.processes import Processes
from resnet_tools.data.samples import Samples
from resnet_tools.data.transforms import CIFAR10
from resnet_tools.errors import MemoryShortage, TrainingError
from resnet_tools.metrics import ErrorCounts
from resnet_tools.nets.resnet import ResNet, build_resnet
from resnet_tools.training.average import WeightAverage
from resnet_tools.training.batches import BatchLoader, epoch_batches, loaded, random_numbers, share_of
from resnet_tools.training.memory import largest_that_fits
from resnet_tools.training.mixing import mixed, seeded
from resnet_tools.training.optimizer import freeze, make_optimizer, set_momentum
from resnet_tools.training.recipe import Recipe, changed, describe, lr_factor, recipe
from resnet_tools.training.setup import NetOptions, augmentation, digest_of, image_loader, starting_net
from resnet_tools.training.step import Machine, Stepper, check_loss

CPU = torch.device("cpu")
names = st.sampled_from(["original", "finetune", "modern"])
datasets = st.sampled_from(["imagenet", "cifar10", "cifar100"])


pytestmark = pytest.mark.usefixtures("one_thread")


def small_net(num_classes: int = 10, seed: int = 0) -> ResNet:
    with seeded(seed):
        return build_resnet(depth=8, dataset="cifar10", num_classes=num_classes)


def small_stepper(model: ResNet | None = None, *, machine: Machine | None = None, **changes) -> Stepper:
    changes = {"lr": 0.05} | changes
    return Stepper(model or small_net(), recipe("original", "cifar10", **changes), machine or Machine(CPU, "double"))


def some_images(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, 3, 32, 32))
    return torch.from_numpy(images), torch.from_numpy(generator.integers(0, 10, count))


def weights(stepper: Stepper) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in stepper.model.parameters()])


# Recipes


@given(names, datasets, st.integers(1, 200))
def test_rates_rise_then_fall_and_end_low(name, dataset, epochs):
    made = recipe(name, dataset, epochs=epochs)
    moments = np.linspace(0, epochs - 1e-9, 300)
    factors = [lr_factor(made, moment) for moment in moments]
    assert all(0 <= factor <= 1 for factor in factors)
    peak = int(np.argmax(factors))
    assert all(a <= b + 1e-12 for a, b in pairwise(factors[: peak + 1]))
    assert all(a >= b - 1e-12 for a, b in pairwise(factors[peak:]))
    if made.lr_schedule == "cosine":
        assert factors[-1] < 0.01


@given(names, datasets)
def test_a_recipe_survives_its_dict(name, dataset):
    made = recipe(name, dataset)
    assert Recipe.from_dict(made.to_dict()) == made


@pytest.mark.parametrize("values", [None, {}, {"name": "original"}, [1]])
def test_a_recipe_of_another_kind_is_refused(values):
    with pytest.raises(TrainingError, match="recipe"):
        Recipe.from_dict(values)


def test_the_classifiers_rate_keeps_its_ratio():
    base = recipe("finetune", "imagenet")
    assert changed(base, lr=base.lr / 2).classifier_lr == pytest.approx(base.classifier_lr / 2)
    assert changed(base, lr=base.lr / 2, classifier_lr=1.0).classifier_lr == 1.0


def test_the_description_names_what_is_on_and_the_other_recipes():
    text = describe(recipe("finetune", "imagenet", mixup=0.2))
    assert "Recipe finetune" in text
    assert "mixup 0.2" in text
    assert "cutmix" not in text
    assert "--recipe original or modern" in text


def test_impossible_recipes_are_refused():
    with pytest.raises(TrainingError, match="warm-up"):
        recipe("original", "imagenet", epochs=2, warmup_epochs=2.0)
    with pytest.raises(TrainingError, match="mix"):
        recipe("modern", "imagenet", batch_size=1)


# Batches


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**63), st.integers(1, 90), st.integers(1, 5))
def test_an_epoch_is_every_sample_once(count, batch_size, seed, epoch, processes):
    batches = epoch_batches(count, batch_size, seed, epoch, processes)
    assert sorted(np.concatenate(batches)) == list(range(count))
    if count >= processes and batch_size >= processes:
        assert min(map(len, batches)) >= min(processes, count)
    for batch in batches:
        parts = [share_of(batch, rank, processes) for rank in range(processes)]
        assert np.array_equal(np.concatenate(parts), batch)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(epoch_batches(50, 50, seed, epoch)[0]) for seed in (0, 1) for epoch in (1, 2)]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(epoch_batches(50, 50, 0, 1)[0])


def sample_set(count: int = 12) -> Samples:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    return Samples(pixels, [k % 3 for k in range(count)], ["a", "b", "c"])


def test_batches_do_not_depend_on_who_loads_them():
    samples = sample_set()
    loader = BatchLoader(samples, image_loader("original", "cifar10", CIFAR10), seed=3, epoch=2)
    plan = epoch_batches(len(samples), 5, 3, 2)
    ways = [list(loaded(loader, plan, workers=workers, pin=False)) for workers in (0, 1, 3, 5)]
    for batches in ways[1:]:
        assert [torch.equal(a.images, b.images) for a, b in zip(ways[0], batches, strict=True)] == [True] * len(plan)
        assert [a.targets.tolist() for a in ways[0]] == [b.targets.tolist() for b in batches]
    assert [batch.targets.tolist() for batch in ways[0]] == [[samples.targets[k] for k in part] for part in plan]


def test_an_augmentation_depends_on_epoch_and_position_alone():
    samples = sample_set()
    load = image_loader("original", "cifar10", CIFAR10)
    images = {(epoch, k): BatchLoader(samples, load, 0, epoch).image(k) for epoch in (1, 2) for k in (0, 1)}
    again = BatchLoader(samples, load, 0, 1).image(1)
    assert torch.equal(images[1, 1], again)
    assert not torch.equal(images[1, 1], images[2, 1])


def test_unreadable_images_are_left_out_and_named(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    good = str(tmp_path / "good.png")
    Image.new("RGB", (40, 36), (200, 30, 90)).save(good)
    samples = Samples([good, str(bad), good], [0, 1, 2], ["a", "b", "c"])
    loader = BatchLoader(samples, image_loader("none", "cifar10", CIFAR10), 0, 1)
    batch = loader.batch(np.arange(3))
    assert batch.targets.tolist() == [0, 2]
    assert [name for name, _ in batch.errors] == [str(bad)]
    assert loader.batch(np.array([1])).images is None


@pytest.mark.parametrize("name", ["original", "light", "trivial", "none"])
@pytest.mark.parametrize("dataset", ["imagenet", "cifar10"])
def test_every_augmentation_gives_normalised_crops(name, dataset):
    load = image_loader(name, dataset, CIFAR10)
    views = [load(sample_set().images[0], random_numbers(0, 1, k)) for k in range(8)]
    assert all(view.shape == (3, 32, 32) and view.dtype == torch.float32 for view in views)
    assert all(bool(view.isfinite().all()) and float(view.abs().max()) < 6 for view in views)
    assert torch.equal(views[0], load(sample_set().images[0], random_numbers(0, 1, 0)))
    drawn = any(not torch.equal(views[0], view) for view in views[1:])
    assert drawn == (name != "none")
    assert augmentation(name, dataset).flip == (name != "none")


# Steps


def test_accumulated_batches_are_one_large_batch():
    # With frozen statistics images do not see each other, so the mean gradient is the same.
    images, targets = some_images(10)
    whole, parts = (small_stepper(freeze_bn=True) for _ in range(2))
    whole.train_mode()
    parts.train_mode()
    whole.backward(images, targets, 10, last=True)
    parts.backward(images[:7], targets[:7], 10, last=False)
    parts.backward(images[7:], targets[7:], 10, last=True)
    whole.step()
    parts.step()
    assert torch.allclose(weights(whole), weights(parts), rtol=1e-10, atol=1e-12)


def test_frozen_parts_stay_as_they_are():
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    freeze(model, 2)  # the stem and layer1
    stepper = small_stepper(model, freeze=2)
    for _ in range(2):
        stepper.train_mode()
        stepper.backward(*some_images(6), 6, last=True)
        stepper.step()
    after = stepper.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name].double(), after[name].double())}
    assert not [name for name in moved if name.startswith(("conv1", "bn1", "layer1"))]
    assert {"layer2.0.conv1.weight", "layer2.0.bn1.running_mean", "fc.bias"} <= moved


def test_frozen_batch_norms_stay_as_they_are():
    stepper = small_stepper(freeze_bn=True)
    before = copy.deepcopy(stepper.model.state_dict())
    stepper.train_mode()
    stepper.backward(*some_images(6), 6, last=True)
    stepper.step()
    moved = {name for name, tensor in stepper.model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert not [name for name in moved if "bn" in name]
    assert "conv1.weight" in moved


def test_freezing_more_stages_than_there_are_is_refused():
    with pytest.raises(TrainingError, match="3 stages"):
        freeze(small_net(), 5)


def test_weight_decay_may_spare_batch_norms_and_biases():
    model = small_net()
    groups = make_optimizer(model, recipe("modern", "cifar10")).param_groups
    spared = [parameter for group in groups if group["weight_decay"] == 0 for parameter in group["params"]]
    assert all(parameter.ndim == 1 for parameter in spared)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    (everything,) = make_optimizer(model, recipe("original", "cifar10")).param_groups
    assert everything["weight_decay"] == 1e-4


def test_a_single_image_keeps_the_running_statistics():
    stepper = small_stepper()
    stepper.train_mode()
    before = stepper.model.bn1.running_mean.clone()
    stepper.backward(*some_images(1), 1, last=True)
    assert torch.equal(stepper.model.bn1.running_mean, before)
    assert stepper.model.bn1.training
    stepper.backward(*some_images(2), 2, last=True)
    assert not torch.equal(stepper.model.bn1.running_mean, before)


def test_checkpointed_activations_change_nothing():
    plain, saving = small_stepper(), small_stepper(machine=Machine(CPU, "double", checkpoint_activations=True))
    for stepper in (plain, saving):
        for seed in range(2):
            stepper.train_mode()
            stepper.backward(*some_images(6, seed), 6, last=True)
            stepper.step()
    for (name, a), b in zip(plain.model.state_dict().items(), saving.model.state_dict().values(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=1e-12, atol=1e-14), name


def test_a_compiled_net_takes_the_same_steps(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = small_stepper(), small_stepper(machine=Machine(CPU, "double", compile=True))
    for stepper in (plain, compiled):
        stepper.train_mode()
        stepper.backward(*some_images(4), 4, last=True)
        stepper.step()
    assert compiled.trained is not compiled.model
    assert torch.allclose(weights(plain), weights(compiled), rtol=1e-10)


@pytest.mark.parametrize("precision", ["single", "bf16"])
def test_other_precisions_learn_the_same_way(precision):
    exact, rough = small_stepper(), small_stepper(machine=Machine(CPU, precision))
    images, targets = some_images(8)
    losses = []
    for stepper in (exact, rough):
        stepper.train_mode()
        losses.append(stepper.backward(images, targets, 8, last=True).loss)
        stepper.step()
    assert losses[1] == pytest.approx(losses[0], rel=1e-5 if precision == "single" else 0.05)
    assert rough.model.conv1.weight.dtype == torch.float32


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_with_what_to_try(loss):
    with pytest.raises(TrainingError, match=r"epoch 2, batch 5: the loss is .* 0\.3.*--lr"):
        check_loss(ErrorCounts(4, 1, 1, loss), "epoch 2, batch 5", 0.3)


def test_a_first_step_that_overflows_leaves_the_momentum_whole():
    optimizer = make_optimizer(small_net(), recipe("original", "cifar10"), scaled=True)
    assert not optimizer.param_groups[0]["fused"]


def test_momentum_of_another_net_is_refused():
    stepper = small_stepper()
    with pytest.raises(TrainingError, match=r"conv1\.weight"):
        set_momentum(stepper.model, stepper.optimizer, {"conv1.weight": torch.zeros(2, 2)})


# Mixing and averaging


@given(st.integers(2, 9), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**62))
def test_mixed_targets_are_shares_that_sum_to_one(count, mixup, cutmix, seed):
    images, targets = torch.rand(count, 3, 8, 8), torch.arange(count) % 4
    made = recipe("original", "imagenet", mixup=mixup, cutmix=cutmix)
    mixed_images, shares = mixed(images, targets, made, 4, seed)
    if mixup + cutmix == 0:
        assert shares is targets
        return
    assert mixed_images.shape == images.shape
    assert shares.shape == (count, 4)
    assert torch.allclose(shares.sum(1), torch.ones(count))
    again, _ = mixed(images, targets, made, 4, seed)
    assert torch.equal(mixed_images, again)


def test_seeded_draws_leave_no_trace():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


def test_an_average_of_equal_weights_stays_and_follows_new_ones():
    model = small_net()
    average = WeightAverage(model, 0.5)
    average.update(model)
    assert torch.allclose(average.model.conv1.weight, model.conv1.weight)
    with torch.no_grad():
        model.fc.bias.fill_(1.0)
        model.bn1.num_batches_tracked.fill_(7)
    average.update(model)  # after one update the decay is min(0.5, 2 / 11)
    assert average.model.fc.bias.tolist() == pytest.approx([1 - 2 / 11] * 10)
    assert int(average.model.bn1.num_batches_tracked) == 7


# Memory


def test_the_largest_batch_that_fits_is_found():
    tried = []

    def try_batch(images):
        tried.append(images)
        if images > 9:
            raise MemoryShortage("too many")

    assert largest_that_fits(try_batch, 64) == 8
    assert tried == [32, 16, 8]

    def never(_):
        raise MemoryShortage("none fits")

    assert largest_that_fits(never, 4) == 0


# The net to begin with


def test_a_new_net_has_the_classes_of_the_data():
    made = starting_net(NetOptions(depth=8), "cifar10", list("abc"), seed=1)
    assert (made.architecture.num_classes, made.class_names, made.preprocessing) == (3, ["a", "b", "c"], CIFAR10)
    same, other = (starting_net(NetOptions(depth=8), "cifar10", list("abc"), seed=seed) for seed in (1, 2))
    assert torch.equal(made.model.fc.weight, same.model.fc.weight)
    assert not torch.equal(made.model.fc.weight, other.model.fc.weight)


def test_the_number_of_classes_is_checked():
    with pytest.raises(TrainingError, match="--n-classes is 5, but train/ has 3 classes"):
        starting_net(NetOptions(depth=8, n_classes=5), "cifar10", list("abc"), 0)
    with pytest.warns(UserWarning, match="2 outputs stand for no class"):
        padded = starting_net(NetOptions(depth=8, n_classes=5, padded_classes=True), "cifar10", list("abc"), 0)
    assert padded.class_names == ["a", "b", "c", "class 4", "class 5"]
    with pytest.raises(TrainingError, match="--n-classes is 2"):
        starting_net(NetOptions(depth=8, n_classes=2, padded_classes=True), "cifar10", list("abc"), 0)


def test_a_net_with_other_classes_needs_a_new_classifier():
    with pytest.raises(TrainingError, match="--reset-classifier"):
        starting_net(NetOptions(retrain="demo"), "imagenet", [f"thing {k}" for k in range(10)], 0)
    made = starting_net(NetOptions(retrain="demo", reset_classifier=True), "imagenet", ["cat", "dog"], 0)
    assert (made.class_names, made.model.fc.out_features, made.architecture.num_classes) == (["cat", "dog"], 2, 2)


def test_a_net_of_the_other_stem_is_refused():
    with pytest.raises(TrainingError, match="imagenet stem"):
        starting_net(NetOptions(retrain="demo", reset_classifier=True), "cifar10", list("abc"), 0)


def test_the_digest_tells_data_sets_apart():
    samples = sample_set()
    other = Samples(samples.images, [1, *samples.targets[1:]], samples.class_names)
    assert digest_of(samples) == digest_of(sample_set())
    assert digest_of(samples) != digest_of(other)


def test_precision_is_single_on_a_cpu_unless_it_is_asked_for():
    assert find_precision(None, CPU, automatic=True) == "single"
    assert find_precision("bf16", CPU, automatic=False) == "bf16"


# Several processes

TWO = """
import os, torch
from resnet_tools.compute.processes import joined_processes
from tests.training.test_training import small_stepper, some_images, weights, Machine, CPU
torch.set_num_threads(1)
with joined_processes() as processes:
    stepper = small_stepper(machine=Machine(CPU, "double", processes), freeze_bn=True)
    for seed in range(3):
        images, targets = some_images(15, seed)
        mine = slice(0, 8) if processes.rank == 0 else slice(8, 15)
        stepper.train_mode()
        counts = stepper.backward(images[mine], targets[mine], 15, last=True)
        stepper.step()
        total = sum(part.loss_sum for part in processes.gather(counts))
    if processes.rank == 0:
        print(total, float(weights(stepper).norm()), flush=True)
os._exit(0)  # as the command line ends: gloo's threads may abort a process that tears down torch
"""


def test_two_processes_take_the_steps_of_one(capfd):
    assert run_processes([sys.executable, "-c", TWO], 2) == 0
    loss, norm = map(float, capfd.readouterr().out.split())
    stepper = small_stepper(freeze_bn=True)
    for seed in range(3):
        stepper.train_mode()
        counts = stepper.backward(*some_images(15, seed), 15, last=True)
        stepper.step()
    assert loss == pytest.approx(counts.loss_sum, rel=1e-10)
    assert norm == pytest.approx(float(weights(stepper).norm()), rel=1e-12)


def test_the_error_of_a_process_ends_all_and_is_shown(capfd):
    code = "import os, sys, time; os.environ['RANK'] == '1' and sys.exit('broken here'); time.sleep(60)"
    assert run_processes([sys.executable, "-c", code], 3) == 1
    assert "broken here" in capfd.readouterr().err


def test_synchronised_batch_norm_needs_gpus():
    with pytest.raises(TrainingError, match="--sync-bn"):
        small_stepper(machine=Machine(CPU, "double", Processes(0, 2), sync_bn=True))

"""Recipes: their rates, their fields, and what they refuse."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.errors import TrainingError
from resnet_tools.training.recipe import Recipe, changed, lr_factor, make_recipe, recipe_line

names = st.sampled_from(["original", "finetune", "modern"])
datasets = st.sampled_from(["imagenet", "cifar10", "cifar100"])


@given(names, datasets, st.integers(1, 200))
def test_rates_rise_then_fall_and_end_low(name, dataset, epochs):
    made = make_recipe(name, dataset, epochs=epochs)
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
    made = make_recipe(name, dataset)
    assert Recipe.from_dict(made.to_dict()) == made


@pytest.mark.parametrize("values", [None, {}, {"name": "original"}, [1]])
def test_a_recipe_of_another_kind_is_refused(values):
    with pytest.raises(TrainingError, match="recipe"):
        Recipe.from_dict(values)


def test_the_classifiers_rate_keeps_its_ratio():
    base = make_recipe("finetune", "imagenet")
    assert changed(base, lr=base.lr / 2).classifier_lr == pytest.approx(base.classifier_lr / 2)
    assert changed(base, lr=base.lr / 2, classifier_lr=1.0).classifier_lr == 1.0


def test_the_description_names_what_is_on_and_the_other_recipes():
    text = recipe_line(make_recipe("finetune", "imagenet", mixup=0.2))
    assert "Recipe finetune" in text
    assert "mixup 0.2" in text
    assert "cutmix" not in text
    assert "--recipe original or modern" in text


def test_impossible_recipes_are_refused():
    with pytest.raises(TrainingError, match="warm-up"):
        make_recipe("original", "imagenet", epochs=2, warmup_epochs=2.0)
    with pytest.raises(TrainingError, match="mix"):
        make_recipe("modern", "imagenet", batch_size=1)

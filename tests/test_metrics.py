from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_tools.metrics import ErrorCounts, best_classes, ranks_of
from tests.support.golden import DATA, error_counts

SCORES = json.loads((DATA / "train" / "compute_score.json").read_text())


@pytest.mark.parametrize("case", SCORES, ids=lambda case: case["name"])
def test_error_rates_are_the_originals(case):
    crops = case["crops"]
    logits = torch.tensor(case["output"], dtype=torch.float64).view(-1, crops, len(case["output"][0]))
    targets = torch.tensor(case["target"])[:: crops if len(case["target"]) > len(logits) else 1] - 1
    counts = error_counts(logits if crops > 1 else logits[:, 0], targets)
    assert counts.images == len(logits)
    if "error" in case:  # fewer than five classes: the original crashes, and every truth is among the three best
        assert (logits.shape[2], counts.top5_error) == (3, 0)
    else:
        assert counts.top1_error == pytest.approx(case["top1"])
        assert counts.top5_error == pytest.approx(case["top5"])


@given(st.data())
def test_ranks_are_places_in_a_stable_sort(data):
    classes = data.draw(st.integers(1, 7))
    rows = data.draw(st.lists(st.lists(st.integers(-2, 2), min_size=classes, max_size=classes), min_size=1, max_size=5))
    targets = torch.tensor([data.draw(st.integers(0, classes - 1)) for _ in rows])
    order = [sorted(range(classes), key=lambda k, row=row: -row[k]) for row in rows]
    expected = [order[n].index(int(target)) for n, target in enumerate(targets)]
    assert ranks_of(torch.tensor(rows, dtype=torch.float32), targets).tolist() == expected


@given(st.data())
def test_the_best_classes_are_the_first_of_a_stable_sort(data):
    classes, top_k = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 8))
    value = st.one_of(st.integers(-2, 2), st.floats())  # many equal ones, and nan
    rows = data.draw(st.lists(st.lists(value, min_size=classes, max_size=classes), min_size=1, max_size=5))
    scores = torch.tensor(rows, dtype=torch.float64)
    expected = scores.sort(stable=True, dim=1, descending=True).indices[:, :top_k]
    assert torch.equal(best_classes(scores, top_k), expected)


def test_a_nan_is_never_a_hit():
    nan = float("nan")
    logits = torch.tensor([[nan, nan, nan], [0.0, nan, -1.0], [nan, 1.0, 0.0]])
    assert ranks_of(logits, torch.tensor([0, 0, 0])).tolist() == [2, 1, 2]


def test_counts_of_parts_add_up():
    logits, targets = torch.randn(12, 9), torch.arange(12) % 9
    whole = error_counts(logits, targets, loss=2.0)
    parts = error_counts(logits[:5], targets[:5], loss=2.0) + error_counts(logits[5:], targets[5:], loss=2.0)
    assert (parts.images, parts.top1_wrong, parts.top5_wrong) == (12, whole.top1_wrong, whole.top5_wrong)
    assert parts.loss == pytest.approx(2.0)


def test_no_images_have_no_error_rate():
    assert all(math.isnan(value) for value in (ErrorCounts().top1_error, ErrorCounts().top5_error, ErrorCounts().loss))

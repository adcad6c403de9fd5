"""Images -> probabilities, equal to the original's whatever the batch, the threads and the layout in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.compute.device import set_tf32
from resnet_tools.compute.inference import Loading, Prediction, classify, logits_of, memory_errors, prepare
from resnet_tools.data.transforms import preprocess, ten_crops
from resnet_tools.errors import DeviceMemoryError, ImageError
from tests.support.demo_images import PHOTOS
from tests.support.golden import DATA, model_cases

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def demo():
    checkpoint = load_checkpoint()
    return prepare(checkpoint.model, CPU), checkpoint


@pytest.mark.parametrize(
    "case",
    [case for case in model_cases(DATA / "models") if "first_upload" not in case.name],
    ids=lambda case: case.name,
)
def test_the_prepared_net_still_gives_the_originals_logits(case):
    model = prepare(load_checkpoint(case.path).model, CPU)
    found, expected = logits_of(model, torch.from_numpy(case.input())), case.array("logits")
    assert np.abs(found.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()


def test_16_bit_precision_is_close(demo):
    checkpoint = load_checkpoint()
    model = prepare(checkpoint.model, CPU, "bf16")
    images = torch.stack([preprocess(path) for path in PHOTOS])
    found, expected = logits_of(model, images), logits_of(demo[0], images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 0.05 * expected.abs().max()


def test_a_prediction_does_not_depend_on_its_batch_or_the_threads(demo):
    model, checkpoint = demo
    alone = [next(iter(classify([p], model, Loading(checkpoint.preprocessing, workers=0)))) for p in PHOTOS]
    for batch_size, workers in ((1, 0), (2, 1), (3, 2), (100, 4)):
        together = classify(PHOTOS, model, Loading(checkpoint.preprocessing, batch_size, workers=workers))
        for found, expected in zip(together, alone, strict=True):
            assert isinstance(found, Prediction)
            assert (found.path, found.indices) == (expected.path, expected.indices)
            np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5)


def test_ten_crops_are_averaged_before_the_softmax(demo):
    model, checkpoint = demo
    [found] = classify(PHOTOS[:1], model, Loading(checkpoint.preprocessing, ten_crop=True))
    crops = ten_crops(PHOTOS[0], checkpoint.preprocessing)
    expected = torch.softmax(logits_of(model, crops).mean(0), 0)
    np.testing.assert_allclose(found.probabilities, expected.topk(5).values, rtol=1e-4)


def test_an_unreadable_image_leaves_the_others_in_place(demo, tmp_path):
    model, checkpoint = demo
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    first, failure, last = classify([PHOTOS[0], str(bad), PHOTOS[1]], model, Loading(checkpoint.preprocessing))
    assert (first.path, last.path) == (PHOTOS[0], PHOTOS[1])
    assert failure[0] == str(bad)
    assert isinstance(failure[1], ImageError)
    assert str(bad) in str(failure[1])


def test_only_unreadable_images_give_only_errors(demo, tmp_path):
    model, checkpoint = demo
    results = list(classify([str(tmp_path / "none.jpg")] * 3, model, Loading(checkpoint.preprocessing, 2)))
    assert all(isinstance(error, ImageError) for _, error in results)
    assert len(results) == 3


def test_there_are_no_more_classes_than_the_net_has(demo):
    model, checkpoint = demo
    [found] = classify(PHOTOS[:1], model, Loading(checkpoint.preprocessing), top_k=99)
    assert sorted(found.indices) == list(range(10))
    assert sum(found.probabilities) == pytest.approx(1, abs=1e-6)
    assert found.probabilities == sorted(found.probabilities, reverse=True)


SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, max allowed: 18.1 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", SHORTAGES, ids=lambda error: str(error)[:40])
def test_every_want_of_memory_says_what_to_do(error):
    with (
        pytest.raises(DeviceMemoryError, match="not enough memory for 8 images at once; lower --batch-size"),
        memory_errors(8),
    ):
        raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert triggered"), ValueError("out of memory")]
)
def test_no_other_error_is_taken_for_want_of_memory(error):
    with pytest.raises(type(error)) as caught, memory_errors(8):
        raise error
    assert caught.value is error


def test_a_net_that_does_not_fit_and_images_that_do_not_are_told_apart(demo, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    images = torch.zeros(2, 3, 28, 28)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", full)
        with pytest.raises(DeviceMemoryError, match="2 images at once"):
            logits_of(demo[0], images)
    model = load_checkpoint().model
    monkeypatch.setattr(type(model), "to", full)
    with pytest.raises(DeviceMemoryError, match="not enough memory for the net; other programs"):
        prepare(model, CPU)


@pytest.fixture
def restored_tf32():
    earlier = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = earlier


@pytest.mark.usefixtures("restored_tf32")
@pytest.mark.parametrize(("precision", "allowed"), [("single", False), ("tf32", True), ("half", False)])
def test_only_tf32_computes_in_tf32_on_a_gpu(monkeypatch, precision, allowed):
    set_tf32(not allowed)
    model = load_checkpoint().model
    monkeypatch.setattr(type(model), "to", lambda self, *_, **__: self)  # there need not be a GPU
    prepare(model, torch.device("cuda"), precision)
    assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.backends.cuda.matmul.allow_tf32 is allowed

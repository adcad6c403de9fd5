"""Images -> logits and the classes they stand for, as fast as the machine allows and in bounded memory.

Shapes: N images, H x W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_tools.compute.device import is_out_of_memory, keep_freed_memory, set_tf32
from resnet_tools.compute.engines import SMALL_NET_PARAMETERS
from resnet_tools.compute.loader_processes import AHEAD_BATCHES, LoaderProcesses, free_shared_memory
from resnet_tools.compute.predictions import LOADED_AHEAD_BATCHES
from resnet_tools.compute.predictions import NOT_FINITE as NOT_FINITE
from resnet_tools.compute.predictions import Loading as Loading
from resnet_tools.compute.predictions import Prediction as Prediction
from resnet_tools.compute.processes import Processes
from resnet_tools.compute.transfer import ahead_on_device
from resnet_tools.data.loading import MAX_THREADS, attempt, load_ahead
from resnet_tools.data.samples import LazyImage
from resnet_tools.data.transforms import preprocess, ten_crops
from resnet_tools.errors import DeviceMemoryError, ImageError, NotFiniteError
from resnet_tools.metrics import best_classes
from resnet_tools.nets.resnet import ResNet, fold_batch_norm

Net = Callable[[Tensor], Tensor]  # (N, C, H, W) -> (N, K), a module or a net of another engine
Average = Literal["outputs", "softmax"]
DTYPES = {"single": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "half": torch.float16}
TEN_CROPS = 10
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """`errors`: an entry per path, None for a good image; `images` are the good ones, (N, [10,] 3, H, W), or None."""

    paths: list[str]
    errors: list[ImageError | None]
    images: Tensor | None


def prepare(model: ResNet, device: torch.device, precision: str = "single", *, fold: bool = True) -> ResNet:
    """The model made ready for inference, in place: batch norm folded (with `fold`), channels last, on `device`.

    precision: `single`, float32 as the original; `tf32`, which GPUs compute faster with a mantissa of 10 bits; `bf16`
    or `half`, 16 bits, which changes logits by about 1 %.
    Raises: DeviceMemoryError if the device has no room for the net.
    """
    if device.type == "cpu":
        keep_freed_memory()
        if sum(parameter.numel() for parameter in model.parameters()) < SMALL_NET_PARAMETERS:
            torch.set_num_threads(1)  # in so small a net, threads wait for each other and slow the decoding
    model.eval()
    if fold:
        model = fold_batch_norm(model)
    if device.type == "cuda":
        set_tf32(precision == "tf32")
    with memory_errors(0):
        return model.to(device, DTYPES[precision]).to(memory_format=torch.channels_last)


@torch.inference_mode()
def logits_of(model: Net, images: Tensor, average: Average = "outputs") -> Tensor:
    """(N, C, H, W) -> (N, K) float32 on the CPU; (N, 10, C, H, W) too: the mean of its crops.

    average: of ten crops, the raw `outputs`, as the original does, or their `softmax`: then the logarithm of the mean.
    Raises: DeviceMemoryError.
    """
    with memory_errors(len(images)):
        logits = model(to_model(model, images.flatten(0, -4))).float().cpu()  # (N, K) or (10 N, K)
    crops = logits.view(len(images), -1, logits.shape[1])  # (N, 1 or 10, K)
    if average == "softmax":
        return crops.log_softmax(2).logsumexp(1) - math.log(crops.shape[1])
    return crops.mean(1)


def to_model(model: Net, images: Tensor) -> Tensor:
    """The images on the device of the model, in its type and layout; a net of another engine takes them as they are."""
    if not isinstance(model, ResNet):
        return images
    weight = model.conv1.weight
    return images.to(weight.device, weight.dtype).contiguous(memory_format=torch.channels_last)


@contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """Turn every kind of out-of-memory error into a DeviceMemoryError that says what to do.

    batch_size: the number of images at once, or 0 while the net itself is moved to its device.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"{batch_size} images at once; lower --batch-size, or --crop-size"
        if batch_size == 0:
            what = "the net; other programs may hold it (nvidia-smi names those on a GPU), or give --device cpu"
        raise DeviceMemoryError(f"not enough memory for {what}") from error


def classify(
    paths: Sequence[str], model: Net, loading: Loading, *, top_k: int = 5
) -> Iterator[Prediction | tuple[str, ImageError]]:
    """The `top_k` best classes (or all, if there are fewer) of each image, in the order of `paths`.

    An image that cannot be read, or whose logits are not finite, yields its path and the error instead; the others are
    not affected.
    """
    for batch in loaded_batches(paths, loading, device_of(model)):
        logits = logits_of(model, batch.images) if batch.images is not None else torch.empty(0, 1)
        best = zip(logits.isfinite().all(1).tolist(), _best(logits, top_k), strict=True)
        for path, error in zip(batch.paths, batch.errors, strict=True):
            if error is not None:
                yield path, error
                continue
            is_finite, classes = next(best)
            yield Prediction(path, *classes) if is_finite else (path, NotFiniteError(f"{path}: {NOT_FINITE}"))


def device_of(model: Net) -> torch.device:
    """Where the batches for a net are to be; other engines take them on the CPU."""
    return model.conv1.weight.device if isinstance(model, ResNet) else CPU


def loaded_batches(sources: Sequence[Any], loading: Loading, device: torch.device = CPU) -> Iterator[Batch]:
    """The images of `sources`, paths or pixels, `loading.batch_size` at a time, decoded ahead in bounded memory.

    device: where the batches are to be; on a GPU the next one is copied there while the current one is computed.
    Raises: LoadingError if threads or processes fail.
    """
    if any(isinstance(source, LazyImage) for source in sources[:1]):  # it may hold a data set, too much to be sent
        yield from ahead_on_device(_by_threads(sources, loading), device)
    elif loading.processes is not None:
        yield from ahead_on_device(_by_processes(sources, loading, loading.processes), device)
    elif _pays_processes(len(sources), loading):
        processes = LoaderProcesses(loading.workers, module=__name__)
        try:
            yield from ahead_on_device(_by_processes(sources, loading, processes), device)
        finally:
            processes.close()
    else:
        yield from ahead_on_device(_by_threads(sources, loading), device)


def _pays_processes(count: int, loading: Loading) -> bool:
    """Whether there are many workers, enough for them to do, and shared memory for what they load ahead."""
    if loading.workers <= MAX_THREADS or count <= loading.workers * loading.batch_size:
        return False
    views = TEN_CROPS if loading.ten_crop else 1
    image_bytes = views * loading.preprocessing.channels * loading.preprocessing.crop_px**2 * 4
    return loading.workers * AHEAD_BATCHES * loading.batch_size * image_bytes < free_shared_memory() / 2


def _by_threads(sources: Sequence[Any], loading: Loading) -> Iterator[Batch]:
    ahead = LOADED_AHEAD_BATCHES * loading.batch_size
    items = load_ahead(sources, _loader(loading), workers=loading.workers, ahead=ahead)
    while chunk := list(islice(items, loading.batch_size)):
        loaded = _collated([item for _, item in chunk])
        yield Batch([source for source, _ in chunk], loaded.errors, loaded.images)


def _by_processes(sources: Sequence[Any], loading: Loading, processes: LoaderProcesses) -> Iterator[Batch]:
    size, load = loading.batch_size, _loader(loading)
    chunks = [sources[k : k + size] for k in range(0, len(sources), size)]
    results = processes.results([_BatchTask(load, chunk) for chunk in chunks])
    for chunk, loaded in zip(chunks, results, strict=True):
        yield Batch(list(chunk), loaded.errors, loaded.images)


def _loader(loading: Loading) -> Callable[[Any], Tensor]:
    return partial(ten_crops if loading.ten_crop else preprocess, preprocessing=loading.preprocessing)


@dataclass(frozen=True)
class _Loaded:
    """What a `Batch` has besides its paths."""

    errors: list[ImageError | None]
    images: Tensor | None


@dataclass(frozen=True)
class _BatchTask:
    load: Callable[[Any], Tensor]
    sources: Sequence[Any]

    def __call__(self, _: Any) -> _Loaded:
        return _collated([attempt(self.load, source) for source in self.sources])


def _collated(items: Sequence[Tensor | ImageError]) -> _Loaded:
    images = [item for item in items if isinstance(item, Tensor)]
    errors = [item if isinstance(item, ImageError) else None for item in items]
    return _Loaded(errors, torch.stack(images) if images else None)


def own_batches(
    sources: Sequence[Any] | NDArray[Any], loading: Loading, processes: Processes, device: torch.device = CPU
) -> Iterator[tuple[int, Batch]]:
    """The batches of this process with the position of their first source.

    Batches are cut by position alone and batch k is the work of process k modulo their number: they hold the same
    whatever that number is, and every source is in one of them.
    """
    size = loading.batch_size
    starts = range(processes.rank * size, len(sources), processes.count * size)
    own = [source for start in starts for source in sources[start : start + size]]
    # Only the last batch of all may be short, and it is the last one here too, so the batches stay as they were cut.
    yield from zip(starts, loaded_batches(own, loading, device), strict=True)


def _best(logits: Tensor, top_k: int) -> Iterator[tuple[list[int], list[float]]]:
    """Per row the best classes and their probabilities; equal ones in the order of the outputs."""
    probabilities = torch.softmax(logits, 1)
    indices = best_classes(probabilities, top_k)
    yield from zip(indices.tolist(), probabilities.gather(1, indices).tolist(), strict=True)

"""A data set in Python -> `Samples`, whose images are loaded when they are used.

`module:function` or `file.py:function` names a function without arguments, or with one, the path of --data. It returns
two data sets, for training and for validation, each with `__len__`, `__getitem__(k) -> (image, class)` and `classes`,
the names. An image is a PIL image, the path of a file, or uint8 pixels (H, W, 3) or (H, W); a class is a number from 0.
torchvision's data sets without transforms are such. `targets` or `labels`, if there, give all classes at once; else
every image is loaded once to learn its class. Loader threads and processes call `__getitem__` at the same time.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from resnet_tools.data.samples import LazyImage, Samples
from resnet_tools.errors import DataError, ImageError

EXPECTED = "expected a function that returns (train, val), each with __len__, __getitem__ and classes"
EXPECTED_ONE = "expected a data set with __len__, __getitem__(k) -> (image, class) and classes"
TARGETS = ("targets", "labels")  # where torchvision's data sets have all classes


@dataclass(frozen=True)
class DatasetImage(LazyImage):
    """Image `position` of a data set."""

    dataset: Any
    position: int

    def load(self) -> Any:
        """A path, or pixels (H, W, 3) uint8. Raises: ImageError, also for what the data set itself raises."""
        image, _ = _item(self.dataset, self.position)
        if isinstance(image, (str, os.PathLike)):
            return os.fspath(image)
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
            raise ImageError(
                f"image {self.position} is {type(image).__name__} {pixels.dtype} {pixels.shape}; expected a PIL image, "
                "a path, or uint8 pixels (H, W, 3) or (H, W): leave out transforms"
            )
        return pixels


def is_custom(name: str) -> bool:
    """Whether the name of a data set is `module:function`."""
    return ":" in name


def read_custom(name: str, path: str) -> tuple[Samples, Samples]:
    """What the function returns, called with `path` if there is one and it takes it.

    Raises: DataError that says what is missing, or what the function raised.
    """
    function = _function(name)
    try:
        takes_path = bool(path) and bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a built-in function does not say
        takes_path = bool(path)
    try:
        parts = function(path) if takes_path else function()
    except Exception as error:
        raise DataError(f"{name}: {type(error).__name__}: {error}") from error
    if not isinstance(parts, (tuple, list)) or len(parts) != 2:
        raise DataError(f"{name}: returned {type(parts).__name__}; {EXPECTED}")
    class_names = [str(class_name) for class_name in getattr(parts[0], "classes", ())]
    if not class_names:
        raise DataError(f"{name}: the training data set has no `classes`; {EXPECTED}")
    train, val = parts
    return _samples(train, class_names, f"{name}: train"), _samples(val, class_names, f"{name}: val")


def samples_of(dataset: Any, class_names: Sequence[str] | None, where: str) -> Samples:
    """The samples of a data set as it is described above. class_names: if None, those that it has itself.

    Raises: DataError that says what is missing; `where`: what the data set is called.
    """
    names = [str(name) for name in (getattr(dataset, "classes", ()) if class_names is None else class_names)]
    if not names:
        raise DataError(f"{where}: {type(dataset).__name__} has no `classes`, the names of its classes; {EXPECTED_ONE}")
    return _samples(dataset, names, where)


def _function(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.rpartition(":")
    try:
        if module_name.endswith(".py"):
            module = _module_of_file(module_name)
        else:
            if "" not in sys.path and os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())  # as `python -m` does
            module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does when it is imported
        raise DataError(f"--dataset {name}: {module_name}: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise DataError(f"--dataset {name}: {module_name} has no function {function_name!r}; {EXPECTED}")
    return function  # type: ignore[no-any-return]


def _module_of_file(path: str) -> Any:
    name = os.path.basename(path).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))  # where a loader process looks for its classes
    spec.loader.exec_module(module)
    return module


def _samples(dataset: Any, class_names: list[str], where: str) -> Samples:
    try:
        count = len(dataset)
    except Exception as error:
        raise DataError(f"{where}: {type(error).__name__}: {error}; {EXPECTED}") from error
    if count == 0:
        raise DataError(f"{where}: holds no images")
    own = [str(name) for name in getattr(dataset, "classes", class_names)]
    if own != class_names:
        raise DataError(f"{where}: has other classes than the training data set: {own[:5]} and {class_names[:5]}")
    targets = _targets(dataset, count, where)
    wrong = next((k for k, target in enumerate(targets) if not 0 <= target < len(class_names)), None)
    if wrong is not None:
        raise DataError(f"{where}: image {wrong} has the class {targets[wrong]}; expected 0 to {len(class_names) - 1}")
    return Samples([DatasetImage(dataset, k) for k in range(count)], targets, class_names)


def _targets(dataset: Any, count: int, where: str) -> list[int]:
    for name in TARGETS:
        with suppress(Exception):  # not there, or something else than numbers
            found = np.asarray(getattr(dataset, name)).ravel()
            if len(found) == count and found.dtype.kind in "iu":
                return [int(target) for target in found]
    try:
        return [int(_item(dataset, k)[1]) for k in range(count)]
    except (ImageError, TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}; expected (image, number of the class) from __getitem__") from error


def _item(dataset: Any, position: int) -> tuple[Any, Any]:
    try:
        item = dataset[position]
    except Exception as error:  # what the user's code does is not ours to know
        raise ImageError(f"image {position}: {type(error).__name__}: {error}") from error
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise ImageError(f"image {position}: is {type(item).__name__}; expected (image, class)")
    return item[0], item[1]

"""Rows of what turns an image file into a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.benchmarks.files import large_photo, photos
from scripts.benchmarks.measure import Row, row


def transform_rows(folder: Path) -> Iterator[Row]:
    import torch
    from torchvision import transforms

    from resnet_tools.data.image import load_image
    from resnet_tools.data.transforms import preprocess

    path = photos(folder, 1)[0]
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image)
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    bicubic = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)
    peer = transforms.Compose([bicubic, transforms.CenterCrop(224), transforms.ToTensor(), normalize])
    name = f"evaluation transform, {torch.get_num_threads()} threads : torchvision v1 bicubic"
    yield row(name, lambda: preprocess(pixels), lambda: peer(image), 0.25, 200)
    pillow = lambda: np.asarray(Image.open(path).convert("RGB"))  # noqa: E731
    yield row("decode a JPEG : Pillow", lambda: load_image(path), pillow, 1.0, 200)


def augment_rows(folder: Path) -> Iterator[Row]:
    """The training transforms from the file, on one core, against torchvision's with Pillow; each draws its views."""
    import torch
    from torchvision import transforms

    from resnet_tools.data.augment import LIGHT, ORIGINAL_IMAGENET, PCA_VALUES, PCA_VECTORS, augmented
    from resnet_tools.data.transforms import IMAGENET

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    paths = photos(folder, 60)
    components = torch.from_numpy(PCA_VECTORS * PCA_VALUES).float()
    bicubic = transforms.InterpolationMode.BICUBIC
    flip_and_convert = [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    jitter = transforms.ColorJitter(0.4, 0.4, 0.4)
    lighting = transforms.Lambda(lambda image: image + (components @ (0.1 * torch.randn(3)))[:, None, None])
    normalize = transforms.Normalize(IMAGENET.mean, IMAGENET.std)
    for name, augmentation, steps in (
        ("original", ORIGINAL_IMAGENET, [jitter, *flip_and_convert, lighting, normalize]),
        ("light", LIGHT, [*flip_and_convert, normalize]),
    ):
        crop = transforms.RandomResizedCrop(224, (augmentation.min_area, 1), interpolation=bicubic)
        peer = transforms.Compose([crop, *steps])
        generator = np.random.default_rng(0)
        ours = partial(over, paths, lambda path, a=augmentation, g=generator: augmented(path, IMAGENET, a, g))
        theirs = partial(over, paths, lambda path, p=peer: p(Image.open(path).convert("RGB")))
        yield row(f"decode and augment {len(paths)} photos, {name} : torchvision v1 with Pillow", ours, theirs, 0.5, 9)
    torch.set_num_threads(threads)


def over(items: list[Path], function: Callable[[Path], object]) -> None:
    for item in items:
        function(item)


def photograph_rows(folder: Path) -> Iterator[Row]:
    """A view of a photograph as large as a camera's, as `finetune` makes it, and out of a copy, against all pixels."""
    from resnet_tools.data.photo_cache import open_cache
    from resnet_tools.data.transforms import IMAGENET
    from resnet_tools.training.transforms import copies_side_px, training_transform

    path = large_photo(folder)
    plain = training_transform("light", "imagenet", IMAGENET)
    views = {
        name: partial(transform, str(path), np.random.default_rng(0))
        for name, transform in (
            ("all", plain),
            ("as many pixels as it needs", replace(plain, reduced=True)),
            ("--cache", replace(plain, cache=open_cache(folder / "cache", copies_side_px(plain), exif=False))),
        )
    }
    views["--cache"]()  # the first view makes the copy
    for name, target in (("as many pixels as it needs", 0.65), ("--cache", 0.1)):
        label = f"view of a JPEG of 12 megapixels ({path.stat().st_size / 1e6:.1f} MB), {name} : all pixels"
        yield row(label, views[name], views["all"], target, 20)

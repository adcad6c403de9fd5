"""The files that rows work on, made in a folder when they are first asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from scripts.benchmarks.measure import quick, repeats, resnet


def measured_net() -> str:
    """The net of the rows that run one."""
    return "resnet-18" if quick.get() else "resnet-50"


def name_elsewhere(net: str) -> str:
    """Of torchvision and timm."""
    return net.replace("-", "")


def t7_file(folder: Path, name: str) -> Path:
    """A checkpoint of full width in the structure of the published files, without gradients."""
    from resnet_tools.nets.catalog import named_architecture
    from tests.support.lua_nets import lua_net
    from tests.support.t7_writer import write_flattened

    path = folder / f"{name}.t7"
    if not path.exists():
        write_flattened(path, lua_net(named_architecture(name)), gradients=False)
    return path


def onnx_file(folder: Path) -> Path:
    """The graph of the measured net."""
    path = folder / f"{measured_net()}.onnx"
    if not path.exists():
        resnet("convert", t7_file(folder, measured_net()), path)()
    return path


def state_file(folder: Path) -> Path:
    """The state dict of the measured net."""
    import torch

    from resnet_tools import load_checkpoint

    path = folder / f"{measured_net()}.pth"
    if not path.exists():
        torch.save(load_checkpoint(t7_file(folder, measured_net())).model.state_dict(), path)
    return path


def photos(folder: Path, count: int) -> list[Path]:
    """`count` JPEGs of 500 x 375 pixels in a folder of their own, with detail at every scale, as photographs have."""
    count = repeats(count)
    own = folder / f"photos-{count}"
    own.mkdir(exist_ok=True)
    paths = [own / f"{number:04}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            random = np.random.default_rng(number)
            total = np.zeros((375, 500, 3))
            for size in (4, 16, 64, 256):
                noise = Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))
                total += np.asarray(noise.resize((500, 375), Image.Resampling.BICUBIC), float) * (4 / size) ** 0.5
            Image.fromarray((total / total.max() * 255).astype(np.uint8)).save(path, quality=90)
    return paths


def large_photo(folder: Path) -> Path:
    """A JPEG of 4000 x 3000 pixels with the noise of a camera."""
    path = folder / "large.jpg"
    if not path.exists():
        large = np.asarray(Image.open(photos(folder, 1)[0]).resize((4000, 3000)), float)
        noisy = (large + np.random.default_rng(0).normal(0, 9, large.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=85)
    return path


def data_set(folder: Path) -> Path:
    """train/ and val/ of two classes."""
    root = folder / "data"
    for number, path in enumerate(photos(folder, 64)):
        target = root / ("val" if number % 4 == 0 else "train") / f"class{number // 4 % 2}" / path.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    return root

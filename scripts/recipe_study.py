"""How the recipe `finetune` and its alternatives do on small data sets: error and time, mean and spread over seeds.

The data sets are made from what comes with packages; those whose source is not there are left out, and named:

- digits: resnet_tools/assets/digits, handwritten digits, 400 training and 200 validation images.
- patches: 64 x 64 pixels of the photographs that scikit-image and scikit-learn ship; the class is the photograph.
  Training patches come from its left part, validation patches from its right part.
- faces: scikit-image's faces and other patches of photographs (25 x 25 pixels), two classes.
- fashion: a folder of class folders that is given with --fashion, of which 600 images train and 800 validate.
"""

from __future__ import annotations

import argparse
import csv
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "resnet_tools" / "assets" / "digits"
WAYS: dict[str, list[str]] = {
    "finetune": [],
    "finetune --freeze 4": ["--freeze", "4"],
    "--classifier-only": ["--classifier-only"],
}
PATCH_PX, PATCHES = 64, (24, 16)  # of each photograph, for training and for validation
FASHION_IMAGES = (60, 80)  # of each class
MIN_SIDE_PX = 3 * PATCH_PX


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/recipes", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo", help="the net to start from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--fashion", type=Path, help="a folder of class folders with Fashion-MNIST's images")
    parser.add_argument("--sets", nargs="+", help="only these data sets")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| data set | way | top-1 error, mean (lowest to highest) | CPU seconds |\n|---|---|---|---|", flush=True)
        for data in data_sets(folder, options.fashion):
            if options.sets and data.name not in options.sets:
                continue
            for way, words in WAYS.items():
                runs = [trained(options, data, words, seed, folder / "run") for seed in range(options.seeds)]
                errors, seconds = zip(*runs, strict=True)
                row = f"{statistics.mean(errors):.1f} % ({min(errors):.1f} to {max(errors):.1f})"
                print(f"| {data.name} | {way} | {row} | {statistics.mean(seconds):.0f} |", flush=True)
    return 0


def trained(options: argparse.Namespace, data: Path, words: list[str], seed: int, run: Path) -> tuple[float, float]:
    """The error of the last epoch in percent, and the CPU seconds of the whole command."""
    command = [sys.executable, "-m", "resnet_tools", "train", "--data", data, "--retrain", options.model]
    command += ["--reset-classifier", "--manual-seed", seed, "--save", run, "--quiet", "--no-report", *words]
    if "--classifier-only" not in words:
        command += ["--n-epochs", options.epochs]
    before = cpu_seconds()
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    with (run / "history.csv").open() as file:
        error = float(list(csv.DictReader(file))[-1]["val_top1"])
    shutil.rmtree(run)
    return error, cpu_seconds() - before


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def data_sets(folder: Path, fashion: Path | None) -> Iterator[Path]:
    """The folders of the data sets, made in `folder`, each with train/ and val/."""
    yield DIGITS
    photos = dict(shipped_photos())
    if len(photos) >= 2:
        yield patches(photos, folder / "patches")
    else:
        print("patches: left out, scikit-image is not installed", file=sys.stderr)
    faces_file = shipped("skimage", "data/lfw_subset.npy")
    if faces_file is not None:
        yield faces(faces_file, folder / "faces")
    if fashion is not None:
        yield chosen(fashion, folder / "fashion")


def shipped(package: str, path: str) -> Path | None:
    spec = find_spec(package)
    found = Path(spec.origin).parent / path if spec is not None and spec.origin else None
    return found if found is not None and found.exists() else None


def shipped_photos() -> Iterator[tuple[str, Path]]:
    for package, where in (("skimage", "data"), ("sklearn", "datasets/images")):
        found = shipped(package, where)
        for path in sorted(found.iterdir()) if found is not None else []:
            if path.suffix in (".png", ".jpg", ".jpeg"):
                with Image.open(path) as image:
                    if min(image.size) >= MIN_SIDE_PX and image.mode in ("RGB", "L"):
                        yield path.stem, path


def patches(photos: dict[str, Path], target: Path) -> Path:
    draw = np.random.default_rng(0)
    for name, path in photos.items():
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        middle, height = image.width // 2, image.height
        parts = {"train": (0, middle), "val": (middle, image.width)}
        for (part, (left, right)), count in zip(parts.items(), PATCHES, strict=True):
            (target / part / name).mkdir(parents=True)
            for k in range(count):
                x = int(draw.integers(left, right - PATCH_PX + 1))
                y = int(draw.integers(0, height - PATCH_PX + 1))
                image.crop((x, y, x + PATCH_PX, y + PATCH_PX)).save(target / part / name / f"{k:02d}.png")
    return target


def faces(file: Path, target: Path) -> Path:
    """The first half of the file are faces, the second other patches; of each, three fifths train."""
    images = np.load(file)
    half = len(images) // 2
    for k, image in enumerate(images):
        part = "train" if k % 5 < 3 else "val"
        folder = target / part / ("face" if k < half else "other")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8)).save(folder / f"{k:03d}.png")
    return target


def chosen(source: Path, target: Path) -> Path:
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        images = iter(sorted(folder.iterdir()))
        for part, count in zip(("train", "val"), FASHION_IMAGES, strict=True):
            (target / part / folder.name).mkdir(parents=True)
            for _ in range(count):
                image = next(images)
                shutil.copyfile(image, target / part / folder.name / image.name)
    return target


if __name__ == "__main__":
    raise SystemExit(main())

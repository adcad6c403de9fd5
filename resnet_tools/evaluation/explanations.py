"""Class activation maps -> pictures: the image as the net saw it, and for each label where it comes from.

Red places add to a label, blue ones take away from it. All labels of an image have one scale, so that strong and weak
evidence can be told apart.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from resnet_tools.compute.activation_maps import ActivationMaps, activation_maps_of
from resnet_tools.compute.inference import NOT_FINITE, Loading, Prediction, device_of, loaded_batches
from resnet_tools.data.samples import Samples
from resnet_tools.data.sheets import sheet_font
from resnet_tools.data.thumbnails import fitting
from resnet_tools.data.transforms import Preprocessing, preprocess
from resnet_tools.errors import DataError, ImageError, NotFiniteError
from resnet_tools.evaluation.report.tables import Mistake
from resnet_tools.text import percent, printable
from resnet_tools.writing import written_whole

PANEL_PX, MARGIN_PX, LINE_PX = 224, 10, 18
ADDS, TAKES = (214.0, 40.0, 40.0), (40.0, 90.0, 214.0)  # red, green, blue
STRENGTH = 0.75  # of the colour where a map is largest
DARKEST = 80  # black becomes this gray below the colours, which could not be told apart on it
BACKGROUND, INK = "white", "#1a1a1a"
NAME_CHARACTERS = 60
MOST_MISTAKES = 12
PAGE_NAME, PICTURE_NAME = "index.html", re.compile(r"[0-9]{6}-[A-Za-z0-9._-]*\.png")


@dataclass(frozen=True)
class Explanation:
    """`pixels`: (H, W, 3) uint8, the image as it was cropped and scaled for the net. `maps`: as `ActivationMaps`."""

    path: str
    pixels: NDArray[np.uint8]
    maps: ActivationMaps


def explanations(
    paths: Sequence[str], model: nn.Module, loading: Loading, *, top_k: int = 5
) -> Iterator[Explanation | tuple[str, ImageError]]:
    """Each image in turn; one that cannot be read, or whose logits are not finite, gives its path and the error.

    Raises: CheckpointError if the net has no maps.
    """
    for batch in loaded_batches(paths, loading, device_of(model)):
        images = [] if batch.images is None else list(batch.images)
        found = iter([] if batch.images is None else activation_maps_of(model, batch.images, top_k))
        remaining = iter(images)
        for path, error in zip(batch.paths, batch.errors, strict=True):
            if error is not None:
                yield path, error
                continue
            maps, image = next(found), next(remaining)
            if not np.isfinite(maps.logits).all() or not np.isfinite(maps.maps).all():
                yield path, NotFiniteError(f"{path}: {NOT_FINITE}")
            else:
                yield Explanation(path, seen_pixels(image, loading.preprocessing), maps)


def seen_pixels(image: Tensor, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """What a net's input (C, H, W) shows: (H, W, 3)."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    values = (image.float().cpu() * std + mean) * (255 / preprocessing.pixel_max)
    pixels: NDArray[np.uint8] = values.round().clamp(0, 255).to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy()
    return pixels


def overlaid(pixels: NDArray[np.uint8], values: NDArray[np.float32], largest: float) -> Image.Image:
    """The image in gray, coloured by a map (h, w); `largest`: the value of the strongest colour."""
    height, width = pixels.shape[:2]
    coarse = Image.fromarray(np.ascontiguousarray(values, np.float32))
    scaled = coarse.resize((width, height), Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(scaled) / (largest or 1.0), -1, 1)[..., None]
    gray = DARKEST + np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"), np.float64) * (1 - DARKEST / 255)
    colour = np.where(share > 0, np.array(ADDS), np.array(TAKES))
    weight = STRENGTH * np.abs(share)
    return Image.fromarray((gray * (1 - weight) + colour * weight).round().astype(np.uint8))


def picture(explanation: Explanation, names: Sequence[str], font: ImageFont.FreeTypeFont | Any) -> Image.Image:
    """One row: the image, and a panel for each label with its probability below. names: of all outputs."""
    maps = explanation.maps
    below = list(map(percent, maps.probabilities))
    return _row(explanation, [names[index] for index in maps.indices], below, font)


def mistake_maps(
    mistakes: Sequence[Mistake], samples: Samples, model: nn.Module, preprocessing: Preprocessing
) -> Image.Image:
    """A row for each of the first mistakes: the image, and what in it adds to the truth and to the prediction.

    Raises: ImageError if one cannot be read any more.
    """
    font, names, shown = sheet_font(), samples.class_names, mistakes[:MOST_MISTAKES]
    images = torch.stack([preprocess(samples.images[mistake.position], preprocessing) for mistake in shown])
    chosen = torch.tensor([[mistake.truth, mistake.prediction] for mistake in shown])
    rows = []
    for mistake, image, maps in zip(shown, images, activation_maps_of(model, images, chosen=chosen), strict=True):
        below = [f"{what}, {percent(p)}" for what, p in zip(("truth", "prediction"), maps.probabilities, strict=True)]
        explanation = Explanation(mistake.path, seen_pixels(image, preprocessing), maps)
        rows.append(_row(explanation, [names[mistake.truth], names[mistake.prediction]], below, font))
    sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), BACKGROUND)
    for number, row in enumerate(rows):
        sheet.paste(row, (0, number * row.height))
    return sheet


def _row(explanation: Explanation, captions: Sequence[str], below: Sequence[str], font: Any) -> Image.Image:
    """The image and its maps, each with a caption and a line below."""
    largest = float(np.abs(explanation.maps.maps).max(initial=0))
    panels = [Image.fromarray(explanation.pixels)]
    panels += [overlaid(explanation.pixels, values, largest) for values in explanation.maps.maps]
    texts = [(os.path.basename(explanation.path), "as the net sees it"), *zip(captions, below, strict=True)]
    width = len(panels) * (PANEL_PX + MARGIN_PX) + MARGIN_PX
    row = Image.new("RGB", (width, PANEL_PX + 2 * LINE_PX + 2 * MARGIN_PX), BACKGROUND)
    draw = ImageDraw.Draw(row)
    for number, (panel, (caption, line)) in enumerate(zip(panels, texts, strict=True)):
        x = MARGIN_PX + number * (PANEL_PX + MARGIN_PX)
        row.paste(_fitted(panel), (x, MARGIN_PX))
        for k, text in enumerate((fitting(printable(caption), "", font, PANEL_PX), line)):
            draw.text((x, MARGIN_PX + PANEL_PX + 2 + k * LINE_PX), text, fill=INK, font=font)
    return row


def _fitted(panel: Image.Image) -> Image.Image:
    """As large as fits; small images are enlarged without smoothing."""
    scale = PANEL_PX / max(panel.size)
    kind = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    return panel.resize([max(1, round(side * scale)) for side in panel.size], kind)


def explained(
    paths: Sequence[str],
    model: nn.Module,
    loading: Loading,
    names: Sequence[str],
    folder: Path,
    *,
    top_k: int = 5,
) -> Iterator[Prediction | tuple[str, ImageError]]:
    """As `inference.classify`, and each picture is written to `folder`; at the end `index.html`, which shows all.

    Pictures of an earlier call are replaced, and what is left of them is removed at the end.
    Raises: CheckpointError if the net has no maps; DataError if the folder cannot be written or holds other files.
    """
    font = sheet_font()
    _make_folder(folder)
    rows: list[tuple[str, str]] = []
    try:
        for found in explanations(paths, model, loading, top_k=top_k):
            if isinstance(found, Explanation):
                rows.append((found.path, _file_name(len(rows) + 1, found.path)))
                with written_whole(folder / rows[-1][1]) as partial:
                    picture(found, names, font).save(partial, "PNG")
                yield Prediction(found.path, found.maps.indices, found.maps.probabilities)
            else:
                yield found
        with written_whole(folder / PAGE_NAME) as partial:
            partial.write_text(index_page(rows), encoding="utf-8", errors="backslashreplace")
        written = {file for _, file in rows}
        for left in folder.iterdir():
            if PICTURE_NAME.fullmatch(left.name) and left.name not in written:
                left.unlink()
    except OSError as error:
        raise DataError(f"{folder}: the pictures cannot be written: {error.strerror or error}") from error


def _file_name(number: int, path: str) -> str:
    stem = os.path.splitext(os.path.basename(path))[0]
    return f"{number:06d}-{re.sub('[^A-Za-z0-9._-]', '_', stem)[:NAME_CHARACTERS]}.png"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(e.name for e in folder.iterdir() if not (PICTURE_NAME.fullmatch(e.name) or e.name == PAGE_NAME))
    except OSError as error:
        raise DataError(f"{folder}: a folder for the pictures cannot be made there: {error.strerror}") from error
    if others:
        raise DataError(
            f"{folder}: holds {others[0]}, which is not a picture of an earlier explanation; give a new or empty folder"
        )


def index_page(rows: Sequence[tuple[str, str]]) -> str:
    """One page with all pictures. rows: the path of each image, and the name of its picture in the same folder."""
    figures = "\n".join(
        f'<figure><img loading="lazy" src="{html.escape(file, quote=True)}" alt="">'
        f"<figcaption>{html.escape(printable(path))}</figcaption></figure>"
        for path, file in rows
    )
    return PAGE.format(figures=figures)


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Where each label comes from</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 1rem auto; padding: 0 1rem; max-width: 90rem; }}
figure {{ margin: 0 0 1.5rem; overflow-x: auto; }}
img {{ display: block; max-width: none; border-radius: 4px; }}
figcaption {{ overflow-wrap: anywhere; opacity: .75; font-size: .9rem; }}
</style>
</head>
<body>
<h1>Where each label comes from</h1>
<p>Left: the image as the net sees it. Then its most probable labels: red places add to the label, blue ones take away
from it, with one scale for all labels of an image. These are class activation maps; the mean of a map is exactly the
net's output for the label, less its bias.</p>
{figures}
</body>
</html>
"""

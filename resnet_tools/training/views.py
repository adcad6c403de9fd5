"""Training images as the net sees them -> one picture: the first thing to look at when a net does not learn."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from resnet_tools.data.labels import short_names
from resnet_tools.data.samples import Samples
from resnet_tools.data.thumbnails import fitting
from resnet_tools.data.transforms import Preprocessing
from resnet_tools.errors import ImageError, ResnetToolsError
from resnet_tools.evaluation.explanations import seen_pixels
from resnet_tools.history.plotting import drawable, font_file
from resnet_tools.training.batches import EpochDataset, epoch_batches
from resnet_tools.training.transforms import Transform, normalised_batch

MOST, COLUMNS = 24, 6
VIEW_PX, MARGIN_PX, LINE_PX, FONT_PX = 176, 12, 22, 14
LABEL = "#1a1a1a"


def training_views(
    samples: Samples, transform: Transform, preprocessing: Preprocessing, seed: int, epoch: int
) -> Image.Image:
    """The first images of an epoch after augmentation, with their classes; without mixup and CutMix.

    Images that cannot be read are left out. Raises: ImageError if none can.
    """
    dataset = EpochDataset(samples, transform, seed, epoch)
    order = epoch_batches(len(samples), MOST, seed, epoch)[0].tolist()
    names, views = short_names(samples.class_names), []
    for position in order:
        try:
            view = normalised_batch(dataset.image(position), transform)
            views.append((_picture(view, preprocessing), names[samples.targets[position]]))
        except ImageError as error:
            reason = error
    if not views:
        raise reason
    return _sheet(views)


def _picture(view: Tensor, preprocessing: Preprocessing) -> Image.Image:
    """A view, (C, H, W) normalised, as pixels again, in a square; small ones are enlarged without smoothing."""
    image = Image.fromarray(seen_pixels(view, preprocessing))
    scale = VIEW_PX / max(image.size)
    kind = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    return image.resize([max(1, round(side * scale)) for side in image.size], kind)


def _sheet(views: list[tuple[Image.Image, str]]) -> Image.Image:
    columns = min(COLUMNS, len(views))
    width, height = VIEW_PX + MARGIN_PX, VIEW_PX + LINE_PX + MARGIN_PX
    rows = -(-len(views) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN_PX, rows * height + MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(sheet), _font()
    for number, (view, name) in enumerate(views):
        x, y = MARGIN_PX + number % columns * width, MARGIN_PX + number // columns * height
        sheet.paste(view, (x, y))
        draw.text((x, y + VIEW_PX + 3), fitting(drawable(name), "", font, VIEW_PX), fill=LABEL, font=font)
    return sheet


def _font() -> Any:
    """matplotlib's, which has more letters, if it is installed; else Pillow's own."""
    try:
        return ImageFont.truetype(font_file(), FONT_PX)
    except (ResnetToolsError, OSError):
        return ImageFont.load_default(FONT_PX)

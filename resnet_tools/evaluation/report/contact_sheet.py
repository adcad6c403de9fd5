"""Mistakes -> one picture of the images with their true and predicted classes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from resnet_tools.data.samples import Samples
from resnet_tools.data.thumbnails import centred, fitting, scaled
from resnet_tools.data.transforms import pixels_of
from resnet_tools.errors import ImageError
from resnet_tools.evaluation.report.tables import Mistake
from resnet_tools.history.plotting import drawable

MOST, COLUMNS = 24, 6
PICTURE_PX, MARGIN_PX, LINE_PX, FONT_PX = 176, 12, 18, 14
TRUTH, PREDICTION, FILE = "#1a1a1a", "#b3261e", "#6b6b6b"


def contact_sheet(
    mistakes: Sequence[Mistake], samples: Samples, class_names: Sequence[str], font_file: str, *, exif: bool
) -> Image.Image:
    """The first mistakes, row by row: picture, truth, prediction with its probability, file.

    class_names: short ones. exif: whether the net saw the images turned upright.
    """
    shown = mistakes[:MOST]
    columns = min(COLUMNS, len(shown))
    width, height = PICTURE_PX + MARGIN_PX, PICTURE_PX + 3 * LINE_PX + 2 * MARGIN_PX
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN_PX, rows * height + MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(font_file, FONT_PX)
    for number, mistake in enumerate(shown):
        x, y = MARGIN_PX + number % columns * width, MARGIN_PX + number // columns * height
        sheet.paste(_thumbnail(samples, mistake.position, exif), (x, y))
        folder, name = os.path.split(mistake.path)
        lines = (
            (class_names[mistake.truth], "", TRUTH),
            (f"→ {class_names[mistake.prediction]}", f" {100 * mistake.probability:.1f} %", PREDICTION),
            (os.path.join(os.path.basename(folder), name), "", FILE),
        )
        for line, (text, end, color) in enumerate(lines):
            place = (x, y + PICTURE_PX + 4 + line * LINE_PX)
            draw.text(place, fitting(drawable(text), end, font, PICTURE_PX), fill=color, font=font)
    return sheet


def _thumbnail(samples: Samples, position: int, exif: bool) -> Image.Image:
    """The image centred in a square, which stays empty if it is gone, or changed, since it was evaluated."""
    try:
        return centred(scaled(pixels_of(samples.images[position], exif), PICTURE_PX), PICTURE_PX)
    except ImageError:
        return centred(None, PICTURE_PX)

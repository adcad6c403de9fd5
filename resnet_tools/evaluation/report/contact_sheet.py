"""Mistakes -> one picture of the images with their true and predicted classes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from PIL import Image, ImageFont

from resnet_tools.data.samples import Samples
from resnet_tools.data.sheets import FONT_PX, Tile, drawn_sheet, in_rows
from resnet_tools.evaluation.report.tables import Mistake

MOST, COLUMNS, PICTURE_PX = 24, 6, 176
TRUTH, PREDICTION, FILE = "#1a1a1a", "#b3261e", "#6b6b6b"


def contact_sheet(
    mistakes: Sequence[Mistake], samples: Samples, class_names: Sequence[str], font_file: str, *, exif: bool
) -> Image.Image:
    """The first mistakes, row by row: picture, truth, prediction with its probability, file.

    class_names: short ones. exif: whether the net saw the images turned upright.
    """
    tiles = [_tile(mistake, samples, class_names) for mistake in mistakes[:MOST]]
    return drawn_sheet(in_rows(tiles, COLUMNS), ImageFont.truetype(font_file, FONT_PX), PICTURE_PX, exif=exif)


def _tile(mistake: Mistake, samples: Samples, class_names: Sequence[str]) -> Tile:
    folder, name = os.path.split(mistake.path)
    prediction = f"→ {class_names[mistake.prediction]}", f" {100 * mistake.probability:.1f} %", PREDICTION
    file = os.path.join(os.path.basename(folder), name), "", FILE
    return Tile(samples.images[mistake.position], ((class_names[mistake.truth], "", TRUTH), prediction, file))

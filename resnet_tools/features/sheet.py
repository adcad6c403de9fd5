"""Images and what is similar to them -> one picture: a query on the left, its neighbours to the right of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from resnet_tools.data.thumbnails import fitting, in_square
from resnet_tools.errors import FeatureError
from resnet_tools.features.similar import Neighbour, Similar
from resnet_tools.history.plotting import drawable, font_file
from resnet_tools.writing import written_whole

MOST_LINES, MOST_COLUMNS = 24, 12
PICTURE_PX, MARGIN_PX, LINE_PX, FONT_PX, GAP_PX = 160, 12, 18, 14, 28
SIMILARITY, FILE, RULE = "#1a1a1a", "#5f5f5f", "#c4c4c4"
Line = Similar | Sequence[Neighbour]


def write_sheet(lines: Sequence[Line], path: Path, *, exif: bool = False) -> None:
    """Draw the first lines: the neighbours of an image, or a group of images that are near-identical.

    An image that is not there any more is an empty square. exif: turn the images upright as their EXIF data says.
    Raises: FeatureError if there is nothing to draw or the file cannot be written; ResnetToolsError without matplotlib,
    whose font is used.
    """
    if not lines:
        raise FeatureError(f"{path}: there is nothing to draw, so it is not written")
    sheet = _drawn(lines[:MOST_LINES], ImageFont.truetype(font_file(), FONT_PX), exif)
    try:
        with written_whole(path) as partial:
            sheet.save(partial, format="PNG")
    except OSError as error:
        raise FeatureError(f"{path}: cannot be written: {error.strerror or error}") from error


def _drawn(lines: Sequence[Line], font: ImageFont.FreeTypeFont, exif: bool) -> Image.Image:
    rows = [_cells(line) for line in lines]
    with_query = isinstance(lines[0], Similar)
    width, height = PICTURE_PX + MARGIN_PX, PICTURE_PX + 2 * LINE_PX + 2 * MARGIN_PX
    gap = GAP_PX if with_query else 0
    size = (max(map(len, rows)) * width + MARGIN_PX + gap, len(rows) * height + MARGIN_PX)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for number, cells in enumerate(rows):
        y = MARGIN_PX + number * height
        for column, (path, text) in enumerate(cells):
            x = MARGIN_PX + column * width + (gap if column else 0)
            sheet.paste(in_square(path, PICTURE_PX, exif=exif), (x, y))
            _write(draw, (x, y + PICTURE_PX + 4), path, text, font)
        if with_query:
            x = MARGIN_PX + width + (gap - MARGIN_PX) // 2
            draw.line([(x, y), (x, y + PICTURE_PX)], RULE, 2)
    return sheet


def _cells(line: Line) -> list[tuple[str, str]]:
    """Path and caption of each picture of a line."""
    neighbours = line.neighbours if isinstance(line, Similar) else line
    cells = [(neighbour.path, f"{neighbour.similarity:.4f}") for neighbour in neighbours]
    return ([(line.path, "")] if isinstance(line, Similar) else []) + cells[:MOST_COLUMNS]


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], path: str, text: str, font: ImageFont.FreeTypeFont
) -> None:
    folder, name = os.path.split(path)
    short = drawable(os.path.join(os.path.basename(folder), name))
    lines = [(text, SIMILARITY)] * bool(text) + [(fitting(short, "", font, PICTURE_PX), FILE)]
    for number, (line, color) in enumerate(lines):
        draw.text((place[0], place[1] + number * LINE_PX), line, fill=color, font=font)

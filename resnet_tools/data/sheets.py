"""Images with lines of text below them -> one picture, for people who look rather than read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from resnet_tools.data.thumbnails import Font, fitting, in_square
from resnet_tools.errors import ResnetToolsError
from resnet_tools.history.plotting import drawable, font_file

MARGIN_PX, LINE_PX, FONT_PX = 12, 18, 14
INK, RULE = "#1a1a1a", "#c4c4c4"


@dataclass(frozen=True)
class Tile:
    """An image, as `pixels_of` takes it, and the lines below it: text, an end that is never cut, colour."""

    image: Any
    lines: Sequence[tuple[str, str, str]]


def drawn_sheet(
    rows: Sequence[Sequence[Tile]], font: Font, picture_px: int, *, exif: bool = False, gap_px: int = 0, note: str = ""
) -> Image.Image:
    """The tiles row by row. An image that is gone or damaged is an empty square.

    exif: turn images upright as their EXIF data says. gap_px: between the first of each row and the others, with a
    rule in it. note: a line above all.
    """
    lines = max(len(tile.lines) for row in rows for tile in row)
    width, height = picture_px + MARGIN_PX, picture_px + lines * LINE_PX + 2 * MARGIN_PX
    top = MARGIN_PX + (2 * LINE_PX if note else 0)
    size = (max(map(len, rows)) * width + MARGIN_PX + gap_px, len(rows) * height + top)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    if note:
        draw.text((MARGIN_PX, MARGIN_PX), fitting(drawable(note), "", font, size[0] - 2 * MARGIN_PX), INK, font)
    for number, row in enumerate(rows):
        y = top + number * height
        for column, tile in enumerate(row):
            x = MARGIN_PX + column * width + (gap_px if column else 0)
            sheet.paste(in_square(tile.image, picture_px, exif=exif), (x, y))
            for k, (text, end, color) in enumerate(tile.lines):
                place = (x, y + picture_px + 4 + k * LINE_PX)
                draw.text(place, fitting(drawable(text), end, font, picture_px), fill=color, font=font)
        if gap_px:
            x = MARGIN_PX + width + (gap_px - MARGIN_PX) // 2
            draw.line([(x, y), (x, y + picture_px)], RULE, 2)
    return sheet


def in_rows(tiles: Sequence[Tile], columns: int) -> list[Sequence[Tile]]:
    """The same, so many in a row."""
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def sheet_font() -> Font | Any:
    """DejaVu has Latin, Greek and Cyrillic letters, but comes with matplotlib; Pillow's own has Latin ones."""
    try:
        return ImageFont.truetype(font_file(), FONT_PX)
    except ResnetToolsError:
        return ImageFont.load_default(FONT_PX)

"""Images and what is similar to them -> one picture: a query on the left, its neighbours to the right of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageFont

from resnet_tools.data.sheets import FONT_PX, INK, Tile, drawn_sheet
from resnet_tools.errors import FeatureError
from resnet_tools.features.similar import Neighbour, Similar
from resnet_tools.history.plotting import font_file
from resnet_tools.writing import written_whole

MOST_LINES, MOST_COLUMNS = 24, 12
PICTURE_PX, GAP_PX = 160, 28
FILE = "#5f5f5f"
Line = Similar | Sequence[Neighbour]


def write_sheet(lines: Sequence[Line], path: Path, *, exif: bool = False) -> None:
    """Draw the first lines: the neighbours of an image, or a group of images that are near-identical.

    An image that is not there any more is an empty square. exif: turn the images upright as their EXIF data says.
    Raises: FeatureError if there is nothing to draw or the file cannot be written; ResnetToolsError without matplotlib,
    whose font is used.
    """
    if not lines:
        raise FeatureError(f"{path}: there is nothing to draw, so it is not written")
    font, gap_px = ImageFont.truetype(font_file(), FONT_PX), GAP_PX if isinstance(lines[0], Similar) else 0
    sheet = drawn_sheet([_tiles(line) for line in lines[:MOST_LINES]], font, PICTURE_PX, exif=exif, gap_px=gap_px)
    try:
        with written_whole(path) as partial:
            sheet.save(partial, format="PNG")
    except OSError as error:
        raise FeatureError(f"{path}: cannot be written: {error.strerror or error}") from error


def _tiles(line: Line) -> list[Tile]:
    """The pictures of a line with their captions."""
    neighbours = line.neighbours if isinstance(line, Similar) else line
    tiles = [Tile(n.path, [(f"{n.similarity:.4f}", "", INK), _file_line(n.path)]) for n in neighbours]
    return ([Tile(line.path, [_file_line(line.path)])] if isinstance(line, Similar) else []) + tiles[:MOST_COLUMNS]


def _file_line(path: str) -> tuple[str, str, str]:
    folder, name = os.path.split(path)
    return os.path.join(os.path.basename(folder), name), "", FILE

"""A projection -> the file that its extension names: a page with thumbnails, a picture, or a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from resnet_tools.data.loading import load_ahead
from resnet_tools.data.thumbnails import thumbnail
from resnet_tools.errors import FeatureError, ImageError
from resnet_tools.features.map_page import map_page, map_picture
from resnet_tools.features.projection import Projection
from resnet_tools.history.plotting import font_file
from resnet_tools.text import OUTPUT_ERRORS, csv_cell
from resnet_tools.writing import check_target, written_whole

FORMATS = (".html", ".png", ".csv")
MOST_POINTS = 200_000  # of a page, which holds the names
THUMBNAIL_PX, QUALITY = 48, 75
MAX_THUMBNAIL_BYTES = 1 << 24  # of all in a page; base64 makes a third more of them
AHEAD = 64


def check_output(path: Path, count: int) -> None:
    """Raises: FeatureError if the extension is unknown, it cannot hold so many points or cannot be written."""
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise FeatureError(f"{path}: the extension {path.suffix!r} is unknown; expected one of {', '.join(FORMATS)}")
    if ending == ".html" and count > MOST_POINTS:
        raise FeatureError(f"{path}: a page shows at most {MOST_POINTS:,} images, here are {count:,}; use .png or .csv")
    if ending == ".png":
        font_file()
    try:
        check_target(path)
    except OSError as error:
        raise FeatureError(f"{path}: {error.strerror}") from error


def thumbnails_of(
    names: Sequence[str], most: int, report: Callable[[int], None], *, exif: bool = False
) -> tuple[dict[int, bytes], int]:
    """Small JPEGs of up to `most` images, evenly spread, by their numbers; and how many of these could not be read.

    Together they have at most 16 MiB: an even part of so many images is then left out.
    report: called with the number of images done. exif: turn them upright as their EXIF data says.
    """
    step = max(1, -(-len(names) // most)) if most else 0
    chosen = list(range(0, len(names), step)) if most else []
    load = partial(_jpeg, exif=exif)
    found: dict[int, bytes] = {}
    missing = total = 0
    loaded = load_ahead([names[k] for k in chosen], load, workers=2, ahead=AHEAD)
    for k, (_, content) in zip(chosen, loaded, strict=True):
        if isinstance(content, ImageError):
            missing += 1
        else:
            found[k] = content
            total += len(content)
        while total > MAX_THUMBNAIL_BYTES:
            found = dict(list(found.items())[::2])
            total = sum(map(len, found.values()))
        report(1)
    return found, missing


def _jpeg(path: str, *, exif: bool) -> bytes:
    content = io.BytesIO()
    thumbnail(path, THUMBNAIL_PX, exif=exif).save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def write_map(
    path: Path, projection: Projection, groups: Sequence[str], title: str, note: str, thumbnails: dict[int, bytes]
) -> None:
    """Write the whole file. Raises: FeatureError if it cannot be written."""
    try:
        with written_whole(path) as partial_path:
            ending = path.suffix.lower()
            if ending == ".html":
                partial_path.write_text(map_page(projection, groups, title, note, thumbnails), "utf-8")
            elif ending == ".png":
                map_picture(projection, groups, f"{title}: {note}", font_file()).save(partial_path, format="PNG")
            else:
                _write_table(partial_path, projection, groups)
    except OSError as error:
        raise FeatureError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write_table(path: Path, projection: Projection, groups: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", errors=OUTPUT_ERRORS, newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["row", "path", "group", "x", "y"])
        points = zip(projection.rows, projection.names, groups, projection.coordinates.tolist(), strict=True)
        rows.writerows(
            [row, csv_cell(name), csv_cell(group), f"{x:.9g}", f"{y:.9g}"] for row, name, group, (x, y) in points
        )

"""Points with names, groups and thumbnails -> one self-contained HTML page, or a picture, that shows them.

The page is `assets/map.html` with its data put in. Names reach it only as JSON, which its script sets as text.
"""

from __future__ import annotations

import base64
import html
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resnet_tools.data.thumbnails import fitting
from resnet_tools.features.groups import OTHER, UNKNOWN, largest_groups
from resnet_tools.features.projection import Projection
from resnet_tools.history.plotting import drawable
from resnet_tools.text import printable

Array = np.ndarray[Any, Any]
TEMPLATE = Path(__file__).parents[1] / "assets" / "map.html"
# Twelve hues that are told apart on white and on black, and then each again, darker.
COLORS = (
    *("#1f77b4", "#e6731a", "#2a9d4a", "#d13a3f", "#8a63c9", "#9a6b4f", "#dd6fb8", "#7f9a1f", "#17a3b8", "#c79a12"),
    *("#5b8def", "#e58f8f", "#155a8a", "#a34d08", "#167034", "#962127", "#5c3b99", "#6b4632", "#a13f80", "#566b0c"),
    *("#0c6f7f", "#8c6b05", "#3355b5", "#b35a5a"),
)
GRAY = "#8b8f96"
PICTURE_PX, LEGEND_PX, MARGIN_PX, LINE_PX, FONT_PX = 1000, 300, 30, 24, 16
SMOOTH = 2  # drawn so many times larger, then scaled down


def map_page(
    projection: Projection, groups: Sequence[str], title: str, note: str, thumbnails: Mapping[int, bytes]
) -> str:
    """The HTML of the page. groups: of each point. thumbnails: JPEG files by the number of the point."""
    listed, numbers = largest_groups(groups)
    counts = Counter(numbers)
    places, extent = _in_unit_square(projection.coordinates)
    data = {
        "groups": [
            {"name": _shown(name), "color": color, "count": counts[number]}
            for number, (name, color) in enumerate(zip(listed, _colors(listed), strict=True))
        ],
        "places": _base64(places.astype("<f4").tobytes()),
        "extent": extent,
        "group_of": _base64(np.array(numbers, np.uint8).tobytes()),
        "names": [_shown(name) for name in projection.names],
        "thumbnails": {str(point): _base64(content) for point, content in thumbnails.items()},
    }
    # No name can end the element of the script: there is no `<` in it.
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = TEMPLATE.read_text("utf-8")
    for key, value in {"title": html.escape(_shown(title)), "note": html.escape(_shown(note))}.items():
        page = page.replace("{{" + key + "}}", value.replace("{{", "{ {"))
    before, _, behind = page.partition("{{data}}")
    return before + content + behind


def map_picture(projection: Projection, groups: Sequence[str], title: str, font_file: str) -> Image.Image:
    """The points with a legend, as a picture of 1330 x 1060 pixels."""
    listed, numbers = largest_groups(groups)
    colors, counts = _colors(listed), Counter(numbers)
    width, height = PICTURE_PX + LEGEND_PX + MARGIN_PX, PICTURE_PX + 2 * MARGIN_PX
    large = Image.new("RGB", (width * SMOOTH, height * SMOOTH), "white")
    draw = ImageDraw.Draw(large)
    radius = (6 if len(numbers) < 500 else 4 if len(numbers) < 5000 else 3) * SMOOTH
    places, extent = _in_unit_square(projection.coordinates)
    side = (PICTURE_PX - 2 * MARGIN_PX) * SMOOTH
    start = (np.array([1.0, 1.0]) - extent) / 2 * side + MARGIN_PX * SMOOTH
    start[1] += MARGIN_PX * SMOOTH
    for (x, y), number in zip((places * side + start).tolist(), numbers, strict=True):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), colors[number], "white", SMOOTH // 2)
    marks = [(PICTURE_PX + 4, 2 * MARGIN_PX + number * LINE_PX) for number in range(len(listed))]
    for (x, y), color in zip(marks, colors, strict=True):
        draw.ellipse([SMOOTH * side for side in (x, y + 3, x + 12, y + 15)], color)
    picture = large.resize((width, height), Image.Resampling.LANCZOS)
    draw, font = ImageDraw.Draw(picture), ImageFont.truetype(font_file, FONT_PX)
    draw.text((MARGIN_PX, 12), fitting(drawable(title), "", font, width - 2 * MARGIN_PX), "#1a1a1a", font)
    for number, (name, (x, y)) in enumerate(zip(listed, marks, strict=True)):
        text = fitting(drawable(name), f"  {counts[number]:,}", font, LEGEND_PX - 24)
        draw.text((x + 20, y), text, "#1a1a1a", font)
    return picture


def _in_unit_square(coordinates: Array) -> tuple[Array, list[float]]:
    """The points with the longer side of their box scaled to 0..1 and y downwards, and the two sides of that box."""
    low, high = coordinates.min(0), coordinates.max(0)
    side = float((high - low).max()) or 1.0
    places = (coordinates - low) / side
    extent = (high - low) / side
    places[:, 1] = extent[1] - places[:, 1]
    return places, [max(1e-3, float(length)) for length in extent]


def _colors(names: Sequence[str]) -> list[str]:
    return [GRAY if name in (OTHER, UNKNOWN) else COLORS[k % len(COLORS)] for k, name in enumerate(names)]


def _shown(text: str) -> str:
    """Printable text; bytes of names that are not UTF-8 become replacement characters."""
    return printable(text).encode(errors="surrogateescape").decode(errors="replace")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

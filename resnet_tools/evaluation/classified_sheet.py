"""Images and their labels -> a contact sheet, the most certain first: a picture, or a page that needs no other file.

Of many images the picture shows the 400 most certain ones and the page 2,000, and both say so.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from resnet_tools.compute.predictions import Prediction
from resnet_tools.data.loading import load_ahead
from resnet_tools.data.sheets import INK, Tile, drawn_sheet, in_rows, sheet_font
from resnet_tools.data.thumbnails import thumbnail
from resnet_tools.errors import DataError, ImageError
from resnet_tools.evaluation.report.html_text import label, text
from resnet_tools.text import counted, percent
from resnet_tools.writing import check_target, written_whole

FORMATS = {".png": 400, ".html": 2000}  # the most images that each shows
LABELS = 3  # below each image
PICTURE_PX, MOST_COLUMNS = 128, 16
THUMBNAIL_PX, QUALITY = 192, 78
OTHER, FILE = "#5f5f5f", "#7a7a7a"
Result = Prediction | tuple[str, ImageError]


def check_sheet(path: Path) -> None:
    """Raises: DataError before any work is done if the ending names no format or the file cannot be written."""
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path}: the extension {path.suffix!r} is unknown; expected {', '.join(FORMATS)}")
    try:
        check_target(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if not path.parent.is_dir():
        raise DataError(f"{path}: cannot be written: there is no folder {path.parent}")


def sheeted(
    results: Iterable[Result],
    names: Sequence[str],
    path: Path,
    *,
    exif: bool = False,
    written: Callable[[], object] = lambda: None,
) -> Iterator[Result]:
    """The same results; behind the last one the sheet is drawn, if there is anything to show. names: of all outputs.

    exif: the images are turned upright as their EXIF data says. written: called when the file is there.
    Raises: DataError if the file cannot be written.
    """
    found, unread = [], 0
    for result in results:
        yield result
        if isinstance(result, Prediction):
            found.append(result)
        else:
            unread += 1
    found.sort(key=lambda prediction: -prediction.probabilities[0])  # stable: equal ones stay in their order
    if found:
        write_sheet(found, names, path, unread=unread, exif=exif)
        written()


def write_sheet(
    found: Sequence[Prediction], names: Sequence[str], path: Path, *, unread: int = 0, exif: bool = False
) -> None:
    """Draw the predictions in their order. unread: how many images have none. Raises: DataError."""
    shown = found[: FORMATS[path.suffix.lower()]]
    note = sheet_note(len(shown), len(found), unread)
    try:
        with written_whole(path) as partial:
            if path.suffix.lower() == ".png":
                columns = min(MOST_COLUMNS, max(4, math.isqrt(2 * len(shown))))
                tiles = in_rows([_tile(prediction, names) for prediction in shown], columns)
                drawn_sheet(tiles, sheet_font(), PICTURE_PX, exif=exif, note=note).save(partial, "PNG")
            else:
                partial.write_text(sheet_page(shown, names, note, exif=exif), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def sheet_note(shown: int, count: int, unread: int) -> str:
    """What stands above the images."""
    what = f"{counted(count, 'image')}, the most certain first"
    if shown < count:
        what = f"the {shown:,} most certain of {counted(count, 'image')}; {count - shown:,} others are left out"
    return what + (f"; {counted(unread, 'more image')} could not be read" if unread else "")


def _labels(prediction: Prediction, names: Sequence[str]) -> list[tuple[str, str]]:
    found = zip(prediction.indices, prediction.probabilities, strict=True)
    return [(names[index], percent(probability)) for index, probability in list(found)[:LABELS]]


def _tile(prediction: Prediction, names: Sequence[str]) -> Tile:
    lines = [(name, f"  {share}", OTHER if k else INK) for k, (name, share) in enumerate(_labels(prediction, names))]
    return Tile(prediction.path, [*lines, (os.path.basename(prediction.path), "", FILE)])


def sheet_page(shown: Sequence[Prediction], names: Sequence[str], note: str, *, exif: bool = False) -> str:
    """The page with its small pictures inside."""
    pictures = load_ahead([p.path for p in shown], lambda path: _jpeg(path, exif), workers=2, ahead=64)
    figures = (_figure(prediction, names, jpeg) for prediction, (_, jpeg) in zip(shown, pictures, strict=True))
    return PAGE.format(note=text(note[:1].upper() + note[1:]), figures="\n".join(figures))


def _jpeg(path: str, exif: bool) -> bytes:
    buffer = io.BytesIO()
    thumbnail(path, THUMBNAIL_PX, exif=exif).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _figure(prediction: Prediction, names: Sequence[str], jpeg: bytes | ImageError) -> str:
    picture = '<div class="gone">gone since</div>'
    if isinstance(jpeg, bytes):
        picture = f'<img loading="lazy" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="">'
    rows = "".join(
        f'<li><span title="{text(name)}">{text(label(name))}</span> <b>{share}</b></li>'
        for name, share in _labels(prediction, names)
    )
    name = os.path.basename(prediction.path)
    file = f'<figcaption title="{text(prediction.path)}">{text(label(name))}</figcaption>'
    return f"<figure>{picture}<ol>{rows}</ol>{file}</figure>"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Images and their labels</title>
<style>
:root {{ color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #5c5c5c; --soft: #ececec; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e6e6; --paper: #16181c; --faint: #a8adb5; --soft: #23272e; }}
}}
body {{ font: 14px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 1rem auto;
  padding: 0 1rem; max-width: 100rem; }}
h1 {{ font-size: 1.3rem; margin: 0; }}
p {{ color: var(--faint); margin: .2rem 0 1rem; }}
main {{ display: grid; gap: 1rem .8rem; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }}
figure {{ margin: 0; min-width: 0; }}
img, .gone {{ display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--soft);
  border-radius: 4px; }}
.gone {{ display: grid; place-items: center; color: var(--faint); }}
ol {{ list-style: none; margin: .3rem 0 0; padding: 0; }}
li {{ display: flex; justify-content: space-between; gap: .5rem; color: var(--faint); }}
li:first-child {{ color: var(--ink); font-weight: 600; }}
li span, figcaption {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }}
li b {{ font-weight: inherit; font-variant-numeric: tabular-nums; white-space: nowrap; }}
figcaption {{ color: var(--faint); font-size: .8rem; }}
</style>
</head>
<body>
<h1>Images and their labels</h1>
<p>{note}</p>
<main>
{figures}
</main>
</body>
</html>
"""

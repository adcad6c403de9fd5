"""The folder of a report: a new or an empty one, or that of an earlier report, which a new one replaces whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_tools.errors import DataError, ResnetToolsError
from resnet_tools.evaluation.options import MAPS, PAGE
from resnet_tools.reading import read_bounded

SUMMARY = "summary.json"
# In the order in which they are put in place: an earlier report has the summary, a finished one the page.
FILES = (
    SUMMARY,
    "per_class.csv",
    "confusion.csv",
    "mistakes.csv",
    "predictions.csv",
    "confusion.png",
    "mistakes.png",
    MAPS,
    PAGE,
)
PARTIAL = ".partial"  # the folder in it that holds the files until all are written
LEFT_OVER = {f".{Path(name).stem}.partial{Path(name).suffix}" for name in FILES}  # by an earlier version, when killed
NOT_OURS_TO_MIND = (".DS_Store", "Thumbs.db", "desktop.ini")  # what file managers leave in any folder
MAX_SUMMARY_BYTES = 1 << 28  # it lists the images that could not be read


def begin_folder(folder: Path) -> None:
    """Make the folder. Raises: DataError if that fails, or if it holds something else than an earlier report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: a folder for the report cannot be made there ({error.strerror})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{folder}: the report cannot be written: no permission to write into this folder")
    other = next((name for name in names if not _may_be_ours(folder / name)), None)
    if other is None and set(names) & set(FILES) and not _is_summary(folder / SUMMARY):
        other = next(name for name in names if name in FILES)
    if other is not None:
        raise DataError(
            f"{folder / other}: is not part of an earlier report, and the report cannot be written into a folder that "
            "holds something else. Give a new or an empty folder"
        )


def _may_be_ours(path: Path) -> bool:
    return path.name in (PARTIAL, *NOT_OURS_TO_MIND) or (path.is_file() and path.name in (*FILES, *LEFT_OVER))


def _is_summary(path: Path) -> bool:
    try:
        content = json.loads(read_bounded(path, MAX_SUMMARY_BYTES, "summary"))
    except (ResnetToolsError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "top1_error" in content


@contextmanager
def replaced_report(folder: Path) -> Iterator[Path]:
    """A folder for the files of a report, which take the place of all earlier ones when the block ends well.

    If the block raises, an earlier report is untouched. Raises: OSError.
    """
    partial = folder / PARTIAL
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        yield partial
        (folder / PAGE).unlink(missing_ok=True)  # while it is missing, the other files may be of two reports
        for name in FILES:
            if (partial / name).exists():
                os.replace(partial / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        for name in LEFT_OVER:
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(partial)

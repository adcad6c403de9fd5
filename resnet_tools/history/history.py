"""The figures of each epoch <-> `history.csv`, which spreadsheets and `resnet plot` read.

Columns: the fields of `Epoch`, in order. top1 and top5 are error rates in percent, losses are in nats, seconds and
images/s are those of the training part of the epoch. A value that was not computed is empty.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from resnet_tools.errors import HistoryError, ResnetToolsError
from resnet_tools.reading import read_bounded
from resnet_tools.writing import written_whole

HISTORY = "history.csv"  # in the folder of a run
NAN = float("nan")
MAX_BYTES = 1 << 26  # of a history: half a million epochs


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch, counted from 1; nan where one was not computed. The fields are the columns."""

    epoch: int
    lr: float = NAN
    train_loss: float = NAN
    train_top1: float = NAN
    train_top5: float = NAN
    val_loss: float = NAN
    val_top1: float = NAN
    val_top5: float = NAN
    seconds: float = NAN
    images_per_second: float = NAN


COLUMNS = tuple(field.name for field in fields(Epoch))


def write_history(history: Sequence[Epoch], path: Path) -> None:
    """Write all epochs, replacing an earlier file at once. Raises: OSError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if value != value else repr(value) for value in astuple(epoch)] for epoch in history)
    with written_whole(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def read_history(path: Path) -> list[Epoch]:
    """The epochs of a `history.csv`; unknown columns are ignored, missing ones are nan.

    Raises: HistoryError naming the file and the line.
    """
    content = _content(path)
    try:
        rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        if "epoch" not in (rows.fieldnames or ()):
            raise HistoryError(f"{path}: line 1 has no column `epoch`; expected {','.join(COLUMNS)}")
        return [_epoch(row, path, rows.line_num) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise HistoryError(f"{path}: cannot be read as CSV: {error}") from error


def _content(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_BYTES, "history")
    except ResnetToolsError as error:
        raise HistoryError(str(error)) from error


def _epoch(row: dict[str, str | None], path: Path, line: int) -> Epoch:
    values: dict[str, float] = {}
    for name in COLUMNS:
        text = row.get(name) or ("" if name != "epoch" else "missing")
        try:
            values[name] = float(text) if text else NAN
        except ValueError:
            raise HistoryError(f"{path}: line {line}: {name} is {text!r}; expected a number") from None
    number = values.pop("epoch")
    if not math.isfinite(number) or number != int(number):
        raise HistoryError(f"{path}: line {line}: epoch is {number}; expected a whole number")
    return Epoch(int(number), **values)

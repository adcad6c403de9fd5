"""The lines that the original program prints while it trains -> one row of figures an epoch.

 | Epoch: [1][3/40]    Time 0.123  Data 0.004  Err 1.2345  top1  56.250  top5  12.500     a training batch
 | Test: [1][2/63]    Time 0.444  Data 0.002  top1  40.625 ( 35.938)  top5   0.000 (  0.000)
 * Finished epoch # 1     top1:  27.250  top5:   0.600                                     the whole of val/

The figures of training are the means over the batches of an epoch, each counted alike: how many images the last one
has is not printed. An epoch whose training did not end has none; one that was begun again counts as it was last.
Source: fb.resnet.torch 985e569, train.lua.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resnet_tools.errors import HistoryError
from resnet_tools.history.history import NAN, Epoch, read_history

WHOLE = r"(\d{1,9})"  # no training has more epochs, and Python refuses to read numbers of thousands of digits
NUMBER = r"(-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf))"
TRAIN = re.compile(
    rf"\| Epoch: \[{WHOLE}\]\[{WHOLE}/{WHOLE}\]\s+Time\s+{NUMBER}\s+Data\s+{NUMBER}"
    rf"\s+Err\s+{NUMBER}\s+top1\s+{NUMBER}\s+top5\s+{NUMBER}"
)
TEST = re.compile(rf"\| Test: \[{WHOLE}\]\[\d+/\d+\]\s+Time\s+{NUMBER}\s")
FINISHED = re.compile(rf"\* Finished epoch # {WHOLE}\s+top1:\s+{NUMBER}\s+top5:\s+{NUMBER}")
HISTORY = "history.csv"
GZIP = b"\x1f\x8b"


@dataclass
class _Figures:
    batches: list[tuple[float, float, float]] = field(default_factory=list)  # loss, top-1, top-5
    seconds: float = 0.0
    trained: bool = False
    val_top1: float = NAN
    val_top5: float = NAN


def read_run(path: Path) -> list[Epoch]:
    """The epochs of a training: a folder that holds `history.csv`, such a file, or a log.

    Raises: HistoryError.
    """
    if path.is_dir():
        path = path / HISTORY
        if not path.is_file():
            raise HistoryError(f"{path}: is not there; expected the folder of a training, a {HISTORY}, or a log")
    return read_history(path) if path.suffix.lower() == ".csv" else read_training_log(path)


def read_training_log(path: Path) -> list[Epoch]:
    """The epochs that a log (or a log packed with gzip) tells of, in ascending order.

    Raises: HistoryError that names the file if it cannot be read or has no such line.
    """
    epochs: dict[int, _Figures] = {}
    for line in _lines(path):
        _note(line, epochs)
    rows = [_row(number, epochs[number]) for number in sorted(epochs)]
    rows = [row for row in rows if not (math.isnan(row.train_loss) and math.isnan(row.val_top1))]
    if not rows:
        raise HistoryError(
            f"{path}: holds no figures of an epoch; expected a history.csv, or lines such as ` | Epoch: [1][3/40] ...` "
            "up to the last batch, or ` * Finished epoch # 1     top1: ...`"
        )
    return rows


def _lines(path: Path) -> Iterator[str]:
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise HistoryError(f"{path}: cannot be read: {error}") from error
    yield from content.decode(errors="replace").splitlines()


def _note(line: str, epochs: dict[int, _Figures]) -> None:
    if found := TRAIN.search(line):
        epoch, batch, last = (int(text) for text in found.groups()[:3])
        seconds, _, loss, top1, top5 = map(float, found.groups()[3:])
        if batch == 1:
            epochs[epoch] = _Figures()
        figures = epochs.setdefault(epoch, _Figures())
        figures.batches.append((loss, top1, top5))
        figures.seconds += seconds
        figures.trained |= batch == last
    elif found := TEST.search(line):
        epochs.setdefault(int(found[1]), _Figures()).seconds += float(found[2])
    elif found := FINISHED.search(line):
        figures = epochs.setdefault(int(found[1]), _Figures())
        figures.val_top1, figures.val_top5 = float(found[2]), float(found[3])


def _row(number: int, figures: _Figures) -> Epoch:
    count = len(figures.batches)
    loss, top1, top5 = (
        (sum(values) / count for values in zip(*figures.batches, strict=True)) if figures.trained else (NAN, NAN, NAN)
    )
    return Epoch(
        number,
        train_loss=loss,
        train_top1=top1,
        train_top5=top5,
        val_top1=figures.val_top1,
        val_top5=figures.val_top5,
        seconds=figures.seconds or NAN,
    )

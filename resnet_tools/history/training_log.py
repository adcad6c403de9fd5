"""The lines that the original program prints while it trains -> the figures of each epoch.

`lines` says what each line looks like. The figures of training are the means over the batches of an epoch, each
counted alike: the log does not say how many images the last one has. An epoch whose training did not end has none; of
an epoch that was restarted, the last attempt counts.
Source: fb.resnet.torch 985e569, train.lua.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resnet_tools.errors import HistoryError, ResnetToolsError
from resnet_tools.history import lines
from resnet_tools.history.history import HISTORY, NAN, Epoch, read_history
from resnet_tools.reading import read_bounded, read_stream

GZIP = b"\x1f\x8b"
MAX_LOG_BYTES = 1 << 28  # 90 epochs of ImageNet in batches of 256 take 50 MB
WHAT = "training log"


@dataclass
class _Figures:
    batches: list[lines.TrainingLine] = field(default_factory=list)
    seconds: float = 0.0
    trained: bool = False
    val_top1_error: float = NAN
    val_top5_error: float = NAN


def read_run(path: Path) -> list[Epoch]:
    """The epochs of a training: a folder that holds `history.csv`, such a file, or a log.

    Raises: HistoryError.
    """
    if path.is_dir():
        path = path / HISTORY
        if not path.is_file():
            raise HistoryError(f"{path}: does not exist; expected the folder of a training, a {HISTORY}, or a log")
    return read_history(path) if path.suffix.lower() == ".csv" else read_training_log(path)


def read_training_log(path: Path) -> list[Epoch]:
    """The epochs in a log, plain or compressed with gzip, in ascending order.

    Raises: HistoryError naming the file if it cannot be read or has no such line.
    """
    epochs: dict[int, _Figures] = {}
    for line in _lines(path):
        _note(line, epochs)
    rows = [_row(number, epochs[number]) for number in sorted(epochs)]
    rows = [row for row in rows if not (math.isnan(row.train_loss) and math.isnan(row.val_top1))]
    if not rows:
        raise HistoryError(
            f"{path}: holds no figures of an epoch; expected a {HISTORY}, or lines such as ` | Epoch: [1][3/40] ...` "
            "up to the last batch, or ` * Finished epoch # 1     top1: ...`"
        )
    return rows


def _lines(path: Path) -> Iterator[str]:
    try:
        content = read_bounded(path, MAX_LOG_BYTES, WHAT)
        if content.startswith(GZIP):
            content = read_stream(gzip.GzipFile(fileobj=io.BytesIO(content)), MAX_LOG_BYTES, str(path), WHAT)
    except ResnetToolsError as error:
        raise HistoryError(str(error)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise HistoryError(f"{path}: cannot be decompressed: {error}") from error
    yield from content.decode(errors="replace").splitlines()


def _note(line: str, epochs: dict[int, _Figures]) -> None:
    if batch := lines.parse_training_line(line):
        if batch.batch == 1:
            epochs[batch.epoch] = _Figures()
        figures = epochs.setdefault(batch.epoch, _Figures())
        figures.batches.append(batch)
        figures.seconds += batch.seconds
        figures.trained |= batch.batch == batch.batches
    elif test := lines.parse_test_line(line):
        epoch, seconds = test
        epochs.setdefault(epoch, _Figures()).seconds += seconds
    elif end := lines.parse_epoch_end_line(line):
        epoch, top1_error, top5_error = end
        figures = epochs.setdefault(epoch, _Figures())
        figures.val_top1_error, figures.val_top5_error = top1_error, top5_error


def _row(number: int, figures: _Figures) -> Epoch:
    batches, count = figures.batches if figures.trained else [], len(figures.batches)
    return Epoch(
        number,
        train_loss=sum(batch.loss for batch in batches) / count if batches else NAN,
        train_top1=sum(batch.top1_error for batch in batches) / count if batches else NAN,
        train_top5=sum(batch.top5_error for batch in batches) / count if batches else NAN,
        val_top1=figures.val_top1_error,
        val_top5=figures.val_top5_error,
        seconds=figures.seconds or NAN,
    )

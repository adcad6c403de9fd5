"""The lines that the original prints, which its users' scripts read: figures -> text, and text -> figures.

 | Epoch: [1][3/40]    Time 0.123  Data 0.004  Err 1.2345  top1  56.250  top5  12.500     a training batch
 | Test: [1][2/63]    Time 0.444  Data 0.002  top1  40.625 ( 35.938)  top5   0.000 (  0.000)
 * Finished epoch # 1     top1:  27.250  top5:   0.600                                     the whole of val/

Each kind of line that is read has its parser below its writer. `top1` and `top5` are error rates in percent.
Source: train.lua and main.lua of facebook/fb.resnet.torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from resnet_tools.metrics import ErrorCounts

_WHOLE = r"(\d{1,9})"  # no training has more epochs, and Python refuses to read numbers of thousands of digits
_NUMBER = r"(-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf))"


def epoch_line(epoch: int) -> str:
    return f"=> Training epoch # {epoch}"


def training_line(
    epoch: int, batch: int, batches: int, seconds: float, data_seconds: float, counts: ErrorCounts
) -> str:
    return (
        f" | Epoch: [{epoch}][{batch}/{batches}]    Time {seconds:.3f}  Data {data_seconds:.3f}  "
        f"Err {counts.loss:1.4f}  top1 {counts.top1_error:7.3f}  top5 {counts.top5_error:7.3f}"
    )


_TRAINING = re.compile(
    rf"\| Epoch: \[{_WHOLE}\]\[{_WHOLE}/{_WHOLE}\]\s+Time\s+{_NUMBER}\s+Data\s+{_NUMBER}"
    rf"\s+Err\s+{_NUMBER}\s+top1\s+{_NUMBER}\s+top5\s+{_NUMBER}"
)


@dataclass(frozen=True)
class TrainingLine:
    epoch: int
    batch: int
    batches: int
    seconds: float
    loss: float
    top1_error: float
    top5_error: float


def parse_training_line(line: str) -> TrainingLine | None:
    """None for any other line."""
    if not (found := _TRAINING.search(line)):
        return None
    epoch, batch, batches = (int(text) for text in found.groups()[:3])
    seconds, _, loss, top1_error, top5_error = map(float, found.groups()[3:])
    return TrainingLine(epoch, batch, batches, seconds, loss, top1_error, top5_error)


def test_line(
    epoch: int,
    batch: int,
    batches: int,
    seconds: float,
    data_seconds: float,
    counts: ErrorCounts,
    so_far: ErrorCounts,
) -> str:
    """`counts` of this batch, `so_far` of all up to it."""
    return (
        f" | Test: [{epoch}][{batch}/{batches}]    Time {seconds:.3f}  Data {data_seconds:.3f}  "
        f"top1 {counts.top1_error:7.3f} ({so_far.top1_error:7.3f})  "
        f"top5 {counts.top5_error:7.3f} ({so_far.top5_error:7.3f})"
    )


_TEST = re.compile(rf"\| Test: \[{_WHOLE}\]\[\d+/\d+\]\s+Time\s+{_NUMBER}\s")


def parse_test_line(line: str) -> tuple[int, float] | None:
    """The epoch and the seconds that the batch took; None for any other line."""
    found = _TEST.search(line)
    return (int(found[1]), float(found[2])) if found else None


def epoch_end_line(epoch: int, counts: ErrorCounts) -> str:
    return f" * Finished epoch # {epoch}     top1: {counts.top1_error:7.3f}  top5: {counts.top5_error:7.3f}\n"


_EPOCH_END = re.compile(rf"\* Finished epoch # {_WHOLE}\s+top1:\s+{_NUMBER}\s+top5:\s+{_NUMBER}")


def parse_epoch_end_line(line: str) -> tuple[int, float, float] | None:
    """The epoch with its top-1 and top-5 error; None for any other line."""
    found = _EPOCH_END.search(line)
    return (int(found[1]), float(found[2]), float(found[3])) if found else None


def best_line(top1_error: float, top5_error: float) -> str:
    return f" * Best model \t{top1_error:.14g}\t{top5_error:.14g}"


def results_line(top1_error: float, top5_error: float) -> str:
    return f" * Results top1: {top1_error:6.3f}  top5: {top5_error:6.3f}"


def finished_line(top1_error: float, top5_error: float) -> str:
    return f" * Finished top1: {top1_error:6.3f}  top5: {top5_error:6.3f}"


def published_line(ours: tuple[float, float], published: tuple[float, float]) -> str:
    """Not in the original: the published errors, each with the difference of ours."""
    top1, top5 = (f"{theirs:6.3f} ({error - theirs:+.3f})" for error, theirs in zip(ours, published, strict=True))
    return f" * Published top1: {top1}  top5: {top5}"


def creating_line(architecture: str) -> str:
    return f"=> Creating model: {architecture}"


def loading_model_line(path: str) -> str:
    return f"Loading model from file: {path}"


def new_classifier_line(outputs: int) -> str:
    return f" => Replacing classifier with {outputs}-way classifier"


def resume_lines(latest: object, model_file: object) -> tuple[str, str]:
    return f"=> Loading checkpoint {latest}", f"=> Resuming model from {model_file}"

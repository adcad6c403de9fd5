"""Figures -> the lines that the original prints, which its users' scripts read.

Source: train.lua and main.lua of facebook/fb.resnet.torch.
"""

from __future__ import annotations

from resnet_tools.metrics import ErrorCounts


def epoch_line(epoch: int) -> str:
    return f"=> Training epoch # {epoch}"


def training_line(
    epoch: int, batch: int, batches: int, seconds: float, data_seconds: float, counts: ErrorCounts
) -> str:
    return (
        f" | Epoch: [{epoch}][{batch}/{batches}]    Time {seconds:.3f}  Data {data_seconds:.3f}  "
        f"Err {counts.loss:1.4f}  top1 {counts.top1:7.3f}  top5 {counts.top5:7.3f}"
    )


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
        f"top1 {counts.top1:7.3f} ({so_far.top1:7.3f})  top5 {counts.top5:7.3f} ({so_far.top5:7.3f})"
    )


def epoch_end_line(epoch: int, counts: ErrorCounts) -> str:
    return f" * Finished epoch # {epoch}     top1: {counts.top1:7.3f}  top5: {counts.top5:7.3f}\n"


def best_line(top1: float, top5: float) -> str:
    return f" * Best model \t{top1:.14g}\t{top5:.14g}"


def results_line(top1: float, top5: float) -> str:
    return f" * Results top1: {top1:6.3f}  top5: {top5:6.3f}"


def finished_line(top1: float, top5: float) -> str:
    return f" * Finished top1: {top1:6.3f}  top5: {top5:6.3f}"

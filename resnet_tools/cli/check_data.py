"""`resnet check-data`: what is wrong with a data set."""

from __future__ import annotations

import json

import click

from resnet_tools.cli.shared.options import quick_imports
from resnet_tools.cli.shared.running import progress_bar


@click.command(epilog="Example: resnet check-data photos", short_help="Find what is wrong with a folder of images.")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option(
    "--workers", type=click.IntRange(0, 256), default=2, show_default=True, help="Threads that look at images."
)
def command(folder: str, as_json: bool, quiet: bool, workers: int) -> int:
    """Look at every image in DIR/train/CLASS and DIR/val/CLASS, say what is wrong, and count the images of each class.

    Errors (exit code 1): train/, val/ or images are missing, a class is in val/ only, images cannot be decoded.
    Warnings: images in train/ and in val/, or in two classes; classes without images in val/, or ten times as large
    as others. Notes: images that are in train/ twice, and very small ones.
    """
    with quick_imports():
        from resnet_tools.data.checking import check_samples, find_splits, report_text
    train, val, found = find_splits(folder)
    with progress_bar(len(train) + len(val), "check", quiet=quiet) as progress:
        report = check_samples(train, val, workers=workers, progress=progress, found=found)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else report_text(report))
    return 1 if report.errors else 0

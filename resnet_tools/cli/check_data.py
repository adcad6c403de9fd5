"""`resnet check-data`: what is wrong with a data set."""

from __future__ import annotations

import json

import click

from resnet_tools.cli.shared.options import quick_imports
from resnet_tools.cli.shared.running import progress_bar


@click.command(epilog="Example: resnet check-data photos")
@click.argument("folder", metavar="DIR", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@click.option(
    "--workers", type=click.IntRange(0, 256), default=2, show_default=True, help="Number of threads that read images."
)
def command(folder: str, as_json: bool, quiet: bool, workers: int) -> int:
    """Check every image in DIR/train/CLASS and DIR/val/CLASS, report problems, and count the images of each class. A
    folder without val/, or of class folders alone (DIR/CLASS), is divided as `resnet train` divides it.

    Errors (exit code 1): train/ or images are missing, a class is only in val/, or an image cannot be decoded.
    Warnings: the same image is in train/ and val/, or in two classes; a class has no images in val/, fewer than ten, or
    ten times as many as another; there is one class only; files are left out because of their endings. Notes: the same
    image is in train/ twice; an image is very small or has an EXIF rotation; images lie in no class folder.
    """
    with quick_imports():
        from resnet_tools.data.checking import check_samples
        from resnet_tools.data.findings import findings_text
        from resnet_tools.data.parts import find_splits
    train, val, missing = find_splits(folder)
    with progress_bar(len(train) + len(val), "check", quiet=quiet) as progress:
        findings = check_samples(train, val, workers=workers, progress=progress, found=missing)
    click.echo(json.dumps(findings.to_dict(), indent=1) if as_json else findings_text(findings))
    return 1 if findings.errors else 0

"""`resnet train --classifier-only`: a new classifier on features of a net that stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.cli.train_lines import classifier_line, duration, next_lines, start_line
from resnet_tools.cli.train_output import list_skipped, print_lines

if TYPE_CHECKING:
    from resnet_tools.jobs.run import ReadyRun
    from resnet_tools.jobs.run_pictures import RunPictures

STOPPED = "Stopped. The features so far are kept; give the same command again to continue."


def train_classifier(ready: ReadyRun, pictures: RunPictures) -> int:
    """One process, from the features to the report. Raises: as `fitted_classifier`."""
    from resnet_tools.jobs.run import classifier_images, fitted_classifier

    options = ready.options
    print_lines([start_line(options, ready.start, ready.data, ready.config)])
    images = classifier_images(ready)
    with terminable(STOPPED), progress_bar(images, "features", quiet=options.quiet) as progress:
        found = fitted_classifier(ready, progress)
    list_skipped(dict(zip(found.reasons, found.reasons, strict=True)))
    num_classes = len(ready.data.train.class_names)
    print_lines([classifier_line(found.train, found.val, found.classifier.penalty, found.net, num_classes)])
    click.echo(f"Took {duration(found.seconds)}")
    pictures.report()
    if pictures.drawn:
        print_lines([f"To look at: {', '.join(map(str, pictures.drawn))}"])
    print_lines(next_lines(options, ready.data.val))
    return 0

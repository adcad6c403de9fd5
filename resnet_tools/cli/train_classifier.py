"""`resnet train --classifier-only`: a new classifier on features of a net that stays as it is."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.cli.train_lines import classifier_line, duration, next_lines, start_line
from resnet_tools.cli.train_output import list_skipped, print_lines

if TYPE_CHECKING:
    from resnet_tools.cli.train_pictures import RunPictures
    from resnet_tools.training.compute_config import ComputeConfig
    from resnet_tools.training.options import TrainOptions
    from resnet_tools.training.run import RunData
    from resnet_tools.training.start import Start

STOPPED = "Stopped. The features so far are kept; give the same command again to continue."


def train_classifier(
    options: TrainOptions, start: Start, data: RunData, config: ComputeConfig, pictures: RunPictures
) -> int:
    """One process, from the features to the report. Raises: TrainingError and whatever `ClassifierRun.run` raises."""
    from resnet_tools.errors import TrainingError
    from resnet_tools.training.classifier_only import VIEWS, ClassifierRun, figures_of, save_classifier
    from resnet_tools.training.run_files import LATEST

    if config.processes.count > 1:
        raise TrainingError("--classifier-only runs in one process; start it without torchrun or srun")
    (options.save_folder / LATEST).unlink(missing_ok=True)  # with --overwrite: the folder holds another run now
    begun, skipped = time.monotonic(), []
    print_lines([start_line(options, start, data, config)])
    run = ClassifierRun(
        replace(start.checkpoint, preprocessing=data.loading.preprocessing),
        str(options.retrain),
        data.train,
        data.val,
        data.loading,
        config.device,
        options.save_folder,
        start.state.seed,
        views=1 if options.augmentation == "none" else VIEWS,
        skip_unreadable=options.on_error == "skip",
    )
    images = run.views * len(data.train) + len(data.val)
    with terminable(STOPPED), progress_bar(images, "features", quiet=options.quiet) as progress:

        def show(count: int, reasons: list[str]) -> None:
            skipped.extend(reasons)
            progress(count, [])

        checkpoint, classifier, train, val = run.run(show)
        seconds = time.monotonic() - begun
        start.state.history = [figures_of(train, val, seconds)]
        net = save_classifier(options.save_folder, checkpoint, start.state.recipe, start.state.history[0])
    run.remove_features()
    list_skipped(dict(zip(skipped, skipped, strict=True)))
    print_lines([classifier_line(train, val, classifier.penalty, net, len(data.train.class_names))])
    click.echo(f"Took {duration(seconds)}")
    pictures.report()
    if pictures.drawn:
        print_lines([f"To look at: {', '.join(map(str, pictures.drawn))}"])
    print_lines(next_lines(options, data.val))
    return 0

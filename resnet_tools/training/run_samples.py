"""Options -> the samples of a run: those to train on and those to validate on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from resnet_tools.checkpoints.checkpoint import load_checkpoint
from resnet_tools.data.datasets import SplitData, read_split_dataset
from resnet_tools.data.folder import find_layout, find_part
from resnet_tools.data.labelled import Outputs, labelled_samples
from resnet_tools.data.samples import Samples
from resnet_tools.data.splits import SPLIT_FILE, Splitting, stored_split
from resnet_tools.errors import DataError, TrainingError
from resnet_tools.training.options import TrainOptions
from resnet_tools.training.run_files import has_run
from resnet_tools.training.saving import load_state

DEFAULT_DATASET = "imagenet"


def dataset_of(options: TrainOptions) -> str:
    """The data set that was asked for, or else that of the run to resume, or else the default."""
    if options.dataset is not None:
        return options.dataset
    folder = Path(options.resume) if options.resume else None
    return load_state(folder)[0].dataset if folder and has_run(folder) else DEFAULT_DATASET


def read_samples(options: TrainOptions) -> SplitData:
    """Training and validation samples, and the split if it is made here. With --test-only, val/ alone is looked at.

    Raises: DataError, T7Error that says what is missing or damaged.
    """
    dataset, net = dataset_of(options), options.resume or options.retrain
    stored = Path(options.resume, SPLIT_FILE) if options.resume else None
    if options.test_only and dataset == DEFAULT_DATASET and net and not options.reset_classifier:
        if not options.train_list and not options.val_list and find_part(options.data, "val"):
            val = _samples_to_test(options, net)
            return Samples([], [], val.class_names), val, None
        stored = stored_split(Path(options.data), Path(net))
    splitting = Splitting(options.val_fraction, options.manual_seed or 0, stored)
    return read_split_dataset(dataset, options.data, splitting, options.train_list, options.val_list)


def check_outside(options: TrainOptions, option: str, path: Path) -> None:
    """Raises: TrainingError if the folder of an option would be among the class folders: the next training would take
    it, and the pictures in it, for a class."""
    folder = os.path.realpath(path)
    if options.train_list or not options.data or not Path(folder).is_relative_to(os.path.realpath(options.data)):
        return
    if dataset_of(options) != DEFAULT_DATASET:
        return
    try:
        layout = find_layout(options.data)
    except DataError:  # whoever reads the data says what is wrong
        return
    for top in filter(None, (layout.train, layout.val)):
        inside = os.path.relpath(folder, os.path.realpath(top))
        if not inside.startswith("..") and (inside == os.curdir or not inside.startswith(".")):  # hidden: no class
            raise TrainingError(
                f"{option} {path}: lies among the class folders of {top} and would be taken for a class; give a folder "
                f"outside{', or move the run there to resume it' if option == '--save' else ''}"
            )


def _samples_to_test(options: TrainOptions, net: str) -> Samples:
    """The images in val/, in the numbering of the net's outputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the net is loaded again, to be used
        checkpoint = load_checkpoint(net, weights=options.weights)
    return labelled_samples(Path(options.data), Outputs(checkpoint.num_classes, checkpoint.class_names))

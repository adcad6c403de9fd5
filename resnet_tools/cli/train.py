"""`resnet train`: fine-tuning and training from scratch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.option_groups import GroupedCommand
from resnet_tools.cli.shared.options import changed_preprocessing, quick_imports, warnings_as_lines
from resnet_tools.cli.train_options import NOT_WITH_RESUME, RECIPE_FIELDS, train_options
from resnet_tools.cli.train_reports import list_skipped, reports, stop_flag, stopped

if TYPE_CHECKING:
    import torch

    from resnet_tools.compute.processes import Processes
    from resnet_tools.data.samples import Samples
    from resnet_tools.training.run import Data
    from resnet_tools.training.start import Start
    from resnet_tools.training.step import Machine

GPU_WORKERS = 8
KEPT = 2
DECODED_AT_MOST = 2000  # images that are all decoded before the training; `resnet check-data` looks at any number


@click.command(
    cls=GroupedCommand,
    epilog="Example: resnet train --retrain resnet-50.t7 --data dir --reset-classifier --n-classes 80",
    short_help="Fine-tune a net, or train a new one.",
    help="""Fine-tune a net on a folder of images, or train a new one.

    The data are train/LABEL/IMAGE and val/LABEL/IMAGE below --data. After each epoch model_E.pt, optimState_E.pt,
    latest.pt, history.csv and, if it is the best so far, model_best.pt are written to --save. Ctrl-C saves and stops;
    --resume goes on. On several machines: torchrun ... -m resnet_tools train ...""",
)
@train_options
def command(**options: Any) -> int:
    _check(options)
    if options["n_gpu"] > 1 and "LOCAL_RANK" not in os.environ:
        return _run_on_gpus(options["n_gpu"], options["device"])
    with quick_imports():
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.processes import joined_processes, own_device
        from resnet_tools.data.datasets import read_dataset
        from resnet_tools.training.start import dataset_of
    device = find_device(own_device(options["device"]))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with joined_processes(backend) as processes, warnings_as_lines(quiet=processes.rank > 0):
        options["dataset"] = options["dataset"] or dataset_of(options["resume"])
        train, val = read_dataset(options["dataset"], options["data"])
        _look_over(train, val, options, processes)
        start = _start(options, train)
        machine = _machine(options, start, device, processes)
        data = _data(options, start, train, val, machine)
        return (_test if options["test_only"] else _train)(options, start, data, machine)


def _check(options: dict[str, Any]) -> None:
    """Options that contradict each other."""
    if options["resume"]:
        idle = [name for name in NOT_WITH_RESUME if options[name]]
        idle += ["epoch_number"] if options["epoch_number"] != 1 else []
        if idle:
            raise click.UsageError(f"{_listed(idle)}: the run of --resume has its own; leave them out")
    if options["reset_classifier"] and not options["retrain"]:
        raise click.UsageError("--reset-classifier replaces the classifier of a net; give the net with --retrain")
    new_net = [name for name in ("net_type", "depth", "shortcut_type") if options[name]]
    if options["retrain"] and new_net:
        raise click.UsageError(f"{_listed(new_net)}: the net of --retrain has its own; leave them out")
    options["save"] = options["save"] or options["resume"] or "checkpoints"
    standing = Path(options["save"]) / "latest.pt"
    goes_on = options["resume"] and os.path.realpath(options["resume"]) == os.path.realpath(options["save"])
    if standing.exists() and not (goes_on or options["overwrite"] or options["test_only"]):
        raise click.UsageError(
            f"{options['save']} holds a run; give --resume {options['save']} to go on with it, another --save, "
            "or --overwrite to replace it"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _run_on_gpus(count: int, device: str) -> int:
    """This command in `count` processes, a GPU each; or on the CPU, if that was asked for."""
    from resnet_tools.compute.device import gpu_count
    from resnet_tools.compute.launcher import run_processes
    from resnet_tools.errors import TrainingError

    found = gpu_count()
    if device != "cpu" and found < count:
        raise TrainingError(f"--n-gpu {count}: this machine has {found}; give fewer, or --device cpu")
    return run_processes([sys.executable, "-m", "resnet_tools", *sys.argv[1:]], count)


def _look_over(train: Samples, val: Samples, options: dict[str, Any], processes: Processes) -> None:
    """Check the data set before the training, in the first process. Raises: DataError with all that is wrong."""
    from resnet_tools.cli.shared.running import progress_bar
    from resnet_tools.data.checking import check_samples
    from resnet_tools.errors import DataError

    if processes.rank > 0 or not options["check"]:
        return
    decode = len(train) + len(val) <= DECODED_AT_MOST
    with progress_bar(len(train) + len(val), "check", quiet=options["quiet"]) as progress:
        report = check_samples(train, val, decode=decode, progress=lambda images, _: progress(images, []))
    for warning in report.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if report.errors and options["on_error"] == "fail":
        raise DataError(
            "\n".join([*report.errors, "Mend them, or give --on-error skip to leave out what is unreadable"])
        )


def _start(options: dict[str, Any], train: Samples) -> Start:
    from resnet_tools.training.recipe import default_recipe
    from resnet_tools.training.setup import NetOptions
    from resnet_tools.training.start import Wishes, new_start, resumed_start

    wishes = Wishes(options["recipe"], {name: options[name] for name in RECIPE_FIELDS}, options["manual_seed"])
    if options["resume"]:
        return resumed_start(Path(options["resume"]), wishes, options["dataset"], train)
    name = options["recipe"] or default_recipe(fine_tuning=options["reset_classifier"])
    net = NetOptions(
        options["net_type"],
        options["depth"],
        options["shortcut_type"],
        options["retrain"],
        options["reset_classifier"],
        options["n_classes"],
        padded_classes=options["test_only"] or name == "original",
    )
    return new_start(net, wishes, options["dataset"], train, options["epoch_number"], options["optim_state"])


def _machine(options: dict[str, Any], start: Start, device: torch.device, processes: Processes) -> Machine:
    from resnet_tools.compute.device import configure, find_precision
    from resnet_tools.training.step import Machine

    original = start.state.recipe.name == "original"  # computes in full float32, as the original
    configure(device, options["cudnn"], allow_tf32=not original)
    return Machine(
        device,
        find_precision(options["precision"], device, automatic=not original),
        processes,
        options["sync_bn"],
        options["compile"],
        options["checkpoint_activations"],
    )


def _data(options: dict[str, Any], start: Start, train: Samples, val: Samples, machine: Machine) -> Data:
    from resnet_tools.compute.inference import Loading
    from resnet_tools.training.run import Data
    from resnet_tools.training.setup import image_loader

    recipe = start.state.recipe
    sizes = (options["resize_size"], options["crop_size"])
    preprocessing = changed_preprocessing(start.checkpoint.preprocessing, *sizes)
    views = 10 if options["ten_crop"] else 1
    batch_size = max(1, recipe.batch_size // machine.processes.count // views)
    loading = Loading(preprocessing, batch_size, options["ten_crop"], workers=_workers(options, start, machine))
    return Data(train, val, image_loader(recipe.augmentation, options["dataset"], preprocessing), loading)


def _workers(options: dict[str, Any], start: Start, machine: Machine) -> int:
    if options["workers"] is not None:
        return int(options["workers"])
    return GPU_WORKERS if machine.device.type == "cuda" and start.state.recipe.name != "original" else 2


def _test(options: dict[str, Any], start: Start, data: Data, machine: Machine) -> int:
    import torch

    from resnet_tools.cli.shared.running import progress_bar
    from resnet_tools.history import lines
    from resnet_tools.metrics import ErrorCounts
    from resnet_tools.training.validation import validate

    first, counts = machine.processes.rank == 0, ErrorCounts()
    skipped: dict[str, str] | None = {} if options["on_error"] == "skip" else None
    model = start.checkpoint.model.to(machine.device, torch.float64 if machine.precision == "double" else torch.float32)
    for line in start.lines if first else ():
        click.echo(line)
    own = -(-len(data.val) // machine.processes.count)
    with progress_bar(own, "test", quiet=options["quiet"] or not first) as progress:
        for line, so_far in validate(model, data.val, data.loading, machine, 0, skipped=skipped):
            if line and first:
                click.echo(line)
                progress(so_far.images - counts.images, [])
            counts = so_far
    if first:
        click.echo(f"{lines.epoch_end_line(0, counts)}\n{lines.results_line(counts.top1, counts.top5)}")
    list_skipped(skipped or {})
    return 0


def _train(options: dict[str, Any], start: Start, data: Data, machine: Machine) -> int:
    from dataclasses import replace

    from resnet_tools.training.optimizer import freeze
    from resnet_tools.training.recipe import describe
    from resnet_tools.training.run import Run, Saving, Stopped
    from resnet_tools.training.saving import keep_best
    from resnet_tools.training.step import Stepper

    first, folder = machine.processes.rank == 0, Path(options["save"])
    _make_folder(folder)
    if first and options["resume"]:
        keep_best(Path(options["resume"]), folder)
    if first:
        click.echo(describe(start.state.recipe))
        for line in start.lines:
            click.echo(line)
    freeze(start.checkpoint.model, start.state.recipe.freeze)
    stepper = Stepper(start.checkpoint.model, start.state.recipe, machine)
    start.restore(stepper)
    checkpoint = replace(start.checkpoint, preprocessing=data.loading.preprocessing)
    keep = options["keep"] if options["keep"] is not None else 0 if start.state.recipe.name == "original" else KEPT
    saving = Saving(folder, 60 * (options["save_every"] or float("inf")), keep)
    with stop_flag() as flag, reports(options, start, flag, first=first) as told:
        skip = options["on_error"] == "skip"
        run = Run(stepper, checkpoint, start.state, data, saving, told, data.loading.workers, skip)
        code = 0
        try:
            run.train()
        except Stopped as stop:
            code = stopped(stop.args[0], run.state.epoch, run.state.batches_done, folder, first=first)
    list_skipped(run.state.skipped if first else {})
    return code


def _make_folder(folder: Path) -> None:
    from resnet_tools.errors import TrainingError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "you may not write there")
    except OSError as error:
        raise TrainingError(f"--save {folder}: {error.strerror}; give a folder that can be written") from error

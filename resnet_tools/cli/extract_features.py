"""`resnet extract-features`: one row of features for each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_tools.cli.shared.notices import warnings_as_lines
from resnet_tools.cli.shared.options import (
    BATCH_SIZE,
    MODEL_HELP,
    Images,
    Inference,
    check_files,
    image_options,
    inference_options,
    model_argument,
    quick_imports,
    refuse_inputs,
)
from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.cli.shared.several import in_processes, n_gpu_option
from resnet_tools.cli.shared.weights import weights_option
from resnet_tools.features.options import ExtractOptions
from resnet_tools.jobs.defaults import EXTRACTION_BATCH_SIZE
from resnet_tools.text import printable

if TYPE_CHECKING:
    from resnet_tools.features.extract import Extraction

STOPPED = "Stopped. Finished rows are kept; give the same command again to continue."


@click.command(
    epilog="Example: resnet extract-features resnet-101.t7 --dir photos --output photos.pt",
    help=f"""Write one row of features per IMAGE to a file: the input of the net's classifier. Row k belongs to image k.

    {MODEL_HELP}

    IMAGE is a file, a folder (searched recursively, in byte order), a glob pattern, - for an image on stdin, or with
    --allow-urls an http(s) address. The original's batch form also works: resnet extract-features MODEL 32 DIR.
    To continue an interrupted run, give the same command again.""",
)
@model_argument
@image_options
@click.option(
    "--dir",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    help="Folder of images. May be repeated.",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="features.pt",
    show_default=True,
    help="Output file; its extension selects the format: .pt .npy .npz .safetensors .parquet .csv .h5 .t7",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    help="Split the output into numbered files of this many images each, with an index.",
)
@click.option("--layer", default="flatten", show_default=True, help="Module whose output to write.")
@click.option("--list-layers", is_flag=True, help="Print the layers and their output shapes, then exit.")
@click.option(
    "--pool",
    type=click.Choice(["avg", "none"]),
    default="avg",
    show_default=True,
    help="Average each channel over all positions, or keep the feature map.",
)
@click.option("--l2-normalize", is_flag=True, help="Scale each row to length 1.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Data type of the features in the output.",
)
@click.option(
    "--on-error",
    type=click.Choice(["skip", "fail", "zero"]),
    default="skip",
    show_default=True,
    help="Skip images that cannot be read or give NaN, stop at them, or write zeros for them.",
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Continue an interrupted run, or start over."
)
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@n_gpu_option
@weights_option
@inference_options
def command(sources: Images, folders: tuple[str, ...], n_gpu: int, inference: Inference, **values: Any) -> int:
    options = ExtractOptions(**values)
    images, batch_size = _batch_form(sources.images, inference.batch_size)
    sources, inference = replace(sources, images=images), replace(inference, batch_size=batch_size)
    paths = _image_paths(options, sources, folders)
    if not options.list_layers and (code := in_processes(n_gpu, inference.device)) is not None:
        return code
    with warnings_as_lines():
        job = _job(options, sources, inference, paths)
    if job is not None:
        _extract(job, paths, options)
    return 0


def _image_paths(options: ExtractOptions, sources: Images, folders: tuple[str, ...]) -> list[str]:
    """The paths of all images. Raises: click.UsageError if there are none, or not all that were named."""
    arguments = sources.arguments(folders)
    if not arguments and not options.list_layers:
        raise click.UsageError("no images: give files, folders, --dir or --from-file")
    return check_files(options.model, arguments, allow_urls=sources.allow_urls)


def _job(options: ExtractOptions, sources: Images, inference: Inference, paths: list[str]) -> Extraction | None:
    """The job; None if only the layers were asked for, which are printed."""
    with quick_imports():
        from resnet_tools.checkpoints.model_files import model_path
        from resnet_tools.checkpoints.runnable import load_runnable
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.engines import device_for, find_engine
        from resnet_tools.compute.processes import own_device
        from resnet_tools.features.begun import kept_engine
        from resnet_tools.features.layers import layer_shapes
        from resnet_tools.features.setup import set_up_extraction
    if not options.list_layers:
        kept = kept_engine(options, inference.engine, inference.device, inference.precision)
        inference = replace(inference, engine=kept)
    engine = find_engine(inference.engine, inference.device, inference.precision)
    device = find_device(own_device(device_for(engine, inference.device)))
    model_file = model_path(options.model)
    _refuse_inputs(options.output, [model_file, *sources.lists], paths)
    checkpoint = load_runnable(model_file, weights=options.weights)
    loading = inference.loading(checkpoint.preprocessing, EXTRACTION_BATCH_SIZE)
    layers = layer_shapes(checkpoint.model, loading.preprocessing.crop_px)
    if options.list_layers:
        click.echo("\n".join(f"{printable(name)}\t{'x'.join(map(str, shape))}" for name, shape in layers.items()))
        return None
    if options.layer not in layers:
        raise click.UsageError(f"--layer {options.layer!r} is not in this net; --list-layers shows those that are")
    precision, asked = inference.precision, inference.engine
    return set_up_extraction(options, model_file, checkpoint, loading, device, precision, paths, asked)


def _refuse_inputs(output: Path, files: Sequence[str | Path], paths: Sequence[str]) -> None:
    """Raises: click.UsageError if the output, or a file beside it, is one that is read."""
    from resnet_tools.features.files import BESIDE

    ending = output.suffix
    for beside in BESIDE.get(ending.lower(), ()):
        refuse_inputs(output.with_suffix(beside), files)
    # Of a million images, only those that may be the output are looked at.
    refuse_inputs(output, [*files, *(path for path in paths if path.endswith(ending))])


def _extract(job: Extraction, paths: list[str], options: ExtractOptions) -> None:
    from resnet_tools.compute.processes import joined_processes
    from resnet_tools.features.extract import NOT_FINITE

    with joined_processes() as processes, terminable(STOPPED):
        quiet, own_images = options.quiet or processes.rank > 0, -(-len(paths) // processes.count)
        with progress_bar(own_images, "extract", quiet=quiet, not_finite=NOT_FINITE) as progress:
            written = replace(job, processes=processes).run(paths, options.output, options.shard_size, progress)
    if processes.rank == 0:
        click.echo(f"saved features to {printable(str(written[-1]))}")


def _batch_form(images: tuple[str, ...], batch_size: int | None) -> tuple[tuple[str, ...], int | None]:
    """The original's `MODEL BATCH_SIZE DIRECTORY`, unless there is a file of that name."""
    if len(images) == 2 and images[0].isdecimal() and not os.path.exists(images[0]) and os.path.isdir(images[1]):
        return images[1:], int(BATCH_SIZE(images[0]))
    return images, batch_size

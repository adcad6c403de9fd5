"""`resnet extract-features`: one row of features for each image."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resnet_tools.cli.shared.options import (
    BATCH_SIZE,
    EXTRACTION_BATCH_SIZE,
    MODEL_HELP,
    Images,
    Inference,
    check_files,
    image_options,
    inference_options,
    model_argument,
    quick_imports,
    refuse_inputs,
    warnings_as_lines,
)
from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.cli.shared.several import in_processes, n_gpu_option
from resnet_tools.cli.shared.weights import weights_option
from resnet_tools.text import printable

if TYPE_CHECKING:
    from resnet_tools.features.extract import Extraction

STOPPED = "Stopped. Finished rows are kept; give the same command again to continue."


@click.command(
    epilog="Example: resnet extract-features resnet-101.t7 --dir photos --output photos.pt",
    short_help="Write a row of features for each image.",
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
    type=click.Path(dir_okay=False),
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
def command(
    model: str,
    sources: Images,
    folders: tuple[str, ...],
    output: str,
    shard_size: int | None,
    layer: str,
    list_layers: bool,
    pool: str,
    l2_normalize: bool,
    dtype: str,
    on_error: str,
    resume: bool,
    quiet: bool,
    n_gpu: int,
    weights: str | None,
    inference: Inference,
) -> int:
    images, batch_size = _batch_form(sources.images, inference.batch_size)
    inference = replace(inference, batch_size=batch_size)
    arguments = replace(sources, images=images).arguments(folders)
    if not arguments and not list_layers:
        raise click.UsageError("no images: give files, folders, --dir or --from-file")
    paths = check_files(model, arguments, allow_urls=sources.allow_urls)
    if not list_layers and (code := in_processes(n_gpu, inference.device)) is not None:
        return code
    with quick_imports():
        from resnet_tools.checkpoints.checkpoint import model_path
        from resnet_tools.checkpoints.runnable import load_runnable, prepare_net
        from resnet_tools.compute.device import find_device
        from resnet_tools.compute.processes import own_device
        from resnet_tools.data.fetched import stdin_bytes
        from resnet_tools.data.image import MAX_FILE_BYTES
        from resnet_tools.features.extract import Extraction, provenance_of
        from resnet_tools.features.files import BESIDE
        from resnet_tools.features.layers import FeatureKind, layer_shapes, may_fold
    found_device = find_device(own_device(inference.device))
    with warnings_as_lines():
        model_file = model_path(model)
        ending = os.path.splitext(output)[1]  # of a million images, only those that may be the output are looked at
        for beside in BESIDE.get(ending.lower(), ()):
            refuse_inputs(output.removesuffix(ending) + beside, sources.lists)
        refuse_inputs(output, [model_file, *sources.lists, *(path for path in paths if path.endswith(ending))])
        checkpoint = load_runnable(model_file, weights=weights)
    loading = inference.loading(checkpoint.preprocessing, EXTRACTION_BATCH_SIZE)
    layers = layer_shapes(checkpoint.model, loading.preprocessing.crop_px)
    if list_layers:
        click.echo("\n".join(f"{name}\t{'x'.join(map(str, shape))}" for name, shape in layers.items()))
        return 0
    if layer not in layers:
        raise click.UsageError(f"--layer {layer!r} is not in this net; --list-layers shows those that are")
    kind = FeatureKind(layer, pool, l2_normalize, dtype)  # type: ignore[arg-type]
    provenance = provenance_of(model_file, checkpoint.model, kind, loading, inference.precision, found_device.type)
    if "-" in paths:  # stdin may hold another image each time
        provenance["stdin_sha256"] = hashlib.sha256(stdin_bytes(MAX_FILE_BYTES)).hexdigest()
    with warnings_as_lines():
        net = prepare_net(checkpoint.model, found_device, inference.precision, fold=may_fold(layer))
    job = Extraction(net, kind, loading, provenance, on_error, resume)  # type: ignore[arg-type]
    _extract(job, paths, Path(output), shard_size, quiet)
    return 0


def _extract(job: Extraction, paths: list[str], output: Path, shard_size: int | None, quiet: bool) -> None:
    from resnet_tools.compute.processes import joined_processes
    from resnet_tools.features.extract import NOT_FINITE

    with (
        joined_processes() as processes,
        terminable(STOPPED),
        progress_bar(
            -(-len(paths) // processes.count), "extract", quiet=quiet or processes.rank > 0, not_finite=NOT_FINITE
        ) as progress,
    ):
        written = replace(job, processes=processes).run(paths, output, shard_size, progress)
    if processes.rank == 0:
        click.echo(printable(f"saved features to {written[-1]}"))


def _batch_form(images: tuple[str, ...], batch_size: int | None) -> tuple[tuple[str, ...], int | None]:
    """The original's `MODEL BATCH_SIZE DIRECTORY`, unless there is a file of that name."""
    if len(images) == 2 and images[0].isdecimal() and not os.path.exists(images[0]) and os.path.isdir(images[1]):
        return images[1:], int(BATCH_SIZE(images[0]))
    return images, batch_size

"""`resnet map`: a picture of a features file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from resnet_tools.cli.shared.options import quick_imports, refuse_inputs
from resnet_tools.cli.shared.running import progress_bar, terminable
from resnet_tools.text import counted, printable

if TYPE_CHECKING:
    from resnet_tools.features.opened import FeatureRows
    from resnet_tools.features.projection import Projection

STOPPED = "Stopped. Nothing was written."


@click.command(
    epilog="Example: resnet map photos.pt --output map.html",
    help="""Draw the images of FEATURES as points, similar ones close together, coloured by folder.

    FEATURES is a file that `resnet extract-features` wrote, in any format, or NAME.index.json for shards. A .html page
    works without network and shows the images, of which it holds small copies; a .csv holds the coordinates.""",
)
@click.argument("features", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="map.html",
    show_default=True,
    help="File to write; its extension selects the format: .html .png .csv",
)
@click.option(
    "--method",
    type=click.Choice(["pca", "tsne", "umap"]),
    default="pca",
    show_default=True,
    help="How rows become two coordinates; tsne and umap need resnet_tools[map].",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Colour by this file instead: `path,label` lines, the output of `resnet classify --csv`, or a label per row.",
)
@click.option(
    "--thumbnails",
    type=click.IntRange(0, 10_000),
    default=10_000,
    show_default=True,
    help="Largest number of images that a page holds, of 48 pixels each and at most 16 MiB together.",
)
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
def command(
    features: Path,
    output: Path,
    method: Literal["pca", "tsne", "umap"],
    labels: Path | None,
    thumbnails: int,
    quiet: bool,
) -> int:
    refuse_inputs(output, [features, labels])
    with quick_imports():
        from resnet_tools.features.groups import folders, labels_of
        from resnet_tools.features.map_files import check_output, write_map
        from resnet_tools.features.opened import listed_rows, open_features
        from resnet_tools.features.projection import check_method
    check_method(method)
    opened = open_features(features)
    check_output(output, len(opened))
    groups = folders(opened.names) if labels is None else labels_of(labels, opened.names)
    with terminable(STOPPED):
        projection = _projected(opened, method, quiet)
        found = _thumbnails(opened, projection, thumbnails if output.suffix.lower() == ".html" else 0, quiet)
        own = [groups[row] for row in projection.rows]
        write_map(output, projection, own, f"Map of {features.name}", _note(projection, opened), found)
    if projection.left_out:
        rows = listed_rows(projection.left_out)
        click.echo(printable(f"Left out: {rows} of {features} hold NaN or infinite numbers."), err=True)
    click.echo(printable(f"saved the map of {counted(len(projection.names), 'image')} to {output}"))
    return 0


def _projected(opened: FeatureRows, method: Literal["pca", "tsne", "umap"], quiet: bool) -> Projection:
    from resnet_tools.features.projection import project_rows

    with progress_bar(2 * len(opened), "read", quiet=quiet) as progress:
        return project_rows(opened, method, lambda rows: progress(rows, []))


def _thumbnails(opened: FeatureRows, projection: Projection, most: int, quiet: bool) -> dict[int, bytes]:
    """Small pictures; how many are missing is reported."""
    from resnet_tools.features.map_files import thumbnails_of

    exif = opened.provenance.get("exif_orientation") is True
    count = min(most, len(projection.names))
    with progress_bar(count, "thumbnails", quiet=quiet) as progress:
        found, missing = thumbnails_of(projection.names, most, lambda done: progress(done, []), exif=exif)
    if missing:
        click.echo(
            f"{missing} of {missing + len(found)} images cannot be shown: their files are missing or cannot be read.",
            err=True,
        )
    return found


def _note(projection: Projection, opened: FeatureRows) -> str:
    how = {"pca": "principal components", "tsne": "t-SNE", "umap": "UMAP"}[projection.method]
    if projection.explained is not None:
        how += f" ({100 * sum(projection.explained):.0f} % of the variance)"
    layer = opened.provenance.get("layer")
    return f"{counted(len(projection.names), 'image')}, {how}" + (
        f", layer {layer:.100}" if isinstance(layer, str) else ""
    )

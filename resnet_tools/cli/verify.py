"""`resnet verify`: do two files hold the same net?"""

from __future__ import annotations

import click

from resnet_tools.cli.shared.notices import warnings_as_lines
from resnet_tools.cli.shared.option_groups import FiniteRange
from resnet_tools.cli.shared.options import check_files, check_models, file_names, quick_imports
from resnet_tools.cli.shared.weights import weights_option
from resnet_tools.text import printable


@click.command(
    epilog="Example: resnet verify resnet-50.t7 resnet-50.onnx --images photos/",
)
@click.argument("first", metavar="A", type=click.Path(path_type=str))
@click.argument("second", metavar="B", type=click.Path(path_type=str))
@click.option(
    "--images",
    multiple=True,
    metavar="IMAGE",
    shell_complete=file_names,
    help="Image file, folder or pattern to use instead of the built-in images.",
)
@click.option(
    "--tolerance",
    type=FiniteRange(0),
    help="Largest accepted difference, as a fraction of the largest logit.  [default: 0.0001; 0.001 with an .onnx]",
)
@weights_option
def command(first: str, second: str, images: tuple[str, ...], tolerance: float | None, weights: str | None) -> int:
    """Run the nets in A and B on the same images and print the largest difference between their outputs.

    A and B are .t7, .pt, .safetensors or torchvision .pth files, recognised by their content, .onnx files, or `demo`.
    The exit code is 1 if the difference exceeds the tolerance or an output is not finite. Without --images, the nets
    run on random images and the small photos of the package; with it, on each image, preprocessed as for A.
    --weights is for A.
    """
    check_models([first, second])
    paths = check_files(first, images)
    with quick_imports():
        from resnet_tools.checkpoints.model_files import model_path
        from resnet_tools.checkpoints.verify import compare_files, tolerance_for
    with warnings_as_lines():
        both = model_path(first), model_path(second)
        comparison = compare_files(*both, paths, weights=weights)
    allowed = tolerance_for(*both) if tolerance is None else tolerance
    click.echo(f"{printable(str(comparison))}; tolerance {allowed:g}")
    return 0 if comparison.within(allowed) else 1

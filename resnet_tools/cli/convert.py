"""`resnet convert`: a checkpoint -> another format, verified to compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from resnet_tools.cli.shared.notices import say, warnings_as_lines
from resnet_tools.cli.shared.option_groups import FiniteRange
from resnet_tools.cli.shared.options import quick_imports
from resnet_tools.cli.shared.running import terminable
from resnet_tools.cli.shared.weights import weights_option
from resnet_tools.text import printable


@click.command(
    epilog="Example: resnet convert resnet-101.t7 resnet-101.safetensors",
)
@click.argument("source", metavar="IN", type=click.Path(path_type=str))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--layout",
    type=click.Choice(["torchvision", "timm"]),
    help="Library whose ResNet loads the .pth.  [default: torchvision]",
)
@click.option(
    "--nn",
    is_flag=True,
    help="Write nn.* modules, which run without a GPU, to a .t7 instead of cudnn.* modules.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Data type of the weights. A .t7 is always float32; .onnx does not support bfloat16.",
)
@click.option(
    "--fold-batch-norm", "fold", is_flag=True, help="Fold batch norms into the preceding convolutions (.onnx only)."
)
@click.option("--strip", is_flag=True, help="Drop the training state, such as recipe and epoch, from a .pt.")
@click.option(
    "--classes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of class names: one per line, numbered lines, JSON, or another common form.",
)
@click.option(
    "--tolerance",
    type=FiniteRange(0),
    help="Largest accepted difference, as a fraction of the largest logit.  [default: depends on the format]",
)
@weights_option
@click.option("--force", is_flag=True, help="Overwrite OUT if it exists.")
def command(source: str, target: Path, nn: bool, classes: Path | None, **values: Any) -> None:
    """Write the net in IN to OUT. The extension of OUT selects the format: .pt .safetensors .pth .onnx .t7

    IN is a .t7, .pt, .safetensors or torchvision .pth file, recognised by its content, or `demo`, the small net that
    comes with the package. OUT is read back, both nets run on fixed images, and OUT is kept only if they agree.
    """
    with quick_imports():
        from resnet_tools.checkpoints.convert import Target, convert
    form = {field: values.pop(field) for field in ("layout", "dtype", "fold", "strip")}
    wanted = Target(target, package="nn" if nn else "cudnn", **form)
    with warnings_as_lines(), terminable("Stopped. Nothing was written."):
        done = convert(source, wanted, class_names=classes, **values)  # tolerance, force and weights
    for note in done.notes:
        say(note)
    click.echo(f"wrote {printable(str(target))} ({target.stat().st_size:,} bytes)")
    click.echo(f"{printable(str(done.comparison))}; tolerance {done.tolerance:g}")

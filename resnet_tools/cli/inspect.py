"""`resnet inspect`: what a file is."""

from __future__ import annotations

import json

import click

from resnet_tools.cli.shared.notices import warnings_as_lines
from resnet_tools.cli.shared.options import quick_imports
from resnet_tools.cli.shared.weights import weights_option


@click.command(epilog="Example: resnet inspect resnet-50.t7")
@click.argument("file", type=click.Path())
@weights_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(file: str, as_json: bool, weights: str | None) -> None:
    """Show what FILE is: its kind, module tree as Torch7 prints it, tensor types, architecture and parameter count.

    The tree is shown even if the architecture is not recognised.
    """
    with quick_imports():
        from resnet_tools.checkpoints.inspect import inspect_file, report_text
    with warnings_as_lines():
        report = inspect_file(file, weights)
    click.echo(json.dumps(report.to_dict(), indent=1) if as_json else report_text(report))
